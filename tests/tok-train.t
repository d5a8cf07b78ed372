#!/usr/bin/env bash
# tok-train.t -- tokenizers are those of the `tokenizers` package: the same ids, the same text.
. "$(dirname "$0")/tap.sh"

TEXT=$TOP/$BUILD/tests/text
export TEXT PYTHONDONTWRITEBYTECODE=1
printf 'the cat sat on the mat\nthe cat ate the rat\n' >small.txt
{ cat "$TOP"/LICENSE "$TOP"/man/*.[157] "$TOP"/lib/text/*.c; } | pref-cat -q -f text >corpus.jsonl

t small       'pref-cat -q small.txt | tok-train --vocab 340 -o t.json; sed -n "/^\"merges/,\$p" t.json'
ok 'ids: special tokens, bytes, merges' 'python3 - <<X
import json
t = json.load(open("t.json")); v = t["model"]["vocab"]
names = "bos eos pad user assistant system end".split() + ["rw_%d" % i for i in range(10)] + ["reserved_%d" % i for i in range(47)]
assert [v["<|%s|>" % n] for n in names] == list(range(64))
assert [a["id"] for a in t["added_tokens"] if a["special"]] == list(range(64))
assert v["!"] == 64 + 33 and sorted(v.values()) == list(range(len(v)))
X'
# The definition: count all pairs anew for each merge, ties to the pair whose bytes sort first.
ok 'merges are those of the plain algorithm' 'pref-cat -q "$TOP/lib/base/base.h" >r && tok-train -q --vocab 620 -o p.json r && python3 - <<X
import json, collections, re
text = json.load(open("r"))["text"]; assert text.isascii()
words = collections.Counter(re.findall(r"""'"'"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+""", text))
words = {tuple(bytes([b]) for b in w.encode()): n for w, n in words.items()}
want, made = [], set()
while len(want) < 300:
    pairs = collections.Counter()
    for w, n in words.items():
        for p in zip(w, w[1:]): pairs[p] += n
    p = min((p for p in pairs if p[0] + p[1] not in made), key=lambda p: (-pairs[p], p))
    want.append(p); made.add(p[0] + p[1]); new = {}
    for w, n in words.items():
        out, i = [], 0
        while i < len(w):
            k = 2 if w[i:i+2] == p else 1
            out.append(b"".join(w[i:i+k])); i += k
        new[tuple(out)] = new.get(tuple(out), 0) + n
    words = new
back = {chr(256 + 10): 10, chr(256 + 32): 32, chr(256 + 9): 9}
got = [tuple(bytes(back.get(c, ord(c)) for c in h) for h in m.split(" ")) for m in json.load(open("p.json"))["model"]["merges"]]
assert got == want, [x for x in zip(got, want) if x[0] != x[1]][:3]
X'
ok 'the order of the rows does not matter' 'cut -c1- corpus.jsonl >a; python3 - <<X
import json
rows = [json.dumps({"text": l}) for l in open("small.txt")]
open("a", "w").write("\n".join(rows)); open("b", "w").write("\n".join(rows[::-1]))
X
tok-train -q --vocab 350 a >1 2>/dev/null; tok-train -q --vocab 350 b >2 2>/dev/null; cmp 1 2'
# 270,000 words that occur once, among some that occur often.
ok 'rare words are forgotten where memory is short, and said' \
   'python3 -c "
import random
random.seed(1)
for i in range(30000):
    print(\"{\\\"text\\\":\\\"the water of the river %s the water\\\"}\" % \" \".join(\"%x\" % random.getrandbits(40) for _ in range(9)))" >rare.jsonl
    tok-train --vocab 340 --memory 1m -o few.json rare.jsonl 2>said && grep -E "[0-9]{5,} occurrences of rare words were not counted: more than --memory 1048576 holds" said &&
    tok-train -q --vocab 340 -o all.json rare.jsonl 2>said && ! grep forgotten said && python3 -c "
import json
few, all = (json.load(open(f))[\"model\"][\"merges\"] for f in (\"few.json\", \"all.json\"))
flat = lambda m: [x if isinstance(x, str) else \" \".join(x) for x in m]
assert flat(few)[:8] == flat(all)[:8] and len(few) == 20, (few, all)"'
x  'no memory'              2 'memory 0 is not positive' 'tok-train --memory 0 corpus.jsonl'
ok 'all text of a row counts' 'echo "{\"prompt\":[{\"role\":\"user\",\"content\":\"aaaa\"}],\"response\":\"bbbb\",\"chosen\":\"cccc\",\"rejected\":\"dddd\",\"text\":\"eeee\"}" |
    tok-train -q --vocab 400 2>/dev/null >m && for c in aa bb cc dd ee; do grep -q "\"$c\":" m || exit 1; done; ! grep -q "\"us\":" m'
x 'too little text for the vocabulary is said' 0 'only [0-9]+ of 5000 tokens' 'pref-cat -q small.txt | tok-train --vocab 5000 >/dev/null'
x 'a vocabulary without room for bytes' 2 'at least 320' 'tok-train --vocab 319 corpus.jsonl'
x 'a row without text'   3 'stdin:1: no text' 'echo "{\"id\":\"a\"}" | tok-train'
x 'no rows'              3 'no row is left' 'tok-train </dev/null'
ok 'no rows, allowed'    'tok-train --vocab 320 --allow-empty </dev/null'
x 'a line that is no row' 3 'stdin:1: ' 'echo nonsense | tok-train'
x 'a missing file'       1 'open nowhere' 'tok-train nowhere'
x 'a full disk'          1 'No space' 'tok-train --vocab 320 corpus.jsonl >/dev/full'
x 'a vocabulary too small keeps the old file' 2 '' 'echo old >keep; tok-train --vocab 3 -o keep corpus.jsonl; s=$?; grep -qx old keep && exit $s'

# What is not supported is named, never left out.
refuses() { x "refuses $1" 2 "^text: bad.json: .*$2" "python3 -c '
import json; t = json.load(open(\"t.json\")); $3; print(json.dumps(t))' ${4:-} >bad.json && \$TEXT ids bad.json </dev/null"; }
refuses 'another model'    'WordPiece' 't["model"]["type"] = "WordPiece"'
refuses 'dropout'          'dropout' 't["model"]["dropout"] = 0.1'
refuses 'another normalizer' 'Lowercase' 't["normalizer"] = {"type": "Lowercase"}'
refuses 'another pre-tokenizer' 'BertPreTokenizer' 't["pre_tokenizer"] = {"type": "BertPreTokenizer"}'
refuses 'a step behind ByteLevel' 'ByteLevel that is not the last' 't["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [t["pre_tokenizer"], {"type": "Digits"}]}'
refuses 'two ByteLevels'    'ByteLevel that is not the last' 't["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [t["pre_tokenizer"]] * 2}'
refuses 'a Metaspace of the first text behind others' 'prepend_scheme is first, .* behind a normalizer' 't["normalizer"] = {"type": "NFC"}; t["pre_tokenizer"] = {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"}'
refuses 'another decoder'  'CTC' 't["decoder"] = {"type": "CTC"}'
refuses 'a wrong pattern'  'pattern' 't["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"}'
refuses 'a pattern that another engine reads otherwise' 'pattern has &&' 't["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "[a-z&&[^e]]"}, "behavior": "Isolated"}'
refuses 'a class without a table' 'pattern has .p{Han' 't["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "\\p{Han}+"}, "behavior": "Isolated"}'
refuses 'a pattern of nothing' 'x[*]" also matches nothing' 't["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "x*"}, "behavior": "Isolated"}'
refuses 'an added token behind a hole' 'added token "<.end.>" has the id 9000, where .* gives it [0-9]' 't["model"]["vocab"].pop("<|end|>"); t["added_tokens"][6]["id"] = 9000'
refuses 'an added token twice' '"<.end.>" is twice in "added_tokens"' 't["added_tokens"].append(t["added_tokens"][6])'
refuses 'one id of two tokens' '"." and "." both have the id 70' 't["model"]["vocab"]["!"] = 70'
refuses 'a file of two models' 'there are two "model"' 't["model 2"] = 0' '| sed "s/model 2/model/"'
refuses 'another version'  '"version" is not "1.0"' 't["version"] = "2.0"'
refuses 'a flag that is none' '"lstrip" is neither true nor false' 't["added_tokens"][2]["lstrip"] = "no"'
refuses 'an unknown unknown token' '"unk_token" is "<unk>", which is not in' 't["model"]["unk_token"] = "<unk>"'
refuses 'two tokens before a text' 'puts several tokens before' 't["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "a"}}, {"SpecialToken": {"id": "a"}}, {"Sequence": {"id": "A"}}], "special_tokens": {"a": {"ids": [70]}}}'
refuses 'a merge of unknown tokens' 'merge 1 ' 't["model"]["merges"][0] = "xyz zyx"'
refuses 'a huge id'        'has the id' 't["model"]["vocab"]["huge"] = 1 << 40'
x 'refuses a file that is no tokenizer' 2 'no "model"' 'echo {} >bad.json; $TEXT ids bad.json </dev/null'
x 'refuses text' 2 'not a tokenizer.json' '$TEXT ids small.txt </dev/null'
x 'a folder without one' 2 'no tokenizer.json in it' 'mkdir -p empty; $TEXT ids empty </dev/null'

if python3 -c 'import tokenizers' 2>/dev/null; then
    tok-train -q --vocab 2000 -o ours.json corpus.jsonl
    python3 "$TOP/tests/tok_witness.py" files ours.json corpus.jsonl
    for f in ours prefixed cut classes llama metaspace metaspace-first; do
        ok "$f.json: ids and text are those of tokenizers" "\$TEXT ids $f.json <kinds.jsonl >got 2>/dev/null && python3 \$TOP/tests/tok_witness.py compare $f.json kinds.jsonl got"
    done
    ok 'ours gives every text back' "\$TEXT ids ours.json <kinds.jsonl 2>/dev/null >got && python3 \$TOP/tests/tok_witness.py back kinds.jsonl got"
else
    skip 'ids and text are those of tokenizers' 'no Python package tokenizers'
fi
finish
