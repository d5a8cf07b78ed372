#!/usr/bin/env python3
"""hf_folder.py -- Hugging Face folders by hand: a witness that needs nothing but Python.

    hf_folder.py make DIR DTYPE [FILES [OPTION ...]]
        a tiny model of arbitrary bits: F32, BF16, F16 or mixed; FILES > 1 come with an index.
        OPTION: family=mixtral (or another of CONFIGS); experts=N
        (of mixtral); tied; finite (F32 without NaN and infinity);
        fused (the experts of a layer in one tensor, as transformers keeps them); fp8 (matrices but
        embedding and head in FP8 with factors of 4 x 3 blocks); further (of deepseek_v3: a layer that
        predicts further tokens, with its copies of embedding and head); says=N (config.json speaks of N
        such layers); drop=NAME, add=NAME, transpose=NAME,
        type=NAME:DTYPE, twice=NAME (in two files), copy=NAME:NEW
    hf_folder.py same A B
        fails unless both hold the same tensors: name, type, shape, every byte
    hf_folder.py rounded A B
        fails unless B is A with every weight rounded to bfloat16, ties to even
    hf_folder.py widened A B
        fails unless B is A with what is FP8 in A as the BF16 nearest to number x factor
    hf_folder.py files DIR BYTES        fails unless each file holds at most so many, or one tensor
    hf_folder.py flip FILE TENSOR       flips one bit in the middle of the tensor
    hf_folder.py list DIR               prints NAME DTYPE SHAPE, one a line
"""
import glob
import json
import os
import random
import struct
import sys

SIZE = {"F8_E4M3": 1, "F32": 4, "BF16": 2, "F16": 2, "F64": 8, "I32": 4}
COMMON = {
    "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "num_experts_per_tok": 2, "vocab_size": 11, "max_position_embeddings": 16, "hidden_act": "silu",
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "initializer_range": 0.02,
    "router_aux_loss_coef": 0.001, "sliding_window": None, "bos_token_id": 1, "eos_token_id": 2,
    "torch_dtype": "float32", "a field of somebody else's": {"kept": [1, 2.5, None]},
}
CONFIGS = {
    "mixtral": dict(COMMON, **{
        "architectures": ["MixtralForCausalLM"], "intermediate_size": 10, "head_dim": 6,
        "num_local_experts": 3}),
    "qwen3_moe": dict(COMMON, **{
        "architectures": ["Qwen3MoeForCausalLM"], "intermediate_size": 64, "moe_intermediate_size": 10,
        "head_dim": 6, "num_experts": 3, "norm_topk_prob": True, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "use_sliding_window": False}),
    "olmoe": dict(COMMON, **{
        "architectures": ["OlmoeForCausalLM"], "intermediate_size": 10, "num_experts": 3,
        "norm_topk_prob": False, "clip_qkv": None}),
    "qwen2_moe": dict(COMMON, **{
        "architectures": ["Qwen2MoeForCausalLM"], "intermediate_size": 14, "moe_intermediate_size": 10,
        "shared_expert_intermediate_size": 6, "num_experts": 3, "norm_topk_prob": False,
        "decoder_sparse_step": 1, "mlp_only_layers": [0], "use_sliding_window": False}),
    "llama": dict(COMMON, **{"architectures": ["LlamaForCausalLM"], "intermediate_size": 14}),
    "qwen2": dict(COMMON, **{"architectures": ["Qwen2ForCausalLM"], "intermediate_size": 14}),
    "qwen3": dict(COMMON, **{
        "architectures": ["Qwen3ForCausalLM"], "intermediate_size": 14, "head_dim": 6}),
    "deepseek_v2": dict(COMMON, **{
        "architectures": ["DeepseekV2ForCausalLM"], "num_key_value_heads": 2, "intermediate_size": 14,
        "moe_intermediate_size": 10, "n_routed_experts": 3, "n_shared_experts": 2,
        "first_k_dense_replace": 1, "q_lora_rank": 5, "kv_lora_rank": 7, "qk_nope_head_dim": 3,
        "qk_rope_head_dim": 2, "v_head_dim": 4}),
}
CONFIGS["deepseek_v3"] = dict(CONFIGS["deepseek_v2"], **{
    "architectures": ["DeepseekV3ForCausalLM"], "n_routed_experts": 4, "n_group": 2, "topk_group": 1})
SIDE = {"tokenizer.json": b'{"model":{}}\n', "generation_config.json": b"{}", "vocab.json": b"\n",
        "tokenizer_config.json": b"{}\n", "special_tokens_map.json": b"{ }", "chat_template.jinja": b"{{ x }}"}


def shapes(family, tied, further=0):
    config, own = CONFIGS[family], family == "mixtral"
    d, v, heads = config["hidden_size"], config["vocab_size"], config["num_attention_heads"]
    c = config.get("head_dim", d // heads)
    f = config.get("moe_intermediate_size", config["intermediate_size"])
    e = config.get("num_local_experts", config.get("num_experts", config.get("n_routed_experts", 0)))
    q, kv = heads * c, config["num_key_value_heads"] * c
    moe, gate, up, down = ("block_sparse_moe", "w1", "w3", "w2") if own else (
        "mlp", "gate_proj", "up_proj", "down_proj")
    out = {"model.embed_tokens.weight": (v, d), "model.norm.weight": (d,)}
    if not tied:
        out["lm_head.weight"] = (v, d)
    for l in range(config["num_hidden_layers"] + further):
        p = f"model.layers.{l}."
        out[p + "input_layernorm.weight"] = (d,)
        out[p + "post_attention_layernorm.weight"] = (d,)
        if l >= config["num_hidden_layers"]:
            out[p + "enorm.weight"] = out[p + "hnorm.weight"] = out[p + "shared_head.norm.weight"] = (d,)
            out[p + "eh_proj.weight"] = (d, 2 * d)
        if "kv_lora_rank" in config:
            low, rank, own, turn, value = (config[k] for k in (
                "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
            for x, shape in (("q_a_proj", (low, d)), ("q_a_layernorm", (low,)),
                             ("q_b_proj", (heads * (own + turn), low)),
                             ("kv_a_proj_with_mqa", (rank + turn, d)), ("kv_a_layernorm", (rank,)),
                             ("kv_b_proj", (heads * (own + value), rank)), ("o_proj", (d, heads * value))):
                out[f"{p}self_attn.{x}.weight"] = shape
        else:
            out[p + "self_attn.q_proj.weight"] = (q, d)
            out[p + "self_attn.k_proj.weight"] = (kv, d)
            out[p + "self_attn.v_proj.weight"] = (kv, d)
            out[p + "self_attn.o_proj.weight"] = (d, q)
        if family in ("qwen2", "qwen2_moe"):
            for x, rows in ("q", q), ("k", kv), ("v", kv):
                out[f"{p}self_attn.{x}_proj.bias"] = (rows,)
        if family in ("qwen3", "qwen3_moe", "olmoe"):
            out[p + "self_attn.q_norm.weight"] = (q if family == "olmoe" else c,)
            out[p + "self_attn.k_norm.weight"] = (kv if family == "olmoe" else c,)
        dense = not e or l in config.get("mlp_only_layers", range(config.get("first_k_dense_replace", 0)))
        shared = config.get("shared_expert_intermediate_size", config.get("n_shared_experts", 0) * f)
        if dense or shared:
            x, wide = (p + "mlp.", config["intermediate_size"]) if dense else (
                f"{p}mlp.shared_expert{'s' * ('deepseek' in family)}.", shared)
            out[x + "gate_proj.weight"] = out[x + "up_proj.weight"] = (wide, d)
            out[x + "down_proj.weight"] = (d, wide)
        if dense:
            continue
        if shared and family == "qwen2_moe":
            out[p + "mlp.shared_expert_gate.weight"] = (1, d)
        out[f"{p}{moe}.gate.weight"] = (e, d)
        if family == "deepseek_v3":
            out[p + "mlp.gate.e_score_correction_bias"] = (e,)
        for i in range(e):
            x = f"{p}{moe}.experts.{i}."
            out[f"{x}{gate}.weight"] = out[f"{x}{up}.weight"] = (f, d)
            out[f"{x}{down}.weight"] = (d, f)
    return out


def count(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def write_file(path, tensors):
    header, at, data = {"__metadata__": {"format": "pt"}}, 0, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def read_file(path):
    raw = open(path, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + n])
    out, end = {}, 0
    for name, x in header.items():
        if name != "__metadata__":
            a, b = x["data_offsets"]
            assert b - a == SIZE[x["dtype"]] * count(x["shape"]), name
            out[name] = (x["dtype"], tuple(x["shape"]), raw[8 + n + a:8 + n + b])
            end = max(end, b)
    assert 8 + n + end == len(raw), path
    assert header["__metadata__"]["format"] == "pt"
    return out


def read_folder(folder):
    index = os.path.join(folder, "model.safetensors.index.json")
    out, where = {}, {}
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        for name, x in read_file(path).items():
            assert name not in out, f"{name} stands twice"
            out[name], where[name] = x, os.path.basename(path)
    if os.path.exists(index):
        index = json.load(open(index))
        assert index["weight_map"] == where, "the index names other files"
        assert index["metadata"]["total_size"] == sum(len(x[2]) for x in out.values())
    else:
        assert set(where.values()) == {"model.safetensors"}, where
    return out


def fuse(tensors):
    """Experts under the names, and in the shapes, that transformers has in memory."""
    out, parts = {}, {}
    for name, x in tensors.items():
        name = name.replace(".block_sparse_moe.", ".mlp.")
        if ".experts." not in name:
            out[name] = x
            continue
        layer, _, rest = name.partition(".experts.")
        e, what = int(rest.split(".")[0]), rest.split(".")[1]
        order = {"w1": 0, "gate_proj": 0, "w3": 1, "up_proj": 1, "w2": 2, "down_proj": 2}[what]
        key = layer + ".experts." + ("gate_up_proj" if order < 2 else "down_proj")
        parts.setdefault(key, {})[e, order] = x
    for key, part in parts.items():
        rows, cols = part[min(part)][1]
        e = max(part)[0] + 1
        dtypes = {x[0] for x in part.values()}
        assert len(dtypes) == 1, "one tensor has one type"
        out[key] = (dtypes.pop(), (e, len(part) // e * rows, cols),
                    b"".join(part[k][2] for k in sorted(part)))
    return out


BLOCK = (4, 3)


def quantise(tensors, bits):
    for name, (_, shape, _) in list(tensors.items()):
        if len(shape) == 2 and "embed" not in name and "lm_head" not in name:
            blocks = [-(-n // b) for n, b in zip(shape, BLOCK)]
            factors = [bits.uniform(-2, 2) for _ in range(count(blocks))]
            tensors[name] = ("F8_E4M3", shape, bits.randbytes(count(shape)))
            tensors[name + "_scale_inv"] = ("F32", blocks, struct.pack(f"<{len(factors)}f", *factors))


def e4m3(q):
    e, m = q >> 3 & 15, q & 7
    x = float("nan") if q & 127 == 127 else (8 + m) * 2.0 ** (e - 10) if e else m * 2.0 ** -9
    return -x if q >> 7 else x


def widen(tensors):
    out = {}
    for name, (dtype, shape, raw) in tensors.items():
        if name.endswith("_scale_inv"):
            continue
        if dtype == "F8_E4M3":
            blocks, factors = tensors[name + "_scale_inv"][1:]
            factors = struct.unpack(f"<{count(blocks)}f", factors)
            x = [e4m3(q) * factors[i // shape[1] // BLOCK[0] * blocks[1] + i % shape[1] // BLOCK[1]]
                 for i, q in enumerate(raw)]
            dtype, shape, raw = to_bf16(("F32", shape, struct.pack(f"<{len(x)}f", *x)), True)
        out[name] = (dtype, shape, raw)
    return out


def make(folder, dtype, files="1", *options):
    bits = random.Random(dtype)
    options = [o.partition("=")[::2] for o in options]
    tied, finite, further = ((what, "") in options for what in ("tied", "finite", "further"))
    family = dict(options).get("family", "mixtral")
    if "experts" in dict(options):
        CONFIGS[family].update(num_local_experts=int(dict(options)["experts"]), num_experts_per_tok=1)
    tensors = {}
    for i, (name, shape) in enumerate(sorted(shapes(family, tied, further).items())):
        t = ("F32", "BF16", "F16")[i % 3] if dtype == "mixed" else dtype
        raw = bytearray(bits.randbytes(SIZE[t] * count(shape)))
        if finite:
            raw[3::4] = bytes(b & 0xbf for b in raw[3::4])
        tensors[name] = (t, shape, bytes(raw))
    if ("fused", "") in options:
        tensors = fuse(tensors)
    if ("fp8", "") in options:
        quantise(tensors, bits)
    if further:
        last = f"model.layers.{CONFIGS[family]['num_hidden_layers']}."
        tensors[last + "embed_tokens.weight"] = tensors["model.embed_tokens.weight"]
        tensors[last + "shared_head.head.weight"] = tensors["lm_head.weight"]
    for what, value in options:
        name, _, t = value.partition(":")
        if what == "drop":
            del tensors[name]
        elif what == "add":
            tensors[name] = ("F32", (2, 2), bytes(16))
        elif what == "copy":
            tensors[t] = tensors[name]
        elif what == "transpose":
            t, (a, b), raw = tensors[name]
            tensors[name] = (t, (b, a), raw)
        elif what == "type":
            tensors[name] = (t, tensors[name][1], bytes(SIZE[t] * count(tensors[name][1])))
    os.makedirs(folder)
    files, names, where = int(files), sorted(tensors), {}
    for f in range(files):
        path = f"model-{f + 1:05}-of-{files:05}.safetensors" if files > 1 else "model.safetensors"
        part = names[f::files]
        where.update({n: path for n in part})
        part += [v for w, v in options if w == "twice" and v not in part]
        write_file(os.path.join(folder, path), {n: tensors[n] for n in part})
    config = dict(CONFIGS[family], model_type=family, tie_word_embeddings=tied)
    if further or "says" in dict(options):
        config["num_nextn_predict_layers"] = int(dict(options).get("says", 1))
    if ("fp8", "") in options:
        config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3",
                                         "weight_block_size": list(BLOCK)}
    side = dict(SIDE, **{"config.json": json.dumps(config, indent=1).encode()})
    if files > 1:
        total = sum(len(x[2]) for x in tensors.values())
        side["model.safetensors.index.json"] = json.dumps(
            {"metadata": {"total_size": total}, "weight_map": where}).encode()
    for name, data in side.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)


def compare(a, b, expected):
    compare_tensors(read_folder(a), read_folder(b), expected)


def compare_tensors(a, b, expected):
    if sorted(a) != sorted(b):
        sys.exit(f"names differ: {sorted(set(a) ^ set(b))}")
    for name in a:
        if expected(a[name]) != b[name]:
            sys.exit(f"{name} differs: {a[name][:2]}, {b[name][:2]}")


def to_bf16(x, nan=False):
    dtype, shape, raw = x
    assert dtype == "F32"
    out = b""
    for (u,) in struct.iter_unpack("<I", raw):
        if nan and u & 0x7fffffff > 0x7f800000:
            out += struct.pack("<H", u >> 16 | 0x40)
            continue
        assert u & 0x7fffffff < 0x7f800000, "make it finite"
        out += struct.pack("<H", (u + 0x7fff + (u >> 16 & 1)) >> 16)
    return "BF16", shape, out


def widened(a, b):
    a, b = read_folder(a), read_folder(b)
    assert any(x[0] == "F8_E4M3" for x in a.values())
    compare_tensors(widen(a), b, lambda x: x)


def files(folder, size):
    for path in glob.glob(os.path.join(folder, "*.safetensors")):
        x = read_file(path)
        if len(x) > 1 and sum(len(t[2]) for t in x.values()) > int(size):
            sys.exit(f"{path} holds more")


def flip(path, tensor):
    with open(path, "r+b") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        a, b = json.loads(f.read(n))[tensor]["data_offsets"]
        f.seek(8 + n + (a + b) // 2)
        byte = f.read(1)[0]
        f.seek(-1, 1)
        f.write(bytes([byte ^ 16]))


def main():
    commands = {
        "make": make,
        "same": lambda a, b: compare(a, b, lambda x: x),
        "rounded": lambda a, b: compare(a, b, to_bf16),
        "widened": widened,
        "files": files,
        "flip": flip,
        "list": lambda d: [print(n, x[0], *x[1]) for n, x in sorted(read_folder(d).items())],
    }
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])


main()
