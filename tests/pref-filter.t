#!/usr/bin/env bash
# pref-filter.t -- which rows stay, and that every other one is accounted for.
. "$(dirname "$0")/tap.sh"

# Two prompts, interleaved; p's 3 stands twice; odd spacing and escapes must survive.
cat >rows.jsonl <<'ROWS'
{"id":"0","prompt":"p","response":"a","reward":1}
{"id":"1", "prompt":"q", "response":"\u00e9", "reward":2.0}
{"id":"2","prompt":"p","response":"ccc","reward":3}
{"reward":2,"id":"3","prompt":"p","response":"dd","more":[1,{"x":null}]}
{"id":"4","prompt":"p","response":"ccc","reward":3.0}
{"id":"5","prompt":"\u0071","response":"f","reward":-1}
ROWS
# ids ARGS...: the ids kept, as one word.
ids() { pref-filter -q "$@" rows.jsonl | sed -E 's/.*"id": ?"([^"]*)".*/\1/' | tr -d '\n'; }
# is WANT ARGS...
is() { local want=$1 got; shift; got=$(ids "$@"); [ "$got" = "$want" ] || { echo "kept $got, wanted $want"; false; }; }
export -f ids is

ok 'keeps all lines byte for byte'       'pref-filter -q rows.jsonl | cmp - rows.jsonl'
ok 'fa without a criterion keeps all'    'pref-filter -q --method fa rows.jsonl | cmp - rows.jsonl'
ok 'reads stdin'                         'pref-filter -q --method fa --top-k 1 <rows.jsonl | grep -c . | grep -qx 2'
ok '--min-reward is strict'              'is 24 --method fa --min-reward 2'
ok '--inclusive is not'                  'is 1234 --method fa --min-reward 2 --inclusive'
ok '--top-k 1: of two equals the first'  'is 12 --method fa --top-k 1'
ok '--top-k 2, groups interleaved'       'is 1245 --method fa --top-k 2'
ok '--top-frac keeps ceil(F N)'          'is 124 --method fa --top-frac 0.41'
ok '--top-frac 0.5 of 6 is 3'            'is 124 --method fa --top-frac 0.5'
ok '--top-frac-per-prompt keeps ceil(F n) of each prompt' 'is 12 --method fa --top-frac-per-prompt 0.2 && is 124 --method fa --top-frac-per-prompt 0.5 && is 12345 --method fa --top-frac-per-prompt 0.51'
ok '--quantile-threshold is strict, and says what it was' \
   'is 24 --method fa --quantile-threshold 0.5 && is 1234 --method fa --quantile-threshold 0.5 --inclusive && is 01234 --method fa --quantile-threshold 0 &&
    pref-filter --method fa --quantile-threshold 0.3 --manifest q rows.jsonl 2>&1 >/dev/null | grep "threshold 0.3 is a score of 1.5$" && grep "\"quantile\":0.3,\"threshold\":1.5" q'
x  'and accounts for what is below'      0 'dropped 4 \(below --quantile-threshold 4\)' 'pref-filter --method fa --quantile-threshold 0.5 rows.jsonl'
ok 'criteria intersect'                  'is 2 --method fa --top-k 1 --min-reward 2'
ok 'a negative threshold'                'is 01234 --method fa --min-reward -1'
ok 'a prompt is its text, however written' 'is 12 --method fa -k 1'
ok 'prompt_id groups before the prompt' \
   'sed "s/^{/{\"prompt_id\":\"one\",/" rows.jsonl >one && pref-filter -q --method fa -k 1 one | grep -q "\"id\":\"2\""'
ok 'groups span files'                   'pref-filter -q --method fa -k 1 rows.jsonl rows.jsonl | wc -l | grep -qx 2'
ok 'lists of messages group, spacing aside' \
   'printf "%s\n" "{\"prompt\":[{\"role\":\"user\",\"content\":\"x\"}],\"reward\":1}" \
       "{\"prompt\": [ {\"role\": \"user\", \"content\": \"\\u0078\"} ], \"reward\": 2}" |
    pref-filter -q --method fa -k 1 | wc -l | grep -qx 1'
ok 'order does not matter to what is kept' \
   'tac rows.jsonl | pref-filter -q --method fa --min-reward 1 | tac >a && pref-filter -q --method fa --min-reward 1 rows.jsonl | cmp - a'
ok '--field' 'sed s/reward/gold/ rows.jsonl | pref-filter -q --method fa --field gold -k 1 | wc -l | grep -qx 2'
ok 'a last line without newline gets one' 'printf %s "$(cat rows.jsonl)" | pref-filter -q | cmp - rows.jsonl'

# accounts and rejects
x  'the accounts add up' 0 '^pref-filter: in 6, kept 1, dropped 5 \(.*below --min-reward 4.*not in --top-k 1' \
   'pref-filter --method fa --top-k 1 --min-reward 2 rows.jsonl'
x  'what selection did to prompts and lengths is said' 0 'prompts 2 -> 1, mean reward 1.667 -> 3, mean length 1.833 -> 3, length-reward' \
   'pref-filter --method fa --min-reward 2 rows.jsonl'
ok 'rejects have a line, a reason and the row' \
   'pref-filter -q --method fa --top-k 1 --rejects rej rows.jsonl >kept &&
    [ $(wc -l <kept) = 2 ] && [ $(wc -l <rej) = 4 ] && sed -n 2p rej | grep -F "\"line\":4" | grep -F "not in --top-k" | grep -F "\"more\":[1,{\"x\":null}]"'
ok '-o publishes what stdout would show' \
   'pref-filter -q --method fa -k 1 -o out rows.jsonl && pref-filter -q --method fa -k 1 rows.jsonl | cmp - out'

# rewards that are none
{ head -n 2 rows.jsonl; echo '{"prompt":"p","response":"x"}'; tail -n 4 rows.jsonl; } >missing.jsonl
sed '3s/.*/{"prompt":"p","response":"x","reward":NaN}/' missing.jsonl >nan.jsonl
sed '3s/.*/{"prompt":"p","response":"x","reward":null}/' missing.jsonl >null.jsonl
x  'a missing reward is an error'        3 '^pref-filter: missing.jsonl:3: .*reward' 'pref-filter --method fa missing.jsonl'
x  'so is null'                          3 'null.jsonl:3: .*reward'                  'pref-filter --method fa null.jsonl'
x  'so is NaN'                           3 'nan.jsonl:3: .*NaN'                      'pref-filter --method fa nan.jsonl'
x  'so is another field that is text'    3 'rows.jsonl:1: .*no number'               'pref-filter --method fa --field response rows.jsonl'
ok 'nothing is written on exit 3'        'pref-filter --method fa missing.jsonl -o none >out; [ ! -s out ] && [ ! -e none ]'
x  '--bad-reward drop drops'             0 'in 7, kept 6, dropped 1 \(no reward 1\)' 'pref-filter --method fa --bad-reward drop missing.jsonl'
x  '--max-bad tolerates'                 0 'in 7, kept 6, dropped 0, bad 1'          'pref-filter --method fa --max-bad 1 nan.jsonl'
x  'none and random need no reward'      0 'kept 7'                                  'pref-filter --method random missing.jsonl'
x  'a row without a prompt has no group' 3 'stdin:1: no prompt'                   'echo "{\"response\":\"x\"}" | pref-filter'
ok 'a text row is its own group'         'printf "{\"text\":\"%s\"}\n" a b a | pref-filter -q --method random -k 1 | wc -l | grep -qx 2'

# nothing left
x  'no row kept is exit 3'               3 'in 6, kept 0' 'pref-filter --method fa --min-reward 9 rows.jsonl'
ok 'which publishes nothing'             'echo old >keep; ! pref-filter --method fa --min-reward 9 -o keep rows.jsonl && grep -qx old keep'
x  '--allow-empty accepts that'          0 'in 6, kept 0' 'pref-filter --method fa --min-reward 9 --allow-empty -o empty rows.jsonl && test -e empty && ! test -s empty'
x  'empty input is exit 3'               3 'in 0, kept 0' 'pref-filter </dev/null'

# parts and the random control
seq 1000 | sed 's/.*/{"prompt":"&","response":"r","reward":&}\n{"prompt":"&","response":"s","reward":0}/' >many.jsonl
ok 'parts are disjoint, whole and keep prompts together' \
   'pref-filter -q --part 1-9/10 many.jsonl >train && pref-filter -q --part 10/10 many.jsonl >test &&
    sort train test | cmp - <(sort many.jsonl) && ! comm -12 <(grep -o "^{\"prompt\":\"[0-9]*" train | sort -u) <(grep -o "^{\"prompt\":\"[0-9]*" test | sort -u) | grep . &&
    [ $(wc -l <test) -gt 120 ] && [ $(wc -l <test) -lt 280 ]'
ok 'a part does not depend on the order' \
   'shuf many.jsonl | pref-filter -q --part 3/4 | sort >a && pref-filter -q --part 3/4 many.jsonl | sort | cmp - a'
ok 'another seed deals anew'             '! pref-filter -q --part 1/2 many.jsonl | cmp -s - <(pref-filter -q --part 1/2 --seed 1 many.jsonl)'
ok '--part goes before the fraction'     '[ $(pref-filter -q --part 1/2 many.jsonl | wc -l) = $((2 * $(pref-filter -q --part 1/2 --method fa --top-frac 0.5 many.jsonl | wc -l))) ]'
ok 'random keeps as many as fa'          '[ $(pref-filter -q --method random -k 1 many.jsonl | wc -l) = 1000 ] && [ $(pref-filter -q --method random --top-frac 0.25 many.jsonl | wc -l) = 500 ]'
ok 'random knows no reward'              'r=$(pref-filter -q --method random -k 1 many.jsonl | grep -c "\"r\""); [ $r -gt 430 ] && [ $r -lt 570 ]'
ok 'random is the same in any order'     'shuf many.jsonl | pref-filter -q --method random -k 1 | sort >a && pref-filter -q --method random -k 1 many.jsonl | sort | cmp - a'
ok 'and another under another seed'      '! pref-filter -q --method random -k 1 many.jsonl | cmp -s - <(pref-filter -q -s 1 --method random -k 1 many.jsonl)'

# weights: prompt p has 1 3 2 3, q has 2 and -1
weights() { pref-filter -q --method rwr "$@" rows.jsonl | sed -E 's/.*"weight":([^,}]*).*/\1/' | tr '\n' ' '; }
has_weights() { local want=$1 got; shift; got=$(weights "$@"); [ "$got" = "$want " ] || { echo "got $got, wanted $want"; false; }; }
export -f weights has_weights
ok 'rwr: beta inf is plain fine-tuning'  'has_weights "1 1 1 1 1 1" --beta inf'
ok 'rwr: softmax at beta near 0 is best-of-n' \
   'has_weights "0 1 0.5 0 0.5 0" --beta 1e-6 --max-weight inf --weight-norm softmax-prompt'
ok 'rwr: the rest of the row is as it was' \
   'pref-filter -q --method rwr rows.jsonl | sed -E "s/,\"weight\":[^,}]*//" | cmp - rows.jsonl'
ok 'rwr: an old weight is replaced in its place' \
   'echo "{\"weight\": 7, \"prompt\":\"p\",\"reward\":1}" | pref-filter -q --method rwr | grep -Fx "{\"weight\": 1, \"prompt\":\"p\",\"reward\":1}"'
ok 'rwr: figures worked out by numpy or by hand' \
   'pref-filter -q --method rwr --beta 0.5 --max-weight 4 --manifest m rows.jsonl >w && python3 - <<PY
import json, math
rows = [json.loads(l) for l in open("w")]
r = [1, 2, 3, 2, 3, -1]; b = [2.25, .5, 2.25, 2.25, 2.25, .5]
raw = [min(math.exp((x - y) / .5), 4) for x, y in zip(r, b)]
mean = sum(raw) / 6
want = [x / mean for x in raw]
got = [x["weight"] for x in rows]
assert all(abs(x - y) < 1e-14 for x, y in zip(got, want)), (got, want)
m = json.load(open("m"))
w = m["weight"]
assert abs(w["effective_sample_size"] - sum(want) ** 2 / sum(x * x for x in want)) < 1e-12 and w["clipped"] == 3, w
assert m["method"] == "rwr" and m["rows"] == {"in": 6, "kept": 6} and m["norm"] == {"kind": "none"}
n = [1, 1, 3, 2, 3, 1]
mx, my = sum(want) / 6, sum(n) / 6
c = sum((x - mx) * (y - my) for x, y in zip(want, n)) / math.sqrt(sum((x - mx) ** 2 for x in want) * sum((y - my) ** 2 for y in n))
assert abs(w["length_correlation"] - c) < 1e-12
assert m["reward"]["n"] == 6 and abs(m["reward"]["mean"] - 10 / 6) < 1e-12 and m["reward"]["q95"] == 3
PY'
ok 'rwr: a number as the baseline' \
   'pref-filter -q --method rwr --baseline 2 --weight-norm none rows.jsonl | sed -E "s/.*\"weight\":([^,}]*).*/\1/" | python3 -c "
import math, sys
for got, r in zip(map(float, sys.stdin), (1, 2, 3, 2, 3, -1), strict=True): assert abs(got - math.exp(r - 2)) < 1e-14, (got, r)"'
x  'rwr: a baseline that is none'        2 'baseline: "mean" is none of' 'pref-filter --method rwr --baseline mean rows.jsonl'
x  'rwr: the effective sample size is said' 0 'effective sample size 6.0 of 6, 0.0 % capped, greatest 1$' \
   'pref-filter --method rwr --beta inf rows.jsonl'
x  'rwr: and warned of below 10 %'       0 'below 10 %' \
   'pref-filter --method rwr --beta 0.01 --max-weight inf --baseline global many.jsonl'
x  'rwr: an overflow is named'           3 'a weight overflows' \
   'pref-filter --method rwr --beta 1e-9 --max-weight inf --weight-norm none rows.jsonl'
x  'rwr: beta 0'                         2 '--beta 0: must be above 0' 'pref-filter --method rwr --beta 0 rows.jsonl'

# z-scores
ok 'fa on z-scores: above the mean'      'is 24 --method fa --norm global --min-reward 0.5'
ok 'constants are saved and reused' \
   'pref-filter -q --method fa --norm global --manifest m rows.jsonl >/dev/null &&
    python3 -c "
import json, statistics
n = json.load(open(\"m\"))[\"norm\"]; r = [1, 2, 3, 2, 3, -1]
assert n[\"kind\"] == \"global\" and n[\"ddof\"] == 1 and n[\"n\"] == 6, n
assert abs(n[\"mean\"] - statistics.mean(r)) < 1e-12 and abs(n[\"std\"] - statistics.stdev(r)) < 1e-12, n" &&
    sed -n 1p rows.jsonl >first && ! pref-filter -q --method fa --norm-from m --min-reward 0 first &&
    sed -n 3p rows.jsonl >third && pref-filter -q --method fa --norm-from m --min-reward 0 third | cmp - third'
x  'a constant reward: zeros and a word' 0 'do not differ' \
   'sed -E "s/\"reward\": ?[-0-9.]+/\"reward\":1/" rows.jsonl | pref-filter --method rwr --norm global'
x  '--norm and --norm-from'              2 'only one'     'pref-filter --method fa --norm none --norm-from m rows.jsonl'
x  'a manifest that is none'             2 'rows.jsonl: '  'pref-filter --method fa --norm-from rows.jsonl rows.jsonl'
x  'a manifest without constants'        2 'no constants' 'echo "{}" >none.json; pref-filter --method fa --norm-from none.json rows.jsonl'

# tags
tags() { pref-filter -q --method ca "$@" | sed -E 's/.*"tag":"([^"]*)".*/\1/; t; s/.*/none/' | tr '\n' '/'; }
has_tags() { local want=$1 got; shift; got=$(tags "$@"); [ "$got" = "$want/" ] || { echo "got $got, wanted $want"; false; }; }
export -f tags has_tags
ok 'ca: bins by quantile, equals together' \
   'has_tags "<|rw_0|>/<|rw_1|>/<|rw_2|>/<|rw_1|>/<|rw_2|>/<|rw_0|>" --bins 3 --ca-drop 0 rows.jsonl'
ok 'ca: text, with the spaces'           'has_tags " <rm_score>: 1.0 / <rm_score>: 2.0 / <rm_score>: 3.0 / <rm_score>: 2.0 / <rm_score>: 3.0 / <rm_score>: -1.0 " --ca-mode text --ca-drop 0 rows.jsonl'
ok 'ca: clipped'                        'has_tags " <rm_score>: 1.0 / <rm_score>: 1.5 / <rm_score>: 1.5 / <rm_score>: 1.5 / <rm_score>: 1.5 / <rm_score>: -1.0 " --ca-mode text --clip 1.5 --ca-drop 0 rows.jsonl'
ok 'ca: two digits of a z-score'         'has_tags " <rm_score>: -0.71 / <rm_score>: 0.71 " --ca-mode text --digits 2 --norm global --ca-drop 0 <(sed -n 1,2p rows.jsonl)'
ok 'ca: dropped at the rate, others kept, old tags too' \
   'sed "s/^{/{\"tag\":\"old\",/" many.jsonl | pref-filter -q --method ca --bins 2 --ca-drop 0.25 >c && [ $(wc -l <c) = 2000 ] && ! grep -q old c &&
    n=$(grep -vc "\"tag\"" c) && [ $n -gt 420 ] && [ $n -lt 580 ]'
ok 'ca: who is dropped does not depend on the order' \
   'shuf many.jsonl | pref-filter -q --method ca | sort >a && pref-filter -q --method ca many.jsonl | sort | cmp - a'
ok 'ca: edges are saved, and other rows get the same bins' \
   'pref-filter -q --method ca --bins 3 --ca-drop 0 --manifest m rows.jsonl >c && [ $(grep -o "\"edges\":[^]]*]" m) = "\"edges\":[2,3]" ] &&
    has_tags "<|rw_2|>" --norm-from m --ca-drop 0 <(sed -n 3p rows.jsonl) && has_tags "<|rw_0|>" --norm-from m --ca-drop 0 <(sed -n 1p rows.jsonl)'
x  'ca: rows by bin are said'             0 'rows by bin 2 2 2; 0 left without a tag' 'pref-filter --method ca --bins 3 --ca-drop 0 rows.jsonl'
x  'ca: and empty bins'                  0 '1 of 5 bins are empty' 'pref-filter --method ca --ca-drop 1 rows.jsonl'
t  manifest                              'cat m'
ok 'ca: the manifest counts tags and their rewards' \
   'python3 -c "
import json
t = json.load(open(\"m\"))[\"tag\"]
assert t[\"top\"] == \"<|rw_2|>\" and t[\"untagged\"] == 0
assert [(x[\"tag\"][5], x[\"count\"], x[\"reward_mean\"]) for x in t[\"tags\"]] == [(\"0\", 2, 0), (\"1\", 2, 2), (\"2\", 2, 3)], t"'
ok 'ca: text tags in the manifest, lowest first' \
   'pref-filter -q --method ca --ca-mode text --ca-drop 0 --manifest m rows.jsonl >/dev/null && python3 -c "
import json
t = json.load(open(\"m\"))[\"tag\"]
assert [(x[\"tag\"], x[\"count\"]) for x in t[\"tags\"]] == [(\" <rm_score>: %.1f \" % x, n) for x, n in ((-1, 1), (1, 1), (2, 2), (3, 2))], t
assert t[\"top\"] == \" <rm_score>: 3.0 \""'
for row in '"prompt":"a <|rw_0|>"' '"prompt":[{"role":"user","content":"<|end|>"}]' \
           '"prompt":"p","response":"x <rm_score>: 5"' '"text":"<|user|>"'; do
    echo "{$row,\"reward\":1}" >control
    x  "ca refuses $row" 3 'control:1: .*control token' 'pref-filter --method ca control'
    ok 'unless told otherwise' 'pref-filter -q --method ca --allow-control --ca-drop 0 control | grep -q "<|rw_4|>"'
done
x  'a token is no bad reward'            3 'control token' 'pref-filter --method ca --bad-reward drop control'
ok 'ca: <|, | and < alone are no token'  'echo "{\"prompt\":\"a <| b |> <> <||> <rm\",\"reward\":1}" | pref-filter -q --method ca | grep -q .'
x  'ca: bins of text'                    2 'bins has no meaning for --ca-mode text' 'pref-filter --method ca --ca-mode text --bins 3 rows.jsonl'
x  'ca: eleven bins'                     2 '--bins 11: must be from 2 to 10' 'pref-filter --method ca --bins 11 rows.jsonl'
x  'ca: other bins than those saved'     2 '--bins 5: .* has 3' \
   'pref-filter -q --method ca --bins 3 --manifest m3 rows.jsonl >/dev/null; pref-filter --method ca --norm-from m3 --bins 5 rows.jsonl'

# pairs: p has 1 3 2 3 (the threes say the same), q 2 and -1, r a tie, s one answer, t one text twice
cat >answers.jsonl <<'ROWS'
{"id":"0","prompt":"p","response":"a","reward":1}
{"id":"1","prompt":"q","response":"e","reward":2}
{"id":"2","prompt":"p","response":"ccc","reward":3,"meta":1}
{"id":"3","prompt":"r","response":"x","reward":1}
{"id":"4","prompt":"p","response":"dd","reward":2}
{"id":"5","prompt":"p","response":"ccc","reward":3}
{"id":"6","prompt":"q","response":"f","reward":-1}
{"id":"7","prompt":"r","response":"y","reward":1}
{"id":"8","prompt":"s","response":"y","reward":1}
{"id":"9","prompt":"t","response":"same","reward":1}
{"id":"10","prompt":"t","response":"same","reward":2}
ROWS
pairs() { pref-filter -q --method pairs "$@" answers.jsonl | sed -E 's/.*"id":"([^"]*)".*"margin":([^}]*).*/\1=\2/' | tr '\n' ' '; }
has_pairs() { local want=$1 got; shift; got=$(pairs "$@"); [ "$got" = "$want " ] || { echo "got $got, wanted $want"; false; }; }
export -f pairs has_pairs
t  pairs                                 'pref-filter --method pairs --rejects rej answers.jsonl; cat rej'
ok 'pairs: the best and the worst'       'has_pairs "2>0=2 1>6=3"'
ok 'pairs: all, the best first'          'has_pairs "2>4=1 2>0=2 5>4=1 5>0=2 4>0=1 1>6=3" --pairs all'
ok 'pairs: a least margin'               'has_pairs "2>0=2 5>0=2 1>6=3" --pairs all --min-margin 2 && has_pairs "1>6=3" --min-margin 2.5'
ok 'pairs: the worst that says something else' \
   'printf "{\"id\":\"%s\",\"prompt\":\"p\",\"response\":\"%s\",\"reward\":%s}\n" a same 3 b other 2 c other 1 d same 0 | pref-filter -q --method pairs | grep -q "\"id\":\"a>c\""'
ok 'pairs: never the same text twice, whatever the rewards' \
   'python3 -c "
import random, json
random.seed(1)
for i in range(3000): print(json.dumps(dict(prompt=str(random.randrange(300)), response=random.choice(\"abcd\"), reward=random.randrange(4))))" >noise.jsonl
    for how in all best-worst; do pref-filter -q --method pairs --pairs $how noise.jsonl | python3 -c "
import sys, json
n = 0
for l in sys.stdin:
    r = json.loads(l); n += 1
    assert r[\"chosen\"] != r[\"rejected\"] and r[\"margin\"] == r[\"reward_chosen\"] - r[\"reward_rejected\"] > 0, r
assert n > 200"; done'
ok 'pairs: they are rows'                'pref-filter -q --method pairs answers.jsonl | pref-cat -q | wc -l | grep -qx 2'
ok 'pairs: a prompt of messages and its id stay' \
   'printf "{\"prompt_id\":\"x\",\"prompt\":[{\"role\":\"user\",\"content\":\"u\"}],\"response\":\"%s\",\"reward\":%s}\n" a 1 b 2 | pref-filter -q --method pairs |
    grep -Fx "{\"prompt_id\":\"x\",\"prompt\":[{\"role\":\"user\",\"content\":\"u\"}],\"chosen\":\"b\",\"rejected\":\"a\",\"reward_chosen\":2,\"reward_rejected\":1,\"margin\":1}"'
x  'pairs: none at all'                  3 'kept 0'       'head -n 1 answers.jsonl | pref-filter --method pairs'
x  'pairs of pairs'                      3 'no prompt and response' 'echo "{\"prompt\":\"p\",\"chosen\":\"a\",\"rejected\":\"b\",\"reward\":1}" | pref-filter --method pairs'

# repeated answers
ok 'dedup exact: the greater reward, then the first, by prompt' \
   'pref-filter -q --dedup exact answers.jsonl | grep -o "\"id\":\"[0-9]*" | cut -d\" -f4 | tr "\n" " " | grep -qx "0 1 2 3 4 6 7 8 10 "'
ok 'dedup: the rejects name the row kept' \
   'pref-filter -q --dedup exact --rejects rej answers.jsonl >/dev/null && [ $(wc -l <rej) = 2 ] && grep -q "\"line\":6.*\"cluster\":\"[0-9a-f]\{16\}\",\"kept\":\"2\"" rej && grep -q "\"line\":10.*\"kept\":\"10\"" rej'
ok 'dedup: what is kept does not depend on the order' \
   'pref-filter -q --dedup exact noise.jsonl | sed -E "s/.*prompt\": (.*)/\1/" | sort >a && shuf noise.jsonl | pref-filter -q --dedup exact | sed -E "s/.*prompt\": (.*)/\1/" | sort | cmp - a'
ok 'dedup comes before the fraction'     '[ $(pref-filter -q --dedup exact noise.jsonl | wc -l) = $((2 * $(pref-filter -q --dedup exact --method fa --top-frac 0.5 noise.jsonl | wc -l))) ] ||
    [ $(pref-filter -q --dedup exact noise.jsonl | wc -l) = $((2 * $(pref-filter -q --dedup exact --method fa --top-frac 0.5 noise.jsonl | wc -l) - 1)) ]'
ok 'dedup: both sides of a pair count' \
   'printf "{\"prompt\":\"p\",\"chosen\":\"%s\",\"rejected\":\"%s\"}\n" a b a c a b | pref-filter -q --dedup exact | wc -l | grep -qx 2'
# Nineteen words have 15 grams; the last word changed leaves 14 of 16: 0.875; one in the middle 10 of 20.
w='a b c d e f g h i j k l m n o p q r s'
printf '{"id":"%s","prompt":"%s","response":"%s","reward":%s}\n' whole p "$w" 1 last p "${w% s} t" 3 middle p "${w/i j/i z}" 2 \
    case p "${w^^}" 0 other q "$w" 0 short p 42 0 short2 p 43 0 point p 4.2 0 >near.jsonl
near() { pref-filter -q --dedup near "$@" near.jsonl | grep -o '"id":"[a-z0-9]*' | cut -d'"' -f4 | tr '\n' ' '; }
export -f near
ok 'near: at 0.875 one changed word at the end, and case'  '[ "$(near --near 0.875)" = "last middle other short short2 point " ] || { near --near 0.875; false; }'
ok 'near: above it they stay'            '[ "$(near --near 0.876)" = "whole last middle other short short2 point " ]'
ok 'near: the best answer gathers its likes' '[ "$(near --near 0.5)" = "last middle other short short2 point " ] || { near --near 0.5; false; }'
ok 'near: against an index computed in Python' \
   'python3 - <<PY
import random, json, subprocess
random.seed(2)
rows = []
for i in range(400):
    words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen".split()
    for _ in range(random.randrange(4)): words[random.randrange(14)] = random.choice("xyz")
    rows.append(dict(id=str(i), prompt=str(i % 20), response=" ".join(words), reward=random.randrange(5)))
open("r.jsonl", "w").write("".join(json.dumps(r) + "\n" for r in rows))
def grams(s):
    w = s.split()
    return {tuple(w[k:k + 5]) for k in range(len(w) - 4)}
for t in 0.3, 0.6, 0.9:
    keep = set()
    for p in range(20):
        kept = []
        for r in sorted((r for r in rows if r["prompt"] == str(p)), key=lambda r: (-r["reward"], int(r["id"]))):
            g = grams(r["response"])
            if all(len(g & h) < t * len(g | h) - 1e-9 for h in kept):
                kept.append(g); keep.add(r["id"])
    got = subprocess.run(["pref-filter", "-q", "--dedup", "near", "--near", str(t), "r.jsonl"], capture_output=True, text=True, check=True).stdout
    got = {json.loads(l)["id"] for l in got.splitlines()}
    assert got == keep and 20 < len(keep) < 400, (t, len(got), len(keep))
PY'
ok 'near: scripts without blanks have words of one character' \
   'printf "{\"prompt\":\"p\",\"response\":\"%s\"}\n" 天地玄黄宇宙洪荒日月盈昃辰宿列张 天地玄黄宇宙洪荒日月盈昃辰宿列长 寒来暑往秋收冬藏 | pref-filter -q --dedup near --near 0.8 | wc -l | grep -qx 2'
x  '--near without near'                 2 'near has no meaning' 'pref-filter --dedup exact --near 0.5 rows.jsonl'

# rules about lengths and groups
ok '--min-chars and --max-chars'         'is 234 --min-chars 2 --max-chars 3'
ok 'lengths are characters, not bytes'   'is 015 --max-chars 1'
x  'and accounted for'                   0 'kept 1, dropped 5 \(shorter than --min-chars 3, longer than --max-chars 2\)' \
   'pref-filter --min-chars 2 --max-chars 2 rows.jsonl'
ok '--min-group 3'                       'is 0234 --min-group 3'
ok '--require-spread 3: q differs by 3'  'is 15 --method fa --require-spread 3'
ok 'dropped groups are in no fraction'   'is 24 --method fa --min-group 3 --top-frac 0.5'

# what is read twice
ok 'a plain file, a compressed one and a pipe give the same' \
   'for how in "--method fa --top-k 1" "--method rwr" "--method pairs --dedup near"; do
        pref-filter -q $how answers.jsonl many.jsonl >a && gzip -c many.jsonl >m.gz && pref-filter -q $how answers.jsonl m.gz | cmp - a &&
        cat answers.jsonl many.jsonl | pref-filter -q $how | cmp - a && pref-filter -q $how answers.jsonl - <many.jsonl | cmp - a || exit 1; done'
ok 'a byte order mark, carriage returns, long lines and a last line without newline' \
   'seq 3000 | sed "s/.*/{\"prompt\":\"&\",\"reward\":&,\"x\":\"$(head -c 300 /dev/zero | tr "\\0" y)\"}\r/" >crlf; printf "{\"prompt\":\"%s\",\"reward\":1}\n{\"prompt\":\"z\",\"reward\":0}" $(head -c 600000 /dev/zero | tr "\\0" z) >>crlf
    { printf "\357\273\277"; cat crlf; } >bom; pref-filter -q --method fa bom >out && { cat crlf; echo; } | cmp - out && pref-filter -q --method fa <bom | cmp - out'
mkfifo fifo
x  'a file that changes meanwhile'       1 'turn: has changed while it was read' \
   'cp rows.jsonl turn; { cat rows.jsonl; sleep 0.2; echo >>turn; } >fifo & pref-filter --method fa turn fifo'
ok 'another file of its name'            'cp rows.jsonl turn; { cat rows.jsonl; sleep 0.2; cp turn t2; mv t2 turn; } >fifo & ! pref-filter --method fa -o none turn fifo && [ ! -e none ]'

# misuse and trouble
x  'a closed standard output is an error, and no other file' 1 'standard output: Bad file' \
   'pref-filter --method fa -k 1 --rejects rej --manifest man.json rows.jsonl >&-; s=$?; grep -q verdict rej || s=9; grep -q "\"id\"" man.json && s=9; exit $s'
x  'so is a closed standard input'       1 'stdin: Bad file' 'pref-filter <&-'
ok 'words to a closed standard error go nowhere' 'pref-filter --method fa -k 1 -o out --rejects rej rows.jsonl 2>&- && pref-filter -q --method fa -k 1 rows.jsonl | cmp - out'
ok 'of an option given twice the last counts' 'pref-filter -q --method none --dedup near --method fa --dedup none -k 3 -k 1 rows.jsonl | wc -l | grep -qx 2'
x  'an unknown option'                   2 'no-such'           'pref-filter --no-such'
x  'an unknown method'                   2 'method'            'pref-filter --method magic rows.jsonl'
x  'an option the method does not know'  2 'min-reward.*random' 'pref-filter --method random --min-reward 1 rows.jsonl'
x  'a criterion without a method'        2 'top-k.*none'       'pref-filter --top-k 1 rows.jsonl'
x  'a malformed part'                    2 '--part 0/3'        'pref-filter --part 0/3 rows.jsonl'
x  'a fraction above one'                2 '--top-frac'        'pref-filter --method fa --top-frac 1.5 rows.jsonl'
x  'a quantile above one'                2 '--quantile-threshold' 'pref-filter --method fa --quantile-threshold 2 rows.jsonl'
x  'a clip of zero'                      2 '--clip 0'          'pref-filter --method ca --clip 0 rows.jsonl'
x  'a fraction of zero'                  2 '--top-frac'        'pref-filter --method fa --top-frac 0 rows.jsonl'
x  'a negative k'                        2 '--top-k'           'pref-filter --method fa --top-k -1 rows.jsonl'
x  'a reward that no shard can hold'      3 'rows:2: the reward is too large' 'printf "{\"prompt\":\"p\",\"response\":\"r\",\"reward\":%s}\n" 3e38 -4e38 | pref-filter --method fa -k 1 --rejects rej 2>&1 | sed s/stdin/rows/ >&2'
x  'a file that is not there'            1 'nowhere.jsonl'     'pref-filter nowhere.jsonl'
x  'a full disk'                         1 'No space'          'pref-filter rows.jsonl >/dev/full'
x  'no room for the spool'               1 '/nowhere'          'TMPDIR=/nowhere pref-filter --method fa rows.jsonl'
ok 'what needs no other row needs no spool' 'TMPDIR=/nowhere pref-filter -q --part 1/1 --min-chars 1 rows.jsonl | cmp - rows.jsonl'

if have_data && command -v pref-cat >/dev/null && command -v python3 >/dev/null; then
    ok 'real rows: one answer for each prompt, the best' \
       'pref-cat -q --explode $DATA/hh/scored_helpful_base.jsonl.zst >samples && pref-filter -q --method fa --top-k 1 samples >best &&
        python3 - <<PY
import json
best = {}
for line in open("samples"):
    r = json.loads(line)
    k = r.get("prompt_id") or json.dumps(r["prompt"])
    if k not in best or r["reward"] > best[k][0]:
        best[k] = (r["reward"], line)
kept = open("best").read()
assert sorted(l for _, l in best.values()) == sorted(kept.splitlines(True)), (len(best), kept.count("\n"))
assert 2200 < len(best) <= 2354, len(best)
PY'
else
    skip 'real rows: one answer for each prompt, the best' 'no data, pref-cat or python3'
fi
finish
