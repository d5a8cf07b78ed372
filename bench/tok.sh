#!/usr/bin/env bash
# tok.sh -- text to ids beside the `tokenizers` and `tiktoken` packages: one core, the same text, which
# is real and not repeated, the packages and ours in turns; the ids must be the same.
#
# English is books, code what Python and the system's headers are made of, CJK the Japanese and Chinese
# manual pages (Debian: manpages-ja, manpages-zh).  A ratio is the median of five turns'.
set -euo pipefail
cd "$(dirname "$0")/.."

python3 -c 'import tokenizers, tiktoken' 2>/dev/null || {
    echo "tok: skipped, no Python packages tokenizers and tiktoken (./setup --tests)"; exit 0; }
from=$DATA/tokenizers
[ -e "$from/qwen3/tokenizer.json.zst" ] || { echo "tok: skipped, no $from"; exit 0; }
make -s "$(realpath --relative-to=. "$BUILD")/bench/tok"
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT
peer() { taskset -c 0 python3 bench/tok_peer.py "$@"; }

zstd -qdc "$DATA/text/books.txt.zst" | head -c 10000000 | iconv -cf utf-8 -t utf-8 >"$dir/english" || true
peer corpus 10000000 "$(python3 -c 'import os; print(os.path.dirname(os.__file__))')" /usr/include >"$dir/code"
peer corpus 10000000 /usr/share/man/{ja,zh_CN,zh_TW} >"$dir/cjk"
for name in qwen3 deepseek-v3; do
    zstd -qdc "$from/$name/tokenizer.json.zst" >"$dir/$name"
done
cp "$from/tiktoken/cl100k_base.tiktoken" "$dir/cl100k.tiktoken"

printf '%-8s %-16s %5s %10s %10s %6s %6s  %s\n' text tokenizer MB 'ours MB/s' 'peer MB/s' ratio target ids
for text in english code cjk; do
    [ "$(stat -c %s "$dir/$text")" -gt 1000000 ] || { echo "$text: skipped, there is hardly any"; continue; }
    while read -r package name target; do
        for turn in 1 2 3 4 5; do
            taskset -c 0 "$BUILD/bench/tok" "$dir/$name" "$dir/$text" "$dir/ids" | tr '\n' ' '
            peer "$package" "$dir/$name" "$dir/$text" "$dir/ids"
        done >"$dir/turns"
        awk '{print $1, $4, $4 / $1}' "$dir/turns" >"$dir/times"
        printf '%-8s %-16s %5.1f %10.1f %10.1f %6.1f %6s  %s\n' $text "$name" \
            $(for column in 1 2 3; do cut -d' ' -f$column "$dir/times" | sort -n | sed -n 3p; done |
                paste -sd' ' | awk -v bytes="$(stat -c %s "$dir/$text")" '
                    { mb = bytes / 1e6; print mb, mb / $1, mb / $2, $3 }') \
            "$target" "$(awk '{print $5}' "$dir/turns" | sort -u | paste -sd,)"
    done <<'PEERS'
tokenizers qwen3 8
tokenizers deepseek-v3 8
tiktoken cl100k.tiktoken 1.5
PEERS
done

# Threads: one and two in turns.  What two cores give at all is the yardstick: two processes at once.
python3 - "$dir/english" >"$dir/rows" <<'ROWS'
import json, sys
text = open(sys.argv[1]).read()
for at in range(0, len(text), 4096):
    print(json.dumps({"text": text[at:at + 4096]}, ensure_ascii=False))
ROWS
for n in 1 2 3 4 5 6; do cat "$dir/rows"; done >"$dir/rows.jsonl"
for n in 1 2 3 4 5 6; do cat "$dir/english"; done >"$dir/text"
pack() { local from=$EPOCHREALTIME to
    "$BUILD/bin/shard-pack" -q -j "$1" -t "$dir/qwen3" --seq 4096 --overlong split -o "$dir/set$1/" "$dir/rows.jsonl"
    to=$EPOCHREALTIME; echo $((${to/./} - ${from/./})); }
encode() { "$BUILD/bench/tok" "$dir/qwen3" "$dir/text" "$dir/ids${2:-$1}" "$1"; }
both() { if [ "$1" = 1 ]; then encode 1; else encode 1 other >"$dir/other" & encode 1; wait; cat "$dir/other"; fi |
    awk '{ if ($1 > t) t = $1 } END { print t / NR }'; }
for what in both encode pack; do
    for turn in 1 2 3 4 5 6 7; do
        echo "$($what 1 | cut -d' ' -f1) $($what 2 | cut -d' ' -f1)"
    done | awk '{print $1 / $2}' | sort -g | sed -n 4p
done | paste -sd' ' | awk '{ printf "qwen3, english, 2 / 1: processes %.2f, threads of the encoder %.2f, of shard-pack whole %.2f\n", $1, $2, $3 }'
cmp "$dir/ids1" "$dir/ids2" && diff -r "$dir/set1" "$dir/set2" && echo "the same ids and bytes"
