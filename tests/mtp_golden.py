#!/usr/bin/env python3
"""mtp_golden.py -- what DeepSeek-V3 with layers that predict further tokens computes, in a page of torch.

    mtp_golden.py DIR         writes DIR/deepseek_v3.json and DIR/deepseek_v3.safetensors (tests/golden/mtp)

The reference knows nothing of packing: each document is a sequence of its own, and the module of depth k
sees its n - k first hidden states (arXiv 2412.19437, eq. 21 to 25; the order of the halves and that the
hidden states are those after the final norm are as in vLLM's deepseek_mtp.py).  transformers builds no
such layers.  All in float64: the weights under their checkpoint names; "tokens", "document", "target",
"weight" (2, 24), packed as a set has them; "logits/K" (2, 24, vocabulary) of the head that predicts K + 1
places on, 0 where it predicts nothing; "loss" and "mtp" (1); and "grad/NAME" of loss + WEIGHT mtp.  Both
are divided by the sum of weights of the labels of the main head.
"""
import json
import os
import sys

import numpy as np
import torch
from safetensors.numpy import save_file

WEIGHT = 0.3
CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 16,
    "num_hidden_layers": 2, "num_nextn_predict_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 32, "max_position_embeddings": 64, "hidden_act": "silu",
    "rms_norm_eps": 1e-05, "rope_theta": 100.0, "initializer_range": 0.02, "intermediate_size": 12,
    "moe_intermediate_size": 6, "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3,
    "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1, "moe_layer_freq": 1, "q_lora_rank": 6,
    "kv_lora_rank": 10, "qk_nope_head_dim": 5, "qk_rope_head_dim": 4, "v_head_dim": 6,
    "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True,
    "routed_scaling_factor": 2.5, "aux_loss_alpha": 0.0, "attention_bias": False, "rope_scaling": None,
    "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float64",
}
ROWS = [[7, 9, 5], [13, 1, 2, 6]]  # lengths of documents; what is left of a row are pads
SEQ = 24
C = type("C", (), CONFIG)
LATENT_EPS = 1e-6  # whatever rms_norm_eps is, as in DeepSeek's and transformers' code
HEAD = C.qk_nope_head_dim + C.qk_rope_head_dim


def shapes():
    d, h, e = C.hidden_size, C.num_attention_heads, C.n_routed_experts
    yield "model.embed_tokens.weight", (C.vocab_size, d)
    for l in range(C.num_hidden_layers + C.num_nextn_predict_layers):
        p = f"model.layers.{l}."
        if l >= C.num_hidden_layers:
            yield from [(p + "enorm.weight", (d,)), (p + "hnorm.weight", (d,)), (p + "eh_proj.weight", (d, 2 * d)),
                        (p + "shared_head.norm.weight", (d,))]
        yield from [(p + "input_layernorm.weight", (d,)), (p + "post_attention_layernorm.weight", (d,))]
        a = p + "self_attn."
        yield from [(a + "q_a_proj.weight", (C.q_lora_rank, d)), (a + "q_a_layernorm.weight", (C.q_lora_rank,)),
                    (a + "q_b_proj.weight", (h * HEAD, C.q_lora_rank)),
                    (a + "kv_a_proj_with_mqa.weight", (C.kv_lora_rank + C.qk_rope_head_dim, d)),
                    (a + "kv_a_layernorm.weight", (C.kv_lora_rank,)),
                    (a + "kv_b_proj.weight", (h * (C.qk_nope_head_dim + C.v_head_dim), C.kv_lora_rank)),
                    (a + "o_proj.weight", (d, h * C.v_head_dim))]
        networks = [(p + "mlp.", C.intermediate_size)]
        if l >= C.first_k_dense_replace:
            yield from [(p + "mlp.gate.weight", (e, d)), (p + "mlp.gate.e_score_correction_bias", (e,))]
            networks = [(f"{p}mlp.experts.{i}.", C.moe_intermediate_size) for i in range(e)]
            networks.append((p + "mlp.shared_experts.", C.n_shared_experts * C.moe_intermediate_size))
        for n, f in networks:
            yield from [(n + "gate_proj.weight", (f, d)), (n + "up_proj.weight", (f, d)),
                        (n + "down_proj.weight", (d, f))]
    yield from [("model.norm.weight", (d,)), ("lm_head.weight", (C.vocab_size, d))]


def make_weights(g):
    w = {}
    for name, shape in shapes():
        noise = torch.randn(shape, generator=g, dtype=torch.float64)
        scale = 0.2 * noise if name.endswith("bias") else 1 + 0.1 * noise
        w[name] = (scale if len(shape) == 1 else noise * shape[1] ** -0.5).requires_grad_()
    return w


def norm(x, w, eps=C.rms_norm_eps):
    return x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt() * w


def turn(x):  # (tokens, heads, rope): pairs 2i, 2i + 1 by position
    angle = torch.arange(len(x), dtype=x.dtype)[:, None] * C.rope_theta ** (
        -torch.arange(0, x.shape[-1], 2, dtype=x.dtype) / x.shape[-1])
    z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(z * torch.polar(torch.ones_like(angle), angle)[:, None]).flatten(-2)


def attention(w, p, x):
    n, h, own = len(x), C.num_attention_heads, C.qk_nope_head_dim
    q = norm(x @ w[p + "q_a_proj.weight"].T, w[p + "q_a_layernorm.weight"], LATENT_EPS)
    q = (q @ w[p + "q_b_proj.weight"].T).view(n, h, HEAD)
    q = torch.cat([q[..., :own], turn(q[..., own:])], -1)
    down = x @ w[p + "kv_a_proj_with_mqa.weight"].T
    kv = norm(down[:, :C.kv_lora_rank], w[p + "kv_a_layernorm.weight"], LATENT_EPS)
    kv = (kv @ w[p + "kv_b_proj.weight"].T).view(n, h, own + C.v_head_dim)
    shared = turn(down[:, None, C.kv_lora_rank:]).expand(n, h, -1)
    k, v = torch.cat([kv[..., :own], shared], -1), kv[..., own:]
    s = torch.einsum("qhc,khc->hqk", q, k) * HEAD ** -0.5
    s = s.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)
    return torch.einsum("hqk,khc->qhc", s, v).reshape(n, -1) @ w[p + "o_proj.weight"].T


def network(w, p, x):
    gate, up = x @ w[p + "gate_proj.weight"].T, x @ w[p + "up_proj.weight"].T
    return (torch.nn.functional.silu(gate) * up) @ w[p + "down_proj.weight"].T


def choose(worth):
    """The experts of a token; no second one may be near the last chosen, or luck would decide elsewhere."""
    groups = worth.view(C.n_group, -1)
    best = groups.topk(2).values.sum(-1).topk(C.topk_group + 1)
    seen = torch.full_like(groups, -9).index_copy(0, best.indices[:-1], groups[best.indices[:-1]])
    top = seen.flatten().topk(C.num_experts_per_tok + 1)
    assert min(best.values[-2] - best.values[-1], top.values[-2] - top.values[-1]) > 1e-6
    return top.indices[:-1]


def experts(w, p, x):
    prob = (x @ w[p + "gate.weight"].T).sigmoid()
    worth = (prob + w[p + "gate.e_score_correction_bias"]).detach()
    rows = []
    for t in range(len(x)):
        chosen = choose(worth[t])
        gate = prob[t, chosen] / prob[t, chosen].sum() * C.routed_scaling_factor
        rows.append(sum(g * network(w, f"{p}experts.{e}.", x[t]) for g, e in zip(gate, chosen.tolist())))
    return torch.stack(rows) + network(w, p + "shared_experts.", x)


def layer(w, l, x):
    p = f"model.layers.{l}."
    x = x + attention(w, p + "self_attn.", norm(x, w[p + "input_layernorm.weight"]))
    h = norm(x, w[p + "post_attention_layernorm.weight"])
    return x + (network(w, p + "mlp.", h) if l < C.first_k_dense_replace else experts(w, p + "mlp.", h))


def heads(w, token):
    """Logits of each head for a document: (n, V), (n - 1, V), ..."""
    embedding, x = w["model.embed_tokens.weight"], w["model.embed_tokens.weight"][token]
    for l in range(C.num_hidden_layers):
        x = layer(w, l, x)
    hidden = norm(x, w["model.norm.weight"])
    yield hidden @ w["lm_head.weight"].T
    for k in range(1, C.num_nextn_predict_layers + 1):
        p = f"model.layers.{C.num_hidden_layers + k - 1}."
        if len(token) <= k:
            return
        both = [norm(embedding[token[k:]], w[p + "enorm.weight"]), norm(hidden[:-1], w[p + "hnorm.weight"])]
        x = layer(w, C.num_hidden_layers + k - 1, torch.cat(both, -1) @ w[p + "eh_proj.weight"].T)
        hidden = norm(x, w[p + "shared_head.norm.weight"])
        yield hidden @ w["lm_head.weight"].T


def main(folder):
    g = torch.Generator().manual_seed(5)
    w = make_weights(g)
    depth, rows = C.num_nextn_predict_layers, len(ROWS)
    token = torch.randint(0, C.vocab_size, (rows, SEQ), generator=g)
    target = torch.rand(rows, SEQ, generator=g) < 0.8
    document, weight = -torch.ones(rows, SEQ, dtype=torch.int64), torch.zeros(rows, SEQ)
    logits = torch.zeros(depth + 1, rows, SEQ, C.vocab_size, dtype=torch.float64)
    sums, denominator = [torch.zeros(()) for _ in range(depth + 1)], 0
    for r, lengths in enumerate(ROWS):
        beg = 0
        for i, n in enumerate(lengths):
            at = slice(beg, beg + n)
            document[r, at], weight[r, at] = i, [1, 0.25, 2, 0.5][i]
            for k, out in enumerate(heads(w, token[r, at])):
                logits[k, r, beg:beg + len(out)] = out.detach()
                learnt = target[r, at][k + 1:]
                nll = -out[:n - k - 1].log_softmax(-1).gather(1, token[r, at][k + 1:, None])[:, 0]
                sums[k] = sums[k] + weight[r, beg].double() * nll[learnt].sum()
                denominator += float(weight[r, beg]) * int(learnt.sum()) if k == 0 else 0
            beg += n
    loss, mtp = sums[0] / denominator, sum(sums[1:]) / depth / denominator
    (loss + WEIGHT * mtp).backward()
    out = {n: p.detach().numpy() for n, p in w.items()}
    out |= {"grad/" + n: (torch.zeros_like(p) if p.grad is None else p.grad).numpy() for n, p in w.items()}
    out |= {f"logits/{k}": logits[k].numpy() for k in range(depth + 1)}
    out |= {"tokens": token.int().numpy(), "document": document.int().numpy(), "target": target.byte().numpy(),
            "weight": weight.float().numpy(), "loss": np.array([loss.item()]), "mtp": np.array([mtp.item()])}
    os.makedirs(folder, exist_ok=True)
    save_file(out, os.path.join(folder, "deepseek_v3.safetensors"))
    with open(os.path.join(folder, "deepseek_v3.json"), "w") as f:
        json.dump(CONFIG, f, indent=2)
        f.write("\n")
    print(f"loss {loss.item():.6f}, of further tokens {mtp.item():.6f}")


torch.set_num_threads(1)
main(*sys.argv[1:])
