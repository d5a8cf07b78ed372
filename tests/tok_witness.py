"""The outside witness of tokenizers: the `tokenizers` package.

  files OURS CORPUS         writes kinds.jsonl (texts of many kinds) and tokenizers of other make, out of
                            the trained one: prefixed, cut, classes, llama, metaspace, metaspace-first
  compare TOKENIZER IN OUT  OUT is what "tests/text ids TOKENIZER" printed for the rows IN
  back IN OUT               whether every text of IN came back
"""
import itertools, json, random, sys, unicodedata

SPACES = [9, 10, 11, 12, 13, 28, 32, 32, 32, 0x85, 0xA0, 0x1680, 0x180E, *range(0x2000, 0x2030), 0x3000]
POOLS = [
    list(range(0x300)),                                             # Latin, controls, modifiers
    list(range(97, 123)) + list(range(0x300, 0x330)),               # combining marks
    list(range(0x4E00, 0x9FFF)) + list(range(0x3040, 0x30FF)),      # CJK
    list(range(0xAC00, 0xAC80)) + list(range(0x1100, 0x1200)),      # Hangul, composed and not
    list(range(0x1F300, 0x1FAFF)) + [0x200D, 0xFE0F, 32],           # emoji
    list(range(0x600, 0x700)) + list(range(0x900, 0x980)) + [32],   # Arabic, Devanagari
    [c for c in range(0x110000) if unicodedata.combining(chr(c))] + [97, 0xE9],  # marks of every class
    SPACES + [97, 39],
    list(map(ord, "'sStTrReEvVmMlLdD \n\r\t\u017f\u212a\u2019012\u00bd\u00b2\u2167.,!?")),
    list(range(32, 127)) + [10],
    list(map(ord, " _\u2581<>|x0123456789ABCDEFs/")),
    [c for c in range(0x110000) if not 0xD800 <= c < 0xE000],       # anything at all
]
PARTS = ["  ", "\n\n", " ", "\t", "a", "hello", "<|bos|>", "<|end|>", "<|rw_3|>", "<|endoftext|>", "<s>",
         "</s>", "<0x41>", "\u2581", "<", "|", ">", "\u00e9", "e\u0301", "\u4e2d\u6587", "\U0001f600",
         "\U0001f468\u200d\U0001f469", "zz", "123", "don't", "WE'LL", "\0", "\x7f", "\r\n", "<tool_call>"]


def kinds(corpus):
    random.seed(1)
    texts = [corpus[i:i + 700] for i in range(0, len(corpus), 9000)]
    texts += ["".join(chr(random.choice(p)) for _ in range(n))
              for p in POOLS for n in (1, 2, 3, 6, 30, 200) for _ in range(25)]
    texts += ["".join(random.choices(PARTS, k=random.randrange(1, 12))) for _ in range(1200)]
    new = [c for c in range(0x32400) if unicodedata.category(chr(c)) == "Cn"]  # letters to others, maybe
    texts += ["".join("a%sB " % chr(c) for c in new[i:i + 60]) for i in range(0, len(new), 60)]
    return texts + ["", " ", "x" * 3000, " " * 3000, "a" + " " * 999 + "b", "\n" * 999, corpus[:60000]]


def byte_level(t, **other):
    return {**t, **other}


def llama(t, normalizer, pre, decoder):
    """A tokenizer of SentencePiece's kind: bytes by name, the marked space, merges of characters."""
    vocab = {s: i for i, s in enumerate(["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)])}
    merges = []
    for c in ["\u2581"] + [chr(c) for c in range(33, 127)]:
        vocab.setdefault(c, len(vocab))
    for m in t["model"]["merges"]:
        a, b = (x.replace("\u0120", "\u2581") for x in m.split(" "))
        if a in vocab and b in vocab:
            vocab.setdefault(a + b, len(vocab))
            merges.append([a, b])
    added = [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for s, i in list(vocab.items())[:3]]
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "vocab": vocab,
             "merges": merges}
    return {**t, "added_tokens": added, "normalizer": normalizer, "pre_tokenizer": pre,
            "decoder": decoder, "model": model}


def files(ours, corpus):
    t = json.load(open(ours))
    corpus = "".join(json.loads(l)["text"] for l in open(corpus))
    with open("kinds.jsonl", "w") as f:
        f.writelines(json.dumps({"text": x}) + "\n" for x in kinds(corpus))
    bl = t["pre_tokenizer"]
    strip = [{**a, "lstrip": a["id"] > 3, "rstrip": a["id"] % 2 == 0} for a in t["added_tokens"]]
    single = {**strip[0], "special": False, "single_word": True, "content": "zz", "id": len(t["model"]["vocab"]) + 1}
    word = {**strip[0], "special": False, "normalized": True, "content": "hello", "id": len(t["model"]["vocab"])}
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    meta = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    first = {**meta, "prepend_scheme": "first", "split": False}
    made = {
        "prefixed": byte_level(t, pre_tokenizer={**bl, "add_prefix_space": True}, added_tokens=strip + [word, single],
                               model={**t["model"], "ignore_merges": True}),
        "cut": byte_level(t, normalizer={"type": "NFC"}, pre_tokenizer={"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "Split", "pattern": {"String": ","}, "behavior": "Removed", "invert": False},
            {"type": "Split", "pattern": {"Regex": "[A-Z]"}, "behavior": "MergedWithPrevious", "invert": False},
            {"type": "Split", "pattern": {"Regex": "[\\s\\p{P}]+"}, "behavior": "MergedWithNext", "invert": False},
            {"type": "Split", "pattern": {"Regex": "[a-f]+"}, "behavior": "Isolated", "invert": True}, bl]}),
        "classes": byte_level(t, normalizer={"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"Regex": "\\p{%s}" % c}, "content": x} for c, x in
            zip(("Lu", "Ll", "Lt", "Lm", "Lo", "M", "N", "L"), "!#$%&()*")]}),
        "llama": llama(t, {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, space]}, None,
                       {"type": "Sequence", "decoders": [
                           {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
                           {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}),
        "metaspace": llama(t, None, meta, {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, meta]}),
        "metaspace-first": llama(t, None, first, {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, first]}),
    }
    made["metaspace"]["model"]["byte_fallback"] = False
    for name, j in made.items():
        json.dump(j, open(name + ".json", "w"))


def compare(path, rows, got):
    from tokenizers import Tokenizer
    t, n, size, wrong = Tokenizer.from_file(path), 0, 0, 0
    pairs = zip(open(rows), open(got), strict=True)
    while some := list(itertools.islice(pairs, 500)):
        texts, ids = [json.loads(row)["text"] for row, _ in some], {}
        for plain in (True, False):
            t.encode_special_tokens = plain
            ids[plain] = [e.ids for e in t.encode_batch_fast(texts, add_special_tokens=False)]
        for text, plain, special, (_, ours) in zip(texts, ids[True], ids[False], some):
            ours = json.loads(ours)
            want = {"plain": plain, "special": special, "back": t.decode(plain, skip_special_tokens=False),
                    "skipped": t.decode(special, skip_special_tokens=True)}
            for k in want:
                if want[k] != ours[k]:
                    wrong += 1
                    if wrong < 5:
                        print(k, ascii(text[:100]), "\n  want", ascii(want[k])[:300], "\n  got ", ascii(ours[k])[:300])
            n, size = n + 1, size + len(text.encode())
    print(n, "texts,", size, "bytes,", wrong, "differences")
    return wrong or n < 1000


def back(rows, got):
    return sum(json.loads(a)["text"] != json.loads(b)["back"] for a, b in zip(open(rows), open(got), strict=True))


if __name__ == "__main__":
    sys.exit(bool({"files": files, "compare": compare, "back": back}[sys.argv[1]](*sys.argv[2:])))
