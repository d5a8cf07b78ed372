#!/usr/bin/env bash
# shard-pack.t -- rows become the documents they should, packing loses none, and what cannot be packed
# is named.
. "$(dirname "$0")/tap.sh"

S=$TOP/formats/samples
export S T=$S/tokenizer.json
rows() { shard-show --rows "$1"; }
column() { python3 -c 'import json, sys
for l in sys.stdin: print(*(json.dumps(json.loads(l).get(k), ensure_ascii=False) for k in sys.argv[1:]), sep="\t")' "$@"; }
same() { cmp "$S/$1" "$1"; }
export -f rows column same

# What a row becomes.
t  plain     'shard-pack -t $T --seq 64 $S/answers.jsonl | rows - | column sequence weight reward text learnt'
t  chat      'shard-pack -t $T --seq 96 --template chat $S/answers.jsonl | rows - | column sequence text learnt'
t  pairs     'shard-pack -t $T --seq 96 --template chat $S/pairs.jsonl | rows - | column sequence pair text learnt'
t  text      'shard-pack -t $T --seq 64 $S/text.jsonl | rows - | column sequence text learnt'
t  tag       'echo "{\"prompt\":\"a\",\"response\":\"b\",\"tag\":\" good:\"}" | shard-pack -t $T | rows - | column text learnt'
t  rewards-of-pairs 'sed "s/}\$/,\"reward_chosen\":2,\"reward_rejected\":-1}/" $S/pairs.jsonl | shard-pack -t $T |
    rows - | column pair reward weight'
t  margins   'sed "s/}\$/,\"margin\":0.5,\"ref_logp_chosen\":-3,\"ref_logp_rejected\":-4.25}/" $S/pairs.jsonl | shard-pack -t $T --seq 96 -o m/ &&
    rows m/ | column pair margin ref_logp; shard-show m/ | grep "columns\|F32"'
ok 'the reader in Python agrees on margins' '[ "$(python3 $TOP/formats/read.py m | cut -f 5)" = "$(shard-show --check m | cut -f 6)" ]'

# Where it goes.
ok 'the samples come out byte for byte' \
   '$S/make . && same answers.safetensors && same pairs.safetensors && same text.safetensors &&
    same answers.sts && diff -r $S/set set && cmp <(zstd -dc $S/answers.sts.zst) <(zstd -dc answers.sts.zst)'
ok 'frames decompress to a stream of blobs' 'zstd -dc answers.sts.zst | cmp - answers.sts'
ok 'frames on stdout, by option' 'shard-pack -t $T --seq 64 --group-bytes 1 --zstd $S/answers.jsonl | cmp - answers.sts.zst'
ok 'a frame a blob'         '[ $(zstd -lv answers.sts.zst 2>&1 | sed -n "s/.*Zstandard Frames: //p" | head -n 1) = 3 ]'
x  'no set is in frames'    2 'only a stream' 'shard-pack -t $T --zstd -o no/ $S/answers.jsonl'
x  'no file either'         2 'only a stream' 'shard-pack -t $T --zstd -o no.safetensors $S/answers.jsonl'
ok 'stdout gets the same stream' 'shard-pack -t $T --seq 64 --group-bytes 1 $S/answers.jsonl | cmp - answers.sts'
ok 'rows come from stdin too'    'shard-pack -t $T --seq 64 --group-bytes 1 <$S/answers.jsonl | cmp - answers.sts'
ok 'a set is a tokenizer'        'shard-pack -t set/ --seq 64 -o again/ $S/answers.jsonl && shard-show --diff again set; cmp again/tokenizer.json $T'
ok 'a new set takes the place of the old' \
   'shard-pack -t $T -o here/ $S/answers.jsonl && shard-pack -t $T -o here/ $S/text.jsonl &&
    [ $(rows here/ | wc -l) = 3 ] && ! ls -A | grep "^\.here"'
ok 'no folder, host or time in it' \
   'mkdir -p a b; (cd a && cp $S/answers.jsonl x.jsonl && shard-pack -t $T -o s/ x.jsonl)
    sleep 1; (cd b && shard-pack -t ../set/ -o s/ <$S/answers.jsonl); diff -r a/s b/s'

# Tags and what they stood for.
row() { printf '{"prompt":"%s","response":"b","reward":%s%s}\n' "$@"; }
{ for i in 1 2 3; do row $i $i ',"tag":"<|rw_0|>"'; done; for i in 10 20; do row $i $i ',"tag":"<|rw_1|>"'; done; row 6 -5 ''; } >tagged.jsonl
echo '{"tags":[{"text":"<|rw_0|>","count":3,"reward":2},{"text":"<|rw_1|>","count":2,"reward":15}],"reward_p95":17.5}' >want.json
ok 'each tag is counted, with its mean reward' 'shard-pack -t $T -o tags/ tagged.jsonl && cmp tags/tags.json want.json'
ok 'the manifest names it and says it too' \
   'python3 -c "
import json
m = json.load(open(\"tags/manifest.json\"))
assert m[\"provenance\"][\"ca\"] == json.load(open(\"want.json\"))
assert \"tags.json\" in [f[\"name\"] for f in m[\"files\"]]"'
ok 'a set with tags is sound to both readers' 'shard-show --check tags/ && python3 $TOP/formats/read.py tags'
ok 'it travels in a file, and in the last blob of a stream' \
   'shard-pack -t $T -o tags.safetensors tagged.jsonl && shard-pack -t $T --seq 8 --group-bytes 1 -o tags.sts tagged.jsonl &&
    shard-show tags.safetensors | grep -c "^file.tags.json" | grep -qx 1 &&
    [ "$(shard-show tags.sts | awk "/^#/ { blob = \$4 } /^file.tags/ { print blob }")" = 5 ] &&
    shard-show --check tags.sts && python3 $TOP/formats/read.py tags.sts tags.safetensors'
ok 'rows that are dropped do not count' '{ cat tagged.jsonl; printf "{\"prompt\":\"%0300d\",\"response\":\"b\",\"reward\":9,\"tag\":\"<|rw_0|>\"}\n" 0; } | shard-pack -t $T --overlong drop -o tags/ && cmp tags/tags.json want.json'
ok 'without tags there is no such file' 'shard-pack -t $T -o none/ $S/answers.jsonl && [ ! -e none/tags.json ]'
ok 'without rewards neither' 'echo "{\"prompt\":\"a\",\"response\":\"b\",\"tag\":\"x\"}" | shard-pack -t $T -o none/ && [ ! -e none/tags.json ]'
ok 'tags are in order of reward, however they came' 'tac tagged.jsonl | shard-pack -t $T -o back/ && cmp back/tags.json want.json'

# Packing.
awk 'BEGIN { srand(7); for (i = 0; i < 600; i++) { n = 1 + int(rand() * 30); s = "";
     for (k = 0; k < n; k++) s = s " sea" i % 10; printf "{\"id\":\"%d\",\"text\":\"%d%s\"}\n", i, i, s } }' >many.jsonl
texts() { rows "$1" | column text | sort; }
export -f texts
ok 'best fit packs the same documents' \
   'shard-pack -t $T --seq 128 --group-bytes 4k -o next/ many.jsonl && shard-pack -t $T --seq 128 --group-bytes 4k --window 200 -o best/ many.jsonl &&
    cmp <(texts next/) <(texts best/) && [ $(rows best/ | wc -l) = 600 ]'
x  'and fills the sequences' 0 '9[89]\.[0-9] % full' 'shard-pack -t $T --seq 128 --window 200 -o best/ many.jsonl'
x  'the accounts are printed' 0 'in 600, kept 600, dropped 0' 'shard-pack -t $T --seq 128 many.jsonl >/dev/null'
ok 'many files are one set' '[ $(ls next/data-* | wc -l) -gt 5 ] && shard-show --check next/ >/dev/null'

# Threads.
python3 - >mixed.jsonl <<'ROWS'
import json, random
random.seed(3)
word = lambda: random.choice(["sea", "the ", "L'\u00e9t\u00e9 ", "\u4e2d\u6587", "12 ", "\n", "<|end|>"])
for i in range(9000):
    text = "".join(word() for _ in range(random.randrange(1, 1500 if i % 100 == 0 else 60)))
    row = {"prompt": text[:9], "response": text[9:], "reward": i, "tag": "<|rw_%d|>" % (i % 3)}
    print({0: "{\"prompt\": 3}", 1: "", 2: json.dumps({"text": text}), 3: json.dumps({**row, "weight": -1})}.get(i % 500, json.dumps(row)))
ROWS
split -n l/3 mixed.jsonl part.
packed() { shard-pack -j "$@" -t $T --seq 200 --overlong drop --max-bad 99 --rejects r$1 -o j$1/ part.a? 2>said$1; }
export -f packed
ok 'more threads write the same bytes, and say the same' 'packed 1 && grep -q "in 9000, kept 7223, dropped 1706 .*, bad 71 " said1 &&
    for j in 2 3 16; do packed $j && diff -r j1 j$j && cmp r1 r$j && cmp said1 said$j || exit 1; done; [ "$(shard-show --rows j1/ | wc -l)" = 7223 ]'
ok 'so where they end at a bad row' 'for j in 1 2 5; do ! shard-pack -j $j -t $T --seq 200 --max-bad 9 -o jbad/ part.a? 2>said$j && [ ! -e jbad ] && cmp said1 said$j || exit 1; done; tail -n 1 said1 | grep -q "more bad rows than --max-bad 9"'
x  'more than anybody can mean' 2 '99999999 threads: at most 4096' 'shard-pack -j 99999999 -t $T $S/text.jsonl'
x  'fewer than none'  2 'threads -1'                    'shard-pack -j -1 -t $T $S/text.jsonl'

# Rows that are too long.
yes sea | head -n 100 | tr "\n" " " | sed 's/.*/{"text":"&"}/' >long.jsonl
printf '{"prompt":"a","response":"%s"}\n' "$(yes sea | head -n 60 | tr '\n' ' ')" >long-answer.jsonl
printf '{"prompt":"%s","response":"a"}\n' "$(yes sea | head -n 60 | tr '\n' ' ')" >long-prompt.jsonl
printf '{"prompt":"a","chosen":"%s","rejected":"b"}\n' "$(yes sea | head -n 60 | tr '\n' ' ')" >long-pair.jsonl
x  'are bad by default'       3 '^shard-pack: long.jsonl:1: longer than --seq' 'shard-pack -t $T --seq 32 -o no/ long.jsonl'
ok 'and nothing is published' '[ ! -e no ]'
x  'are dropped and counted'  0 'in 4, kept 3, dropped 1 ' 'cat $S/text.jsonl long.jsonl | shard-pack -t $T --seq 64 --overlong drop -o d/'
ok 'are cut to fit'           'shard-pack -t $T --seq 32 --overlong truncate long.jsonl | rows - | column target | grep -c "^.*$" | grep -qx 1'
ok 'are split, and nothing is lost' \
   'shard-pack -t $T --seq 32 --overlong split long.jsonl | rows - | column text | tr -d "\"\n" >got; shard-pack -t $T --seq 2048 long.jsonl | rows - | column text | tr -d "\"\n" | cmp - got'
x  'answers are cut, not split' 0 '1 rows were cut' 'shard-pack -t $T --seq 32 --overlong split -o cut/ long-answer.jsonl; [ $(rows cut/ | wc -l) = 1 ]'
x  'nothing to learn is not kept' 3 'nothing learnt is left' 'shard-pack -t $T --seq 32 --overlong truncate --rejects r -o no/ long-prompt.jsonl; s=$?; cat r; exit $s'
ok 'the longer of a pair gives way' \
   'shard-pack -t $T --seq 32 --overlong truncate long-pair.jsonl | rows - | column text | sed 1d | grep -q "ab<|eos|>"'

# Bad input.
x  'a NaN'            3 'rows:1: .*NaN'                 'echo "{\"text\":\"a\",\"weight\":NaN}" >rows; shard-pack -t $T -o no/ rows'
x  'a negative weight' 3 'rows:1: "weight" is negative' 'echo "{\"text\":\"a\",\"weight\":-1}" >rows; shard-pack -t $T -o no/ rows'
x  'a prompt alone'   3 'rows:1: there is no "response"' 'echo "{\"prompt\":\"a\"}" >rows; shard-pack -t $T -o no/ rows'
x  'a pair among answers' 3 'rows:5: a pair, and the first row is none' 'cat $S/answers.jsonl $S/pairs.jsonl >rows; shard-pack -t $T -o no/ rows'
x  'a reward missing' 3 'rows:5: has no reward'         'cat $S/answers.jsonl $S/text.jsonl >rows; shard-pack -t $T -o no/ rows'
pair='{"prompt":"a","chosen":"b","rejected":"c"'
x  'a margin missing' 3 'rows:2: has no margin' "printf '%s\n' '$pair,\"margin\":1}' '$pair}' >rows; shard-pack -t \$T -o no/ rows"
x  'a margin too many' 3 'rows:2: has a margin, and the first' "printf '%s\n' '$pair}' '$pair,\"margin\":1}' >rows; shard-pack -t \$T -o no/ rows"
x  'ref_logp of one side' 3 'rows:1: one side of the pair has ref_logp' "echo '$pair,\"ref_logp_chosen\":1}' >rows; shard-pack -t \$T -o no/ rows"
x  'a reward of one side' 3 'rows:1: one side of the pair has a reward' "echo '$pair,\"reward_chosen\":1}' >rows; shard-pack -t \$T -o no/ rows"
x  'a margin beyond F32' 3 'rows:1: "margin" or ref_logp is too large' "echo '$pair,\"margin\":1e300}' >rows; shard-pack -t \$T -o no/ rows"
x  'a margin as text' 3 'rows:1: "margin" is not a number' "echo '$pair,\"margin\":\"1\"}' >rows; shard-pack -t \$T -o no/ rows"
x  'tolerated where asked' 0 'bad 1'                    '(cat $S/text.jsonl; echo "{}") >rows; shard-pack -t $T --max-bad 1 -o yes/ rows'
x  'no rows'          3 '.'                             'shard-pack -t $T -o no/ </dev/null'
ok 'no rows, allowed' 'shard-pack -t $T --allow-empty -o empty/ </dev/null && shard-show --check empty/ | grep -q "0 rows"'
x  'no tokenizer'     2 '--tokenizer is missing'        'shard-pack $S/text.jsonl'
x  'a set as rows'    3 '.'                             'shard-pack -t $T -o no/ $S/answers.safetensors'
x  'another template' 2 'template'                      'shard-pack -t $T --template best -o no/ $S/text.jsonl'
x  'a sequence of one' 2 '--seq 1 '                     'shard-pack -t $T --seq 1 -o no/ $S/text.jsonl'
x  'a folder of something else is not replaced' 2 'home/: exists and has thesis in it, which no set has' 'mkdir home && touch home/thesis home/manifest.json && shard-pack -t $T -o home/ $S/text.jsonl; s=$?; test -e home/thesis && exit $s'
x  'nor a run'        2 'has last in it|has step'       'mkdir -p run/step-000001 && ln -s step-000001 run/last && shard-pack -t $T -o run/ $S/text.jsonl'
ok 'a set is, and one whose manifest make has removed' 'cp -r $S/set old && rm old/manifest.json && shard-pack -q -t $T -o old/ $S/text.jsonl && shard-pack -q -t $T -o old/ $S/text.jsonl && [ "$(ls old | tr "\n" " ")" = "data-00000.safetensors manifest.json tokenizer.json " ]'
x  'an option nobody knows' 2 'unknown|unrecognized'    'shard-pack --sequence 3'
x  'no such rows'     1 'nowhere'                       'shard-pack -t $T -o no/ nowhere'
x  'a full disk'      1 'No space'                      'shard-pack -t $T $S/text.jsonl >/dev/full'
ok 'a set that cannot be written leaves nothing' '! (ulimit -f 8; trap "" XFSZ; for i in $(seq 3000); do cat $S/text.jsonl; done | shard-pack -q -t $T -o big/) && ! ls -d .big.tmp big'
x  'a terminal'       2 'not for a terminal'            'script -qec "shard-pack -t $T $S/text.jsonl" /dev/null'
ok 'nothing bad was published' '[ ! -e no ]'
finish
