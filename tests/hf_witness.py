#!/usr/bin/env python3
"""hf_witness.py -- what transformers and PyTorch make of our folders.

    hf_witness.py scores SET DIR ROWS [DIR ROWS ...]
        transformers opens each Hugging Face folder DIR with no key missing or unexpected, and gives
        each document of SET (a folder of shard-pack's) what reward-score gave the same rows in ROWS:
        "ref_logp", the log-probability of what is learnt in it, of a language model; "reward", the
        score of its last token, of a reward model
    hf_witness.py generate SET DIR ROWS [DIR ROWS ...]
        transformers' generate(), greedy, answers the prompt of each document of SET with the text that
        moe-sample wrote of it in ROWS
    hf_witness.py slices CKPT DIR [CKPT DIR ...]
        PyTorch's distributed checkpoints put the slices in CKPT together to the tensors in DIR
    hf_witness.py reward DIR OUT [DIR OUT ...]
        makes reward models of language models: AutoModelForSequenceClassification with one label
    hf_witness.py balance SET RATE RUN
        each checkpoint of RUN, a run of --balance RATE whose every step saw all of SET, has the one
        before it as its biases, each moved by RATE towards an even load (arXiv 2408.15664): up where the
        router of the model before, as transformers runs it, chose the expert for fewer tokens than the
        mean, down where for more
"""
import glob
import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
import torch
from safetensors.torch import load_file


def documents(folder):
    for path in sorted(glob.glob(os.path.join(folder, "data-*.safetensors"))):
        x = load_file(path)
        ends = x["tokens.offsets"].tolist()
        for a, b in zip(ends, ends[1:]):
            yield x["tokens"][a:b].long(), x["target"][a:b].bool()


def open_model(folder):
    import transformers
    transformers.utils.logging.disable_progress_bar()
    config = json.load(open(os.path.join(folder, "config.json")))
    reward = config["architectures"][0].endswith("ForSequenceClassification")
    auto = transformers.AutoModelForSequenceClassification if reward else transformers.AutoModelForCausalLM
    model, info = auto.from_pretrained(folder, output_loading_info=True, attn_implementation="eager",
                                       dtype=torch.float32)
    assert model.__class__.__name__ == config["architectures"][0]
    faults = {k: v for k, v in info.items() if v}
    if faults:
        sys.exit(f"{folder}: {faults}")
    return model.eval(), reward


@torch.no_grad()
def score(model, reward, tokens, target):
    logits = model(tokens[None]).logits[0]
    if reward:
        return logits.item()
    logp = torch.log_softmax(logits[:-1].double(), -1).gather(1, tokens[1:, None])[:, 0]
    return logp[target[1:]].sum().item()


def scores(data, *rest):
    for folder, rows in zip(rest[::2], rest[1::2]):
        model, reward = open_model(folder)
        ours = [json.loads(line)["reward" if reward else "ref_logp"] for line in open(rows)]
        theirs = [score(model, reward, *d) for d in documents(data)]
        assert len(ours) == len(theirs) > 0 and len(set(theirs)) > 10
        error = max(abs(a - b) / (1 + abs(b)) for a, b in zip(ours, theirs))
        print(f"{folder}: {len(ours)} scores, off by {error:.2g} at most")
        if not error < 1e-4:
            sys.exit(1)


def generate(data, *rest):
    from tokenizers import Tokenizer
    stop = json.load(open(os.path.join(data, "manifest.json")))["eos"]
    whole = 0
    for folder, rows in zip(rest[::2], rest[1::2]):
        model, _ = open_model(folder)
        tok = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        rows, most = [json.loads(line) for line in open(rows)], 0
        for row, (tokens, target) in zip(rows, documents(data)):
            prompt = tokens[None, :target.int().argmax()]
            said = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                                  max_new_tokens=200, eos_token_id=stop)[0, prompt.shape[1]:].tolist()
            if tok.decode(said) != row["response"]:
                sys.exit(f"{folder}: {row['id']}: {tok.decode(said)!r} and {row['response']!r}")
            most = max(most, len(said))
        whole += most == 200
        print(f"{folder}: {len(rows)} answers, the longest of {most} tokens")
    if whole < 3:
        sys.exit("too few long ones")


def slices(*rest):
    import torch.distributed.checkpoint as dcp
    bits = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
    for ckpt, folder in zip(rest[::2], rest[1::2]):
        want = {}
        for path in glob.glob(os.path.join(folder, "*.safetensors")):
            want.update(load_file(path))
        got = {k: torch.full_like(v, float("nan")) for k, v in want.items()}
        dcp.load(got, storage_reader=dcp.HuggingFaceStorageReader(ckpt), no_dist=True)
        for k, v in want.items():
            if not torch.equal(got[k].view(bits[v.dtype]), v.view(bits[v.dtype])):
                sys.exit(f"{ckpt}: {k} differs")
        print(f"{ckpt}: {len(want)} tensors")


def reward(*rest):
    import transformers
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(1)
    for folder, out in zip(rest[::2], rest[1::2]):
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
        model.save_pretrained(out, max_shard_size="40KB")


@torch.no_grad()
def balance(data, rate, run):
    import numpy as np
    docs, was, up, down = [t for t, _ in documents(data)], None, 0, 0
    for folder in sorted(glob.glob(os.path.join(run, "step-*"))):
        model, _ = open_model(folder)
        gates = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "gate")]
        bias = np.stack([g.e_score_correction_bias.numpy().astype(np.float64) for g in gates])
        if was is not None:
            want = was + float(rate) * np.sign(load.mean(1, keepdims=True) - load)
            if not np.abs(bias - want).max() < 1e-6:
                sys.exit(f"{folder}: loads {load.tolist()} moved {was.tolist()} to {bias.tolist()}")
            up, down = up + (bias > was).sum(), down + (bias < was).sum()
        was, load = bias, np.zeros(bias.shape)
        watch = [g.register_forward_hook(lambda _, x, out, n=load[i]: np.add.at(n, out[2].numpy(), 1))
                 for i, g in enumerate(gates)]
        for tokens in docs:
            model(tokens[None])
        for hook in watch:
            hook.remove()
    print(f"{run}: {up} moves up, {down} down")
    if min(up, down) < 20:
        sys.exit(1)


def main():
    torch.set_num_threads(1)
    commands = {"balance": balance, "scores": scores, "slices": slices, "reward": reward, "generate": generate}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])


main()
