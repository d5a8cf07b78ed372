"""Chat templates against transformers.

  make FOLDER          adds to golden/tok-import/chat.jsonl what apply_chat_template() makes of the conversations with
                       each FOLDER/NAME.jinja or NAME@OF.jinja, a model's own program (these are theirs and not kept here)
  rows                 prints the conversations as rows
  tokenizer OURS OUT   writes a tokenizer.json that has every template's tokens, beside it a tokenizer_config.json
  compare TOKENIZER NAME OUT   OUT is what "tests/text chat NAME TOKENIZER" printed for them
"""
import json, os, sys

GOLDEN = os.path.join(os.path.dirname(__file__), "golden/tok-import/chat.jsonl")
SAID = {"system": "Be brief.", "user": ["Hi", "What is 2+2?", "  Why?\n"], "assistant": ["Hello there.", "It's 4"]}
TURNS = ["u", "su", "uau", "suauau"]
ANSWERS = ["Because.", "L'\u00e9t\u00e9 \u4e2d\u6587\n\n1. one\n", "<think>\nHm.\n</think>\n\nYes", ""]


def prompts():
    for turns in TURNS:
        n, prompt = 0, []
        for c in turns:
            role = {"s": "system", "u": "user", "a": "assistant"}[c]
            prompt.append({"role": role, "content": SAID[role] if c == "s" else SAID[role][n // 2]})
            n += c != "s"
        yield prompt
    yield [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>\nx\n</think>\n\nb "},
           {"role": "user", "content": "c <think> d"}]
    yield [{"role": "system", "content": " one"}, {"role": "system", "content": "two"}, {"role": "user", "content": "three"}]


FIRST = 9  # conversations that the templates in golden before the others have


def conversations():
    for i, prompt in enumerate(prompts()):
        yield from ((prompt, a) for a in (ANSWERS if i == 0 else ANSWERS[i % 4:][:1]))
    turn = lambda *turns: [{"role": "system user assistant".split()["sua".index(c)], "content": s} for c, s in turns]
    yield turn(("u", "")), "ok"
    yield turn(("s", ""), ("u", "x")), ""
    yield turn(("u", "\u3000 h\u00e9\u00a0\n"), ("a", " \u200bA "), ("u", "\U0001f600\t")), " \n spaced \u2028"
    yield turn(("s", " \u4f60 "), ("u", "1"), ("a", ""), ("u", "2 [x]")), "z\n"


def make(folder):
    from transformers import PreTrainedTokenizerFast
    from tokenizers import Tokenizer, models
    t = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>")
    # Some would say what day it is; ours has the other branch's date.
    say = lambda turns, **how: t.apply_chat_template(turns, tokenize=False, date_string="26 Jul 2024", **how)
    with open(GOLDEN, "a") as f:
        for name in sorted(os.listdir(folder)):
            t.chat_template = open(os.path.join(folder, name)).read()
            for prompt, answer in conversations():
                row, said = {"template": name[:-6]}, [{"role": "assistant", "content": answer}]
                try:
                    row["asked"] = say(prompt, add_generation_prompt=True)
                    row["all"] = say(prompt + said)
                    # These have the system's words in the last turn if it is a user's: where an answer follows, nowhere.
                    # Ours learns to answer what it is asked.
                    if name.startswith("mistral-v3") and prompt[0]["role"] == "system":
                        row["all"] = row["asked"] + say(prompt[1:] + said)[len(say(prompt[1:])):]
                except Exception as e:
                    row["why"] = type(e).__name__
                f.write(json.dumps(row, ensure_ascii=False) + "\n")


def golden(name):
    return [r for r in map(json.loads, open(GOLDEN)) if r["template"] == name]


def rows():
    for prompt, answer in conversations():
        print(json.dumps({"prompt": prompt, "response": answer}))


TOKENS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
          "[INST]", "[/INST]", "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<think>", "</think>"]


def tokenizer(ours, out):
    t = json.load(open(ours))
    have = [a["content"] for a in t["added_tokens"]]
    for s in TOKENS:
        if s not in have:
            i = len(t["model"]["vocab"])
            t["model"]["vocab"][s] = i
            t["added_tokens"].append({"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False,
                                      "normalized": False, "special": "think" not in s})
    json.dump(t, open(out, "w"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False}
    json.dump(config, open(os.path.join(os.path.dirname(out), "tokenizer_config.json"), "w"))


def compare(path, name, got):
    from tokenizers import Tokenizer
    t, wrong, n, whys = Tokenizer.from_file(path), 0, 0, 0
    config = json.load(open(os.path.join(os.path.dirname(path), "tokenizer_config.json")))
    for key, s in (("bos_token", "<s>"), ("eos_token", "</s>")):  # as the golden strings have it
        token = config.get(key) or s
        config[s] = token if isinstance(token, str) else token["content"]
    ids = lambda s: t.encode(s.replace("<s>", config["<s>"]).replace("</s>", config["</s>"]), add_special_tokens=False).ids
    for want, ours in zip(golden(name), map(json.loads, open(got))):
        n += 1
        whys += "why" in want
        if "why" in want:
            bad = not ours["why"]
        else:
            bad = bool(ours["why"]) or ours["prompt"] != ids(want["asked"]) or ours["all"] != ids(want["all"])
        if bad and not wrong:
            print(want, ours["why"], "\n", ids(want.get("asked", "")), "\n", ours["prompt"], "\n", ids(want.get("all", "")), "\n", ours["all"])
        wrong += bad
    print(n, "conversations,", whys, "refused,", wrong, "differ")
    return wrong or n not in (FIRST, sum(1 for _ in conversations()))


if __name__ == "__main__":
    sys.exit(bool({"make": make, "tokenizer": tokenizer, "rows": rows, "compare": compare}[sys.argv[1]](*sys.argv[2:])))
