#!/usr/bin/env bash
# pipelines.t -- every pipeline runs.  With SMALL=1 in its environment a pipeline shrinks its work
# to seconds; what it has to say is a table on stdout.  The lines that the README offers for pasting
# run, too.
. "$(dirname "$0")/tap.sh"
export SMALL=1 MOEUTILS_TESTDATA=$DATA
small='timeout 300 $TOP/pipelines'
ex='make -s -j2 -f $TOP/pipelines/experiment.mk D=$W/ex'

text() { # NAME 'command': a claim that needs the fortunes
    if [ -e /usr/share/games/fortunes/fortunes ]; then ok "$@"; else skip "$1" 'no fortunes package'; fi
}
data() { # NAME FILE 'command'
    if [ -e "$DATA/$2" ]; then ok "$1" "$3"; else skip "$1" "no $2 in the test data"; fi
}

text 'demo prints the arms, the bars and a plot' \
     "$small/demo demo.work >table && grep -E '^rwr .*\[' table && grep 'not applied' table && [ \$(grep -c '^CA, after [12] steps, top minus low: .*\[' table) = 2 ] &&
      { ! command -v gnuplot || grep '</svg>' demo.work/arms.svg; }"
text 'no held-out prompt is one that was learnt from' \
     'cut -d, -f 2 demo.work/held.jsonl | sort >held; test -s held
      cat demo.work/{text,own,other}.jsonl | grep -o "\"prompt\":.*" | cut -d, -f 1 | sort | comm -12 - held | wc -l | grep -x 0'
text 'experiment.mk makes the report' \
     "$ex >table && grep '^mean difference' table"
text 'experiment.mk gets the answers that demo gets' \
     'for a in sft random fa rwr ca-top; do cmp demo.work/$a.jsonl ex/$a.judged.jsonl || exit; done'
text 'made again, nothing is done' \
     "find ex -type f | sort | xargs stat -c '%n %Y %i' >before; $ex --no-silent | grep 'Nothing to be done' &&
      find ex -type f | sort | xargs stat -c '%n %Y %i' | cmp - before"
text 'what was lost is made again, and no more' \
     "rm ex/fa.judged.jsonl && $ex -n --no-silent | grep -c 'moe-' >n; $ex >table && grep -x 0 n"
text 'refresh goes on from there, silent, and leaves metrics' \
     "$small/refresh ex >out 2>&1 && ! test -s out && grep 'arm=\"fa\"} [-0-9.]*$' ex/rewards.prom && grep moeutils_ ex/runs.prom"
text 'refresh: one at a time' \
     "rm ex/rewards.prom; exec 8>ex/.lock; flock 8; $small/refresh ex && ! test -e ex/rewards.prom"
text 'refresh tells of a failure' \
     "mkdir -p broken && echo nonsense >broken/rows.jsonl && ! $small/refresh broken >out 2>err && ! test -s out && grep 'refresh: failed' err"
data 'hh-align takes HH rows as they are' hh/harmless-base-test.jsonl.gz \
     "D=hh1 $small/hh-align \$DATA/hh/harmless-base-test.jsonl.gz >table && grep '^mean difference' table"
data 'hh-align takes HH rows with scores' hh/scored_helpful_base.jsonl.zst \
     "D=hh2 $small/hh-align \$DATA/hh/scored_helpful_base.jsonl.zst --steps 50 >table && grep '^mean difference' table"
if [ -x "$TOP/build/cpu/bin/pref-cat" ]; then
    text "refresh, as cron would call it" "rm -f ex/rewards.prom; PATH=/usr/bin:/bin $small/refresh ex && test -s ex/rewards.prom"
    data "with the tree's tools where there are none in PATH" hh/harmless-base-test.jsonl.gz \
         "PATH=/usr/bin:/bin D=hh4 $small/hh-align \$DATA/hh/harmless-base-test.jsonl.gz --steps 1 >table && grep '^mean difference' table"
else
    skip "refresh, as cron would call it" 'no tools in build/cpu'
    skip "with the tree's tools where there are none in PATH" 'no tools in build/cpu'
fi
x    'hh-align needs a file' 1 'usage' '$TOP/pipelines/hh-align'
x    'one that is there, before old results go' 1 'nowhere cannot be read' 'mkdir -p hh3/fa; D=hh3 $TOP/pipelines/hh-align nowhere; s=$?; [ -d hh3/fa ] && exit $s'
x    'and a number of steps' 2 'usage' '$TOP/pipelines/hh-align "$TOP/LICENSE" --steps'
data 'judge compares reward models with length' ukp-humour/pairs.csv \
     "$small/judge judge.work >table && grep 'chosen scores higher' table && ! sort -u judge.work/humour.held.jsonl | grep -Fxf - judge.work/humour.train.jsonl"
data 'align-gpu goes its way on the CPU' text/books.txt.zst \
     "$small/align-gpu \$DATA/text/books.txt.zst al >table && grep '^seed 1, judge' table && grep '^the tag does not steer\|^the high tag is above' table"
data 'and makes nothing twice' text/books.txt.zst \
     "find al -type f | sort | xargs stat -c '%n %Y %i' >before; $small/align-gpu \$DATA/text/books.txt.zst al 2>said | cmp - table && ! test -s said && find al -type f | sort | xargs stat -c '%n %Y %i' | cmp - before"
ok   'align-gpu without books says so' '$TOP/pipelines/align-gpu nowhere 2>&1 | grep "no books at nowhere"'
ok   'judge without its data says so' 'MOEUTILS_TESTDATA=nowhere $TOP/pipelines/judge | grep skipped'

sed -n '/^```sh$/,/^```$/p' "$TOP/README.md" | grep -v '^```\|^PATH=' >lines
mkdir tree && ln -s "$TOP/pipelines" tree
text 'the lines in the README work when pasted' \
     'test -s lines && cd tree && bash -eo pipefail ../lines'
finish
