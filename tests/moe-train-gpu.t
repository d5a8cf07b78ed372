#!/usr/bin/env bash
# moe-train-gpu.t -- runs on a GPU: the same bits again and after a resume, what is captured, and what is
# refused or stopped there.
. "$(dirname "$0")/tap.sh"
. "$TOP/tests/tiny.sh" 2>tiny.err
[ -e set/manifest.json ] || { skip 'training on a GPU' "no set: $(head -n 1 tiny.err)"; finish; }

sed 's/"hidden_size":16/"hidden_size":64/; s/"intermediate_size":12/"intermediate_size":64/' tiny.json >wide.json
gpu="moe-train -q --device cuda --type bf16 --data set/ --batch 4"
bf16="--grads bf16 --moments bf16 --master none"
same() { diff -r "$1/last/" "$2/last/"; }
losses() { tail -n +2 "$1/log.jsonl" | grep -o '"loss":[^,]*'; }
export -f same losses

why=$(moe-train --device cuda --model tiny.json --data set/ --steps 1 -o probe/ 2>&1) || {
    skip 'training on a GPU' "$(echo "$why" | head -n 1)"
    finish
}
for state in '' "$bf16"; do
    train="$gpu --deterministic --model wide.json --steps 12 --lr 1e-2 --warmup 2 --save-every 4 --keep 0 $state"
    ok "trains${state:+ with }$state"  "rm -rf a b && $train -o a/ && test \$(losses a | wc -l) = 12"
    ok 'the same bits again'           "$train -o b/ && same a b && diff <(losses a) <(losses b)"
    ok 'and after a resume'            "rm -r b/done.json b/step-000008 b/step-000012 && ln -sfn step-000004 b/last && $train -o b/ && same a b && diff <(losses a) <(losses b)"
done
ok 'what lies between saves does not matter' "${train/--save-every 4/--save-every 1} -o c/ && same a c"
ok 'a step is one launch'              "${gpu/-q/-v} --model wide.json --steps 4 -o v/ >v.txt 2>&1 && grep -Eq 'are one launch of [0-9]+ kernels' v.txt"
ok 'the log says what memory it takes' "head -n 1 a/log.jsonl | grep -q '\"memory\":[0-9]'"
x  'more than there is' 1 'needs [0-9]{3,}\.[0-9] GiB of memory on the device, and [0-9.]+ GiB are free' \
   "sed 's/:340/:90000000/' wide.json >big.json && $gpu --model big.json --steps 1 -o big/"
ok 'is known before anything is done'  '! test -s big/log.jsonl'
x  'a loss that is not finite: named, nothing written' 1 'step 2: rank 0: the gradient of [a-z_.0-9]+ is not finite' \
   "$gpu --model wide.json --steps 6 --lr 1e38 --clip 0 --optimizer sgd -o nan/"
ok 'and no checkpoint came of it'      '! test -e nan/last'
finish
