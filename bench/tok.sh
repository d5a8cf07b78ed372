#!/usr/bin/env bash
# tok.sh -- text to ids beside the `tokenizers` and `tiktoken` packages: one core, the same text, which
# is real and not repeated, the packages and ours in turns; the ids must be the same.
#
# English is books, code what Python and the system's headers are made of, CJK the Japanese and Chinese
# manual pages (Debian: manpages-ja, manpages-zh).  A ratio is the median of five turns'.
set -euo pipefail
cd "$(dirname "$0")/.."

python3 -c 'import tokenizers, tiktoken' 2>/dev/null || {
    echo "tok: skipped, no tokenizers and tiktoken (pip install tokenizers tiktoken)"; exit 0; }
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
for jobs in $(seq "$(nproc)"); do
    for turn in 1 2 3 4 5; do
        "$BUILD/bench/tok" "$dir/qwen3" "$dir/english" "$dir/ids" "$jobs"
    done | sort -n | sed -n 3p
done | awk -v bytes="$(stat -c %s "$dir/english")" '
    { if (NR == 1) one = $1
      printf "qwen3, english, %d at a time: %.1f MB/s, %.2f of one; loading %.2f s\n",
             NR, bytes / 1e6 / $1, one / $1, $3 }'
