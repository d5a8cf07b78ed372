#!/usr/bin/env bash
# mfu-report.t -- the table of runs, on logs small enough to check by head.
. "$(dirname "$0")/tap.sh"

mkdir a.run
cat >a.run/log.jsonl <<'LOG'
{"log":"moe-train","version":1,"config":{"seed":0},"flops_token":1e6,"params":1000,"active":500,"peak_flops":2e12,"data":"00ff"}
{"step":1,"loss":8,"aux":1,"z":0,"lr":0.001,"grad_norm":4,"tokens":1000,"step_ms":400,"tflops":0.1,"ok":true,"seconds":0.4}
{"step":2,"loss":null,"aux":1,"z":0,"lr":0.001,"grad_norm":null,"tokens":1000,"step_ms":100,"tflops":0.4,"ok":false,"seconds":0.5}
{"step":3,"loss":6.5,"aux":1,"z":0,"lr":0.001,"grad_norm":2,"tokens":1000,"step_ms":100,"tflops":0.5,"ok":true,"seconds":0.6,"new":1}
LOG
head -n 1 a.run/log.jsonl | sed 's/2e12/0/' >empty.jsonl
sed '$ s/"loss":6.5/"loss":7.25/' a.run/log.jsonl >b.jsonl


# A reward model's run: pairs, validations, and what counting all of attention takes.
mkdir "it's & <pairs>.run"
cat >pairs.jsonl <<'LOG'
{"log":"moe-train","version":1,"config":{"seed":0},"flops_token":1e6,"params":1000,"active":500,"peak_flops":2e12,"data":"00ff","flops_square":3e5,"memory":5e9}
{"step":1,"loss":0.75,"aux":1,"z":0,"lr":0.001,"grad_norm":4,"tokens":1000,"step_ms":100,"tflops":0.5,"ok":true,"seconds":0.1,"won":0.5,"squares":2e4}
{"step":2,"loss":0.5,"aux":1,"z":0,"lr":0.001,"grad_norm":2,"tokens":1000,"step_ms":100,"tflops":0.5,"ok":true,"seconds":0.2,"won":0.75,"squares":1e4}
{"step":2,"valid_loss":0.625,"seconds":0.3}
{"step":3,"loss":0.25,"aux":1,"z":0,"lr":0.001,"grad_norm":1,"tokens":1000,"step_ms":100,"tflops":0.5,"ok":true,"seconds":0.4,"won":0.875,"squares":1e4}
{"step":3,"valid_loss":0.5625,"seconds":0.5}
LOG
cp pairs.jsonl "it's & <pairs>.run/log.jsonl"
touch -d @1000 a.run/log.jsonl b.jsonl empty.jsonl pairs.jsonl
touch a.run/done.json

# figure FILE RUNS PANELS: well-formed, in each panel one bold curve a run, and the legend names it.
figure() {
    python3 - "$@" <<'PY'
import re, sys, xml.etree.ElementTree as xml
file, runs, panels = sys.argv[1], sys.argv[2].split(','), int(sys.argv[3])
root = xml.parse(file).getroot()
tag = lambda e: e.tag.split('}')[1]
curves = {}  # of a panel: a letter behind the number that gnuplot gives each curve
for g in root.iter():
    title = g.find('{http://www.w3.org/2000/svg}title')
    name = re.fullmatch(r'gnuplot_plot_\d+([a-z])', title.text) if title is not None else None
    if name and '2.00' in [h.get('stroke-width') for h in g.iter()]:
        colours = [h.get('stroke').upper().replace(' ', '') for h in g.iter()
                   if tag(h) == 'path' and h.get('stroke')]
        curves.setdefault(name[1], set()).update(colours)
texts = [''.join(e.itertext()).strip() for e in root.iter() if tag(e) == 'text']
assert len(curves) == panels, curves
assert all(len(c) == len(runs) for c in curves.values()), curves
assert all(texts.count(r) == 1 for r in runs), texts
PY
}
export -f figure

t  table            'mfu-report a.run/ b.jsonl empty.jsonl'
t  tsv              'mfu-report --tsv a.run b.jsonl empty.jsonl'
t  peak             'mfu-report --peak 10 a.run'
t  pairs            'mfu-report a.run pairs.jsonl'
t  pairs-tsv        'mfu-report --tsv a.run pairs.jsonl'
t  json             'mfu-report --json report a.run pairs.jsonl empty.jsonl >/dev/null && cat report'
t  prometheus       'mfu-report --prometheus x.prom a.run pairs.jsonl empty.jsonl >/dev/null && cat x.prom'
ok 'JSON and metrics do not change the table' \
   'mfu-report --json j --prometheus p a.run >both && mfu-report a.run | cmp - both'
ok 'the JSON is JSON'            'python3 -m json.tool report >/dev/null'
ok 'a label is escaped' \
   'cp b.jsonl "a\"b\\c"; mfu-report --prometheus q.prom "a\"b\\c" >/dev/null
    grep -qF "moeutils_steps{run=\"a\\\"b\\\\c\"} 3" q.prom'
x  'metrics of two runs of one name' 2 'a.run is given twice' \
   'mfu-report --prometheus z.prom a.run/ a.run'
ok 'stdin is a log' 'mfu-report <a.run/log.jsonl | grep -q "^stdin  *3  *1  *3000 "'
ok "- is stdin"     "mfu-report - <b.jsonl >one && mfu-report <b.jsonl | cmp - one"
ok 'names in any letters stay in their column' \
   'cp -r a.run "größer 日本" && mfu-report a.run "größer 日本" | sed 1d | sed "s/[0-9].*//" | python3 -c "import sys; a, b = (len(l) for l in sys.stdin); sys.exit(a != b)"'
ok '-o writes what stdout gets' 'mfu-report -o table a.run && mfu-report a.run | cmp - table'
ok 'a line cut short by a kill is not there' \
   'printf "{\"step\":4,\"lo" | cat a.run/log.jsonl - >cut; mfu-report <cut | grep -q "^stdin  *3 "'

if command -v gnuplot >/dev/null; then
    ok 'a figure has a curve a run and panel' \
       'mfu-report --plot a.svg a.run b.jsonl >/dev/null && figure a.svg a.run,b.jsonl 4'
    ok 'and one more panel for pairs; names are text' \
       "mfu-report --plot p.svg it*.run >/dev/null && figure p.svg \"it's & <pairs>.run\" 5"
    ok 'validations are in the legend' 'grep -q ">validation<" p.svg && ! grep -q validation a.svg'
    ok 'a figure over tokens' \
       'mfu-report --plot t.svg --over tokens a.run b.jsonl >/dev/null &&
        figure t.svg a.run,b.jsonl 4 && grep -q ">tokens<" t.svg && ! grep -q ">step<" t.svg'
    ok 'gnuplot has nothing to complain of' \
       'head -n 2 a.run/log.jsonl >1.jsonl; mfu-report --plot 1.svg 1.jsonl b.jsonl 2>&1 >/dev/null |
        cmp - /dev/null'
    ok 'the same figure twice is the same bytes' \
       'mfu-report --plot b.svg a.run b.jsonl >/dev/null && cmp a.svg b.svg'
    x  'nothing to plot'          1 'no run has a step to plot' 'mfu-report --plot e.svg empty.jsonl'
else
    skip 'figures' 'no gnuplot'
fi
# A PATH in which there is nothing but the tools.
bare='bare() { PATH=$(dirname "$(command -v mfu-report)") mfu-report "$@"; }'
x  'a plot without gnuplot'      1 'needs gnuplot' "$bare; bare --plot no.svg a.run"
ok 'the table comes all the same' \
   "$bare; bare --plot no.svg a.run >bare.out 2>/dev/null
    mfu-report a.run | cmp - bare.out && [ ! -e no.svg ]"

# A run that is followed: the log grows, a line comes in two pieces, and done.json ends it.
grow() {
    mkdir f.run; sleep 0.4
    head -c 50 pairs.jsonl >f.run/log.jsonl; sleep 0.4
    head -n 2 pairs.jsonl | tail -c +51 >>f.run/log.jsonl; sleep 0.7
    head -n 5 pairs.jsonl | tail -n +3 >>f.run/log.jsonl; head -n 6 pairs.jsonl | tail -n 1 | head -c 9 >>f.run/log.jsonl
    sleep 0.7; head -n 6 pairs.jsonl | tail -n 1 | tail -c +10 >>f.run/log.jsonl; touch f.run/done.json
}
export -f grow
ok 'follows a run that is yet to begin until it is done' \
   'grow & timeout 20 mfu-report -q --follow --json f.json f.run >f.out; s=$?; wait; exit $s'
ok 'a row for each growth'       '[ "$(grep -c "^f.run  *[123] " f.out)" -ge 3 ] && [ "$(grep -c ^run f.out)" = 1 ]'
ok 'the last row is that of the whole log' \
   '[ "$(tail -n 1 f.out | tr -s " ")" = "$(mfu-report f.run | tail -n 1 | tr -s " ")" ]'
ok 'reports are those of the end' 'mfu-report --json now f.run >/dev/null && cmp f.json now'
ok 'an interrupt ends following, and that is success' \
   'mfu-report --follow b.jsonl >i.out & p=$!
    for i in {1..100}; do [ -s i.out ] && break; sleep 0.05; done
    kill -INT $p; wait $p && grep -q "^b.jsonl  *3 " i.out'
x  'no run to follow on a pipe'  2 'follow needs the name' 'mfu-report --follow -'

x  'refuses what is no log'       4 '^mfu-report: rows.jsonl:1: not a step log' \
   'echo "{\"id\":1}" >rows.jsonl; mfu-report rows.jsonl'
x  'refuses an empty file'        4 'e.jsonl: no header' ': >e.jsonl; mfu-report e.jsonl'
x  'refuses a version to come'    4 'b2.jsonl:1: .*version' \
   'sed "s/\"version\":1/\"version\":2/" b.jsonl >b2.jsonl; mfu-report b2.jsonl'
x  'names a broken line'          4 'b3.jsonl:3: ' \
   'sed "3s/:100,/:,/" b.jsonl >b3.jsonl; mfu-report b3.jsonl'
x  'names a missing field'        4 'b4.jsonl:4: "ok" is missing' \
   'sed "4s/\"ok\":true,//" b.jsonl >b4.jsonl; mfu-report b4.jsonl'
x  'names a field of another type' 4 'b5.jsonl:2: "step" has the wrong type' \
   'sed "2s/\"step\":1/\"step\":1.5/" b.jsonl >b5.jsonl; mfu-report b5.jsonl'
x  'a run without a log'          1 'none.run/log.jsonl' \
   'mkdir none.run; mfu-report none.run'
x  'a file that is not there'     1 'nosuch' 'mfu-report nosuch'
x  'a peak below 0'               2 'peak' 'mfu-report --peak -1 a.run'
x  'a full disk is a failure'     1 "mfu-report: .*No space" 'mfu-report a.run >/dev/full'
finish
