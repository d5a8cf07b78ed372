#!/usr/bin/env python3
"""hf_golden.py -- asks Hugging Face transformers what a small Mixtral computes.

    hf_golden.py DIR          writes DIR/mixtral.safetensors and DIR/config.json (tests/golden/hf)
    hf_golden.py --save DIR SIZE
                              writes the same model as save_pretrained does, in files of that size
    hf_golden.py --logits GOLDEN DIR ...
                              fails unless transformers opens each folder with no key missing or
                              unexpected and it gives the logits in GOLDEN (mixtral.safetensors)

mixtral.safetensors holds the weights under their checkpoint names, "tokens" I32 (2, 24), "logits" F32
(2, 24, 96), "loss" F32 (1) -- the mean next-token cross entropy over all 46 predictions, without the
auxiliary loss -- and "grad/NAME", its gradient, for every weight.  All in float32 on the CPU with eager
attention.  Transformers keeps experts fused in memory; the checkpoint names are its own doing: weights
and gradients alike go through save_pretrained, so this script has no table of names.
"""
import json
import os
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

# As config.json has them in the Mixtral checkpoints people have.
CONFIG = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "initializer_range": 0.02,
    "router_aux_loss_coef": 0.02,
    "output_router_logits": False,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
SEED, BATCH, TIME = 7, 2, 24


def make_model():
    """Weights wide enough that every expert, head and norm leaves its mark on the logits."""
    config = transformers.MixtralConfig(**CONFIG)
    config._attn_implementation = "eager"
    model = transformers.MixtralForCausalLM(config).float().eval()
    g = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            p.copy_(1 + 0.1 * noise if p.ndim == 1 else noise * p.shape[-1] ** -0.5)
    return model


def checkpoint_tensors(model):
    """The model's tensors under the names save_pretrained writes."""
    with tempfile.TemporaryDirectory() as d:
        model.save_pretrained(d)
        return load_file(os.path.join(d, "model.safetensors"))


def golden(folder):
    model = make_model()
    out = dict(checkpoint_tensors(model))
    tokens = torch.randint(3, CONFIG["vocab_size"], (BATCH, TIME),
                           generator=torch.Generator().manual_seed(SEED + 1))
    gaps = []
    for layer in model.model.layers:
        def watch(_, __, output):
            top = torch.topk(output[0].softmax(-1), CONFIG["num_experts_per_tok"] + 1).values
            gaps.append((top[:, -2] - top[:, -1]).min().item())
        layer.mlp.gate.register_forward_hook(watch)
    logits = model(tokens).logits
    # A near tie could fall differently elsewhere and the golden file would then judge luck.
    assert len(gaps) == 2 and min(gaps) > 1e-4, gaps
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, CONFIG["vocab_size"]), tokens[:, 1:].reshape(-1))
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    assert all(torch.isfinite(v).all() and v.abs().max() > 0 for v in gradients.values())
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.copy_(gradients[n])
    for name, value in checkpoint_tensors(model).items():
        assert value.shape == out[name].shape
        out["grad/" + name] = value
    out["tokens"] = tokens.numpy().astype(np.int32)
    out["logits"] = logits.detach().numpy()
    out["loss"] = loss.detach().numpy().reshape(1)
    os.makedirs(folder, exist_ok=True)
    save_file(out, os.path.join(folder, "mixtral.safetensors"))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(CONFIG, f, indent=2)
        f.write("\n")


def save(folder, size):
    make_model().save_pretrained(folder, max_shard_size=size)


def same_logits(golden_file, *folders):
    want = load_file(golden_file)
    tokens = torch.from_numpy(want["tokens"].astype(np.int64))
    for folder in folders:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32)
        faults = {k: v for k, v in info.items() if v}
        if faults:
            sys.exit(f"{folder}: {faults}")
        got = model.eval()(tokens).logits.detach().numpy()
        error = np.abs(got - want["logits"]).max() / np.abs(want["logits"]).max()
        if not error < 1e-5:
            sys.exit(f"{folder}: logits are off by {error:.3g} of the greatest")


def main():
    torch.set_num_threads(1)  # sums in one order
    transformers.utils.logging.disable_progress_bar()
    command = {"--save": save, "--logits": same_logits}
    if len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        golden(sys.argv[1])
    elif len(sys.argv) > 3 and sys.argv[1] in command:
        command[sys.argv[1]](*sys.argv[2:])
    else:
        sys.exit(__doc__)


main()
