#!/usr/bin/env bash
# upcycle.t -- dense models become such with experts: the same answers at first, and then they learn.
. "$(dirname "$0")/tap.sh"
. "$TOP/tests/tiny.sh"

for family in llama qwen3; do
    sed "s/\"mixtral\"/\"$family\"/; s/\"num_local_experts\":4,\"num_experts_per_tok\":2,//" tiny.json >$family.json
    moe-train -q -j 1 --model $family.json --data set/ --batch 8 --steps 40 --lr 1e-2 -o $family.run/
done
# scores CKPT: log-probabilities of the rows, one a line
scores() { reward-score -q --logp -m "$1" rows.jsonl | grep -o '"ref_logp":[^,}]*' | cut -d: -f2; }
# same DENSE CKPT TOLERANCE: both give the same scores, which differ from row to row
same() {
    scores "$1" >a && scores "$2" >b && [ $(sort -u a | wc -l) -gt 20 ] &&
        paste a b | awk -v most="$3" '{d = ($1 - $2) / (1 + ($1 < 0 ? -$1 : $1)); if (d > most || d < -most) {print; bad = 1}} END {exit bad || NR != 60}'
}
losses() { grep -o '"loss":[0-9][0-9.]*' "$1/log.jsonl" | cut -d: -f2; }
export -f scores same losses

for family in llama qwen3; do
    ok "$family with 4 experts, 2 chosen: the same answers" \
       "ckpt-reshard --upcycle 4,2 $family.run/ -o $family.moe/ && same $family.run/ $family.moe/ 1e-5"
    ok "$family with 9 experts of a third, 6 chosen" \
       "ckpt-reshard --upcycle 9,6,3 $family.run/ -o $family.parts/ && same $family.run/ $family.parts/ 1e-5"
done
ok 'another seed draws other routers, and gives the same answers' \
   'ckpt-reshard --upcycle 9,6,3 --seed 1 llama.run/ -o other/ && same llama.run/ other/ 1e-5 && ! cmp -s llama.parts/model-*.safetensors other/model-*.safetensors'
ok 'the same command gives the same bytes' 'ckpt-reshard --upcycle 9,6,3 llama.run/ -o again/ && diff -r llama.parts again'
ok 'in files of a size' \
   'ckpt-reshard --upcycle 4,2 --max-shard-size 4k llama.run/ -o sized/ && [ $(ls sized/model-*.safetensors | wc -l) -gt 2 ] && ckpt-reshard sized/ -o one/ && shard-show --diff llama.moe one'
ok 'and it learns on' \
   'moe-train -q -j 1 --init llama.parts/ --data set/ --batch 8 --steps 30 --lr 1e-2 -o on.run/ && losses on.run | awk "NR == 1 {first = \$1} {last = \$1} END {exit !(NR == 30 && last < first)}"'
ok 'its copies grow apart' \
   'ckpt-reshard --to-hf on.run/ -o on.hf && python3 - <<PY
import json, struct
raw = open("on.hf/model.safetensors", "rb").read()
n = struct.unpack("<Q", raw[:8])[0]
h = json.loads(raw[8:8 + n])
w = [raw[8 + n + a:8 + n + b] for a, b in (h[f"model.layers.0.block_sparse_moe.experts.{e}.w1.weight"]["data_offsets"] for e in (0, 3, 6))]
assert len(set(w)) == 3
PY'
ok 'a reward model too' \
   'awk "{printf \"{\\\"prompt\\\":\\\"count %d\\\",\\\"chosen\\\":\\\" and %d\\\",\\\"rejected\\\":\\\" or %d\\\"}\\n\", NR, NR + 1, NR * 3}" rows.jsonl >pairs.jsonl &&
    shard-pack -q -t tok.json --seq 64 -o pairs/ pairs.jsonl &&
    moe-train -q -j 1 --loss bt --init llama.run/ --data pairs/ --batch 4 --steps 2 -o bt.run/ && ckpt-reshard --upcycle 4,1 bt.run/ -o bt.moe/ &&
    reward-score -q --raw -m bt.run/ rows.jsonl | grep -o "\"reward\":[^,}]*" >a && reward-score -q --raw -m bt.moe/ rows.jsonl | grep -o "\"reward\":[^,}]*" >b &&
    paste -d: a b | awk -F: "{d = \$2 - \$4; if (d > 1e-5 || d < -1e-5) exit 1}"'
x 'not dense'            2 'no family is "mixtral" with experts'   'ckpt-reshard --upcycle 4,2 llama.moe/ -o o'
x 'more than memory' 2 '2000000000 experts in each of 2 layers are more than 100000' 'ckpt-reshard --upcycle 2000000000,2 llama.run/ -o o'
x 'parts that do not fit' 2 '9 experts of which 4 are chosen do not come in 3 parts' 'ckpt-reshard --upcycle 9,4,3 llama.run/ -o o'
x 'more than there are'  2 'there are not 3 of 2 experts to choose' 'ckpt-reshard --upcycle 2,3 llama.run/ -o o'
x 'a width that is not cut' 2 'a width of 12 cannot be cut into 5 parts' 'ckpt-reshard --upcycle 10,5,5 llama.run/ -o o'
x 'no numbers'           2 'experts, chosen experts and maybe parts are wanted' 'ckpt-reshard --upcycle 4 llama.run/ -o o'
x 'not with --to-hf'     2 'exclude each other'                    'ckpt-reshard --upcycle 4,2 --to-hf llama.run/ -o o'
finish
