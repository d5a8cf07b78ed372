#!/usr/bin/env bash
# pref-stat.t -- the table, and the bootstrap against an independent one.
. "$(dirname "$0")/tap.sh"

cat >a.jsonl <<'ROWS'
{"prompt":"p","response":"a","reward":1}
{"prompt":"p","response":"\u00e9\u00e9","reward":2}
{"prompt":"q","response":"ccc","reward":3}
{"prompt":"r","response":"dddd","reward":4}
{"prompt":"r","response":"none"}
ROWS
cat >b.jsonl <<'ROWS'
{"prompt":"q","response":"cc","reward":3.5}
{"prompt":"p","response":"c","reward":3}
{"prompt":"z","response":"c","reward":9}
ROWS
mkdir -p golden && cp a.jsonl golden/first.jsonl && cp b.jsonl golden/second.jsonl

t  table       'pref-stat -q golden/first.jsonl golden/second.jsonl'
t  one         'pref-stat <a.jsonl'
ok 'figures are those worked out by hand' \
   'pref-stat -q --json j a.jsonl b.jsonl >/dev/null && python3 - <<PY
import json, math
a, b = json.load(open("j"))["arms"]
assert a["rows"] == 5 and a["prompts"] == 3 and a["scored"] == 4, a
assert a["reward_mean"] == 2.5 and abs(a["reward_sd"] - math.sqrt(5 / 3)) < 1e-15
assert (a["reward_min"], a["reward_q25"], a["reward_q50"], a["reward_max"]) == (1, 1.75, 2.5, 4)
assert abs(a["length_mean"] - 14 / 5) < 1e-12 and a["length_q50"] == 3
assert abs(a["length_reward_correlation"] - 1) < 1e-12
assert a["difference"] is None and a["paired"] is None
# p: 3 - 1.5, q: 3.5 - 3
assert b["paired"] == 2 and b["difference"] == 1 and (b["difference_low"], b["difference_high"]) == (0.5, 1.5)
PY'

# Two hundred prompts, three answers each; the truth by numpy with draws of its own.
awk 'BEGIN { srand(3); for (i = 0; i < 600; i++) printf "{\"prompt\":\"%d\",\"response\":\"r\",\"reward\":%.6f}\n", i % 200, rand() * 4 }' >x.jsonl
awk 'BEGIN { srand(4); for (i = 599; i >= 0; i--) printf "{\"prompt\":\"%d\",\"response\":\"r\",\"reward\":%.6f}\n", i % 200, rand() * 4 + 0.3 }' >y.jsonl
if python3 -c 'import numpy' 2>/dev/null; then
    ok 'the interval is that of numpy, to its own noise' \
       'pref-stat -q --json j x.jsonl y.jsonl >/dev/null && python3 - <<PY
import json, numpy as np
def means(f):
    m = {}
    for l in open(f):
        r = json.loads(l); m.setdefault(r["prompt"], []).append(r["reward"])
    return np.array([np.mean(m[str(i)]) for i in range(200)])
d = means("y.jsonl") - means("x.jsonl")
g = np.random.default_rng(1)
low, high = np.quantile(d[g.integers(0, 200, (10000, 200))].mean(1), [0.025, 0.975])
b = json.load(open("j"))["arms"][1]
assert b["paired"] == 200 and abs(b["difference"] - d.mean()) < 1e-12
tolerance = 0.06 * (high - low)
assert abs(b["difference_low"] - low) < tolerance and abs(b["difference_high"] - high) < tolerance, (b, low, high)
PY'
else
    skip 'the interval is that of numpy, to its own noise' 'no numpy'
fi
ok 'the same command gives the same bytes' 'pref-stat -q x.jsonl y.jsonl | cmp - <(pref-stat -q x.jsonl y.jsonl)'
ok 'the number of threads does not matter' 'MOEUTILS_THREADS=1 pref-stat -q x.jsonl y.jsonl | cmp - <(MOEUTILS_THREADS=2 pref-stat -q x.jsonl y.jsonl)'
ok 'another seed draws others'             'pref-stat -q --seed 1 --json j1 x.jsonl y.jsonl >/dev/null; pref-stat -q --json j0 x.jsonl y.jsonl >/dev/null; ! cmp -s j0 j1'
ok 'the order of rows does not matter to the difference' \
   'pref-stat -q x.jsonl y.jsonl >a; shuf y.jsonl >s; mkdir -p s.d && mv s s.d/y.jsonl; pref-stat -q x.jsonl s.d/y.jsonl | cmp - a'
ok 'an arm against itself: nothing'        'pref-stat -q x.jsonl x.jsonl | grep -E "^mean difference by prompt +- +0.0000$"'
x  'arms without a shared prompt'          0 'no prompt with rewards in common' 'sed s/prompt\":\"/prompt\":\"o/ y.jsonl >o.jsonl; pref-stat x.jsonl o.jsonl'
ok 'rows without rewards have counts and lengths' \
   'sed -E "s/,\"reward\":[^}]*//" a.jsonl | pref-stat -q >o && grep -E "^rows +5$" o && grep "^mean length" o && ! grep -q "mean reward" o'
cat >pairs.jsonl <<'ROWS'
{"prompt":"p","chosen":"aa","rejected":"b","reward_chosen":2,"reward_rejected":1,"x_chosen":0,"x_rejected":1}
{"prompt":"p","chosen":"a","rejected":"bb","reward_chosen":1,"reward_rejected":1,"x_chosen":0,"x_rejected":1}
{"prompt":"q","chosen":"\u00e9","rejected":"b","reward_chosen":3,"reward_rejected":1,"x_chosen":0,"x_rejected":1}
{"prompt":"q","chosen":"aaa","rejected":"bb"}
ROWS
ok 'pairs: what length and the scores say of the choice, with the interval of Wilson' \
   'pref-stat -q --json j pairs.jsonl >o && grep -E "^pairs +4$" o && python3 - <<PY
import json
a = json.load(open("j"))["arms"][0]
assert a["pairs"] == 4 and a["longer"] == 62.5, a
assert abs(a["agree"] - 100 * 2.5 / 3) < 1e-12, a
z, n, p = 1.959963984540054, 3, 2.5 / 3
c, h = p + z * z / 2 / n, z * (p * (1 - p) / n + z * z / 4 / n / n) ** 0.5
q = (1 + z * z / n) / 100
assert abs(a["agree_low"] - (c - h) / q) < 1e-9 and abs(a["agree_high"] - (c + h) / q) < 1e-9, a
PY'
ok 'pairs, scored by another name'         'pref-stat -q --field x pairs.jsonl | grep -E "scores higher .* 0.00$"'
ok '--tsv: the figures of --json, by name' \
   'pref-stat -q --tsv --json j a.jsonl b.jsonl >o && python3 - <<PY
import csv, json
rows, arms = list(csv.DictReader(open("o"), delimiter="\t")), json.load(open("j"))["arms"]
assert [r["arm"] for r in rows] == ["a", "b"]
for r, a in zip(rows, arms):
    for k in a:
        assert k == "file" or r[k] == "" and a[k] is None or float(r[k]) == a[k], k
PY'
ok '--field'                               'sed s/reward/gold/ a.jsonl | pref-stat -q --field gold | grep -E "^mean reward +2.5000$"'
ok '-o publishes'                          'pref-stat -q -o table x.jsonl y.jsonl && pref-stat -q x.jsonl y.jsonl | cmp - table'
# 3 words, all different, is said 4 times; then 200,000 different words and some
ok '--distinct: few words, exactly' \
   'seq 4 | sed "s/.*/{\"prompt\":\"&\",\"response\":\"One two, one\"}/" | pref-stat -q --distinct >o && grep -qE "^distinct words in 100 +18.75$" o && grep -qE "^  pairs of words +25.00$" o'
ok '--distinct: many, within one per cent' \
   'seq 200000 | sed "s/.*/{\"text\":\"w& and w& and\"}/" | pref-stat -q --distinct --json j >/dev/null && python3 -c "
import json
a = json.load(open(\"j\"))[\"arms\"][0]
assert abs(a[\"distinct_words\"] / (100 * 200001 / 800000) - 1) < 0.015 and abs(a[\"distinct_word_pairs\"] / (100 * 400000 / 600000) - 1) < 0.015, a"'
cat >show.jsonl <<'ROWS'
{"id":"1","prompt":[{"role":"user","content":"two\nlines"},{"role":"us\u001b[1mer","content":""}],"response":"a\ttab, \u001b]0;title\u0007, \u009b1m","reward":0.5,"tag":"<|rw_1|>"}
{"prompt":"p","chosen":"c","rejected":"","reward_chosen":2,"reward_rejected":1,"margin":1}
{"text":"\u00e9"}
ROWS
t  show                                    'pref-stat -q --show 2 show.jsonl a.jsonl'
ok '--show sends no control character'     '! pref-stat -q --show 9 show.jsonl | grep -qaP "[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]"'
ok '--show reads no further than it shows' '{ head -n 1 a.jsonl; echo "{"; } >half && pref-stat -q --show 1 half >o && grep -q "^response *| a$" o'
x  '--show and --json'                     2 'json has no meaning' 'pref-stat --show 1 --json j a.jsonl'
x  'a bad row'                             3 'bad:1: ' 'echo "{" >bad; pref-stat bad'
x  'a file without rows'                   3 'in 0'    'pref-stat /dev/null'
x  'an unknown option'                     2 'no-such' 'pref-stat --no-such'
x  'no resamples'                          2 'resamples' 'pref-stat --resamples 0 x.jsonl'
x  'a file that is not there'              1 'nowhere' 'pref-stat nowhere'
x  'a full disk'                           1 'No space' 'pref-stat x.jsonl >/dev/full'
finish
