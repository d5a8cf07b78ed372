#!/usr/bin/env bash
# moe-train-gpus.t -- runs on several GPUs, one a process: the losses of one GPU under every kind of mapping, a
# resume at another mapping, what is captured, and what ends a job.
. "$(dirname "$0")/tap.sh"
. "$TOP/tests/tiny.sh" 2>tiny.err
[ -e set/manifest.json ] || { skip 'training on GPUs' "no set: $(head -n 1 tiny.err)"; finish; }

. "$TOP/tests/job.sh"
sed 's/"hidden_size":16/"hidden_size":64/; s/"intermediate_size":12/"intermediate_size":64/' tiny.json >wide.json
train='moe-train --device cuda --type bf16 --data set/ --model wide.json --batch 4 --micro 1 --steps 10 --lr 1e-3 --warmup 2'
two="mpirun --bind-to none -n 2 $train"
endless="${two/--steps 10/--steps 20000 --save-every 50} --ep 2"
near='10 5e-3' # losses of bf16
export two endless near

why=$(moe-train --device cuda --model tiny.json --data set/ --steps 1 -o probe/ 2>&1 &&
      mpirun -n 2 moe-train --device cuda --model tiny.json --data set/ --steps 1 -o probe2/ 2>&1) || {
    skip 'training on GPUs' "$(echo "$why" | head -n 1)"
    finish
}
ok 'one GPU'                       "$train -q -o one/"
for map in '' '--tp 2 --ep 2' '--cp 2 --etp 2' '--pp 2' '--ep 2 --dispatch rows' '--ep 2 --dispatch all' '--ep 2'; do
    ok "two GPUs${map:+, }$map: the losses of one" "rm -rf two && $two -q $map -o two/ && agree one two $near"
done
ok 'a step is one launch'          "$two -v --ep 2 -o v/ 2>v.err && grep -E 'are one launch of [0-9]+ kernels' v.err"
ok 'which goes through windows where there can be any' \
   "way=window; $two -q --ep 2 --dispatch window -o w/ 2>w.err || { grep 'has no windows' w.err && way=all; } && grep \"by --dispatch \$way\$\" v.err"
ok 'the same bits again'           "$two -q --deterministic --ep 2 -o a/ && $two -q --deterministic --ep 2 -o b/ && diff -r a/last/ b/last/"
ok 'one GPU goes on where two stopped' \
   "$two -q --ep 2 --save-every 5 --keep 0 -o cut/ && rm -r cut/done.json cut/step-000010 && ln -sfn step-000005 cut/last &&
    $train -q --save-every 5 -o cut/ && agree one cut $near"
ok 'SIGKILL of a rank amid its steps ends the job within 10 s' \
   '$endless -q -o kill/ & saved kill && kill -KILL $(rank_of 1) && s=$SECONDS; wait $!; test $? != 0 -a $((SECONDS - s)) -le 10'
x  'and it goes on from its last checkpoint; a rank told to stop: saved, and 75' 75 'kill/: resumed at step [1-9][0-9]*$' \
   '$endless -o kill/ 2>resumed & for _ in $(seq 1500); do grep resumed resumed && break; sleep 0.02; done; kill -USR1 $(rank_of 1); wait $!; s=$?; cat resumed kill/status.json; grep -q "\"state\":\"saved\",\"exit\":75" kill/status.json && exit $s'
x  'a rank that stands still: the deadline names rank, group and call' 1 'rank 0: group [a-z-]+ of 2: [a-z_]+ is not done after 2 s' \
   '$endless -q --deadline 2 -o still/ & logged still 60 && kill -STOP $(rank_of 1); wait $!'
x  'more than there is'            1 'needs [0-9]{3,}\.[0-9] GiB of memory on the device' \
   "sed 's/:340/:90000000/' wide.json >big.json && mpirun -n 2 ${train/wide/big} -q -o big/"
finish
