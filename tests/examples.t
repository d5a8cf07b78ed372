#!/usr/bin/env bash
# examples.t -- the lines under EXAMPLES of every manual page work when pasted, in their order, and
# print what the page says they print.  They run among small files of the names that pages use.
. "$(dirname "$0")/tap.sh"

# PAGE: its examples as 01, 01.want, 02 ...; a line behind "$ " (and what continues it) is typed, others of
# such an example are printed; without "$ " all are typed.
extract() {
    awk 'function put(s) {
             gsub(/\\e/, "\\", s)
             file = sprintf("%02d", n)
             if (sub(/^\$ /, "", s))
                 prompt = typed = 1
             print s >(typed || !prompt ? file : file ".want")
             typed = typed && s ~ /[\\|]$/
         }
         /^\.Sh / { on = $2 == "EXAMPLES" }
         on && /^\.Bd/ { n++; within = 1; prompt = typed = 0; next }
         on && /^\.Ed/ { within = 0 }
         on && /^\.Dl / { n++; prompt = typed = 0; put(substr($0, 5)) }
         within { put($0) }' "$1"
}
# What an example needs and this machine lacks, or what takes too long here.
lacks() {
    for c in jq mpirun gnuplot; do
        grep -qw "$c\|${c/gnuplot/--plot}" "$1" && ! command -v $c >/dev/null && { echo "no $c"; return; }
    done
    grep -q 'import safetensors' "$1" && ! python3 -c 'import safetensors' 2>/dev/null && { echo 'no Python package safetensors'; return; }
    grep -q '^mpirun' "$1" && [[ $BUILD != *mpi* ]] && { echo 'no MPI in this build'; return; }
    grep -q 'pipelines/demo' "$1" && echo 'pipelines.t runs it'
}

mkdir all pipelines && cd all || exit 1
. "$TOP/tests/tiny.sh"
mv set base
sed -i 's/"max_position_embeddings":64/"max_position_embeddings":256/; s/"vocab_size":340/"vocab_size":2048/' tiny.json
for s in sft fa held; do cp -r base $s; done
awk 'BEGIN { for (i = 1; i <= 60; i++) for (k = 0; k < 4; k++)
    printf "{\"id\":\"q%d/%d\",\"prompt\":\"count %d\",\"response\":\"to %d\",\"reward\":%g}\n", i, k, i, i * k, (i * k) % 7 - 3 }' >scored.jsonl
cp scored.jsonl train.jsonl; cp scored.jsonl valid.jsonl; cp rows.jsonl prompts.jsonl; cp rows.jsonl heldout.jsonl
for i in 1 2 3 4 5 6 7 8 9; do echo "It was late, and the night was not over: $i o'clock."; done >book.txt
for r in base fa; do moe-train -q -j 1 --model tiny.json --data $r/ --batch 4 --steps ${#r} --lr 1e-3 -o $r.run/; done
cp -r base.run sft.run; cp -r base.run run
ckpt-reshard -q --to-hf base.run/ -o mixtral/
ln -s mixtral/model.safetensors model-00001-of-00001.safetensors
mkdir pipelines && ln "$TOP"/pipelines/valence.tsv pipelines/ 2>/dev/null || cp "$TOP"/pipelines/valence.tsv pipelines/
cp tiny.json pipelines/
cd ..

for page in "$TOP"/man/*.[157]; do
    name=$(basename "$page")
    mkdir "$name" && (cd "$name" && extract "$page")
    for e in "$name"/[0-9][0-9]; do
        [ -e "$e" ] || continue
        why=$(lacks "$e")
        if [ -n "$why" ]; then skip "$e" "$why"; continue; fi
        # Examples of moeutils(7) are one story; any other begins among the same files.
        [ "$name" = moeutils.7 ] && [ -e there ] || { rm -rf there; cp -r all there; }
        for made in $(grep -o -- '-o [^ ]*\.run/' "$e" | cut -d' ' -f 2); do rm -rf "there/$made"; done
        run='bash -eo pipefail'
        grep -q '^import' "$e" && run=python3
        grep -q '^shard-show --diff' "$e" && run="! $run" # they differ, which is exit 1
        ok "$e works" "cd there && $run ../$e >../out && { ! test -e ../$e.want || diff ../$e.want ../out; }"
    done
done
finish
