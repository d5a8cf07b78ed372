#!/usr/bin/env bash
# train.sh -- moe-train on the CPU beside the product it is made of: model FLOP/s (6 x active matmul
# parameters and causal attention, as mfu-report counts) over a 1024^3 sgemm on the same threads.
#
# Product and training take turns, since other work on the machine slows both; each line is a turn of some
# steps (the median of them), the last line the median of the turns.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT
cd "$dir"
fortunes=/usr/share/games/fortunes
[ -d $fortunes ] || { echo "train: skipped, no $fortunes"; exit 0; }
(cd $fortunes && pref-cat -q --split-on % fortunes literature people) >text.jsonl
tok-train -q --vocab 2048 -o tok.json text.jsonl
shard-pack -q -t tok.json --seq 128 --overlong split --window 1000 -o set/ text.jsonl

printf '%-8s %14s %14s %8s  %s\n' turn 'sgemm GFLOP/s' 'train GFLOP/s' '%' 'target %'
for turn in 1 2 3 4 5; do
    sgemm=$("$BUILD/tests/op" --bench none | awk '/product of/ {for (i = 1; i < NF; i++) if ($(i + 1) == "TFLOP/s,") print $i * 1000}')
    moe-train -q --model "$top/pipelines/tiny.json" --data set/ -o "run$turn/" --steps 24 --batch 32 --seed "$turn"
    tail -n +4 "run$turn/log.jsonl" | grep -o '"tflops":[0-9.e-]*' | cut -d: -f2 | sort -g |
        awk -v turn="$turn" -v g="$sgemm" '{v[NR] = $1 * 1000}
            END {m = v[int((NR + 1) / 2)]; printf "%-8s %14.0f %14.1f %8.0f\n", turn, g, m, 100 * m / g}'
done | tee turns
sort -k4,4n turns | sed -n 3p | awk '{printf "%-8s %14s %14s %8s  40\n", "median", $2, $3, $4}'
