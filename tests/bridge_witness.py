#!/usr/bin/env python3
"""bridge_witness.py -- documents in the formats of other programs, by their published layouts.

    bridge_witness.py megatron SET PREFIX      fails unless PREFIX.bin and .idx hold SET's documents
    bridge_witness.py megatron-core SET PREFIX the same as megatron.core reads it
    bridge_witness.py megatron-core-make PREFIX
        what megatron.core writes: tokens 40 to 49 as int32, 47 to 49 in a document of one sequence, 40 to
        46 in one of two
    bridge_witness.py megatron-make PREFIX TYPE N ...
        writes what a program might that keeps several sequences in a document: tokens 40 to 49 of
        TYPE (i4, i8, u1, ...) as sequences 47 to 49, 40 to 43, 44 to 46, in documents of N each
    bridge_witness.py tar SET TAR              as megatron, of a tar; needs Python's tarfile and numpy
    bridge_witness.py webdataset SET TAR       the same as the webdataset package decodes it
    bridge_witness.py webdataset-make TAR      what that package writes: tokens 40 to 49 as i8 in 3
                                               samples, the second with a target and a weight
"""
import io
import json
import struct
import sys
import tarfile

import numpy as np
from safetensors.numpy import load_file

TYPES = {1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 8: "u2"}


def documents(folder):
    x = load_file(folder + "/data-00000.safetensors")
    ends, out = x["tokens.offsets"], []
    for i, (a, b) in enumerate(zip(ends, ends[1:])):
        extra = {k: x[k][i].item() for k in ("weight", "reward", "pair", "margin", "ref_logp") if k in x}
        out.append((x["tokens"][a:b], x["target"][a:b], extra))
    return out


def megatron(folder, prefix):
    raw = open(prefix + ".idx", "rb").read()
    assert raw[:9] == b"MMIDIDX\0\0"
    version, code, n, entries = struct.unpack("<QBQQ", raw[9:34])
    assert version == 1
    length = np.frombuffer(raw, "<i4", n, 34)
    pointer = np.frombuffer(raw, "<i8", n, 34 + 4 * n)
    begins = np.frombuffer(raw, "<i8", entries, 34 + 12 * n)
    assert len(raw) == 34 + 12 * n + 8 * entries
    data = open(prefix + ".bin", "rb").read()
    type_ = np.dtype("<" + TYPES[code])
    want = documents(folder)
    assert len(want) == n == entries - 1 > 2 and begins.tolist() == list(range(n + 1))
    assert length.sum() * type_.itemsize == len(data)
    for (tokens, _, _), at, count in zip(want, pointer, length):
        assert np.array_equal(tokens, np.frombuffer(data, type_, count, at))


def megatron_make(prefix, type_, *sequences):
    tokens = np.arange(40, 50).astype("<" + type_)
    code = [k for k, v in TYPES.items() if v == type_][0]
    tokens.tofile(prefix + ".bin")
    size = tokens.itemsize
    with open(prefix + ".idx", "wb") as f:
        f.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, 3, 1 + len(sequences)))
        f.write(np.array([3, 4, 3], "<i4").tobytes())
        f.write(np.array([7 * size, 0, 4 * size], "<i8").tobytes())
        f.write(np.cumsum([0, *map(int, sequences)]).astype("<i8").tobytes())


def megatron_core(folder, prefix):
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    want = documents(folder)
    for mmap in True, False:
        got = IndexedDataset(prefix, mmap=mmap)
        assert len(got) == len(want) > 2 and got.document_indices.tolist() == list(range(len(want) + 1))
        assert all(np.array_equal(got[i], want[i][0]) for i in range(len(want)))


def megatron_core_make(prefix):
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
    b = IndexedDatasetBuilder(prefix + ".bin", dtype=np.int32)
    b.add_document(torch.arange(47, 50), [3])
    b.add_document(torch.arange(40, 47), [4, 3])
    b.finalize(prefix + ".idx")


def same(samples, folder):
    want = documents(folder)
    assert len(samples) == len(want) > 2
    for (tokens, target, extra), s in zip(want, samples):
        assert np.array_equal(s["tokens.npy"], tokens) and s["tokens.npy"].dtype == np.int32
        assert np.array_equal(s["target.npy"], target)
        assert {k: np.float32(v) for k, v in s["json"].items()} == \
               {k: np.float32(v) for k, v in extra.items()}, (s["json"], extra)


def tar(folder, path):
    samples, names = {}, []
    for m in (t := tarfile.open(path, "r:")):
        assert m.isfile() and m.mtime == m.uid == m.gid == 0 and not m.pax_headers
        key, _, kind = m.name.partition(".")
        data = t.extractfile(m).read()
        samples.setdefault(key, {})[kind] = json.loads(data) if kind == "json" else np.load(io.BytesIO(data))
        names.append(key)
    assert names == sorted(names)
    same(list(samples.values()), folder)


def webdataset(folder, path):
    import webdataset as wds
    same(list(wds.WebDataset(path, shardshuffle=False).decode()), folder)


def webdataset_make(path):
    import webdataset as wds
    with wds.TarWriter(path) as w:
        for i in range(3):
            sample = {"__key__": f"part/{i:03}", "tokens.npy": np.arange(40 + 3 * i, 43 + 3 * i + i // 2),
                      "note.txt": "not ours"}
            if i == 1:
                sample["target.npy"] = np.array([False, True, True])
                sample["json"] = {"weight": 0.5, "url": "somewhere"}
            w.write(sample)


def main():
    commands = {"megatron": megatron, "megatron-core": megatron_core, "tar": tar,
                "megatron-make": megatron_make, "megatron-core-make": megatron_core_make,
                "webdataset": webdataset, "webdataset-make": webdataset_make}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])


main()
