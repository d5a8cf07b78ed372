"""The peers of bench/tok.sh: the `tokenizers` and `tiktoken` packages.

  corpus NAME FOLDER...       prints the text in the folders' files, each once, in UTF-8
  tokenizers FILE TEXT IDS    seconds to encode TEXT; IDS are ours: whether they are the same
  tiktoken FILE TEXT IDS
"""
import gzip, os, sys, time

os.environ["TOKENIZERS_PARALLELISM"] = "false"


def corpus(limit, *folders):
    seen, room = set(), int(limit)
    for top in folders:
        for folder, names, files in os.walk(top):
            names.sort()
            for name in sorted(files):
                path = os.path.join(folder, name)
                if os.path.islink(path) or not name.endswith((".py", ".h", ".c", ".pl", ".pm", ".gz")):
                    continue
                with (gzip.open if name.endswith(".gz") else open)(path, "rb") as f:
                    data = f.read()
                try:
                    data.decode()
                except UnicodeDecodeError:
                    continue
                if hash(data) in seen or room < len(data):
                    continue
                seen.add(hash(data))
                room -= len(data)
                sys.stdout.buffer.write(data)


def cuts(data, least):
    at = 0
    while at < len(data):
        cut = data.find(b"\n", at + least) if len(data) - at > least else -1
        end = cut + 1 if cut >= 0 else len(data)
        yield data[at:end]
        at = end


def documents(path):
    """As ours: parts of 256 KiB, in them documents of 4."""
    for part in cuts(open(path, "rb").read(), 256 << 10):
        yield from (d.decode(errors="replace") for d in cuts(part, 4096))


def load(peer, file):
    if peer == "tokenizers":
        from tokenizers import Tokenizer
        t = Tokenizer.from_file(file)
        t.encode_special_tokens = True
        return lambda docs: [e.ids for e in t.encode_batch_fast(docs, add_special_tokens=False)]
    import base64, tiktoken
    ranks = {base64.b64decode(a): int(b) for a, b in (line.split() for line in open(file, "rb") if line.strip())}
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+")
    t = tiktoken.Encoding("it", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return lambda docs: [t.encode_ordinary(d) for d in docs]


def main(peer, file, text, ids):
    import array
    encode, docs = load(peer, file), list(documents(text))
    start = time.perf_counter()
    got = encode(docs)
    took = time.perf_counter() - start
    ours, flat = array.array("i"), array.array("i")
    ours.frombytes(open(ids, "rb").read())
    for doc in got:
        flat.extend(doc)
    print("%.4f" % took, "same" if ours == flat else "OTHER")


if sys.argv[1] == "corpus":
    corpus(*sys.argv[2:])
else:
    main(*sys.argv[1:])
