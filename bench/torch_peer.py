#!/usr/bin/env python3
"""torch_peer.py -- what bench/gpu-run holds our step against: the same models in PyTorch.

    torch_peer.py MODEL[:STATE] ...      e.g. mixtral8x7b-2l:bf16

Hugging Face transformers under torch.compile with grouped matrix products for the experts, bf16 weights,
rows of 4096 random tokens, 16,384 a step, fused AdamW.  STATE is the optimizer's: bf16 (moments and
gradients bf16, weights their own masters: 8 bytes a parameter) or f32 (f32 masters and moments).  The first
line has the machine's ceilings, then one JSON line a model; operations are counted as bench/gpu.c does.
"""
import gc
import json
import sys

import torch
import transformers

ROWS, SEQ, WARM, TIMED = 4, 4096, 4, 8
COMMON = dict(head_dim=128, tie_word_embeddings=False, max_position_embeddings=SEQ)
MODELS = {
    'mixtral8x7b-2l': ('Mixtral', dict(
        num_hidden_layers=2, hidden_size=4096, intermediate_size=14336, num_attention_heads=32,
        num_key_value_heads=8, num_local_experts=8, num_experts_per_tok=2, vocab_size=32000)),
    'qwen3-30b-a3b-4l': ('Qwen3Moe', dict(
        num_hidden_layers=4, hidden_size=2048, moe_intermediate_size=768, intermediate_size=6144,
        num_attention_heads=32, num_key_value_heads=4, num_experts=128, num_experts_per_tok=8,
        norm_topk_prob=True, vocab_size=151936)),
    'olmoe-8l': ('Olmoe', dict(
        num_hidden_layers=8, hidden_size=2048, intermediate_size=1024, num_attention_heads=16,
        num_key_value_heads=16, num_experts=64, num_experts_per_tok=8, vocab_size=50304)),
    'qwen2-57b-a14b-2l': ('Qwen2Moe', dict(
        num_hidden_layers=2, hidden_size=3584, moe_intermediate_size=2560,
        shared_expert_intermediate_size=20480, num_attention_heads=28, num_key_value_heads=4,
        num_experts=64, num_experts_per_tok=8, vocab_size=151936)),
    'llama3-8b-4l': ('Llama', dict(
        num_hidden_layers=4, hidden_size=4096, intermediate_size=14336, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128256)),
    'deepseek-v2-lite-4l': ('DeepseekV2', dict(
        num_hidden_layers=4, hidden_size=2048, intermediate_size=10944, moe_intermediate_size=1408,
        first_k_dense_replace=1, n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6,
        num_attention_heads=16, num_key_value_heads=16, q_lora_rank=None, kv_lora_rank=512,
        qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, head_dim=64, vocab_size=102400)),
}


def seconds(work, timed=TIMED, warm=WARM):
    """The median of `timed` calls, by device events."""
    spent = []
    for i in range(warm + timed):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        work()
        ended.record()
        ended.synchronize()
        if i >= warm:
            spent.append(begun.elapsed_time(ended) / 1e3)
    return sorted(spent)[timed // 2]


def ceilings():
    a, b = (torch.randn(8192, 8192, device='cuda', dtype=torch.bfloat16) for _ in range(2))
    product = 2 * 8192**3 / seconds(lambda: a @ b, 20)
    x = torch.randn(2**29, device='cuda')
    y = torch.empty_like(x)
    copy = 2 * x.nbytes / seconds(lambda: y.copy_(x), 20)
    return {'bf16_TFLOPs': round(product / 1e12, 1), 'copy_GBps': round(copy / 1e9)}


def flops_a_token(c):
    """6 x active matrix parameters (head in, embedding out) and causal attention."""
    if c.model_type == 'deepseek_v2':
        d, h, up = c.hidden_size, c.num_attention_heads, c.qk_nope_head_dim + c.v_head_dim
        qk, latent = c.qk_nope_head_dim + c.qk_rope_head_dim, c.kv_lora_rank
        attention = d * h * qk + d * (latent + c.qk_rope_head_dim) + latent * h * up + h * c.v_head_dim * d
        chosen = (c.num_experts_per_tok + c.n_shared_experts) * c.moe_intermediate_size
        dense = c.first_k_dense_replace * 3 * d * c.intermediate_size
        sparse = (c.num_hidden_layers - c.first_k_dense_replace) * d * (c.n_routed_experts + 3 * chosen)
        active = c.num_hidden_layers * attention + dense + sparse + d * c.vocab_size
        return 6 * active + 3 * c.num_hidden_layers * SEQ * h * (qk + c.v_head_dim)
    q, kv = c.num_attention_heads * 128, c.num_key_value_heads * 128
    experts = getattr(c, 'num_local_experts', None) or getattr(c, 'num_experts', 0)
    width = getattr(c, 'moe_intermediate_size', None) or c.intermediate_size
    width = width * getattr(c, 'num_experts_per_tok', 1) + getattr(c, 'shared_expert_intermediate_size', 0)
    layer = c.hidden_size * (2 * q + 2 * kv + experts + 3 * width)
    active = c.num_hidden_layers * layer + c.hidden_size * c.vocab_size
    return 6 * active + 6 * c.num_hidden_layers * SEQ * q


class Masters:
    """AdamW over f32 copies of bf16 weights."""

    def __init__(self, weights):
        self.weights = weights
        self.masters = [w.detach().float() for w in weights]
        for m in self.masters:
            m.grad = torch.zeros_like(m)
        self.adamw = torch.optim.AdamW(self.masters, lr=1e-5, fused=True)

    @torch.no_grad()
    def step(self):
        torch._foreach_copy_([m.grad for m in self.masters], [w.grad for w in self.weights])
        self.adamw.step()
        torch._foreach_copy_(self.weights, self.masters)


def measure(name, state):
    family, shape = MODELS[name]
    shape = {k: v for k, v in (COMMON | shape).items() if family != 'Olmoe' or k != 'head_dim'}
    config = getattr(transformers, family + 'Config')(**shape)
    config._attn_implementation = 'sdpa'
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device('cuda'):
        model = getattr(transformers, family + 'ForCausalLM')(config)
    torch.set_default_dtype(torch.float32)
    if family != 'Llama':
        model.set_experts_implementation('grouped_mm')
    model.train()
    weights = list(model.parameters())
    optimizer = Masters(weights) if state == 'f32' else torch.optim.AdamW(weights, lr=1e-5, fused=True)
    compiled = torch.compile(model)
    tokens = [torch.randint(0, config.vocab_size, (ROWS, SEQ), device='cuda') for _ in range(4)]
    steps = [0]

    def gradients():
        x = tokens[steps[0] % 4]
        steps[0] += 1
        compiled(input_ids=x, labels=x, use_cache=False).loss.backward()

    def forget():
        for w in weights:
            w.grad = None

    def step():
        gradients()
        optimizer.step()
        forget()

    def only_gradients():
        gradients()
        forget()

    torch.cuda.reset_peak_memory_stats()
    whole, part = seconds(step), seconds(only_gradients, warm=2)
    flops = flops_a_token(config) * ROWS * SEQ
    return {'model': name, 'state': state, 'step_ms': round(whole * 1e3, 1),
            'fwdbwd_ms': round(part * 1e3, 1), 'TFLOPs': round(flops / whole / 1e12, 1),
            'TFLOPs_fwdbwd': round(flops / part / 1e12, 1),
            'peak_GiB': round(torch.cuda.max_memory_allocated() / 2**30, 2)}


if __name__ == '__main__':
    print(json.dumps(ceilings()), flush=True)
    for spec in sys.argv[1:]:
        name, _, state = spec.partition(':')
        print(json.dumps(measure(name, state or 'bf16')), flush=True)
        gc.collect()
        torch.cuda.empty_cache()
        torch._dynamo.reset()
