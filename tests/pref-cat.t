#!/usr/bin/env bash
# pref-cat.t -- every convention comes out as rows, and what is wrong is named.
. "$(dirname "$0")/tap.sh"

# rows ARGS...: the rows alone.  count N: as many lines.
rows() { pref-cat -q "$@"; }
count() { local k; k=$(wc -l); [ "$k" = "$1" ] || { echo "$k lines, wanted $1"; false; }; }
export -f rows count

cat >pair.jsonl <<'X'
{"chosen":"\n\nHuman: hi \n\nAssistant: hello\n\nHuman: well?\n\nAssistant: fine ","rejected":"\n\nHuman: hi \n\nAssistant: hello\n\nHuman: well?\n\nAssistant: no"}
X
cat >scored.jsonl <<'X'
{"prompt": "\n\nHuman: hi\n\nAssistant:", "chosen": "a", "rejected": "b", "reward_chosen": -1.5441417694091797, "reward_rejected": 2e3, "task": "t"}
X
cat >canonical.jsonl <<'X'
{"id":"x", "text":"\u0041b" ,"more":[1.0, null]}
{"prompt":[{"role":"user","content":"q"}],"response":"r","reward":1e0,"id":"y"}
{"prompt":"q","chosen":"a","rejected":"b","margin":0.50,"id":"z"}
X
cat >text <<'X'
  The first paragraph. It has "three sentences." This is one.

The second.
Its lines go on (like this!) and they have no end that would do at forty characters

Supercalifragilisticexpialidocious-and-more-of-it héé.
X
printf 'one\n%%\n\n%%\n%%\ntwo\n  lines\n%%\nlast' >fortune

t text         'printf "a \"quoted\"\ttext\n\n" | pref-cat'
t split        'pref-cat --split-on % fortune'
t hh           'pref-cat pair.jsonl'
t scored       'pref-cat scored.jsonl'
t explode      'pref-cat --explode scored.jsonl pair.jsonl'
t messages     'cat <<X | pref-cat
{"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":"a"}],"n":1}
{"id":7,"messages":[{"role":"user","content":"u"}]}
X'
t responses    'cat <<X | pref-cat
{"prompt":"q","responses":["a","b"],"rewards":[1,-0.5],"id":"p"}
X'
t instruction  'cat <<X | pref-cat
{"instruction":"do","input":"this","output":"done","text":"all of it"}
{"instruction":"do","input":"","response":"done"}
{"question":"1+1?","answer":"2"}
X'
t lists        'cat <<X | pref-cat
{"chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"b"}]}
{"prompt":"q","chosen":[{"role":"assistant","content":"a"}],"rejected":[{"role":"assistant","content":"b"}]}
X'
t scores       'cat <<X | pref-cat
{"input":"q","output":"a","reward":1.5}
{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"score":3.50}
{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"score":3,"reward":4}
{"chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"b"}],"score_chosen":8,"score_rejected":-2}
{"instruction":"q","output":"a","score":"high"}
{"prompt":"q","response":"a","score":3}
X'
t array        'printf "\n [ {\"text\":\"a\"},\n {\"text\":\"b\"} ]" | pref-cat'
t feeds        'printf "one\n\f\r\n\f\ntwo\n\\f\n" | pref-cat --split-on "\f"'
t max-chars    'pref-cat --max-chars 40 text'
t prompt-words 'printf " one  two three\n%%\none two \n%%\na\tb\nc d\n" | pref-cat --split-on % --prompt-words 2'

ok 'canonical rows pass byte for byte' 'rows canonical.jsonl | cmp - canonical.jsonl'
ok 'and once more'                     'rows canonical.jsonl | rows | rows | cmp - canonical.jsonl'
ok 'carriage returns are white space'  'sed "s/\$/\r/" canonical.jsonl | rows | count 3'
ok 'a byte order mark is no text'      'printf "\xef\xbb\xbf{\"text\":\"a\"}" | rows --from rows | grep -q "^{\"text\""'
ok 'a file is one text, exactly'       'head -c 5000 "$TOP/LICENSE" >l && rows l | python3 -c "
import json, sys; assert json.loads(sys.stdin.read())[\"text\"] == open(\"l\").read()"'
ok 'prompt and response are the text'  'printf "\n a b\t c " | rows --prompt-words 2 | python3 -c "
import json, sys; r = json.loads(sys.stdin.read()); assert r[\"prompt\"] + r[\"response\"] == \"\n a b\t c \", r"'
ok 'several files, each by its look'   'rows fortune canonical.jsonl fortune | count 5'
ok 'an empty file has no rows'         ': >empty && rows empty canonical.jsonl empty empty canonical.jsonl | count 6'
ok 'ids do not depend on folders and compression' 'mkdir -p d && gzip -c fortune >d/fortune.gz &&
    cmp <(rows --split-on % d/fortune.gz) <(rows --split-on % fortune)'
ok '-o publishes the same' 'rows -o out canonical.jsonl && cmp out canonical.jsonl'
for z in gzip xz zstd bzip2; do
    command -v $z >/dev/null || { skip "reads $z" 'not installed'; continue; }
    ok "reads $z, from a file and from a pipe" "$z -c canonical.jsonl >c.$z && rows c.$z | cmp - canonical.jsonl &&
        rows <c.$z | cmp - canonical.jsonl && cat c.$z c.$z | rows - | count 6"
done
ok '--rejects keeps every row, with the reason' 'printf "{\"text\":\"a b\"}\n\n{\"text\":\"c\"}\nx\377\n" |
    rows --from jsonl --max-bad 2 --prompt-words 1 --rejects r 2>/dev/null; python3 - <<X
import json
r = [json.loads(l) for l in open("r")]
assert [(x["line"], x["verdict"]) for x in r] == [(2, "bad"), (3, "dropped"), (4, "bad")], r
assert r[1]["row"]["text"] == "c" and r[2]["text"] == "x\ufffd", r
X'
x 'the accounts add up' 0 'in 4, kept 1, dropped 1 \(too few words for --prompt-words 1\), bad 2' \
  'printf "{\"text\":\"a b\"}\n\n{\"text\":\"c\"}\nx\n" | pref-cat --from jsonl --max-bad 2 --prompt-words 1'

# Bad rows: LINE, then why.
bad() { x "bad: $1" 3 "^pref-cat: stdin:2: .*$2" \
          "printf '%s\n%s\n' '{\"text\":\"fine\"}' '${3//\'/}' | pref-cat"; }
bad 'blank line'           'blank' ''
bad 'not an object'        'not a JSON object' '[1]'
bad 'cut off'              'not JSON|without an end' '{"text":"a'
bad 'NaN'                  'NaN' '{"text":"a","reward":NaN}'
bad 'text as reward'       '"reward" is not a number' '{"text":"a","reward":"1"}'
bad 'a field twice'        '"text" stands twice' '{"text":"a","text":"b"}'
bad 'sample below 0'       '"sample"' '{"prompt":"q","response":"a","sample":-1}'
bad 'prompt of numbers'    '"prompt" is neither' '{"prompt":[1],"response":"a"}'
bad 'unknown fields'       'no known fields' '{"a1":"x","a2":"y"}'
bad 'empty text'           'the text is empty' '{"text":" "}'
bad 'empty prompt'         'the prompt is empty' '{"prompt":"","response":"a"}'
bad 'empty message list'   '"prompt" is neither' '{"prompt":[],"response":"a"}'
bad 'empty response'       'the response is empty' '{"prompt":"q","response":""}'
dropped() { # NAME REASON ROW: counted and rejected, not an error
    ok "dropped: $1" "printf '%s\\n%s\\n' '{\"text\":\"fine\"}' '$3' | pref-cat --rejects r.jsonl 2>&1 >/dev/null | grep 'dropped 1 ($2 1), bad 0' && test \$(wc -l <r.jsonl) = 1"
}
dropped 'empty reply'      'chosen is empty' '{"chosen":"\n\nHuman: q\n\nAssistant: ","rejected":"\n\nHuman: q\n\nAssistant: a"}'
dropped 'prompts differ'   'chosen and rejected differ before the last turn' '{"chosen":"\n\nHuman: q\n\nAssistant: a","rejected":"\n\nHuman: p\n\nAssistant: a"}'
bad 'no last answer'       "the last turn is not the assistant's" '{"chosen":"\n\nHuman: q","rejected":"\n\nHuman: q\n\nAssistant: a"}'
bad 'no prompt'            'no turn before the last' '{"chosen":"\n\nAssistant: q","rejected":"\n\nAssistant: a"}'
bad 'half a pair'          'chosen without rejected' '{"prompt":"q","chosen":"a"}'
bad 'rewards do not match' 'not as many "rewards"' '{"prompt":"q","responses":["a","b"],"rewards":[1]}'
bad 'a response is no string' 'a response is not a string' '{"prompt":"q","responses":["a",1]}'
bad 'a message is no message' 'role, content' '{"messages":[{"role":"user"},{"role":"assistant","content":"a"}]}'
x 'bad: not UTF-8 in JSON' 3 'stdin:1: not valid UTF-8' 'printf "{\"text\":\"\377\"}" | pref-cat'
x 'bad: not UTF-8 in text' 3 'stdin:1: the text is not UTF-8' 'printf "a\xc3(" | pref-cat'
x 'bad: text 2 of a file'  3 'stdin:3: the text is not UTF-8' 'printf "a\n%%\n\377\n" | pref-cat --split-on %'
x 'bad: an element of an array' 3 'stdin:2: no known fields' 'printf "[{\"text\":\"a\"},{\"b\":1}]" | pref-cat'
x 'bad: a cut-off array'   3 'stdin:2: the JSON array is cut off' 'printf "[{\"text\":\"a\"}," | pref-cat'
x 'bad: a cut-off element' 3 'stdin:1: the JSON array is cut off' 'printf "[{\"text\":\"a" | pref-cat'
x 'bad: an array and more' 3 'stdin:1: something follows' 'printf "[{\"text\":\"a\"}] x" | pref-cat'
x 'bad: no comma'          3 'stdin:1: ' 'printf "[{\"text\":\"a\"} {\"text\":\"a\"}]" | pref-cat'
x 'bad: a comma too many'  3 'stdin:2: the line is blank' 'printf "[{\"text\":\"a\"},]" | pref-cat' 
x '--from hh takes nothing else' 3 'stdin:1: neither a pair of dialogues' 'echo "{\"text\":\"a\"}" | pref-cat --from hh'
x 'of a bad record nothing is written' 0 'kept 1' 'printf "{\"prompt\":\"q\",\"responses\":[\"a\",\" \"]}\n{\"text\":\"t\"}" |
    pref-cat --max-bad 1 >o; [ "$(wc -l <o)" = 1 ]'

# Pieces: every character but white space is kept, in order, and none is too long.
cat >pieces.py <<'X'
import json, sys
n, whole = int(sys.argv[1]), open("text").read()
r = [json.loads(l) for l in sys.stdin]
assert "".join("".join(x["text"].split()) for x in r) == "".join(whole.split())
assert all(0 < len(x["text"]) <= n for x in r) and {x["prompt_id"] for x in r} == {"text:1"}, r
assert [x["id"] for x in r] == ["text:1/%d" % k for k in range(len(r))], r
X
for size in 1 2 7 40 100; do
    ok "pieces of at most $size characters" "rows --max-chars $size text | python3 pieces.py $size"
done
ok 'a text that is short enough stays' 'cmp <(rows --max-chars 1000 text fortune) <(rows text fortune)'
ok '--max-chars leaves prompts alone'  'rows --max-chars 1 canonical.jsonl | tail -n 2 | cmp - <(tail -n 2 canonical.jsonl)'
x '--max-chars below 0'           2 'pref-cat: --max-chars' 'pref-cat --max-chars -1 text'
x '--max-chars and --prompt-words' 2 'one pref-cat follow the other' 'pref-cat --max-chars 9 --prompt-words 1 text'
x 'an unknown escape'             2 'are the escapes' 'pref-cat --split-on "\q" text'
x 'a separator of nothing'        2 'neither newline nor NUL' 'pref-cat --split-on "\x00" text'

# Archives.
mkdir -p in/sub && cp fortune canonical.jsonl in/ && printf '[{"text":"a",\n  "x":2e3},{"text":"b"}]' >in/sub/array.json
gzip -c pair.jsonl >in/pair.gz && ln -s canonical.jsonl in/link && : >in/empty
(cd in && tar -cf ../x.tar canonical.jsonl empty fortune link pair.gz sub)
cat >make.py <<'X'
import io, tarfile, zipfile
with zipfile.ZipFile("x.zip", "w", zipfile.ZIP_DEFLATED) as z:
    for n in ["canonical.jsonl", "fortune", "pair.gz", "sub/array.json"]:
        z.write("in/" + n, n)
    z.writestr("sub/", "")
with tarfile.open("names.tar", "w") as t:
    for n in ["../../up", "/abs", "a\n\033[2J", "n" * 300, "../../up"]:
        i = tarfile.TarInfo(n)
        i.size = 2
        t.addfile(i, io.BytesIO(b"ab"))
    i = tarfile.TarInfo("../hard")
    i.type, i.linkname = tarfile.LNKTYPE, "/etc/passwd"
    t.addfile(i)
b = bytearray(open("x.zip", "rb").read())
b[14] ^= 1
b[b.index(b"PK\1\2") + 16] ^= 1
open("bad.zip", "wb").write(b)
X
python3 make.py
t archive      'pref-cat x.tar'
t names        'pref-cat names.tar'
ok 'a zip has the same rows'    'cmp <(rows x.tar | sed s/x.tar:/x.zip:/) <(rows x.zip)'
ok 'from pipes, too'            'cmp <(rows x.tar | sed s/x.tar:/stdin:/) <(cat x.tar | rows) && cmp <(rows x.zip) <(cat x.zip | rows | sed s/stdin:/x.zip:/)'
for z in gzip xz zstd bzip2; do
    command -v $z >/dev/null || { skip "reads tar in $z" 'not installed'; continue; }
    ok "reads tar in $z" "$z -c x.tar >x.tar.z && cmp <(rows x.tar | sed s/x.tar:/x.tar.z:/) <(rows x.tar.z)"
    x "a cut-off tar in $z is damage" 4 'pref-cat: cut' "$z -c x.tar | head -c 300 >cut; pref-cat cut"
done
ok '--entries chooses'          'rows --entries "*.jsonl" x.tar | count 3 && rows --entries "*/array.json" x.zip | count 2'
x 'skipped entries are counted' 0 'x.tar: 1 entries read, 6 skipped' 'pref-cat --entries "*.jsonl" x.tar'
ok 'two tars end to end'        'cat x.tar x.tar | rows | count "$(rows x.tar x.tar | wc -l)"'
ok 'every row tool reads them'  'pref-filter -q --entries "canonical*" x.tar | cmp - canonical.jsonl'
x 'a tar without its end is cut off' 4 'x.cut: the archive has no end' 'head -c 1024 names.tar >x.cut; pref-cat x.cut'
x 'a tar cut in a file'         4 'cut.tar:.*runcated' 'head -c 2000 x.tar >cut.tar; pref-cat cut.tar'
x 'a zip without its end'       4 'cut.zip: the archive has no end' 'head -c -1 x.zip >cut.zip; pref-cat -o never cut.zip; s=$?; [ ! -e never ] && exit $s'
x 'a bad checksum in a zip'     4 'bad.zip:.*CRC' 'pref-cat bad.zip'
if command -v zip >/dev/null; then
    x 'an encrypted zip' 4 'enc.zip:canonical.jsonl: is encrypted' 'zip -qP secret enc.zip canonical.jsonl && pref-cat enc.zip'
else
    skip 'an encrypted zip' 'no zip'
fi
head -c 3000000 /dev/zero | tr '\0' ' ' >flat
gzip -c flat >bomb.gz && tar -cf bomb.tar bomb.gz && tar -czf bomb.tgz flat
for b in bomb.gz bomb.tar bomb.tgz; do
    x "$b: a bomb has a limit" 3 "pref-cat: $b.*more than --max-bytes 1048576" "pref-cat --max-bytes 1m $b"
done
# Some 50 MB of each in 120 MB of address space, of which the tool itself takes a half.
if [ "${SAN:-0}" = 1 ]; then
    skip 'long files in little memory' 'the sanitizers want more'
else
    ok 'long arrays in little memory' '(echo "["; seq -f "{\"text\": \"%.0f words\"}," 1000000; echo "{\"text\":\"z\"}]") |
        (ulimit -v 120000; rows --from jsonl) | tail -n 1 | grep -q 1000001'
    ok 'many texts in little memory'  'seq 1000000 | sed "s/\$/ some words\n%/" | (ulimit -v 120000; rows --split-on %) | count 1000000'
fi

x 'no row is status 3'            3 'no row is left' 'pref-cat </dev/null'
ok '--allow-empty'                'pref-cat --allow-empty </dev/null'
x 'a missing file, before any output' 1 'pref-cat: open nowhere' 'pref-cat canonical.jsonl nowhere; s=$?; [ ! -s .out ] && exit $s'
x 'a folder'                      1 'is a directory' 'pref-cat .'
x 'unknown option'                2 'no-such' 'pref-cat --no-such canonical.jsonl'
x 'unknown form'                  2 'csv' 'pref-cat --from csv canonical.jsonl'
x '--split-on is for text'        2 'split-on' 'pref-cat --from hh --split-on % fortune'
x 'a full disk'                   1 'pref-cat: .*No space' 'pref-cat canonical.jsonl >/dev/full'
x '-o to nowhere'                 1 'no/such' 'pref-cat -o no/such/file canonical.jsonl'
x 'too many bad rows publish nothing' 3 '--max-bad' 'echo old >keep; printf "{\"text\":\"a\"}\n\n" | pref-cat -o keep; s=$?; grep -qx old keep && exit $s'
seq 1 20000 | sed 's/.*/{"text":"&"}/' >many.jsonl
for z in gzip xz zstd; do
    command -v $z >/dev/null || { skip "a cut-off $z" 'not installed'; continue; }
    x "a cut-off $z is damage" 4 'pref-cat: cut\.'$z "$z -c many.jsonl | head -c 2000 >cut.$z; pref-cat cut.$z >/dev/null"
    x "a cut-off $z in a pipe" 4 'pref-cat: stdin: ' "$z -c many.jsonl | head -c 2000 | pref-cat >/dev/null"
done
cat >flip.py <<'X'
# Flips one bit at many places behind the magic number: none may pass.  Members that begin like others,
# empty ones and magic numbers within members: all must pass.
import gzip, random, subprocess
random.seed(1)
def status(b):
    open("f.gz", "wb").write(b)
    return subprocess.run(["pref-cat", "--from", "text", "f.gz"], capture_output=True).returncode
many = open("many.jsonl", "rb").read()
good = gzip.compress(many[:9000]) + gzip.compress(many[9000:60000]) + gzip.compress(b"end")
assert status(good) == 0
for at in range(2, len(good), len(good) // 60):
    bad = bytearray(good)
    bad[at] ^= 1 << random.randrange(8)
    assert status(bytes(bad)) in ((3, 4) if at < 4 else (4,)), at
parts = [b"", b"abc", b"abcde", b"y" * 300000, b"y" * 300, many[:70000], b"abc" * 3, b"a\x08\x00" * 9]
for _ in range(40):
    some = [b"x"] + random.choices(parts, k=random.randrange(1, 8))
    assert status(b"".join(gzip.compress(p, random.choice([0, 1, 9])) for p in some)) == 0, [len(p) for p in some]
X
ok 'one wrong bit in a gzip file is damage, and many members are none' 'python3 flip.py'
x 'a cut-off gzip publishes nothing' 4 'cut.gzip' 'echo old >keep; pref-cat -o keep cut.gzip; s=$?; grep -qx old keep && exit $s'

if have_data; then
    # 4 empty replies and 5 pairs whose prompts differ.
    x 'the HH test pairs' 0 'in 2312, kept 2303, dropped 9 .*bad 0' \
      'pref-cat "$DATA/hh/harmless-base-test.jsonl.gz" >hh.jsonl'
    ok 'come out as canonical pairs' 'rows hh.jsonl | cmp - hh.jsonl'
    x 'scored pairs as samples' 0 'in 2354, kept 2350' \
      'pref-cat --explode --max-bad 4 "$DATA/hh/scored_helpful_base.jsonl.zst" | count 4700'
    x 'instruction data' 0 'in 1923, kept 1923' 'pref-cat "$DATA/sft/gpteacher-roleplay.json.zst" | count 1923'
    x 'data of another kind is refused with a reason' 3 'convarg_full.jsonl.gz:1: no known fields' \
      'pref-cat "$DATA/ukp-convarg/convarg_full.jsonl.gz"'
else
    skip 'HH pairs, instruction data' "no data in $DATA"
fi
f=/usr/share/games/fortunes/fortunes
if [ -e $f ]; then
    ok 'fortunes: as many as their separators say' "rows --split-on % $f | count \$(awk '/^%\$/ { if (n) k++; n = 0; next } { n = 1 } END { print k + (n > 0) }' $f)"
else
    skip 'fortunes' 'the package is not installed'
fi
ok 'prompts cut from pieces of one text are groups of their own' \
   "printf 'one two three four. five six seven eight.' | pref-cat --from text --max-chars 20 | pref-cat --prompt-words 2 >cut && test \$(wc -l <cut) = 2 && ! grep prompt_id cut"
finish
