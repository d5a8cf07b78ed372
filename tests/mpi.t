#!/usr/bin/env bash
# mpi.t -- ranks as processes: the losses of one rank, stops and deaths of a job, and what it refuses.
#
# Runs in any build once `make MPI=1` has been run; the tools of that build are brought up to date first.
. "$(dirname "$0")/tap.sh"

job=$TOP/build/cpu-mpi$([ "${SAN:-0}" = 1 ] && echo -san)
if ! command -v mpirun >/dev/null || ! command -v mpicc >/dev/null; then
    skip 'ranks as processes' 'no mpirun or no mpicc'
    finish
elif [ ! -x "$job/bin/moe-train" ]; then
    skip 'ranks as processes' 'no build with MPI: make MPI=1'
    finish
elif ! make -s -C "$TOP" MPI=1 SAN="${SAN:-0}" "${job#$TOP/}"/{bin/moe-train,tests/comm,tests/parallel} >make.log 2>&1; then
    verdict 1 'make MPI=1'; sed 's/^/# /' make.log
    finish
fi
export PATH=$job/bin:$PATH job
. "$TOP/tests/tiny.sh"

# The bugs of MPI's own memory are not ours to report.
. "$TOP/tests/job.sh"
export ASAN_OPTIONS=detect_leaks=0
train='moe-train -q -j 1 --type f64 --model tiny.json --data set/ --batch 4 --steps 6 --lr 1e-2'
endless='moe-train -q -j 1 --model tiny.json --data set/ --batch 6 --micro 1 --steps 20000 --save-every 50'
export train endless

ok 'collectives between 3 processes'  'mpirun -n 3 $job/tests/comm'
ok 'mappings of 4 processes equal one rank' 'mpirun -n 4 $job/tests/parallel'

ok 'one rank'                         '$train -o one/'
ok 'EP over DP: the losses of one rank' 'mpirun -n 4 $train --ep 2 -o ep/ && agree one ep 6 1e-9'
ok 'TP, CP and folded EP: the losses of one rank' 'mpirun -n 4 $train --tp 2 --cp 2 --ep 4 -o fold/ && agree one fold 6 1e-9'
ok 'PP, CP and ETP: the losses of one rank' 'mpirun -n 4 $train --pp 2 --cp 2 --etp 2 -o pipe/ && agree one pipe 6 1e-9'
ok 'two chunks of layers a stage: the losses of one rank' \
   'mpirun -n 2 $train --pp-layout 1,1 -o woven/ && agree one woven 6 1e-9'
ok 'a job of one process'             'mpirun -n 1 $train -o alone/ && agree one alone 6 1e-9'
ok 'threads go on where processes stopped' \
   'mpirun -n 4 $train --ep 2 --save-every 3 --keep 0 -o cut/ && rm -r cut/done.json cut/step-000006 &&
    ln -sfn step-000003 cut/last && $train --save-every 3 --keep 0 --ranks 2 --cp 2 -o cut/ && agree one cut 6 1e-9'
ok 'each process of a machine takes its share of the cores' \
   'mpirun -n 2 moe-train -q --model tiny.json --data set/ --batch 4 --steps 2 -o share/'

# ends
ok 'SIGUSR1 to mpirun: saved, and 75' \
   'mpirun -n 3 $endless -o usr/ & logged usr 5 && kill -USR1 $!; wait $!; test $? = 75 &&
    grep -q "\"state\":\"saved\",\"exit\":75" usr/status.json && test -e usr/last/manifest.json'
ok 'SIGTERM to mpirun: saved within 25 s' \
   'mpirun -n 3 $endless -o term/ & logged term 5 && kill -TERM $! && s=$SECONDS; wait $!; test $? != 0 -a $((SECONDS - s)) -le 25 &&
    grep -q "\"state\":\"saved\",\"exit\":75" term/status.json && test -e term/last/manifest.json'
ok 'SIGKILL of a rank ends the job within 10 s' \
   'mpirun -n 3 $endless -o kill/ & saved kill && kill -KILL $(rank_of 1) && s=$SECONDS; wait $!; test $? != 0 -a $((SECONDS - s)) -le 10'
x  'and it resumes from its last checkpoint' 75 'kill/: resumed at step [1-9][0-9]*$' \
   'mpirun -n 3 ${endless/-q } -o kill/ 2>resumed & for _ in $(seq 500); do grep resumed resumed && break; sleep 0.02; done; kill -USR1 $!; wait $!'
x  'a rank that stands still: the deadline names rank, group and call' 1 'rank [02]: group [a-z-]+ of 3: [a-z_]+ is not done after 1 s' \
   'mpirun -n 3 $endless --deadline 1 -o still/ & logged still 5 && p=$(rank_of 1) && kill -STOP $p; wait $!'

# refused
other() { # COMMAND: rank 1's, beside rank 0's
    mpirun -n 1 $train -o no/ : -n 1 "$@" -o no/
}
export -f other
sed 's/hidden_size":16/hidden_size":24/' tiny.json >wider.json
sed 's/router_aux_loss_coef":0.02/router_aux_loss_coef":0.03/' tiny.json >balanced.json
head -n 50 rows.jsonl | shard-pack -q -t tok.json --seq 32 -o fewer/ -
cp "$job/bin/moe-train" moe-train-2 && echo >>moe-train-2
x 'ranks with other seeds'    2 '^moe-train: rank 1 has another seed than rank 0: 1, not 0$'  'other $train --seed 1'
x 'ranks with other data'     2 'rank 1 has another data than rank 0: "[0-9a-f]{16}=1", not'  'other ${train/set/fewer}'
x 'ranks with other models'   2 'rank 1 has another model than rank 0: "[0-9a-f]{16}", not'   'other ${train/tiny/wider}'
x 'also of the same tensors'  2 'rank 1 has another model than rank 0: "[0-9a-f]{16}", not'   'other ${train/tiny/balanced}'
x 'ranks with other rates'    2 'rank 1 has another lr than rank 0: 0.02, not 0.01'           'other ${train/1e-2/2e-2}'
x 'ranks with other programs' 2 'rank 1 has another program than rank 0: [0-9a-f]{64}, not'   'other ./moe-train-2 ${train#moe-train}'
x 'ranks with other mappings' 2 'rank 1 has another mapping than rank 0' 'mpirun -n 1 $train -o no/ : -n 1 $train --tp 2 -o no/'
x 'ranks with other plans'    2 'rank 1 has another plan than rank 0'    'mpirun -n 1 $train -o no/ : -n 1 $train --save-every 2 -o no/'
x 'threads in a job'          2 'ranks 2: .* 2 processes are the ranks'  'mpirun -n 2 $train --ranks 2 -o no/'
x 'a mapping that does not fit' 2 'does not fit 3 ranks: 3 ranks are not a multiple of etp 1 x ep 2 x pp 1; the nearest that does has --ep 1$' \
  'mpirun -n 3 ${train/batch 4/batch 6} --ep 2 -o no/'
x 'chunks that are not the model' 2 'pp-layout places 3 layers, and the model has 2' '$train --ranks 2 --pp 2 --pp-layout 2,1 -o no/'
x 'chunks that do not go round'   2 'pp-layout 2: 1 chunks are not a multiple of pp 2' '$train --ranks 2 --pp 2 --pp-layout 2 -o no/'
x 'too few micro-batches to interleave' 2 'in multiples of --pp 2, and a step has 1' \
  "sed s/hidden_layers.:2/'hidden_layers\\\":4'/ tiny.json >four.json && \${train/tiny/four} --ranks 2 --pp 2 --pp-layout 1,1,1,1 -o no/"
x 'a launcher that does not speak MPI' 2 'SLURM_NTASKS is 4, but MPI has 1 rank' 'SLURM_NTASKS=4 $train -o no/'
x 'a run in use'              75 'lock'                                  'flock one/.lock mpirun -n 2 $train -o one/'
finish
