"""reshard_rss.py -- what ckpt-reshard holds in memory, from outside: its peak resident size.

    make DIR                writes a Hugging Face folder of some 250 MB, whose largest tensor has 16 MiB
    peak MIB COMMAND ...    runs it; fails where it, or what it starts, was ever resident with more than MIB"""
import json, os, resource, struct, subprocess, sys

D, F, E, LAYERS, V = 512, 1024, 16, 4, 16384


def make(path):
    shapes = {"model.embed_tokens.weight": (V, D), "lm_head.weight": (V, D), "model.norm.weight": (D,)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        for name, shape in {"input_layernorm": (D,), "post_attention_layernorm": (D,), "self_attn.q_proj": (D, D),
                            "self_attn.k_proj": (D, D), "self_attn.v_proj": (D, D), "self_attn.o_proj": (D, D),
                            "block_sparse_moe.gate": (E, D)}.items():
            shapes[f"{layer}{name}.weight"] = shape
        for e in range(E):
            for w, shape in {"w1": (F, D), "w2": (D, F), "w3": (F, D)}.items():
                shapes[f"{layer}block_sparse_moe.experts.{e}.{w}.weight"] = shape
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2
        for n in shape:
            size *= n
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text, noise = json.dumps(header).encode(), os.urandom(1 << 20)
    os.mkdir(path)
    with open(f"{path}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for done in range(0, at, len(noise)):
            f.write(noise[: at - done])
    with open(f"{path}/config.json", "w") as f:
        json.dump({"model_type": "mixtral", "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": 8,
                   "num_key_value_heads": 8, "num_local_experts": E, "num_experts_per_tok": 2, "intermediate_size": F,
                   "vocab_size": V, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4}, f)


def peak(mib, command):
    status = subprocess.call(command)
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{used:.0f} MiB resident at most")
    sys.exit(status or used > mib)


if sys.argv[1] == "make":
    make(sys.argv[2])
else:
    peak(float(sys.argv[2]), sys.argv[3:])
