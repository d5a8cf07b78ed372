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

t  table            'mfu-report a.run/ b.jsonl empty.jsonl'
t  tsv              'mfu-report --tsv a.run b.jsonl empty.jsonl'
t  peak             'mfu-report --peak 10 a.run'
ok 'stdin is a log' 'mfu-report <a.run/log.jsonl | grep -q "^stdin  *3  *1  *3000 "'
ok "- is stdin"     "mfu-report - <b.jsonl >one && mfu-report <b.jsonl | cmp - one"
ok '-o writes what stdout gets' 'mfu-report -o table a.run && mfu-report a.run | cmp - table'
ok 'a line cut short by a kill is not there' \
   'printf "{\"step\":4,\"lo" | cat a.run/log.jsonl - >cut; mfu-report <cut | grep -q "^stdin  *3 "'
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
