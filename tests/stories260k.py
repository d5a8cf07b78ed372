#!/usr/bin/env python3
"""stories260k.py -- a small trained Llama as a one-expert Mixtral, and what it says.

    stories260k.py SRC DIR         SRC/stories260K.bin and SRC/tok512.bin (llama2.c's formats) become
                                   DIR/config.json, DIR/model.safetensors and DIR/tokenizer.json
    stories260k.py SRC --greedy N  prints the N-token greedy continuation of an empty prompt

With one expert the router has nothing to choose: its softmax is 1 whatever its weights, so zeros do, and
the model computes what the dense one does.  The forward pass below is written from llama2.c's own layout
(rotation of neighbouring pairs), before any conversion, and shares no code with it.

stories260K.bin: 7 int32 (dim, hidden, layers, heads, kv heads, vocabulary, positions), then float32
tensors, each stacked over the layers.  tok512.bin: int32 longest piece, then per token float32 score,
int32 length, bytes.  Only numpy is needed.
"""
import json
import os
import struct
import sys

import numpy as np

THETA, EPS, BOS, EOS = 10000.0, 1e-5, 1, 2


def read_model(path):
    raw = open(path, "rb").read()
    d, f, layers, heads, groups, vocab, positions = struct.unpack("7i", raw[:28])
    c = d // heads
    at = 28

    def take(*shape):
        nonlocal at
        n = int(np.prod(shape))
        a = np.frombuffer(raw, "<f4", n, at).reshape(shape)
        at += 4 * n
        return a

    m = {
        "embed": take(vocab, d),
        "norm1": take(layers, d),
        "q": take(layers, heads * c, d),
        "k": take(layers, groups * c, d),
        "v": take(layers, groups * c, d),
        "o": take(layers, d, heads * c),
        "norm2": take(layers, d),
        "w1": take(layers, f, d),
        "w2": take(layers, d, f),
        "w3": take(layers, f, d),
        "norm": take(d),
    }
    # What remains are tables of sines and cosines, which anyone can compute.
    if vocab <= 0 or at + 2 * positions * (c // 2) * 4 != len(raw):
        sys.exit(f"{path}: not a llama2.c model with a shared classifier")
    m.update(d=d, f=f, layers=layers, heads=heads, groups=groups, c=c, vocab=vocab,
             positions=positions)
    return m


def read_tokens(path, vocab):
    raw, at, out = open(path, "rb").read(), 4, []
    while at < len(raw):
        score, n = struct.unpack("<fi", raw[at:at + 8])
        out.append((score, raw[at + 8:at + 8 + n]))
        at += 8 + n
    if len(out) != vocab:
        sys.exit(f"{path}: {len(out)} tokens for a model of {vocab}")
    return out


# ---- the forward pass ----

def rms(x, w):
    return x / np.sqrt((x * x).mean() + EPS) * w


def rotate(x, position, c):
    """x (heads, c): pair (2i, 2i + 1) turns by position * THETA^(-2i / c)."""
    angle = position * THETA ** (-np.arange(0, c, 2) / c)
    re, im = x[:, 0::2], x[:, 1::2]
    out = np.empty_like(x)
    out[:, 0::2] = re * np.cos(angle) - im * np.sin(angle)
    out[:, 1::2] = re * np.sin(angle) + im * np.cos(angle)
    return out


def greedy(m, tokens, n):
    """Float64 throughout: sums in any sensible order then choose the same tokens."""
    m = {k: v.astype(np.float64) if isinstance(v, np.ndarray) else v for k, v in m.items()}
    heads, groups, c = m["heads"], m["groups"], m["c"]
    keys = [[] for _ in range(m["layers"])]
    values = [[] for _ in range(m["layers"])]
    token, text = BOS, b""
    for position in range(n):
        x = m["embed"][token]
        for l in range(m["layers"]):
            h = rms(x, m["norm1"][l])
            q = rotate((m["q"][l] @ h).reshape(heads, c), position, c)
            keys[l].append(rotate((m["k"][l] @ h).reshape(groups, c), position, c))
            values[l].append((m["v"][l] @ h).reshape(groups, c))
            past_k, past_v = np.array(keys[l]), np.array(values[l])  # (T, groups, c)
            out = []
            for i in range(heads):
                g = i // (heads // groups)
                score = past_k[:, g] @ q[i] / np.sqrt(c)
                p = np.exp(score - score.max())
                out.append(p / p.sum() @ past_v[:, g])
            x = x + m["o"][l] @ np.concatenate(out)
            h = rms(x, m["norm2"][l])
            a = m["w1"][l] @ h
            x = x + m["w2"][l] @ (a / (1 + np.exp(-a)) * (m["w3"][l] @ h))
        previous, token = token, int(np.argmax(m["embed"] @ rms(x, m["norm"])))
        if token in (BOS, EOS):
            break
        piece = tokens[token][1]
        if previous == BOS and piece.startswith(b" "):
            piece = piece[1:]
        if len(piece) == 6 and piece.startswith(b"<0x"):
            piece = bytes([int(piece[3:5], 16)])
        text += piece
    return text


# ---- the folder ----

def half_layout(w, heads, c):
    """Rows of each head from pairs (2i, 2i + 1) to halves (i, i + c/2)."""
    return w.reshape(heads, c // 2, 2, -1).transpose(0, 2, 1, 3).reshape(heads * c, -1)


def folder_tensors(m):
    out = {"model.embed_tokens.weight": m["embed"], "model.norm.weight": m["norm"]}
    for l in range(m["layers"]):
        p = f"model.layers.{l}."
        e = p + "block_sparse_moe.experts.0."
        out[p + "input_layernorm.weight"] = m["norm1"][l]
        out[p + "self_attn.q_proj.weight"] = half_layout(m["q"][l], m["heads"], m["c"])
        out[p + "self_attn.k_proj.weight"] = half_layout(m["k"][l], m["groups"], m["c"])
        out[p + "self_attn.v_proj.weight"] = m["v"][l]
        out[p + "self_attn.o_proj.weight"] = m["o"][l]
        out[p + "post_attention_layernorm.weight"] = m["norm2"][l]
        out[p + "block_sparse_moe.gate.weight"] = np.zeros((1, m["d"]), np.float32)
        out[e + "w1.weight"], out[e + "w2.weight"], out[e + "w3.weight"] = (
            m["w1"][l], m["w2"][l], m["w3"][l])
    return out


def write_safetensors(path, tensors):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(tensors):
        a = tensors[name]
        header[name] = {"dtype": "F32", "shape": list(a.shape), "data_offsets": [at, at + 4 * a.size]}
        at += 4 * a.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            f.write(tensors[name].astype("<f4").tobytes())


def tokenizer(tokens):
    """llama2.c joins the neighbours whose union scores best; a list of merges says the same when every
    way to split a token stands where the token's score puts it."""
    special = {0: "<unk>", BOS: "<s>", EOS: "</s>"}
    piece = {i: special.get(i) or t.decode().replace(" ", "\u2581") for i, (_, t) in enumerate(tokens)}
    id_of = {p: i for i, p in piece.items()}
    merges = []
    for i, p in piece.items():
        if i in special or (len(p) == 6 and p.startswith("<0x")):
            continue
        for at in range(1, len(p)):
            left, right = id_of.get(p[:at]), id_of.get(p[at:])
            if left is not None and right is not None:
                merges.append((-tokens[i][0], left, right))
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": s, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}
                         for i, s in special.items()],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "<s>", "type_id": 1}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
                  "byte_fallback": True, "ignore_merges": False, "vocab": id_of,
                  "merges": [[piece[l], piece[r]] for _, l, r in sorted(merges)]},
    }


def write_folder(m, tokens, folder):
    config = {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": m["d"],
        "intermediate_size": m["f"], "num_hidden_layers": m["layers"],
        "num_attention_heads": m["heads"], "num_key_value_heads": m["groups"],
        "num_local_experts": 1, "num_experts_per_tok": 1, "vocab_size": m["vocab"],
        "max_position_embeddings": m["positions"], "hidden_act": "silu", "rms_norm_eps": EPS,
        "rope_theta": THETA, "initializer_range": 0.02, "router_aux_loss_coef": 0.0,
        "output_router_logits": False, "sliding_window": None, "tie_word_embeddings": True,
        "bos_token_id": BOS, "eos_token_id": EOS, "torch_dtype": "float32",
    }
    os.makedirs(folder, exist_ok=True)
    write_safetensors(os.path.join(folder, "model.safetensors"), folder_tensors(m))
    for name, value in ("config.json", config), ("tokenizer.json", tokenizer(tokens)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(value, f, indent=1, ensure_ascii=False)
            f.write("\n")


def main():
    if len(sys.argv) not in (3, 4) or (len(sys.argv) == 4 and sys.argv[2] != "--greedy"):
        sys.exit(__doc__)
    m = read_model(os.path.join(sys.argv[1], "stories260K.bin"))
    tokens = read_tokens(os.path.join(sys.argv[1], "tok512.bin"), m["vocab"])
    if len(sys.argv) == 4:
        sys.stdout.buffer.write(greedy(m, tokens, int(sys.argv[3])))
    else:
        write_folder(m, tokens, sys.argv[2])


main()
