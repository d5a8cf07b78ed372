#!/usr/bin/env python3
"""Writes damaged shards: what a reader of shard.md must refuse, and why.

    formats/broken/make.py folder

Each case is a file; folder/reasons.tsv has a line for each: file, tab, a regular expression for
what shard-show --check says.  Plain Python, with its own writer, so that the corpus does not depend
on the programs it tests."""

import json
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from xxh3 import xxh3  # noqa: E402

# ---- a writer ----


def encode(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def frame(text, data, align=4096):
    """A blob of a header's text, padded, and data."""
    raw = text if isinstance(text, bytes) else text.encode()
    raw += b" " * (-(8 + len(raw)) % align)
    return struct.pack("<Q", len(raw)) + raw + data


def seal(text, data, align=4096):
    """As frame, with the header's own hash put where sixteen zeros stand for it."""
    blob = frame(text, b"", align)
    key = b'"xxh3.header":"'
    at = blob.index(key) + len(key)
    return blob[:at] + xxh3(blob[8:]).encode() + blob[at + 16:] + data


def entries(tensors):
    """[(name, dtype, shape, bytes)] as header entries in that order, and the data."""
    top, data = {}, b""
    for name, dtype, shape, raw in tensors:
        begin = len(data)
        data += raw
        top[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, len(data)]}
    return top, data


def profile(tensors, meta=None, align=4096):
    """A blob of the profile: tensors in the order given, all checksums."""
    top, data = entries(tensors)
    meta = dict(meta or {}, **{f"xxh3.{t[0]}": xxh3(t[3]) for t in tensors})
    meta["xxh3.header"] = "0" * 16
    return seal(encode({"__metadata__": dict(sorted(meta.items())), **top}), data, align)


def plain(tensors, more=""):
    """A file as other programs write them; more: text put before the last brace."""
    top, data = entries(tensors)
    return frame(encode(top)[:-1] + more + "}", data, 8)


def i64(*v):
    return struct.pack(f"<{len(v)}q", *v)


def i32(*v):
    return struct.pack(f"<{len(v)}i", *v)


def f32(*v):
    return struct.pack(f"<{len(v)}f", *v)


SHARED = {"schema": "moeutils.rows", "version": "1", "seq": "8", "tokenizer": "0" * 16,
          "template": "plain", "bos": "none", "eos": "none", "columns": "weight"}
COLUMNS = {"pack": ("I64", i64(0, 2)), "tokens.offsets": ("I64", i64(0, 3, 7, 12)),
           "tokens": ("I32", i32(*range(12))), "weight": ("F32", f32(1, 1, 2)),
           "target": ("U8", bytes([0, 1] * 6))}
WIDTH = {"I64": 8, "I32": 4, "F32": 4, "F64": 8, "U8": 1}


def rows(meta=None, align=4096, **columns):
    """A row group of three documents in two sequences, with columns replaced (None: left out)."""
    use = {**COLUMNS, **{k.replace("tokens_", "tokens."): v for k, v in columns.items()}}
    tensors = [(k, v[0], [len(v[1]) // WIDTH[v[0]]], v[1]) for k, v in use.items() if v]
    tensors.sort(key=lambda t: (-WIDTH[t[1]], t[0]))
    return profile(tensors, {**SHARED, **(meta or {})}, align)


def header_hash(blob):
    at = blob.index(b'"xxh3.header":"') + 15
    return blob[at:at + 16].decode()


def stream(n=2, **end):
    """Blobs of a segment, the end blob last; end: members of it replaced."""
    out, chain = [], "0" * 16
    for k in range(n):
        out.append(rows({"blob": str(k)}, 64))
        chain = xxh3((chain + header_hash(out[-1])).encode())
    meta = {"schema": "moeutils.end", "version": "1", "blob": str(n), "blobs": str(n),
            "rows": str(3 * n), "tokens": str(12 * n), "sequences": str(2 * n), "chain": chain}
    return out + [profile([], {**meta, **end}, 64)]


def flip(blob, at, bit=4):
    return blob[:at] + bytes([blob[at] ^ bit]) + blob[at + 1:]


def with_file(name, data, **meta):
    """A row group with a file that travels with it."""
    tensors = [(k, *v[:1], [len(v[1]) // WIDTH[v[0]]], v[1]) for k, v in COLUMNS.items()]
    tensors.append(("file." + name, "U8", [len(data)], data))
    tensors.sort(key=lambda t: (-WIDTH[t[1]], t[0]))
    return profile(tensors, {**SHARED, **meta})


def zstd(data, last=True):
    """A zstd frame of raw blocks."""
    out = struct.pack("<IBB", 0xFD2FB528, 0, 0x58)  # no sizes, no checksum, a window of 2 MiB
    for at in range(0, len(data), 1 << 16):
        part = data[at:at + (1 << 16)]
        final = last and at + len(part) == len(data)
        out += (final | len(part) << 3).to_bytes(3, "little") + part
    return out


# ---- the cases ----

A = ("a", "F32", [2], f32(1, 2))
B = ("b", "U8", [3], b"xyz")
GOOD, STREAM = rows(), stream()
END = json.loads(STREAM[2][8:].decode())["__metadata__"]
ENTRY = '"%s":{"dtype":"%s","shape":%s,"data_offsets":%s}'


def one(dtype="F32", shape="[2]", offsets="[0,8]", name="a", n=8):
    return frame("{" + ENTRY % (name, dtype, shape, offsets) + "}", bytes(n), 8)


def two(first, second, n=8):
    a, b = ENTRY % ("a", "U8", "[4]", first), ENTRY % ("b", "U8", "[4]", second)
    return frame("{" + a + "," + b + "}", bytes(n), 8)


CASES = {
    # the container
    "empty": (b"", "0 bytes are no safetensors"),
    "length-only": (GOOD[:8], "cut off: a header of"),
    "cut-in-length": (GOOD[:5], "5 bytes are no safetensors"),
    "cut-in-header": (GOOD[:400], "cut off: a header of"),
    "cut-in-data": (GOOD[:-1], "cut off: [0-9]+ bytes of data, the header promises"),
    "trailing-byte": (GOOD + b"\0", "1 trailing bytes"),
    "two-files": (GOOD + GOOD, "trailing bytes"),
    "header-too-long": (struct.pack("<Q", 100000001) + b"{}" + b" " * 100, "over the limit"),
    "header-huge": (struct.pack("<Q", 1 << 63) + b"{}", "over the limit"),
    "header-of-nothing": (struct.pack("<Q", 0), "does not begin with {"),
    "not-json": (frame('{"a":', b"", 8), "does not end with }"),
    "trailing-comma": (frame("{" + ENTRY % ("a", "U8", "[1]", "[0,1]") + ",}", b"x", 8),
                       "not JSON"),
    "byte-order-mark": (frame(b"\xef\xbb\xbf{}", b"", 8), "does not begin with {"),
    "leading-space": (frame(b" {}", b"", 8), "does not begin with {"),
    "nul-padding": (struct.pack("<Q", 8) + b"{}" + bytes(6), "does not end with } and spaces"),
    "bad-utf8": (frame(b'{"\xff":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x", 8),
                 "not JSON"),
    "overlong-utf8": (frame(b'{"__metadata__":{"a":"\xc0\xaf"}}', b"", 8), "not JSON"),
    "lone-surrogate": (frame(b'{"__metadata__":{"a":"\\ud800"}}', b"", 8), "not JSON"),
    # two readers, two files
    "duplicate-tensor": (plain([A], "," + ENTRY % ("a", "I32", "[2]", "[0,8]")), '"a" twice'),
    "duplicate-metadata": (frame('{"__metadata__":{},"__metadata__":{}}', b"", 8),
                           '"__metadata__" twice'),
    "duplicate-metadata-key": (frame('{"__metadata__":{"k":"1","k":"2"}}', b"", 8), '"k" twice'),
    "duplicate-escaped": (frame('{"__metadata__":{"k":"1","\\u006b":"2"}}', b"", 8), '"k" twice'),
    "duplicate-member": (frame('{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}',
                               b"x", 8), '"dtype" twice'),
    "metadata-null": (frame('{"__metadata__":null}', b"", 8), "null, true or false"),
    "metadata-number": (frame('{"__metadata__":{"k":1}}', b"", 8), '"k" is not a string'),
    "metadata-list": (frame('{"__metadata__":[]}', b"", 8), "__metadata__ is not an object"),
    "metadata-nul": (frame('{"__metadata__":{"k":"\\u0000"}}', b"", 8), '"k" has a NUL'),
    "extra-member": (frame('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"crc":"x"}}',
                           b"x", 8), '"a" has fields besides'),
    "tensor-as-list": (frame('{"a":["U8",[1],[0,1]]}', b"x", 8), '"a" is not an object'),
    "tensor-without-shape": (frame('{"a":{"dtype":"U8","data_offsets":[0,1]}}', b"x", 8),
                             '"a" lacks'),
    "empty-name": (one(name=""), "name is empty"),
    "long-name": (one(name="n" * 513), "513 bytes is longer than 512"),
    "control-in-name": (one(name="a\\n"), "control character"),
    # types, shapes, places
    "unknown-dtype": (one("F31"), '"a": unknown dtype F31'),
    "lower-case-dtype": (one("f32"), "unknown dtype f32"),
    "negative-shape": (one(shape="[-2]"), "negative number"),
    "fraction-in-shape": (one(shape="[2.0]"), "fraction or an exponent"),
    "exponent-in-shape": (one(shape="[2e0]"), "fraction or an exponent"),
    "text-in-shape": (one(shape='["2"]'), "not a list of counts"),
    "too-many-dimensions": (one(shape="[2" + ",1" * 8 + "]"), "more than 8 dimensions"),
    "shape-overflow": (one(shape="[4294967296,4294967296]"), "overflows"),
    "wrong-size": (one(shape="[3]"), "12 bytes by its shape, 8 by its offsets"),
    "three-offsets": (one(offsets="[0,4,8]"), "not a list of two"),
    "backwards": (one(offsets="[8,0]"), "backwards"),
    "hole": (two("[0,4]", "[5,9]", 9), "hole: bytes 4 to 5"),
    "hole-at-start": (two("[1,5]", "[5,9]", 9), "hole: bytes 0 to 1"),
    "overlap": (two("[0,4]", "[2,6]", 6), "overlap"),
    "shared-bytes": (two("[0,4]", "[0,4]", 4), "overlap"),
    "empty-inside": (frame("{" + ENTRY % ("a", "U8", "[4]", "[0,4]") + "," +
                           ENTRY % ("b", "U8", "[0]", "[2,2]") + "}", bytes(4), 8), "overlap"),
    # the profile
    "misaligned": (profile([A], align=8), "data begin at byte [0-9]+, not at a multiple of 4096"),
    "out-of-order": (profile([B, A]), "not in its place"),
    "out-of-order-by-name": (profile([("b", *A[1:]), ("a", *A[1:])]), "not in its place"),
    "one-without-checksum": (seal(encode({"__metadata__": {"xxh3.header": "0" * 16},
                                          **entries([A])[0]}), A[3]), '"a" has no checksum'),
    "checksum-of-nothing": (profile([A], {"xxh3.b": "0" * 16}), "a checksum names no tensor"),
    "no-header-checksum": (frame(encode({"__metadata__": {"xxh3.a": xxh3(A[3])},
                                         **entries([A])[0]}), A[3]), "no checksum xxh3.header"),
    "upper-case-checksum": (seal(encode({"__metadata__": {"xxh3.a": xxh3(A[3]).upper(),
                                                          "xxh3.header": "0" * 16},
                                         **entries([A])[0]}), A[3]), '"a" has no checksum'),
    "flip-in-length": (flip(GOOD, 1), "header|safetensors|cut off"),
    "flip-in-header": (flip(GOOD, 60), "header"),
    "flip-in-padding": (flip(GOOD, 4000, 0x20), "header"),
    "flip-in-checksum": (flip(GOOD, GOOD.index(b'"xxh3.tokens":"') + 16, 1), "header is damaged"),
    "flip-in-first-tensor": (flip(GOOD, 4096), 'tensor "pack" is damaged'),
    "flip-in-last-byte": (flip(GOOD, len(GOOD) - 1), 'tensor "target" is damaged'),
    "shape-swapped": (GOOD.replace(b'"shape":[12]', b'"shape":[21]'), "bytes by its shape"),
    # rows
    "other-schema-version": (rows({"version": "2"}), "version 2 of moeutils.rows"),
    "no-seq": (rows({"seq": "many"}), '"seq" is many'),
    "no-target": (rows(target=None), '"target" is missing'),
    "tokens-as-floats": (rows(tokens=("F32", f32(*range(12)))), '"tokens" is not I32'),
    "short-target": (rows(target=("U8", bytes(11))), '"target" has 11 elements, not 12'),
    "offsets-short": (rows(tokens_offsets=("I64", i64(0, 3, 7, 11))), "offsets do not run"),
    "offsets-backwards": (rows(tokens_offsets=("I64", i64(0, 7, 3, 12))), "row 1 has no tokens"),
    "pack-beyond": (rows({"seq": "12"}, pack=("I64", i64(0, 3))), "packed sequence 1 has no rows"),
    "pack-from-one": (rows(pack=("I64", i64(1, 2))), "does not begin at row 0"),
    "pack-too-long": (rows(pack=("I64", i64(0))), "has 12 tokens, over 8"),
    "negative-token": (rows(tokens=("I32", i32(-1, *range(11)))), "a token is negative"),
    "target-two": (rows(target=("U8", bytes([2] * 12))), "neither 0 nor 1"),
    "weight-nan": (rows(weight=("F32", f32(1, float("nan"), 1))), "row 1: weight"),
    "weight-negative": (rows(weight=("F32", f32(1, 1, -1))), "row 2: weight"),
    "pair-alone": (rows({"columns": "weight,pair"}, pair=("I64", i64(0, 1, 1))),
                   "row 0: the other row"),
    "pair-split": (rows({"columns": "weight,pair"}, pair=("I64", i64(-1, 1, 1))),
                   "row 1: the other row"),
    "margin-nan": (rows({"columns": "weight,margin"}, margin=("F32", f32(1, float("inf"), 1))),
                   "row 1: margin is not finite"),
    "ref-logp-nan": (rows({"columns": "weight,ref_logp"},
                          **{"ref_logp": ("F32", f32(1, 1, float("nan")))}),
                     "row 2: ref_logp is not finite"),
    "ref-logp-missing": (rows({"columns": "weight,ref_logp"}), '"ref_logp" is missing'),
    "margin-as-double": (rows({"columns": "weight,margin"}, margin=("F64", bytes(24))),
                         '"margin" is not F32'),
    "margin-short": (rows({"columns": "weight,margin"}, margin=("F32", f32(1, 1))),
                     '"margin" has 2 elements, not 3'),
    "reward-unannounced": (rows(reward=("F32", f32(1, 2, 3))), '"reward" is not announced'),
    # streams
    "stream-without-end.sts": (b"".join(STREAM[:-1]), "cut off after blob 1: no end blob"),
    "stream-cut-after-first.sts": (STREAM[0], "cut off after blob 0: no end blob"),
    "stream-cut-in-blob.sts": (b"".join(STREAM)[:-700], "cut off"),
    "stream-cut-in-end.sts": (b"".join(STREAM)[:-1], "cut off"),
    "stream-lost-first.sts": (b"".join(STREAM[1:]), "numbered 1"),
    "stream-lost-second.sts": (STREAM[0] + STREAM[2], "numbered 2"),
    "stream-twice.sts": (STREAM[0] + STREAM[0] + STREAM[2], "numbered 0"),
    "stream-second-uncut.sts": (b"".join(STREAM) + STREAM[0], "cut off after blob 0: no end blob"),
    "stream-trailing.sts": (b"".join(STREAM) + b"x", "cut off inside a header"),
    "stream-file-inside.sts": (STREAM[0] + GOOD, "a file inside a stream"),
    "stream-wrong-rows.sts": (b"".join(stream(rows="7")), "counts 7 rows, the stream has 6"),
    "stream-wrong-chain.sts": (b"".join(stream(chain="0" * 16)), "chained hash"),
    "stream-of-nothing.sts": (profile([], {"schema": "moeutils.end", "version": "1", "blob": "1",
                                           "blobs": "1", "rows": "0", "tokens": "0",
                                           "sequences": "0", "chain": "0" * 16}, 64), "numbered 1"),
    "stream-end-with-tensor.sts": (STREAM[0] + STREAM[1] + profile(
        [A], {k: v for k, v in END.items()}, 64), "the end blob holds tensors"),
    "stream-other-version.sts": (rows({"blob": "0", "version": "2"}, 64), "version 2"),
    "frame-cut.sts.zst": (zstd(b"".join(STREAM))[:-40], "cut off inside a zstd frame"),
    "frame-not-ended.sts.zst": (zstd(b"".join(STREAM), last=False), "cut off inside a zstd frame"),
    "frame-without-end-blob.sts.zst": (b"".join(map(zstd, STREAM[:-1])),
                                       "cut off after blob 1: no end blob"),
    "frame-reserved-block.sts.zst": (zstd(GOOD)[:6] + b"\xff\xff\xff" + bytes(99), "zstd"),
    "frame-flip.sts.zst": (flip(zstd(b"".join(STREAM)), 600), "blob 0"),
    "frame-then-garbage.sts.zst": (zstd(b"".join(STREAM)) + b"garbage!", "stream|header|cut off"),
    # what travels along
    "other-tokenizer": (with_file("tokenizer.json", b"{}"), "not the tokenizer that made the rows"),
    "stream-mixed.sts": (b"".join(stream(1)) + rows({"blob": "0", "seq": "9"}, 64),
                         "seq of row group 1"),
}


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "reasons.tsv"), "w") as reasons:
        for name, (data, reason) in CASES.items():
            name += "" if "." in name else ".safetensors"
            with open(os.path.join(folder, name), "wb") as f:
                f.write(data)
            print(name, reason, sep="\t", file=reasons)


if __name__ == "__main__":
    main()
