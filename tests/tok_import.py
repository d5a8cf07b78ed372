"""The outside witnesses of imported tokenizers: tiktoken, sentencepiece, and the packages whose files they are.

  cases DATA                  prints "KIND NAME FILE" of every foreign tokenizer in the folder DATA, or in the
                              packages dashscope, llama-models, mistral-common and quicktok-v1; files are also made: r50k_base and
                              p50k_base and tekken-made from GPT-2's pair, sp-*.model by training SentencePiece on corpus.jsonl
  rows DATA OUT MB            writes the rows to compare on, so much text
  compare KIND NAME FILE IN OUT   OUT is what "tests/text ids FILE" printed for the rows IN
"""
import base64, glob, importlib.util, json, os, re, struct, sys

OPENAI = ("r50k_base", "p50k_base", "cl100k_base", "o200k_base")


def package(name, path):
    spec = importlib.util.find_spec(name)
    found = glob.glob(os.path.join(list(spec.submodule_search_locations)[0], path)) if spec else []
    return sorted(found)


def train():
    import sentencepiece
    open("corpus.txt", "w").writelines(json.loads(l)["text"] for l in open("corpus.jsonl"))
    common = dict(input="corpus.txt", vocab_size=1500, model_type="bpe", normalization_rule_name="identity", minloglevel=2,
                  remove_extra_whitespaces=False, character_coverage=0.98, max_sentence_length=100000, num_threads=1)
    more = {"bare": dict(add_dummy_prefix=False), "bytes": dict(byte_fallback=True, bos_id=-1),
            "users": dict(byte_fallback=True, user_defined_symbols=["<ud>", "the", "\u2581\u2581", "\u2581\u2581\u2581"],
                          control_symbols=["[INST]"], add_dummy_prefix=False),
            "users-prefix": dict(byte_fallback=True, user_defined_symbols=["[IMG]", "hello"])}
    for name, m in more.items():
        sentencepiece.SentencePieceTrainer.train(model_prefix="sp-" + name, **common, **m)
        yield "sentencepiece", "sp-" + name, "sp-%s.model" % name


def gpt2_ranks(data):
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    ranks = data_gym_to_mergeable_bpe_ranks(vocab_bpe_file=data + "/gpt2/vocab.bpe", encoder_json_file=data + "/gpt2/encoder.json")
    lines = [base64.b64encode(k) + b" %d\n" % v for k, v in sorted(ranks.items(), key=lambda x: x[1])]
    open("r50k_base.tiktoken", "wb").writelines(lines)
    open("p50k_base.tiktoken", "wb").writelines(lines + [base64.b64encode(b" " * n) + b" %d\n" % (50255 + n) for n in range(2, 26)])


def o200k(path):
    """That package's own format: how many; then of each its length, its bytes, its rank."""
    b, at, ranks = open(path, "rb").read(), 4, {}
    for _ in range(struct.unpack_from("<I", b)[0]):
        n, = struct.unpack_from("<H", b, at)
        ranks[struct.unpack_from("<I", b, at + 2 + n)[0]] = b[at + 2:at + 2 + n]
        at += 6 + n
    open("o200k_base.tiktoken", "wb").writelines(base64.b64encode(ranks[i]) + b" %d\n" % i for i in sorted(ranks))
    return "o200k_base.tiktoken"


def tekken(data):
    """GPT-2's ranks, cut short, as Mistral's format has them."""
    ranks = [l.split()[0].decode() for l in open("r50k_base.tiktoken", "rb")][:30000]
    json.dump({"config": {"pattern": O200K, "num_vocab_tokens": 30000, "default_vocab_size": 20050, "default_num_special_tokens": 50, "version": "v3"},
               "vocab": [{"rank": i, "token_bytes": t, "token_str": None} for i, t in enumerate(ranks)]}, open("tekken-made.json", "w"))
    return "tekken-made", "tekken-made", "tekken-made.json"


O200K = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+|."


def cases(data):
    found = []
    if os.path.isdir(data):
        gpt2_ranks(data)
        found += [("tiktoken", "r50k_base", data + "/gpt2/encoder.json"), tekken(data)]
        found += [("tiktoken", os.path.basename(f)[:-9], f) for f in ["r50k_base.tiktoken", "p50k_base.tiktoken"] + glob.glob(data + "/*/*.tiktoken")]
        found += [("sentencepiece", os.path.basename(f), f) for f in glob.glob(data + "/*/tokenizer.model*")]
    found += [("tiktoken", "o200k_base", o200k(f)) for f in package("quicktok", "data/o200k.vocab")]
    found += [("tiktoken", "qwen", f) for f in package("dashscope", "resources/qwen.tiktoken")]
    found += [("tiktoken", f.split("/")[-2], f) for f in package("llama_models", "llama[34]/tokenizer.model")]
    found += [("sentencepiece", os.path.basename(f), f) for f in package("mistral_common", "data/*.model.*")]
    found += [("tekken", os.path.basename(f), f) for f in package("mistral_common", "data/tekken_*.json")]
    found += train()
    for f in found:
        print(*f, sep="\t")


def openai(name, path):
    """The package's own pattern and special tokens, its download replaced by the file."""
    import tiktoken, tiktoken_ext.openai_public as public
    from tiktoken.load import load_tiktoken_bpe
    file = path if path.endswith(".tiktoken") else name + ".tiktoken"
    public.load_tiktoken_bpe = lambda url, expected_hash: load_tiktoken_bpe(file, expected_hash)
    return tiktoken.Encoding(**getattr(public, name)())


def other(name, path):
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe
    if name.startswith("llama"):
        from pathlib import Path
        module = importlib.import_module("llama_models.%s.tokenizer" % name)
        return module.Tokenizer(Path(path)).model
    source = open(package("dashscope", "tokenizers/qwen_tokenizer.py")[0]).read()
    pattern = re.search(r'PAT_STR = r"""(.*?)"""', source)[1]
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + ["<|extra_%d|>" % i for i in range(205)]
    return tiktoken.Encoding(name=name, pat_str=pattern, mergeable_ranks=load_tiktoken_bpe(path),
                             special_tokens={s: 151643 + i for i, s in enumerate(names)})


def ids_of(kind, name, path):
    """How the witness encodes: text to (ids, ids with special tokens or None, text again)."""
    if kind == "tiktoken":
        e = (openai if name in OPENAI else other)(name, path)
        def encode(text):
            if name == "qwen":  # Python's tables are newer than those of the tokenizers package, which we follow
                from tokenizers.normalizers import NFC
                text = NFC().normalize_str(text)
            ids = e.encode(text, disallowed_special=())
            return ids, e.encode(text, allowed_special="all"), e.decode(ids)
        return encode
    if kind == "tekken-made":
        import tiktoken
        t = json.load(open(path))
        ranks = {base64.b64decode(v["token_bytes"]): v["rank"] for v in t["vocab"][:20000]}
        e = tiktoken.Encoding(name=name, pat_str=t["config"]["pattern"], mergeable_ranks=ranks, special_tokens={})
        return lambda text: ([i + 50 for i in e.encode(text)], None, e.decode(e.encode(text)))
    if kind == "tekken":
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer
        t = Tekkenizer.from_file(path)
        return lambda text: (t.encode(text, bos=False, eos=False), None, t.decode(t.encode(text, bos=False, eos=False)))
    import sentencepiece
    s = sentencepiece.SentencePieceProcessor(model_file=path)
    def encode(text):
        ids = s.encode(text)  # an unknown token decodes to something else
        return ids, None, s.decode(ids) if s.unk_id() not in ids else None
    return encode


def compare(kind, name, path, rows, got):
    encode, n, wrong, left, size = ids_of(kind, name, path), 0, 0, 0, 0
    alone = ("[IMG]", "hello") if name == "sp-users-prefix" else ()  # nothing but a user's symbol: the prefix is missing
    for row, ours in zip(open(rows), open(got), strict=True):
        text, ours = json.loads(row)["text"], json.loads(ours)
        try:
            plain, special, back = encode(text)
        except BaseException as e:
            if "StackOverflow" not in str(e):  # a long piece is too much for tiktoken: it is said how many
                raise
            left += 1
            continue
        n += 1
        size += len(text.encode())
        plain = plain[1:] if text in alone else plain
        bad = [k for k, want in (("plain", plain), ("special", special), ("back", back)) if want is not None and want != ours[k]]
        wrong += bool(bad)
        if bad and wrong < 5:
            print(bad, ascii(text[:100]), "\n  want", str(plain)[:300], "\n  got ", str(ours["plain"])[:300], ascii(ours["back"][:100]), ascii(back[:100]))
    print(n, "texts,", size, "bytes,", wrong, "differ;", left, "too long for the witness")
    return wrong or n < 1000


def unpacked(*files):
    import subprocess
    for f in files:
        if os.path.exists(f):
            yield subprocess.run(["zstdcat", f], capture_output=True).stdout.decode("utf-8", "replace")


def sources(*folders):
    """Files of code, and manual pages."""
    import gzip
    for f in sorted(f for top in folders for f in glob.glob(top + "/**", recursive=True)):
        if os.path.isfile(f) and f.endswith((".py", ".h", ".c", ".gz")) and not os.path.islink(f):
            yield (gzip.open if f.endswith(".gz") else open)(f, "rb").read().decode("utf-8", "replace")


def messages():
    """What programs say, in every language of this machine, each once."""
    import gettext, random
    files, seen = sorted(glob.glob("/usr/share/locale/*/LC_MESSAGES/*.mo")), set()
    random.Random(1).shuffle(files)
    for f in files:
        with open(f, "rb") as mo:
            said = [x for x in gettext.GNUTranslations(mo)._catalog.values() if x not in seen]
        seen.update(said)
        yield "\n".join(said)


def made():
    """Emoji, combining marks and everything else that kinds.jsonl is made of, and random bytes."""
    import random
    from tok_witness import PARTS, POOLS
    r = random.Random(2)
    while True:
        yield "".join(chr(r.choice(r.choice(POOLS))) for _ in range(1000)) + "".join(r.choices(PARTS, k=200))
        yield "".join(chr(r.choice(POOLS[4])) for _ in range(1000))
        yield r.randbytes(2000).decode("utf-8", "replace")


def rows(data, out, megabytes):
    """kinds.jsonl, and so much text of many kinds, none of it twice: of what is there of DATA and of this machine."""
    size, python = 0, os.path.dirname(os.__file__)
    with open(out, "w") as rows:
        rows.write(open("kinds.jsonl").read())
        for share, texts in ((0.5, unpacked(data + "/text/books.txt.zst")), (0.1, unpacked(*sorted(glob.glob(data + "/hh/*.zst")))),
                             (0.05, unpacked(*sorted(glob.glob(data + "/sft/*.zst")))), (0.1, sources(python, "/usr/include")), (0.15, messages()),
                             (0.05, sources("/usr/share/man/ja", "/usr/share/man/zh_CN", "/usr/share/man/zh_TW")), (0.05, made())):
            left = share * float(megabytes) * 1e6
            for text in texts:
                for i in range(0, len(text), 3000):
                    if left > 0:
                        rows.write(json.dumps({"text": text[i:i + 3000]}) + "\n")
                        left -= len(text[i:i + 3000].encode())
                if left <= 0:
                    break
            size += share * float(megabytes) * 1e6 - left
    print("%.1f MB" % (size / 1e6))


if __name__ == "__main__":
    sys.exit(bool({"cases": cases, "compare": compare, "rows": rows}[sys.argv[1]](*sys.argv[2:])))
