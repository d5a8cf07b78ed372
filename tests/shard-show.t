#!/usr/bin/env bash
# shard-show.t -- the conformance corpus: sound samples are sound to us and to others, broken files are
# refused for the right reason; listing, printing and comparing.
. "$(dirname "$0")/tap.sh"

S=$TOP/formats/samples
F=$TOP/formats
export S F PYTHONDONTWRITEBYTECODE=1
cp -r "$S" s

t  list           'shard-show s/answers.safetensors | grep -v "^@ xxh3"'
t  list-set       'shard-show s/set/ | grep -v "^@"'
t  list-stream    'shard-show <s/answers.sts | grep -v "^@ [^b]"'
t  rows           'shard-show --rows s/set'
t  check          'shard-show --check s/*.safetensors s/*.sts* s/set s/set/data-00000.safetensors'
ok 'a stream on stdin, compressed or not' \
   '[ "$(shard-show --check <s/answers.sts)" = "$(shard-show --check <s/answers.sts.zst)" ]'
ok 'streams joined by cat' 'cat s/answers.sts s/answers.sts.zst | shard-show --rows | wc -l | grep -qx 8'
ok 'zstd around a whole stream, cut into small frames' \
   'split -b 999 s/answers.sts part. && for p in part.*; do zstd -qc $p; done | shard-show --check | grep -q "4 rows"'
ok 'a long stream to cut' 'seq 1 40 | awk "{ for (i = 0; i < 900; i++) printf \"{\\\"text\\\":\\\"the sea, the salt and the river %d\\\"}\n\", i }" | shard-pack -q -t s/tokenizer.json --group-bytes 64k -o - >stream && [ $(stat -c %s stream) -gt 1000000 ] && shard-show --check - <stream && python3 $F/read.py stream'
x  'a cut stream is damage'   4 'stdin: cut off' 'head -c 100000 stream | shard-show --check -'
x  'to any mode'              4 'stdin: cut off' 'head -c 100000 stream | shard-show --rows >/dev/null'
x  'cut by one byte'          4 'stdin: cut off' 'head -c -1 stream | shard-show --check -'
x  'a cut stream of frames'   4 'stdin: .*(cut off|zstd)' 'zstd -qc stream | head -c 20000 | shard-show --check -'
x  'a pipe that ends early'   4 'stdin: (cut off|empty)' 'shard-pack -q -t nowhere s/text.jsonl | shard-show --check -'
ok 'a pipe with a name' 'mkfifo p; cat s/answers.sts >p & shard-show --check p | grep -q "4 rows"'

# Outside witnesses.
if python3 -c 'import safetensors.numpy' 2>/dev/null; then
    ok 'the safetensors package opens every sample' 'python3 -c "
import glob, safetensors.numpy as s
for f in glob.glob(\"s/*.safetensors\"):
    t = s.load_file(f)
    assert t[\"tokens\"].size == t[\"target\"].size == t[\"tokens.offsets\"][-1], f
    assert t[\"tokens\"].dtype == \"int32\" and t[\"weight\"].dtype == \"float32\", f"'
    ok 'what it writes is listed' 'python3 -c "
import numpy as n, safetensors.numpy as s
s.save_file({\"x\": n.ones((2,3), \"f4\"), \"y\": n.ones(3, \"i8\")}, \"hf.safetensors\", {\"format\": \"pt\"})" &&
        shard-show hf.safetensors | grep -Pq "^x\tF32\t\[2,3\]\t24$"'
    x  'but holds nothing to verify' 4 'hf.safetensors: .*without checksums' 'shard-show --check hf.safetensors'
else
    skip 'the safetensors package opens every sample' 'no safetensors package'
fi
ok 'the reader in Python agrees on rows and fingerprints' \
   'a="s/answers.safetensors s/pairs.safetensors s/text.safetensors s/answers.sts s/set"
    diff <(python3 $F/read.py $a) <(shard-show --check $a | sed "s/[0-9]* sequences\t//")'

# The broken corpus: one claim a file.
python3 "$F/broken/make.py" broken
while IFS=$'\t' read -r file why; do
    x "refuses $file" 4 "$why" "shard-show --check broken/$file"
done <broken/reasons.tsv
ok 'the corpus is there' '[ $(wc -l <broken/reasons.tsv) -gt 100 ]'
ok 'the reader in Python refuses all of it' 'python3 -c "
import glob, os, sys
sys.path.insert(0, os.environ[\"F\"])
import read
for f in glob.glob(\"broken/*.s*\"):
    try:
        read.read_blobs(open(f, \"rb\").read(), read.Data())
    except (read.Fault, ValueError, KeyError):
        continue
    sys.exit(f)"'

# Sets.
spoil() { rm -rf x; cp -r s/set x; "$@"; }
flip() { python3 -c 'import sys; f = open(sys.argv[1], "r+b"); f.seek(int(sys.argv[2]), 2 if sys.argv[2][0] == "-" else 0)
c = f.read(1)[0]; f.seek(-1, 1); f.write(bytes([c ^ 1]))' "$@"; }
export -f spoil flip
x  'a set: a flipped bit'     4 'x/data-00001.safetensors: tensor "target" is damaged' 'spoil flip x/data-00001.safetensors -1; shard-show --check x'
x  'a set: cut off'           4 'data-00000.safetensors: 4439 bytes, but there are 4000' 'spoil truncate -s 4000 x/data-00000.safetensors; shard-show --check x'
x  'a set: a file missing'    4 'data-00001.safetensors: missing' 'spoil rm x/data-00001.safetensors; shard-show --check x'
x  'a set: a file too many'   4 '3 shards, manifest.json names 2' 'spoil cp x/data-00001.safetensors x/data-00002.safetensors; shard-show --check x'
x  'a set: no manifest'       4 'x: no manifest.json' 'spoil rm x/manifest.json; shard-show --check x'
x  'a set: files swapped'     4 'data-00000' 'spoil cp x/data-00001.safetensors x/data-00000.safetensors; shard-show --check x'
x  'a set: another tokenizer' 4 'tokenizer.json' 'spoil flip x/tokenizer.json 20; shard-show --check x'
x  'a set: a manifest edited' 4 'manifest.json: in all: 5 rows' 'spoil sed -i "0,/\"rows\": 4/s//\"rows\": 5/" x/manifest.json; shard-show --check x'
x  'a set: a manifest cut'    4 'manifest.json' 'spoil truncate -s 100 x/manifest.json; shard-show --check x'
x  'a set: a hash edited'     4 'data-00000.safetensors: damaged: its SHA-256' 'spoil python3 -c "
import re; m = open(\"x/manifest.json\").read(); i = m.index(\"sha256\", m.index(\"data-00000\")) + 10
open(\"x/manifest.json\", \"w\").write(m[:i] + m[i:i+64][::-1] + m[i+64:])"; shard-show --check x'
x  'a set: a path in the manifest' 4 'not the name of a file here' 'spoil sed -i "s#\"tokenizer.json\"#\"../set/tokenizer.json\"#" x/manifest.json; shard-show --check x'

# Checkpoints.
. "$TOP/tests/tiny.sh"
moe-train -q -j 1 --model tiny.json --data set/ --batch 2 --steps 2 --save-every 1 -o run/
spoil_run() { rm -rf x; cp -r run x; "$@"; }
export -f spoil_run
ok 'a run: its last checkpoint is listed' 'shard-show run/ | grep -Pq "^model.norm.weight\tF32\t\[16\]\t64$"'
x  'a run: sound'             0 '^run/.sound$' 'shard-show --check run/'
x  'a run: a flipped bit'     4 'x/step-000002/model.*safetensors: tensor .* is damaged' 'spoil_run flip x/last/model-00001-of-00001.safetensors -9; shard-show --check x'
x  'a run: moments cut off'   4 'optim-00001-of-00001.safetensors: 5000 bytes' 'spoil_run truncate -s 5000 x/last/optim/optim-00001-of-00001.safetensors; shard-show --check x'
x  'a run: no manifest'       4 'no manifest.json' 'spoil_run rm x/last/manifest.json; shard-show --check x'
x  'a run: two steps differ'  1 'optim/.*model.norm.weight.*1[0-9] of 16 differ, by up to' 'shard-show --diff run/step-000001 run/step-000002'
ok 'a run: equal to itself'   'shard-show --diff run/ run/step-000002'

x  'a run: the model of another step' 4 'model-00001.*: tensor .* is not the one that manifest.json describes' 'spoil_run cp run/step-000001/model-00001-of-00001.safetensors x/last/; shard-show --check x'
x  'a run: a file too many'   4 'x/step-000002/model-9.safetensors: not in manifest.json' 'spoil_run cp s/answers.safetensors x/last/model-9.safetensors; shard-show --check x'
x  'a run: no configuration'  4 'config.json: missing' 'spoil_run rm x/last/config.json; shard-show --check x'
x  'a run: a manifest edited' 4 'manifest.json: damaged' 'spoil_run sed -i "s/\"F32\"/\"F64\"/" x/last/manifest.json; shard-show --check x'
x  'a run without a checkpoint' 4 'no manifest.json' 'mkdir -p early; shard-show --check early'
ok 'the reader in Python takes checkpoints' 'python3 $F/read.py run/last run/step-000001'
x  'and sees their damage'    4 'tensor .* is damaged' 'spoil_run flip x/last/optim/optim-00001-of-00001.safetensors -9; python3 $F/read.py x/last'
x  'and the wrong step'       4 'the slices are not' 'spoil_run cp run/step-000001/model-00001-of-00001.safetensors x/last/; python3 $F/read.py x/last'
ok 'and unpacked streams'     'zstd -dc s/answers.sts.zst | python3 $F/read.py -'
x  'and a cut one'            4 'cut off' 'head -c 5000 s/answers.sts | python3 $F/read.py -'

# Hugging Face folders against checkpoints.
ckpt-reshard -q --to-hf run/ -o hf/ && ckpt-reshard -q --files 3 run/ -o cut/ && ckpt-reshard -q --to-hf run/step-000001 -o hf1/
ok 'a Hugging Face folder is the run it came from' 'shard-show --diff run/ hf/ && shard-show --diff hf/ run/'
ok 'two Hugging Face folders, of other files beside the weights no word' \
   'cp -r hf hf.more && cp hf.more/model.safetensors hf.more/consolidated.safetensors && shard-show --diff hf.more hf/ && shard-show --diff run/ hf.more/'
ok 'and a checkpoint cut anew'        'shard-show --diff hf/ cut/'
ok 'how a checkpoint is cut does not matter' 'shard-show --diff run/ cut/ && shard-show --check cut/ && python3 $F/read.py cut'
x  'another step is named by tensor'  1 '^model.norm.weight.F32 .16..1[0-9] of 16 differ, by up to' 'shard-show --diff hf1/ run/'
ok 'without the optimizer of the one side' '! { shard-show --diff hf1/ run/ || true; } | grep optim'
x  'a tensor only one side has'       1 '^lm_head.weight.*only in run/?' 'cp -r hf less && python3 -c "
import json
f = open(\"less/model.safetensors\", \"rb\").read(); n = int.from_bytes(f[:8], \"little\"); h = json.loads(f[8:8+n])
del h[\"__metadata__\"]; last = max(h, key=lambda k: h[k][\"data_offsets\"][1]); t = h[\"lm_head.weight\"]
b, e = t[\"data_offsets\"]; del h[\"lm_head.weight\"]; data = f[8+n:]; data = data[:b] + data[e:]
for v in h.values(): v[\"data_offsets\"] = [x - (e - b) * (x >= e) for x in v[\"data_offsets\"]]
j = json.dumps(h).encode(); open(\"less/model.safetensors\", \"wb\").write(len(j).to_bytes(8, \"little\") + j + data)"
    shard-show --diff run less'

# Comparing.
ok 'equal data do not differ'   'cp -r s/set y; shard-show --diff s/set y'
t  diff                         'shard-pack -q -t s/tokenizer.json --seq 64 -o b.safetensors <(sed "s/0.125/0.25/; s/0.75/7/" s/answers.jsonl); shard-show --diff s/answers.safetensors b.safetensors'
t  diff-forms                   'shard-show --diff s/answers.safetensors s/text.safetensors'
x  'a damaged one is named'     4 'a: tensor "target" is damaged' 'cp s/answers.safetensors a; flip a -5; shard-show --diff s/answers.safetensors a'
x  'a stream is not compared'   1 'not a shard file' 'shard-show --diff s/answers.sts s/answers.sts'
x  'three are too many'         2 'two operands' 'shard-show --diff s/set s/set s/set'

# Misuse.
x  'two modes'        2 'exclude'    'shard-show --rows --check s/set'
x  'an unknown option' 2 'unknown|unrecognized' 'shard-show --lines'
x  'no such file'     1 'nowhere: No such file' 'shard-show nowhere'
x  'another tokenizer for rows' 1 'not the tokenizer' '(cat s/tokenizer.json; echo) >other.json; shard-show --rows -t other.json s/set'
x  'an empty folder'  1 'no safetensors' 'mkdir e; shard-show e'
x  'text'             4 'not safetensors' 'shard-show s/answers.jsonl'
x  'a full disk'      1 'No space'   'shard-show s/set >/dev/full'
ok '-o writes what stdout gets' 'shard-show -o list s/set && shard-show s/set | cmp - list'
finish
