#!/usr/bin/env bash
# rows.sh -- how fast rows go through the row tools, beside what cat and wc do with the same bytes.
#
# Each line is the median of three by the clock, in cached files; the processor's seconds are beside
# it, as a busy machine lengthens the one and hardly the other.
set -euo pipefail

dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT
cd "$dir"
TIMEFORMAT='%R %U %S'
export TMPDIR=$dir

# measure WHAT FILE TARGET COMMAND...
measure() {
    local what=$1 file=$2 target=$3 i
    shift 3
    for i in 1 2 3; do
        { time "$@" >/dev/null 2>err; } 2>&1 || { echo "rows.sh: $*: $(tail -n 1 err)" >&2; return 1; }
    done | sort -n | sed -n 2p | awk -v what="$what" -v bytes="$(stat -c %s "$file")" -v target="$target" '
        { printf "%-34s %8.2f %8.2f %8.0f %8.0f  %s\n", what, $1, $2 + $3, bytes / 1e6 / $1,
                 bytes / 1e6 / ($2 + $3 + 1e-9), target }'
}
head_line() { printf '%-34s %8s %8s %8s %8s  %s\n' "$1" seconds 'CPU s' MB/s MB/CPUs 'target MB/s'; }

# Rows as a sampler writes them: 60,000 prompts of 8 answers, some 640 bytes a row.
awk 'BEGIN {
    srand(1)
    n = split("the of a to in that it is was for on with his as be at by had not but from have are which one you were all her she there would their we him been has when who will no more if out so up said what its about than into them can only other time new some could these two may first then do any my now such like our over man me even most made after also did many off before must well back through years where much your way down should because long each just state those people", word, " ")
    for (p = 0; p < 5000; p++)
        for (k = 0; k < 8; k++) {
            text = ""
            for (w = 0; w < 100; w++) text = text word[int(rand() * n) + 1] " "
            printf "{\"id\":\"%d/%d\",\"prompt_id\":\"%d\",\"prompt\":\"What is said of %d, and by whom?\",\"response\":\"%s\\nThat is \\\"it\\\".\",\"sample\":%d,\"reward\":%.4f,\"finish\":\"stop\"}\n", p, k, p, p, text, k, rand() * 4 - 2
        }
}' >some.jsonl
for i in $(seq 12); do sed "s/^{\"id\":\"/&$i./; s/\"prompt_id\":\"/&$i./" some.jsonl; done >rows.jsonl
cat rows.jsonl >/dev/null

head_line "$(du -m rows.jsonl | cut -f1) MB of rows"
measure 'cat' rows.jsonl '' cat rows.jsonl
measure 'wc -l' rows.jsonl '' wc -l rows.jsonl
measure 'cp' rows.jsonl '' cp rows.jsonl copy.jsonl
rm -f copy.jsonl
measure 'pref-filter' rows.jsonl 500 pref-filter -q rows.jsonl
measure 'pref-filter --part 1-9/10' rows.jsonl '' pref-filter -q --part 1-9/10 rows.jsonl
measure 'pref-filter --method fa' rows.jsonl 500 pref-filter -q --method fa rows.jsonl
measure 'pref-filter --method fa --top-k 1' rows.jsonl '' pref-filter -q --method fa --top-k 1 rows.jsonl
measure 'pref-filter --method rwr' rows.jsonl '' pref-filter -q --method rwr rows.jsonl
measure 'pref-stat' rows.jsonl '' pref-stat -q rows.jsonl
rm -f rows.jsonl

hh=$DATA/hh/scored_helpful_base.jsonl.zst
if [ ! -e "$hh" ]; then
    echo "HH rows: skipped, no $hh"
    exit 0
fi
zstd -qdc "$hh" >one.jsonl
for i in $(seq 120); do cat one.jsonl; done >hh.jsonl
echo
head_line "$(du -m hh.jsonl | cut -f1) MB of HH rows"
measure 'cat' hh.jsonl '' cat hh.jsonl
measure 'wc -l' hh.jsonl '' wc -l hh.jsonl
measure 'pref-cat' hh.jsonl 200 pref-cat -q --max-bad 1m hh.jsonl
measure 'pref-cat --explode' hh.jsonl '' pref-cat -q --max-bad 1m --explode hh.jsonl
