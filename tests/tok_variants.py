"""Tokenizers of every make beside the `tokenizers` package: ids and text the same, or the file is refused by name.

  OURS KINDS TEXT SEED N    OURS: a trained tokenizer.json; KINDS: texts as "tok_witness.py files" writes them; TEXT: the
                            program tests/text; N files are made, of the seeds from SEED on, their parts drawn at random
"""
import json, os, random, subprocess, sys
from collections import Counter
from tok_witness import llama

MARK = "\u2581"
TEXTS = 50  # for each file
os.environ["RUST_BACKTRACE"] = "0"


def flag(r, likely=0.5):
    return r.random() < likely


PATTERNS = ["[A-Z]", "[\\s\\p{P}]+", "[a-f]+", "\\d{1,3}", "\\p{N}", "\\s+$", "^[a-z ]", " ?[^(\\s|.,!?…。，、)]+", "[\r\n]+", "\\p{L}+",
            "(?<=a)b", "\\s+(?!\\S)|\\s+", "[^\\p{L}\\p{N}]", "(?i:'s|'T)|\\p{Lu}", "\\p{Nd}|\\p{S}+", "[^\\s\\d]+", ".+", "\\D+", "\\p{L}++|x{2}",
            "(?:a|e)+(?=\\p{M})", "\\P{L}+", "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+",
            "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}+?[/]*"]
OTHERS = ["x*", "\\w+", "\\p{Han}+", "[a-z&&[^aeiou]]+", "[[:alpha:]]+", "(?i:ss|a)", "\\p{N}{1,3}+", "a{,2}b", "b|(?i)a", "\\h", "(a)\\1", "\\bx"]


def pattern(r):
    if flag(r):
        return {"String": r.choice([" ", ",", "a", MARK, "\n", "ab", "é"] + [""] * flag(r, 0.05))}
    return {"Regex": r.choice(PATTERNS if flag(r, 0.93) else OTHERS)}


def sequence(r, steps, key):
    if len(steps) == 1 and flag(r):
        return steps[0]
    return {"type": "Sequence", key: steps} if steps else r.choice([None, {"type": "Sequence", key: []}])


def normalizer(r):
    kinds = [
        lambda: {"type": r.choice(["NFC", "NFD", "NFKC", "NFKD"])},
        lambda: {"type": "Replace", "pattern": pattern(r), "content": r.choice(["", " ", MARK, "xy", "é"])},
        lambda: {"type": "Replace", "pattern": {"String": " "}, "content": MARK},
        lambda: {"type": "Prepend", "prepend": r.choice([MARK, "x", " "])},
        lambda: {"type": "Strip", "strip_left": flag(r), "strip_right": flag(r)},
        lambda: {"type": r.choice(["Lowercase", "StripAccents", "Nmt", "ByteLevel"])},
        lambda: {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": flag(r)},
    ]
    weights = [4, 4, 3, 3, 0.2, 0.2, 0.1]
    return sequence(r, [r.choices(kinds, weights)[0]() for _ in range(r.choice([0, 0, 1, 1, 2, 3]))], "normalizers")


def metaspace(r):
    m = {"type": "Metaspace", "replacement": r.choice([MARK] * 5 + ["_"]), "split": flag(r)}
    old = r.choice(["new", "old", "both"])
    if old != "old":
        m["prepend_scheme"] = r.choice(["always", "first", "never"])
    if old != "new":  # where both are there, one that says the contrary does not load
        m["add_prefix_space"] = flag(r, 0.9) if old == "old" else m["prepend_scheme"] != "never"
    return m


def byte_level(r):
    return {"type": "ByteLevel", "add_prefix_space": flag(r), "trim_offsets": flag(r), "use_regex": flag(r)}


def pre_tokenizer(r, bytes_last):
    behavior = lambda: r.choice(["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"])
    kinds = [
        lambda: {"type": "Split", "pattern": pattern(r), "behavior": behavior(), "invert": flag(r)},
        lambda: {"type": "Digits", "individual_digits": flag(r)},
        lambda: metaspace(r),
        lambda: {"type": r.choice(["Whitespace", "WhitespaceSplit", "BertPreTokenizer", "UnicodeScripts"])},
        lambda: {"type": "Punctuation", "behavior": behavior()},
        lambda: {"type": "CharDelimiterSplit", "delimiter": "a"},
        lambda: byte_level(r),
    ]
    weights = [6, 2, 2 if bytes_last else 4, 0.1, 0.1, 0.1, 0.2]
    steps = [r.choices(kinds, weights)[0]() for _ in range(r.choice([0, 1, 1, 2, 3]))]
    return sequence(r, steps + [byte_level(r)] * bytes_last, "pretokenizers")


def decoder(r, bytes_last):
    if bytes_last and flag(r, 0.8):
        return sequence(r, [byte_level(r)], "decoders")
    if flag(r):
        return sequence(r, [{"type": "ByteFallback"}] * flag(r) + [metaspace(r)], "decoders")
    space = pattern(r) if flag(r, 0.1) else {"String": MARK}
    steps = [{"type": "Replace", "pattern": space, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
             {"type": "Strip", "content": r.choice(" ae"), "start": r.choice([0, 1, 2]), "stop": r.choice([0, 0, 0, 1, 2])}]
    return sequence(r, [s for s in steps if flag(r, 0.8)], "decoders")


def added(r):
    contents = ["<s>", "</s>", "<|end|>", "zz", "hello", " y", "\u00e9", "e\u0301", "\u4e2d", "AB", "a", MARK + MARK, "\n\n", "1", "\u00c5",
                "<|en", "the", "\u00bd", "  ", "<0x41>", "\u0120"]
    return [{"id": -1, "content": content, "single_word": flag(r, 0.2), "lstrip": flag(r, 0.25), "rstrip": flag(r, 0.25),
             "normalized": flag(r), "special": flag(r)} for content in r.sample(contents, r.randrange(0, 7))]


def post_processor(r, ids):
    name, other = r.choice(list(ids)), r.choice(list(ids))
    text, token = {"Sequence": {"id": "A", "type_id": 0}}, lambda s: {"SpecialToken": {"id": s, "type_id": 0}}
    single = r.choice([[token(name), text], [token(name), text, token(other)], [text, token(other)], [text]] +
                      [[token(name), token(other), text]] * flag(r, 0.1))
    template = {"type": "TemplateProcessing", "single": single, "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {s: {"id": s, "ids": [ids[s]], "tokens": [s]} for s in (name, other)}}
    bert = {"type": r.choice(["BertProcessing", "RobertaProcessing"]), "cls": [name, ids[name]], "sep": [other, ids[other]]}
    if bert["type"] == "RobertaProcessing":
        bert |= {"trim_offsets": True, "add_prefix_space": True}
    return r.choice([None, byte_level(r), template, bert, {"type": "Sequence", "processors": [byte_level(r), template]}])


def variant(ours, seed):
    r = random.Random(seed)
    bytes_last = flag(r)
    t = json.loads(json.dumps(ours))
    if not bytes_last:
        t = llama(t, None, None, None)
        t["model"]["byte_fallback"] = flag(r)
        t["model"]["fuse_unk"] = flag(r)
        if flag(r, 0.3):
            t["model"]["unk_token"] = None
        for b in r.choice([[], [], r.sample(range(0xe2, 0xf0), 3), [0x81, 0x96]]):
            t["model"]["vocab"].pop("<0x%02X>" % b)
        t["model"]["vocab"] = {s: i for i, s in enumerate(t["model"]["vocab"])}
    m = t["model"]
    m["ignore_merges"] = flag(r)
    m["dropout"] = r.choice([None, None, 0.0])
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        m[key] = r.choice([None, None, ""])
    if flag(r):
        m["merges"] = [x.split(" ") if isinstance(x, str) else x for x in m["merges"]]
    for key in ("ignore_merges", "fuse_unk", "byte_fallback", "dropout"):
        if flag(r, 0.1):
            m.pop(key, None)
    if flag(r):
        t["added_tokens"] = []
    have = {a["content"] for a in t["added_tokens"]}
    t["added_tokens"] += [a for a in added(r) if a["content"] not in have]
    ids, size = dict(m["vocab"]), len(m["vocab"])
    size += flag(r, 0.02)  # a hole
    for a in t["added_tokens"]:
        a["id"] = ids.setdefault(a["content"], size)
        size += a["id"] == size
    if flag(r, 0.02):
        m["vocab"][r.choice(list(m["vocab"]))] = 77
    t["normalizer"] = normalizer(r)
    t["pre_tokenizer"] = pre_tokenizer(r, bytes_last)
    t["decoder"] = decoder(r, bytes_last)
    t["post_processor"] = post_processor(r, ids)
    return t


def parts(t):
    return {k: t[k] for k in ("normalizer", "pre_tokenizer", "decoder", "post_processor")} | {
        "added": [a for a in t["added_tokens"] if a["id"] > 999 or not a["content"].startswith("<|")],
        "model": {k: v for k, v in t["model"].items() if k not in ("vocab", "merges")}}


def attempt(witness):
    """What the package gives up on (it panics), it is no witness of."""
    try:
        return witness()
    except BaseException as e:
        if type(e).__name__ != "PanicException":
            raise
        return None


def difference(theirs, text, ours):
    """The first one, or None."""
    def encode(plain, around=False):
        theirs.encode_special_tokens = plain
        return theirs.encode(text, add_special_tokens=around).ids
    any_ids = [(b * 7919 + i * 104729) % ours["size"] for i, b in enumerate(text.encode()[:100])]
    checks = {"plain": lambda: encode(True), "special": lambda: encode(False), "back": lambda: theirs.decode(ours["plain"], False),
              "skipped": lambda: theirs.decode(ours["special"], True), "any": lambda: theirs.decode(any_ids, False)}
    for key, check in checks.items():
        want = attempt(check)
        if want is not None and want != ours[key]:
            return key, ascii(text[:200]), ascii(want)[:400], ascii(ours[key])[:400]
    around, inside = attempt(lambda: encode(False, True)), ours["special"]  # an end may be known without a template
    if around and inside and around != inside and around not in ([ours["bos"]] + inside, inside + [ours["eos"]], [ours["bos"]] + inside + [ours["eos"]]):
        return "around", ours["bos"], ours["eos"], around[:3], around[-3:]
    return None


def main(ours, kinds, program, first, n):
    from tokenizers import Tokenizer
    ours = json.load(open(ours))
    texts = [x for x in (json.loads(l)["text"] for l in open(kinds)) if len(x) < 4000]
    did, refused, wrong = Counter(), Counter(), 0
    for seed in range(int(first), int(first) + int(n)):
        t = variant(ours, seed)
        json.dump(t, open("variant.json", "w"))
        try:
            theirs = attempt(lambda: Tokenizer.from_file("variant.json"))
        except Exception:
            theirs = None
        some = random.Random(seed).sample(texts, TEXTS)
        rows = "".join(json.dumps({"text": x}) + "\n" for x in some)
        got = subprocess.run([program, "ids", "variant.json"], input=rows.encode(), capture_output=True)
        if got.returncode == 2 and b"variant.json: " in got.stderr:
            refused[got.stderr.decode().split("variant.json: ", 1)[1].strip()] += 1
            continue
        bad = got.returncode and (got.returncode, got.stderr.decode()[-300:])
        if not theirs:
            did["read, though the package does not"] += not bad
        else:
            for text, line in zip(some, got.stdout.decode().split("\n"), strict=False):
                bad = bad or difference(theirs, text, json.loads(line))
            did["the same"] += not bad
        wrong += bool(bad)
        if bad and wrong < 9:
            print("seed", seed, *bad, ascii(json.dumps(parts(t), ensure_ascii=False)), sep="\n  ")
    print(n, "files:", dict(did), "refused:", sum(refused.values()), "other:", wrong)
    for why, k in refused.most_common():
        print("  %3d %s" % (k, why[:150]))
    return wrong or did["the same"] < int(n) // 3


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
