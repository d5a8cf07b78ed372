#!/usr/bin/env python3
"""torch_peer_gpus.py -- the peer on several GPUs: collectives, and OLMoE-1B-7B whole under FSDP2.

    torchrun --nproc-per-node 2 bench/torch_peer_gpus.py

Hugging Face transformers, each layer compiled, grouped matrix products for the experts, bf16 arithmetic, f32
masters, moments and reduction, rows of 4096 random tokens, 8,192 a GPU and update.  Collectives are those of
bench/comm.c.  JSON lines from rank 0.
"""
import json
import os

import torch
import torch.distributed as dist
import transformers
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from torch_peer import SEQ, flops_a_token, seconds

ROWS = 2


def collectives(rank, ranks):
    """GB/s that leave a GPU, of bytes that a rank brings or takes in all."""
    for mib in 16, 256:
        n = mib * 2**20
        whole = torch.zeros(n // 4, device='cuda')
        part = whole.chunk(ranks)[rank].clone()
        other = torch.empty_like(whole)
        for call, sent, run in (
                ('all_gather', 1, lambda: dist.all_gather_into_tensor(whole, part)),
                ('reduce_scatter', 1, lambda: dist.reduce_scatter_tensor(part, whole)),
                ('all_reduce', 2, lambda: dist.all_reduce(whole)),
                ('all_to_all', 1, lambda: dist.all_to_all_single(other, whole))):
            took = seconds(run, 20)
            if rank == 0:
                print(json.dumps({'call': call, 'MiB': mib, 'us': round(took * 1e6, 1),
                                  'GBps_sent': round(sent * (ranks - 1) / ranks * n / took / 1e9, 1)}), flush=True)


def main():
    rank = int(os.environ['LOCAL_RANK'])
    torch.cuda.set_device(rank)
    dist.init_process_group('nccl', device_id=torch.device('cuda', rank))
    ranks = dist.get_world_size()
    collectives(rank, ranks)
    torch.manual_seed(0)
    config = transformers.OlmoeConfig(
        num_hidden_layers=16, hidden_size=2048, intermediate_size=1024, num_attention_heads=16,
        num_key_value_heads=16, num_experts=64, num_experts_per_tok=8, vocab_size=50304,
        max_position_embeddings=SEQ, tie_word_embeddings=False)
    config._attn_implementation = 'sdpa'
    with torch.device('meta'):
        model = transformers.OlmoeForCausalLM(config)
    model.set_experts_implementation('grouped_mm')
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in model.model.layers:
        layer.compile()
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    model.to_empty(device='cuda')
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.02) if p.dim() > 1 else p.fill_(1)
        model.model.rotary_emb = type(model.model.rotary_emb)(config).cuda()
    model.train()
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    rows = [torch.randint(0, config.vocab_size, (ROWS, SEQ), device='cuda') for _ in range(4)]
    at = [0]

    def step():
        x = rows[at[0] % len(rows)]
        at[0] += 1
        model(input_ids=x, labels=x, use_cache=False).loss.backward()
        adamw.step()
        adamw.zero_grad(set_to_none=True)

    took = seconds(step)
    if rank == 0:
        print(json.dumps({
            'model': 'olmoe', 'gpus': ranks, 'step_ms': round(took * 1e3, 1),
            'tokens_per_s_per_gpu': round(ROWS * SEQ / took),
            'TFLOPs': round(flops_a_token(config) * ROWS * SEQ / took / 1e12, 1),
            'peak_GiB': round(torch.cuda.max_memory_allocated() / 2**30, 1)}), flush=True)
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
