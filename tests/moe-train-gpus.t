#!/usr/bin/env bash
# moe-train-gpus.t -- runs on several GPUs, one a process: the losses of one GPU under every kind of mapping, a
# resume at another mapping, what is captured, and what ends a job.
. "$(dirname "$0")/tap.sh"
. "$TOP/tests/tiny.sh" 2>tiny.err
[ -e set/manifest.json ] || { skip 'training on GPUs' "no set: $(head -n 1 tiny.err)"; finish; }

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
sed 's/"hidden_size":16/"hidden_size":64/; s/"intermediate_size":12/"intermediate_size":64/' tiny.json >wide.json
train='moe-train --device cuda --type bf16 --data set/ --model wide.json --batch 4 --micro 1 --steps 10 --lr 1e-3 --warmup 2'
two="mpirun --bind-to none -n 2 $train"
losses() { tail -n +2 "$1/log.jsonl" | grep -o '"loss":[^,]*' | cut -d: -f2; }
near() { # RUN RUN: the same losses to 0.5 %
    paste <(losses "$1") <(losses "$2") |
        awk '{d=($1-$2)/$1; if (d<0) d=-d; if (!(d <= 5e-3)) exit 1; n++} END{exit n != 10}'
}
export -f losses near

why=$(moe-train --device cuda --model tiny.json --data set/ --steps 1 -o probe/ 2>&1 &&
      mpirun -n 2 moe-train --device cuda --model tiny.json --data set/ --steps 1 -o probe2/ 2>&1) || {
    skip 'training on GPUs' "$(echo "$why" | head -n 1)"
    finish
}
ok 'one GPU'                       "$train -q -o one/"
for map in '' '--tp 2 --ep 2' '--cp 2 --etp 2' '--pp 2' '--ep 2 --dispatch rows'; do
    ok "two GPUs${map:+, }$map: the losses of one" "rm -rf two && $two -q $map -o two/ && near one two"
done
ok 'a step is one launch'          "$two -v --ep 2 --dispatch all -o v/ 2>&1 | grep -Eq 'are one launch of [0-9]+ kernels'"
ok 'the same bits again'           "$two -q --deterministic --ep 2 -o a/ && $two -q --deterministic --ep 2 -o b/ && diff -r a/last/ b/last/"
ok 'one GPU goes on where two stopped' \
   "$two -q --ep 2 --save-every 5 --keep 0 -o cut/ && rm -r cut/done.json cut/step-000010 && ln -sfn step-000005 cut/last &&
    $train -q --save-every 5 -o cut/ && near one cut"
x  'more than there is'            1 'needs [0-9]{3,}\.[0-9] GiB of memory on the device' \
   "sed 's/:340/:90000000/' wide.json >big.json && mpirun -n 2 ${train/wide/big} -q -o big/"
finish
