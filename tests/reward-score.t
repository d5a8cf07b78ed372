#!/usr/bin/env bash
# reward-score.t -- rewards by words and by outside commands, and what commands may get wrong.
. "$(dirname "$0")/tap.sh"

printf '# words\ngood\t2\nbad\t-3\textra\n' >lex.tsv
cat >rows.jsonl <<'ROWS'
{"id":"0","prompt":"p","response":"Good, good!"}
{"id":"1", "prompt":"good","response":"bad and that's that", "reward": 7, "x":[1, 2]}
{"text":"so good a text is good"}
{"prompt":"p","response":"","reward":null}
ROWS
# 4 / sqrt 2; -3 / sqrt 4; 4 / sqrt 6; no words
cat >want.jsonl <<'ROWS'
{"id":"0","prompt":"p","response":"Good, good!","reward":2.82842712474619}
{"id":"1", "prompt":"good","response":"bad and that's that", "reward": -1.5, "x":[1, 2]}
{"text":"so good a text is good","reward":1.6329931618554523}
{"prompt":"p","response":"","reward":0}
ROWS
# rewards: the numbers alone
rewards() { sed -E 's/.*"reward": ?([^,}]*).*/\1/' "$@" | tr '\n' ' '; }
export -f rewards

ok 'the valence of words, by hand'        'reward-score -q --lexicon lex.tsv rows.jsonl | cmp - want.jsonl'
ok 'all other bytes are kept'             'reward-score -q --lexicon lex.tsv rows.jsonl | sed -E "s/(\"reward\": ?)-1.5,/\17,/" | sed -n 2p | cmp - <(sed -n 2p rows.jsonl)'
ok '--field leaves the reward alone'      'reward-score -q --lexicon lex.tsv --field gold rows.jsonl | sed -n 2p | grep -F "\"reward\": 7" | grep -F "\"gold\":-1.5"'
ok '-o publishes what stdout would show'  'reward-score -q --lexicon lex.tsv -o a rows.jsonl && reward-score -q --lexicon lex.tsv <rows.jsonl | cmp - a'
ok 'scoring twice changes nothing'        'reward-score -q --lexicon lex.tsv rows.jsonl >a && reward-score -q --lexicon lex.tsv a | cmp - a'
x  'accounts and the mean are said'       0 'mean reward' 'reward-score --lexicon lex.tsv rows.jsonl'
ok 'our own lexicon loads'                'echo "{\"text\":\"a wonderful day\"}" | reward-score -q --lexicon $TOP/pipelines/valence.tsv | rewards | grep -E "^2\.02"'
x  'a row with nothing to score is bad'   3 'rows:2: .*response' 'printf "%s\n" "{\"text\":\"a\"}" "{\"prompt\":\"a\"}" >rows; reward-score --lexicon lex.tsv rows'
x  'a field that is no number is not overwritten' 3 'rows.jsonl:1: .*no number' 'reward-score --lexicon lex.tsv --field response rows.jsonl'
x  'a malformed lexicon'                  1 'bad.tsv:2: ' 'printf "good\t1\nbad 2\n" >bad.tsv; reward-score --lexicon bad.tsv rows.jsonl'
x  'an empty lexicon'                     1 'none.tsv: '  'echo "# none" >none.tsv; reward-score --lexicon none.tsv rows.jsonl'
x  'a bad line'                           3 'rows:1: '    'echo "{" >rows; reward-score --lexicon lex.tsv rows'
x  'no rows at all'                       3 'in 0'        'reward-score --lexicon lex.tsv /dev/null'

# a command: one row a line in, one number a line out
seq 0 4999 | sed 's/.*/{"prompt":"p&","response":"r","n":&}/' >many.jsonl
# counts N: the rewards are 0 .. N-1
counts() { rewards | tr ' ' '\n' | sed '/^$/d' | cmp - <(seq 0 $(($1 - 1))); }
export -f counts
answer="sed -u -E 's/.*\"n\":([0-9]+).*/\1/'"; late="sed -E 's/.*\"n\":([0-9]+).*/\1/'"
export answer late
ok 'answers come back in order'           'reward-score -q --command "$answer" many.jsonl | counts 5000'
ok 'a command may answer at its end'      'reward-score -q --command "$late | tac | tac" many.jsonl | counts 5000'
ok 'a command may answer before it reads' 'reward-score -q --command "seq 0 4999; cat >/dev/null" many.jsonl | counts 5000'
ok 'a command need not read at all'       'reward-score -q --command "seq 0 4999" many.jsonl | counts 5000'
ok 'more answers than a pipe holds, while rows wait' \
   'head -c 3000000 /dev/zero | tr "\0" x | sed "s/.*/{\"prompt\":\"&\"}/" >big; for i in 1 2 3; do cat big; echo; done >three
    reward-score -q --command "while read -r l; do echo 1.5; done" three | wc -l | grep -qx 3'
ok 'spaces and exponents are numbers'     'head -n 3 many.jsonl | reward-score -q --command "cat >/dev/null; printf \" 1e3 \n-0.25\r\n.5\"" | rewards | grep -Eqx "1000(\.0)? -0.25 0.5 "'
x  'too few answers name the row'         1 "command 'head -n 17 .*' ended after 17 answers: none for many.jsonl:18" 'reward-score --command "head -n 17 | $late" many.jsonl'
x  'a command that dies names the row'    1 "exited with 9 after 2 answers: none for many.jsonl:3" 'reward-score --command "echo 1; echo 2; exit 9" many.jsonl'
x  'a command killed by a signal'         1 'killed by signal 9 after 1 answers: none for many.jsonl:2' 'reward-score --command "echo 1; kill -9 \$\$" many.jsonl'
x  'a command that fails at its end'      1 'exited with 3 after it had answered all 5000' 'reward-score --command "$late; exit 3" many.jsonl'
x  'a command that is not there'          1 'no-such-command.*none for many.jsonl:1' 'reward-score --command no-such-command many.jsonl'
x  'one answer too many'                  1 'more answers than rows, of which there are 5000' 'reward-score --command "$late; echo 1" many.jsonl'
x  'answers without end'                  1 'more answers than rows' 'reward-score --command "yes 1" many.jsonl'
x  'an answer that is no number'          1 'answer to many.jsonl:4 .*"oops"' 'reward-score --command "echo 1; echo 2; echo 3; echo oops; cat >/dev/null" many.jsonl'
x  'NaN is no answer'                     1 'answer to many.jsonl:1 .*"nan"' 'reward-score --command "echo nan" many.jsonl'
x  'an empty line is no answer'           1 'answer to many.jsonl:2 .*""' 'reward-score --command "echo 1; echo; cat >/dev/null" many.jsonl'
x  'a line without end is no answer'      1 'answer to many.jsonl:1 ' 'reward-score --command "tr \"\\0\" 1 </dev/zero" many.jsonl'
x  'a command that sits after nonsense is not waited for' 1 '"oops"' 'timeout 20 reward-score --command "echo oops; exec sleep 1000" many.jsonl'
ok 'nothing is published by a command that fails' \
   'echo old >keep; ! reward-score --command "head -n 17 | $late" -o keep many.jsonl && grep -qx old keep &&
    reward-score --command "head -n 17 | $late" many.jsonl >out; [ ! -s out ] && [ -z "$(ls -A | grep "^\.keep")" ]'
ok 'a reader that leaves ends the tool' 'for i in $(seq 20); do cat many.jsonl; done | { reward-score -q --command "$late" || true; } | head -n 1 >/dev/null || true'

# misuse and trouble
x  'no scorer'                            2 '--lexicon, --command or --model' 'reward-score rows.jsonl'
x  'two scorers'                          2 'two ways'               'reward-score --lexicon lex.tsv --command cat rows.jsonl'
x  'a field without a name'               2 'field is empty'       'reward-score --lexicon lex.tsv --field "" rows.jsonl'
x  'an unknown option'                    2 'no-such'                'reward-score --no-such'
x  'a lexicon that is not there'          1 'nowhere.tsv'            'reward-score --lexicon nowhere.tsv rows.jsonl'
x  'a full disk'                          1 'No space'               'reward-score --lexicon lex.tsv rows.jsonl >/dev/full'

if have_data && command -v python3 >/dev/null; then
    ok "VADER's lexicon loads and scores" \
       'echo "{\"response\":\"a great horrible sob\"}" | reward-score -q --lexicon $DATA/lexicon/vader_lexicon.txt |
        rewards | python3 -c "
v = dict(l.split(\"\t\")[:2] for l in open(\"$DATA/lexicon/vader_lexicon.txt\"))
want = sum(float(v[w]) for w in (\"great\", \"horrible\", \"sob\")) / 2
assert abs(float(input()) - want) < 1e-12, want"'
else
    skip "VADER's lexicon loads and scores" 'no data or no python3'
fi
finish
