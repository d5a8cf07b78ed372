#!/usr/bin/env bash
# hf.sh -- a Hugging Face folder to a checkpoint and back, beside cp of the same bytes there and back.
#
# 2.4 GB of BF16 in two files: a layer of Qwen3-30B-A3B with embedding and head.  Both leave their bytes
# on the disk (ckpt-reshard syncs what it publishes), and take turns, since the disk is others' too.
set -euo pipefail

command -v python3 >/dev/null || { echo "hf: skipped, no python3"; exit 0; }
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT
cd "$dir"
room=$(df -Pk . | awk 'NR == 2 {print int($4 / 1e6)}')
[ "$room" -ge 10 ] || { echo "hf: skipped, $room GB of room where 10 are wanted"; exit 0; }
TIMEFORMAT='%R %U %S'

python3 - <<'PY'
import json, os, struct
D, Q, KV, F, E, V = 2048, 4096, 512, 768, 128, 151936
layer = "model.layers.0."
shapes = {"model.embed_tokens.weight": (V, D), "lm_head.weight": (V, D), "model.norm.weight": (D,),
          layer + "input_layernorm.weight": (D,), layer + "post_attention_layernorm.weight": (D,),
          layer + "self_attn.q_proj.weight": (Q, D), layer + "self_attn.k_proj.weight": (KV, D),
          layer + "self_attn.v_proj.weight": (KV, D), layer + "self_attn.o_proj.weight": (D, Q),
          layer + "self_attn.q_norm.weight": (128,), layer + "self_attn.k_norm.weight": (128,),
          layer + "mlp.gate.weight": (E, D)}
for e in range(E):
    x = f"{layer}mlp.experts.{e}."
    shapes |= {x + "gate_proj.weight": (F, D), x + "up_proj.weight": (F, D), x + "down_proj.weight": (D, F)}
os.mkdir("hf")
noise, where, names = os.urandom(1 << 26), {}, list(shapes)
for i, part in enumerate((names[:150], names[150:])):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name in part:
        size = 2
        for n in shapes[name]:
            size *= n
        header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [at, at + size]}
        at += size
        where[name] = f"model-0000{i + 1}-of-00002.safetensors"
    text = json.dumps(header).encode()
    with open("hf/" + where[part[0]], "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        while at > 0:
            f.write(noise[:at])
            at -= len(noise)
json.dump({"weight_map": where}, open("hf/model.safetensors.index.json", "w"))
json.dump({"model_type": "qwen3_moe", "hidden_size": D, "num_hidden_layers": 1, "num_attention_heads": 32,
           "num_key_value_heads": 4, "head_dim": 128, "num_experts": E, "num_experts_per_tok": 8,
           "moe_intermediate_size": F, "vocab_size": V, "max_position_embeddings": 4096,
           "rms_norm_eps": 1e-6, "rope_theta": 1e6, "norm_topk_prob": True}, open("hf/config.json", "w"))
PY
copy() { cp -r hf there && sync there/* && cp -r there back && sync back/*; }
reshard() { ckpt-reshard -q --from-hf hf -o there && ckpt-reshard -q --to-hf there -o back; }

bytes=$(cat hf/* | wc -c)
printf '%-6s %14s %14s %8s %20s  %s\n' turn 'cp GB/s' 'reshard GB/s' '%' 'CPU s cp, reshard' 'target %'
for turn in 1 2 3 4 5; do
    for way in copy reshard; do
        rm -rf there back
        sync
        { time $way; } 2>&1
    done | tr '\n' ' ' | awk -v turn=$turn -v gb="$bytes" '{printf "%-6s %14.2f %14.2f %8.0f %11.1f, %7.1f\n",
        turn, 2 * gb / 1e9 / $1, 2 * gb / 1e9 / $4, 100 * $1 / $4, $2 + $3, $5 + $6}'
done | tee turns
sort -k4,4n turns | sed -n 3p | awk '{printf "%-6s %14s %14s %8s %11s %8s  70\n", "median", $2, $3, $4, $5, $6}'
shard-show --diff hf back
