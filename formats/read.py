#!/usr/bin/env python3
"""A reader of shard.md in plain Python, written from that page.

    formats/read.py file, stream, set or checkpoint ...

Verifies each and prints rows, tokens and the fingerprint; ends with status 4 at the first fault.
"-" is standard input, for streams that zstdcat unpacked."""

import hashlib
import itertools
import json
import math
import os
import struct
import sys

from xxh3 import xxh3

WIDTH = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2,
         "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}
COLUMNS = {"tokens": "I32", "tokens.offsets": "I64", "target": "U8", "weight": "F32",
           "reward": "F32", "pair": "I64", "pack": "I64", "margin": "F32", "ref_logp": "F32"}
VALUES = {"reward", "margin", "ref_logp"}  # one finite number a row
OPTIONAL = VALUES | {"pair"}
SHARED = "seq", "tokenizer", "template", "bos", "eos", "columns"


class Fault(Exception):
    pass


def need(holds, why):
    if not holds:
        raise Fault(why)


def members(pairs):
    keys = [k for k, _ in pairs]
    need(len(keys) == len(set(keys)), "a key stands twice")
    return dict(pairs)


def refuse(text):
    raise Fault(f"{text} in a header")


def count(v):
    need(type(v) is int and v >= 0, "a number is no count")
    return v


def parse_int(text):
    need(text[0] != "-", "a negative number")
    return int(text)


def name_check(s, most):
    need(0 < len(s.encode()) <= most, "a name is empty or too long")
    need(all(c >= " " and c != "\x7f" for c in s), "a name has a control character")


def header(raw):
    """name -> (dtype, shape, begin, end), and the metadata."""
    need(raw[:1] == b"{", "the header does not begin with {")
    need(raw.rstrip(b" ")[-1:] == b"}", "the header does not end with } and spaces")
    try:
        top = json.loads(raw.decode("utf-8"), object_pairs_hook=members, parse_float=refuse,
                         parse_constant=refuse, parse_int=parse_int)
    except ValueError as e:
        raise Fault(f"the header is not JSON: {e}") from e
    meta = top.pop("__metadata__", {})
    need(type(meta) is dict and all(type(v) is str for v in meta.values()), "metadata no strings")
    for k, v in meta.items():
        name_check(k, 517)
        need(b"\0" not in v.encode(), "a NUL in metadata")
    tensors = {}
    for name, t in top.items():
        name_check(name, 512)
        need(type(t) is dict and set(t) == {"dtype", "shape", "data_offsets"}, "a tensor's members")
        need(t["dtype"] in WIDTH, "an unknown dtype")
        need(type(t["shape"]) is list and len(t["shape"]) <= 8, "a shape")
        begin, end = map(count, t["data_offsets"])
        size = WIDTH[t["dtype"]] * math.prod(map(count, t["shape"]))
        need(size < 1 << 63 and end - begin == size, "a size is not that of the offsets")
        tensors[name] = t["dtype"], t["shape"], begin, end
    at = 0
    for _, _, begin, end in sorted(tensors.values(), key=lambda t: t[2:]):
        need(begin == at, "a hole or an overlap")
        at = end
    return tensors, meta, at


def profile(raw, tensors, meta):
    align = 64 if "blob" in meta else 4096
    own = meta.get("xxh3.header", "")
    at = raw.find(b'"xxh3.header":"') + 15
    need(at > 14 and len(own) == 16, "no checksum of the header")
    need(xxh3(raw[:at] + b"0" * 16 + raw[at + 16:]) == own, "the header is damaged")
    need((8 + len(raw)) % align == 0, "data are not aligned")
    need("header" not in tensors, "a reserved name")
    hashes = {k[5:] for k in meta if k.startswith("xxh3.")}
    need(hashes == {"header", *tensors}, "checksums are not those of the tensors")
    order = sorted(tensors, key=lambda n: (-WIDTH[tensors[n][0]], n.encode()))
    ends = itertools.accumulate((tensors[n][3] - tensors[n][2] for n in order), initial=0)
    need(all(tensors[n][2] == e for n, e in zip(order, ends)), "tensors are out of order")


def blobs(data):
    """Yields (tensors as name -> (dtype, bytes), metadata)."""
    at = 0
    while at < len(data):
        need(len(data) - at >= 8, "cut off inside a length")
        n = int.from_bytes(data[at:at + 8], "little")
        need(n <= 100000000, "a header over the limit")
        raw = data[at + 8:at + 8 + n]
        need(len(raw) == n, "cut off inside a header")
        tensors, meta, size = header(raw)
        claims = meta.get("schema", "").startswith("moeutils.")
        claims = claims or any(k.startswith("xxh3.") for k in meta)
        if claims:
            profile(raw, tensors, meta)
        if "blob" in meta:
            need(n <= 16 << 20 and len(tensors) <= 65536, "too large for a stream")
        begin = at + 8 + n
        need(len(data) - begin >= size, "cut off inside the data")
        bytes_of = {k: (t, data[begin + b:begin + e]) for k, (t, _, b, e) in tensors.items()}
        for k, (_, v) in bytes_of.items():
            need(f"xxh3.{k}" not in meta or xxh3(v) == meta[f"xxh3.{k}"], f"tensor {k} is damaged")
        at = begin + size
        if not claims or "blob" not in meta:
            need(at == len(data), "trailing bytes")
        yield bytes_of, meta


def numbers(kind, raw):
    letter = {"I32": "i", "I64": "q", "U8": "B", "F32": "f"}[kind]
    return struct.unpack(f"<{len(raw) // WIDTH[kind]}{letter}", raw)


class Data:
    """Row groups one after the other: their sums, and the fingerprint."""

    def __init__(self):
        self.shared, self.rows, self.tokens, self.sequences = None, 0, 0, 0
        self.column = {k: b"" for k in COLUMNS}

    def add(self, tensors, meta):
        need(meta.get("schema") == "moeutils.rows" and meta.get("version") == "1", "no row group")
        shared = [meta.get(k) for k in SHARED]
        need(None not in shared and self.shared in (None, shared), "row groups disagree")
        self.shared = shared
        wanted = set(COLUMNS) - OPTIONAL | set(meta["columns"].split(","))
        need(wanted == set(COLUMNS) & set(tensors), "columns are missing or too many")
        need(all(tensors[k][0] == COLUMNS[k] for k in wanted), "a column has another type")
        v = {k: numbers(*tensors[k]) for k in wanted}
        rows, seq, offset, pack = len(v["weight"]), int(meta["seq"]), v["tokens.offsets"], v["pack"]
        need(len(v["target"]) == len(v["tokens"]) and len(offset) == rows + 1, "lengths")
        need(all(len(v[k]) == rows for k in wanted & OPTIONAL), "lengths")
        need(offset[0] == 0 and offset[-1] == len(v["tokens"]), "offsets")
        need(all(a < b for a, b in zip(offset, offset[1:])), "a row has no tokens")
        need(bool(pack) == bool(rows) and pack[:1] in ((), (0,)), "packs")
        for a, b in zip(pack, (*pack[1:], rows)):
            need(a < b <= rows and offset[b] - offset[a] <= seq, "a packed sequence is too long")
            ids = [k for k in v.get("pair", ())[a:b] if k != -1]
            beside = all(x == y >= 0 for x, y in zip(ids[::2], ids[1::2]))
            need(beside and len(ids) % 2 == 0, "a pair")
        need(all(t >= 0 for t in v["tokens"]) and max(v["target"], default=0) <= 1, "values")
        need(all(math.isfinite(w) and w >= 0 for w in v["weight"]), "a weight")
        need(all(math.isfinite(x) for k in wanted & VALUES for x in v[k]), "a value is not finite")
        own = tensors.get("file.tokenizer.json")
        need(own is None or xxh3(own[1]) == meta["tokenizer"], "another tokenizer")
        for k in wanted:
            raw = tensors[k][1]
            if k == "tokens.offsets":
                raw = struct.pack(f"<{rows}q", *(x + self.tokens for x in offset[1:]))
            if k == "pack":
                raw = struct.pack(f"<{len(pack)}q", *(x + self.rows for x in pack))
            self.column[k] += raw
        self.rows += rows
        self.tokens += len(v["tokens"])
        self.sequences += len(pack)

    def sums(self):
        return self.rows, self.tokens, self.sequences

    def fingerprint(self):
        seq, tokenizer, columns = self.shared[0], self.shared[1], self.shared[5]
        text = f"moeutils.rows 1\nseq {seq}\ntokenizer {tokenizer}\ncolumns {columns}\n"
        late = {"margin", "ref_logp"} - set(columns.split(","))
        lines = (f"{k} {xxh3(v)}\n" for k, v in self.column.items() if k not in late)
        return xxh3((text + "".join(lines)).encode())


def read_blobs(data, into):
    """A file or a stream."""
    need(data, "empty")
    number, inside = 0, False
    for tensors, meta in blobs(data):
        if "blob" not in meta:
            need(not inside and number == 0, "a file inside a stream")
            if meta.get("schema") == "moeutils.rows":
                into.add(tensors, meta)
            return
        if not inside:
            inside, number, chain, start = True, 0, "0" * 16, into.sums()
        need(meta["blob"] == str(number), "a blob is missing")
        if meta.get("schema") == "moeutils.end":
            sums = [a - b for a, b in zip(into.sums(), start)]
            said = [meta.get(k) for k in ("blobs", "rows", "tokens", "sequences")]
            need(said == [str(n) for n in (number, *sums)], "the end blob's sums")
            need(meta.get("chain") == chain and not tensors, "the end blob's chain")
            inside = False
            continue
        into.add(tensors, meta)
        chain = xxh3((chain + meta["xxh3.header"]).encode())
        number += 1
    need(not inside, "no end blob: cut off")


def read_checkpoint(folder, manifest, text):
    """Files are whole, and are those of the manifest: ckpt.md."""
    if "xxh3" in manifest:
        tail = f'"xxh3":"{manifest["xxh3"]}"}}\n'.encode()
        need(text.endswith(tail), "the manifest's hash is not its last member")
        blank = text[:-len(tail)] + b'"xxh3":"' + b"0" * 16 + b'"}\n'
        need(xxh3(blank) == manifest["xxh3"], "the manifest is damaged")
    for name, said in manifest.get("hashes", {}).items():
        with open(os.path.join(folder, name), "rb") as f:
            need(xxh3(f.read()) == said, f"{name} is not the model's")
    hashes = {}
    for name, size in manifest["files"].items():
        with open(os.path.join(folder, name), "rb") as f:
            data = f.read()
        need(len(data) == size, "a size is not the manifest's")
        for tensors, _ in blobs(data):
            hashes.update({(name, k): xxh3(v) for k, (_, v) in tensors.items()})
    sets = [manifest["model"], *manifest["optimizer"].values()]
    slices = [s for tensors in sets for t in tensors.values() for s in t["slices"]]
    named = {(s["file"], s["tensor"]): s["xxh3"] for s in slices}
    need(named == hashes, "the slices are not the manifest's")


def read_folder(folder, into):
    with open(os.path.join(folder, "manifest.json"), "rb") as f:
        text = f.read()
    manifest = json.loads(text, object_pairs_hook=members)
    if manifest["schema"] == "moeutils.ckpt":
        read_checkpoint(folder, manifest, text)
        return
    need(manifest["schema"] == "moeutils.set" and manifest["version"] == 1, "not a set")
    for entry in manifest["files"]:
        with open(os.path.join(folder, entry["name"]), "rb") as f:
            data = f.read()
        need(len(data) == entry["bytes"], "a size is not the manifest's")
        need(hashlib.sha256(data).hexdigest() == entry["sha256"], "a hash is not the manifest's")
        if entry["name"] == "tokenizer.json":
            need(xxh3(data) == manifest["tokenizer"], "another tokenizer")
        if "rows" in entry:
            read_blobs(data, into)
    need(into.sums() == tuple(manifest[k] for k in ("rows", "tokens", "sequences")), "sums")
    need(into.fingerprint() == manifest["fingerprint"], "the fingerprint")


def main():
    for path in sys.argv[1:]:
        data = Data()
        try:
            if path == "-":
                read_blobs(sys.stdin.buffer.read(), data)
            elif os.path.isdir(path):
                read_folder(path, data)
            else:
                with open(path, "rb") as f:
                    read_blobs(f.read(), data)
        except (Fault, ValueError, KeyError) as e:
            print(f"{path}: {e}", file=sys.stderr)
            return 4
        print(path, "sound", sep="\t", end="")
        if data.shared:
            print(f"\t{data.rows} rows\t{data.tokens} tokens\t{data.fingerprint()}", end="")
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
