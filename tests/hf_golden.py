#!/usr/bin/env python3
"""hf_golden.py -- asks Hugging Face transformers what a small model of each family computes.

    hf_golden.py DIR          writes DIR/FAMILY.safetensors and DIR/FAMILY.json (tests/golden/hf)
    hf_golden.py --save DIR SIZE
                              writes the same models as save_pretrained does, DIR/FAMILY, in files of
                              that size
    hf_golden.py --logits GOLDEN DIR ...
                              fails unless transformers opens each DIR/FAMILY with no key missing or
                              unexpected and it gives the logits in GOLDEN/FAMILY.safetensors

FAMILY is a key of FAMILIES below.  FAMILY.json is the configuration, as config.json has it in the
checkpoints people have.  FAMILY.safetensors holds the weights under their checkpoint names, "tokens"
I32 (2, 24), "logits" F32 (2, 24, vocabulary), "loss" F32 (1) -- the mean next-token cross entropy over
all 46 predictions, without the auxiliary loss -- and "grad/NAME", its gradient, for every weight;
"choices/R" I32 (48, experts chosen), what the Rth router chose, the likeliest first; and "greedy" I32 (208): 8 tokens and the 200 that generate() answers, each the likeliest.  All
in float32 on the CPU with eager attention.  Transformers keeps experts fused in memory; the checkpoint
names are its own doing: weights and gradients alike go through save_pretrained, so this script has no
table of names.
"""
import itertools
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

COMMON = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_experts_per_tok": 2, "max_position_embeddings": 256, "hidden_act": "silu", "initializer_range": 0.02,
    "output_router_logits": False, "tie_word_embeddings": False, "torch_dtype": "float32",
}
DENSE = dict({k: v for k, v in COMMON.items() if "expert" not in k and "router" not in k}, **{
    "vocab_size": 64, "intermediate_size": 40, "attention_dropout": 0.0, "bos_token_id": 1,
    "eos_token_id": 2,
})
DEEPSEEK = dict(DENSE, **{
    "num_hidden_layers": 3, "num_key_value_heads": 4, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
    "intermediate_size": 36, "moe_intermediate_size": 20, "n_routed_experts": 8, "n_shared_experts": 2,
    "num_experts_per_tok": 3, "first_k_dense_replace": 1, "moe_layer_freq": 1, "kv_lora_rank": 24,
    "qk_nope_head_dim": 10, "qk_rope_head_dim": 8, "v_head_dim": 12, "aux_loss_alpha": 0.001,
    "seq_aux": True, "attention_bias": False, "rope_scaling": None,
})
FAMILIES = {
    "mixtral": dict(COMMON, **{
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "intermediate_size": 48,
        "num_local_experts": 4, "vocab_size": 96, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
        "router_aux_loss_coef": 0.02, "sliding_window": None, "bos_token_id": 1, "eos_token_id": 2,
    }),
    "qwen3_moe": dict(COMMON, **{
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "intermediate_size": 64,
        "moe_intermediate_size": 20, "head_dim": 12, "num_experts": 4, "norm_topk_prob": True,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "vocab_size": 64, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "rope_scaling": None, "router_aux_loss_coef": 0.001,
        "attention_bias": False, "attention_dropout": 0.0, "sliding_window": None,
        "use_sliding_window": False, "bos_token_id": 1, "eos_token_id": 2,
    }),
    "olmoe": dict(COMMON, **{
        "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "intermediate_size": 20,
        "num_experts": 4, "norm_topk_prob": False, "vocab_size": 64, "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0, "rope_scaling": None, "router_aux_loss_coef": 0.01,
        "attention_bias": False, "attention_dropout": 0.0, "clip_qkv": None, "pad_token_id": 1,
        "eos_token_id": 2,
    }),
    "qwen2_moe": dict(COMMON, **{
        "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "intermediate_size": 40,
        "num_hidden_layers": 3, "decoder_sparse_step": 1, "mlp_only_layers": [1],
        "moe_intermediate_size": 20, "shared_expert_intermediate_size": 28, "num_experts": 4,
        "norm_topk_prob": False, "vocab_size": 64, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001, "attention_dropout": 0.0, "sliding_window": None,
        "use_sliding_window": False, "max_window_layers": 2, "bos_token_id": 1, "eos_token_id": 2,
    }),
    "llama": dict(DENSE, **{ # waves of each kind: kept, between, stretched
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "head_dim": 16,
        "rms_norm_eps": 1e-05, "rope_theta": 500.0, "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": True,
        "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                         "original_max_position_embeddings": 64, "rope_type": "llama3"},
    }),
    "qwen2": dict(DENSE, **{
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "use_sliding_window": False,
    }),
    "qwen3": dict(DENSE, **{
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 12,
        "rms_norm_eps": 1e-06, "rope_theta": 500.0,
        "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 8.0,
                         "beta_slow": 0.5, "rope_type": "yarn"}, # waves of each kind, as of llama
        "attention_bias": False, "use_sliding_window": False,
    }),
    "deepseek_v2": dict(DEEPSEEK, **{
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "q_lora_rank": 20,
        "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2, "norm_topk_prob": False,
        "scoring_func": "softmax", "routed_scaling_factor": 16.0,
    }),
    "deepseek_v3": dict(DEEPSEEK, **{
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "q_lora_rank": 20,
        "topk_method": "noaux_tc", "n_group": 4, "topk_group": 2, "norm_topk_prob": True,
        "scoring_func": "sigmoid", "routed_scaling_factor": 2.5, "num_nextn_predict_layers": 0,
        "rope_scaling": {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 64,
                         "beta_fast": 8, "beta_slow": 0.5, "mscale": 1.0, "mscale_all_dim": 1.0},
    }),
    "deepseek_v2_lite": dict(DEEPSEEK, **{
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "q_lora_rank": None,
        "topk_method": "greedy", "n_group": 1, "topk_group": 1, "norm_topk_prob": False,
        "scoring_func": "softmax", "routed_scaling_factor": 1.0, "rope_theta": 500.0,
        "rope_scaling": {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 64,
                         "beta_fast": 8, "beta_slow": 0.5, "mscale": 1.2, "mscale_all_dim": 0.707},
    }),
}
SEED, BATCH, TIME, PROMPT, ANSWER = 7, 2, 24, 8, 200


def biases(model):
    """What routers choose with and do not learn: no parameters to transformers, but tensors of its files."""
    return [b for n, b in model.named_buffers() if n.endswith("e_score_correction_bias")]


def make_model(family):
    """Weights wide enough that every expert, head and norm leaves its mark on the logits."""
    config = transformers.AutoConfig.for_model(**FAMILIES[family])
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    g = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            vector = 0.3 * noise if name.endswith("bias") else 1 + 0.1 * noise
            p.copy_(vector if p.ndim == 1 else noise * p.shape[-1] ** -0.5)
        for bias in biases(model):
            bias.copy_(0.2 * torch.randn(bias.shape, generator=g))
    return model


def checkpoint_tensors(model):
    """The model's tensors under the names save_pretrained writes."""
    with tempfile.TemporaryDirectory() as d:
        model.save_pretrained(d)
        return load_file(os.path.join(d, "model.safetensors"))


def golden(folder):
    os.makedirs(folder, exist_ok=True)
    for family, config in FAMILIES.items():
        save_file(golden_of(family), os.path.join(folder, family + ".safetensors"))
        with open(os.path.join(folder, family + ".json"), "w") as f:
            json.dump(config, f, indent=2)
            f.write("\n")


@torch.no_grad()
def greedy(model, vocab):
    """A prompt and generate()'s answer to it, with no second token near the likeliest one."""
    model.generation_config.eos_token_id = None
    for seed in itertools.count(SEED):
        prompt = torch.randint(3, vocab, (1, PROMPT), generator=torch.Generator().manual_seed(seed))
        said = model.generate(prompt, attention_mask=torch.ones_like(prompt), pad_token_id=0,
                              max_new_tokens=ANSWER, do_sample=False)
        top = torch.topk(model(said).logits[0, PROMPT - 1:-1], 2)
        assert said.shape[1] == PROMPT + ANSWER and (top.indices[:, 0] == said[0, PROMPT:]).all()
        if (top.values[:, 0] - top.values[:, 1]).min() > 1e-3 and len(set(said[0, PROMPT:].tolist())) > 10:
            return said[0].numpy().astype(np.int32)


def choice_gap(config, p, ranking):
    """How near the last choice of experts, or of groups of them, is to the first that was not chosen."""
    def gap(x, k):
        top = torch.topk(x, k + 1).values
        return (top[:, -2] - top[:, -1]).min().item()
    groups = config.get("n_group", 1)
    if groups == 1:
        return gap(p, config["num_experts_per_tok"])
    best = torch.topk(p.view(len(p), groups, -1), ranking).values.sum(-1)
    limit = config["topk_group"]
    seen = torch.zeros_like(best).scatter_(1, torch.topk(best, limit).indices, 1)
    p = p.masked_fill(seen.repeat_interleave(p.shape[1] // groups, 1) == 0, -9)
    return min(gap(best, limit), gap(p, config["num_experts_per_tok"]))


def golden_of(family):
    model, vocab = make_model(family), FAMILIES[family]["vocab_size"]
    out = dict(checkpoint_tensors(model))
    gaps, choices = [], []
    routed = [layer for layer in model.model.layers if hasattr(layer.mlp, "gate")]
    for layer in routed:
        def watch(gate, _, output):
            bias = getattr(gate, "e_score_correction_bias", None)
            worth = output[0].softmax(-1) if bias is None else output[0].sigmoid() + bias
            gaps.append(choice_gap(FAMILIES[family], worth, 1 if bias is None else 2))
            order = worth.gather(1, output[2]).argsort(-1, descending=True)
            choices.append(output[2].gather(1, order))
        layer.mlp.gate.register_forward_hook(watch)
    # A near tie could fall differently elsewhere and the golden file would then judge luck.
    for seed in itertools.count(SEED + 1):
        gaps.clear(), choices.clear()
        g = torch.Generator().manual_seed(seed)
        tokens = torch.randint(3, vocab, (BATCH, TIME), generator=g)
        logits = model(tokens).logits
        assert len(gaps) == len(routed)
        if min(gaps, default=1) > 1e-4:
            break
    for layer, chosen in enumerate(choices[:len(routed)]):
        out[f"choices/{layer}"] = chosen.numpy().astype(np.int32)
    out["greedy"] = greedy(model, vocab)
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, vocab), tokens[:, 1:].reshape(-1))
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    assert all(torch.isfinite(v).all() and v.abs().max() > 0 for v in gradients.values())
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.copy_(gradients[n])
        for bias in biases(model):
            bias.zero_()
    for name, value in checkpoint_tensors(model).items():
        assert value.shape == out[name].shape
        out["grad/" + name] = value
    out["tokens"] = tokens.numpy().astype(np.int32)
    out["logits"] = logits.detach().numpy()
    out["loss"] = loss.detach().numpy().reshape(1)
    return out


def save(folder, size):
    for family in FAMILIES:
        make_model(family).save_pretrained(os.path.join(folder, family), max_shard_size=size)


def same_logits(golden_folder, *folders):
    for family, folder in [(f, os.path.join(d, f)) for d in folders for f in FAMILIES]:
        want = load_file(os.path.join(golden_folder, family + ".safetensors"))
        tokens = torch.from_numpy(want["tokens"].astype(np.int64))
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
