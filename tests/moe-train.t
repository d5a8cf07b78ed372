#!/usr/bin/env bash
# moe-train.t -- runs on disk: what a run leaves, that it resumes with the same bits whatever killed it, and
# what it refuses.
. "$(dirname "$0")/tap.sh"
. "$TOP/tests/tiny.sh"

train="moe-train -q -j 1 --model tiny.json --data set/ --batch 4 --steps 6 --lr 1e-2 --warmup 2"
same() { # RUN RUN: the same last checkpoint, bit for bit
    [ "$(readlink "$1/last")" = "$(readlink "$2/last")" ] &&
        (cd "$1/last" && find . -type f | sort | xargs cmp -s /dev/null 2>/dev/null
         find . -type f | sort | while read -r f; do cmp "$f" "$W/$2/last/$f" || exit 1; done)
}
losses() { tail -n +2 "$1/log.jsonl" | grep -o '"loss":[^,]*' | cut -d: -f2; }
export -f same losses
export train

ok 'trains'                           "$train -o whole/ --save-every 2"
ok 'done.json names the last step'    'grep -q "\"step\":6,.*\"checkpoint\":\"step-000006\"" whole/done.json'
ok 'last is the newest, two are kept' 'test "$(ls -d whole/step-*|tr "\n" " ") $(readlink whole/last)" = "whole/step-000004 whole/step-000006  step-000006"'
ok 'the log has a header, a line a step and a line a save' 'test $(wc -l <whole/log.jsonl) = 10'
ok 'the loss falls'                   'losses whole | awk "NR==1{a=\$1} END{exit !(\$1 < a - 0.1)}"'
ok 'a finished run exits 0 and changes nothing' "cp -r whole kept && $train -o whole/ --save-every 2 && diff -r whole kept"
ok 'the checkpoint opens as safetensors of the same bits' 'shard-show --check whole/ >/dev/null'
ok 'the same command gives the same bits' "$train -o again/ --save-every 2 && same whole again"
ok 'on the CPU --deterministic changes nothing' "$train --deterministic -o det/ --save-every 2 && same whole det"
ok 'the log is what mfu-report reads' 'mfu-report whole/ | grep -q whole'

ok 'each validation is a line of the log' "$train -o val/ --valid set/ --valid-every 3 &&
    test \$(grep -c '^{\"step\":[36],\"valid_loss\":[0-9]' val/log.jsonl) = 2 && mfu-report val/ | grep -q valid_loss"

# stopped and resumed
x  'SIGTERM saves and exits 75' 75 '' \
   "moe-train -j 1 --model tiny.json --data set/ --batch 4 --steps 100000 -o sig/ & p=\$!; while [ ! -s sig/log.jsonl ] || [ \$(wc -l <sig/log.jsonl) -lt 4 ]; do sleep 0.02; done; kill -TERM \$p; wait \$p"
x  'also where whoever started it had blocked the signal' 75 '' \
   "perl -MPOSIX -e 'sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGUSR1)); exec @ARGV' moe-train -j 1 --model tiny.json --data set/ --batch 4 --steps 5000 -o blocked/ & p=\$!; while [ ! -s blocked/log.jsonl ] || [ \$(wc -l <blocked/log.jsonl) -lt 4 ]; do sleep 0.02; done; kill -USR1 \$p; wait \$p"
ok 'the status file says so'          'grep -q "\"state\":\"saved\",\"exit\":75" sig/status.json && test -e sig/last/manifest.json'
ok 'the log ends at the saved step'   'test "step-$(printf %06d $(tail -n 1 sig/log.jsonl | grep -o "\"step\":[0-9]*" | cut -d: -f2))" = "$(readlink sig/last)"'

x  'a later step that nothing names does not cost the one that is saved' 75 '' \
   "cp -r sig later && cp -r sig/last/ later/step-099999 && n=\$(wc -l <sig/log.jsonl) || exit
    moe-train -q -j 1 --model tiny.json --data set/ --batch 4 --steps 100000 --keep 1 -o later/ & p=\$!; while [ \$(wc -l <later/log.jsonl) -lt \$((n + 2)) ]; do sleep 0.02; done
    kill -TERM \$p; wait \$p; s=\$?; shard-show --check later/ >/dev/null && exit \$s"

resumes() { # CALL: killed at every CALL of a save, resumed, compared; prints how many
    local call=$1 n i
    rm -rf count && strace -f -qq -e trace=$call -o count.txt $train --save-every 3 -o count/ || return 1
    n=$(grep -c "$call(" count.txt)
    [ "$n" -gt 0 ] || return 1
    for ((i = 1; i <= n; i++)); do
        rm -rf killed
        { strace -f -qq -o /dev/null -e trace=$call -e inject=$call:signal=KILL:when=$i $train --save-every 3 -o killed/; } 2>/dev/null
        $train --save-every 3 -o killed/ || { echo "$call $i: not resumed"; return 1; }
        same whole killed || { echo "$call $i: other bits"; return 1; }
        [ "$(losses whole | tr '\n' ' ')" = "$(losses killed | tr '\n' ' ')" ] || { echo "$call $i: other log"; return 1; }
        [ -z "$(find killed -name '*.tmp')" ] || { echo "$call $i: litter: $(find killed -name '*.tmp')"; return 1; }
    done
    echo "$n points"
}
export -f resumes
for call in write fsync rename renameat2 symlink mkdir; do
    if ! command -v strace >/dev/null; then skip "resumes after kill -9 at every $call" 'no strace'
    elif [ "${SAN:-0}" = 1 ]; then skip "resumes after kill -9 at every $call" 'the leak checker cannot run under strace'
    elif ! strace -qq -o /dev/null true 2>/dev/null; then skip "resumes after kill -9 at every $call" 'strace may not trace here'
    else
        strace -f -qq -e trace=$call -o probe.txt $train --save-every 3 -o probe$call/
        if grep -q "$call(" probe.txt; then ok "resumes after kill -9 at every $call" "resumes $call"
        else skip "resumes after kill -9 at every $call" 'a save does not call it here'; fi
    fi
done

# what is on the disk when a checkpoint appears
if strace -f -qq -y -o order.txt -e trace=fsync,rename,renameat2 $train --save-every 3 -o order/ 2>/dev/null; then
    ok 'no checkpoint appears before the log of its steps is on the disk' \
       "awk '/fsync.*log.jsonl/ {log_ = 1} /rename.*step-[0-9]*.tmp\", / {bad += !log_; log_ = 0; n++} END{exit bad || n != 2}' order.txt || { cat order.txt; false; }"
else
    skip 'no checkpoint appears before the log of its steps is on the disk' 'strace may not trace here'
fi

# saves beside the training; each fsync of these takes 50 ms more
if ! strace -f -qq -o /dev/null -e trace=fsync -e inject=fsync:delay_enter=1 true 2>/dev/null || [ "${SAN:-0}" = 1 ]; then
    skip 'a save does not stop training' 'strace may not trace here, or sanitizers do not run under it'
else
    export slow='strace -f -qq -o /dev/null -e trace=fsync -e inject=fsync:delay_enter=50000'
    ok 'a save does not stop training' \
       "\$slow $train --save-every 3 -o slow/ && grep -o '\"save_ms\":[0-9.]*' slow/log.jsonl | cut -d: -f2 | awk 'NR==1{bad = \$1 > 50} NR==2{bad += \$1 < 50} END{exit bad || NR != 2}'"
    ok 'one that meets another waits, and the log counts it' \
       "\$slow $train --save-every 1 --keep 0 -o slower/ && test \$(grep -c '\"waited\":true' slower/log.jsonl) -ge 4 && grep -q '\"step\":1,\"save_ms\":[0-9.]*,\"waited\":false' slower/log.jsonl"
    ok 'each has the bits of its step' \
       "$train --save-every 1 --keep 0 -o quick/ && for i in 1 2 3 4 5 6; do shard-show --diff slower/step-00000\$i quick/step-00000\$i || exit; done && same slower whole"
    ok 'ranks agree on when it is written' \
       "\$slow $train --save-every 2 --ranks 3 --batch 6 -o slow3/ && $train --save-every 2 --ranks 3 --batch 6 -o quick3/ && same slow3 quick3"
    x 'SIGTERM while one is written: that one and the last step are saved' 75 '' \
       "\$slow moe-train -q -j 1 --model tiny.json --data set/ --batch 4 --steps 100000 --save-every 20 --keep 0 -o term/ & while ! grep -qs save_ms term/log.jsonl; do sleep 0.01; done; kill -TERM \$(pgrep -P \$! -x moe-train); wait \$!"
    ok 'and nothing is half there' \
       'test "step-$(printf %06d $(tail -n 1 term/log.jsonl | grep -o "\"step\":[0-9]*" | cut -d: -f2))" = "$(readlink term/last)" && test -z "$(find term -name "*.tmp")" && test -e term/step-000020/manifest.json'
fi

# other ranks
ok 'four ranks go on where one stopped' \
   "moe-train -q -j 1 --type f64 --model tiny.json --data set/ --batch 4 --steps 4 -o one/ --save-every 2 --keep 0 &&
    cp -r one four && rm -r four/done.json four/step-000004 && ln -sfn step-000002 four/last &&
    moe-train -q -j 1 --type f64 --model tiny.json --data set/ --batch 4 --steps 4 -o four/ --save-every 2 --keep 0 --ranks 4 --ep 2"
ok 'with the same losses'             'paste <(losses one) <(losses four) | awk "{d=(\$1-\$2)/\$1; if (d<0) d=-d; if (d > 1e-9) exit 1; n++} END{exit n != 4}"'
ok 'and one rank goes on where four stopped' \
   "cp -r four back && rm -r back/done.json && rm back/last && ln -s step-000004 back/last && ls back/last/optim/*-of-00004* >/dev/null &&
    rm -r back/step-000002 && moe-train -q -j 1 --type f64 --model tiny.json --data set/ --batch 4 --steps 4 -o back/ --save-every 2 --keep 0"
ok 'weights of four ranks are those of one' 'ckpt-reshard -q four/ -o four.one/ && ckpt-reshard -q one/ -o one.one/ && moe-train -q --type f64 --init four.one/ --valid set/ --eval-only 2>&1'

# what the optimizer keeps
ok 'bf16 moments: resumed with the same bits' \
   "$train --moments bf16 -o m16/ --save-every 2 --keep 0 && cp -r m16 m16r && rm -r m16r/done.json m16r/step-000006 &&
    ln -sfn step-000004 m16r/last && $train --moments bf16 -o m16r/ --save-every 2 --keep 0 && same m16 m16r && ! same whole m16"
ok 'stored as they are'               'shard-show m16/last/optim/*.safetensors >m16.txt && grep -q "^exp_avg.*BF16" m16.txt && ! grep -q "^exp_avg.*F32" m16.txt'
ok 'and resharded'                    'ckpt-reshard -q --files 3 m16/ -o m16.three/ && shard-show --diff m16.three/ m16/last/'
x 'other moments are another run' 2 'moments.*f32.*says .?bf16' "$train --moments bf16 -o whole/"
x 'f32 weights are their own masters' 2 'master none are for --type bf16, not f32' "$train --master none -o wrong/"
x 'f32 gradients stay so' 2 'grads bf16 .*for --type bf16, not f32' "$train --grads bf16 -o wrong/"

# starting from weights
ok 'starts from a run'                'moe-train -q -j 1 --init whole/ --data set/ --batch 4 --steps 2 -o next/'
ok 'what lay beside the weights of a Hugging Face folder goes on, through training and a resume, but tags' \
   'ckpt-reshard -q --to-hf whole/ -o chat.hf/ && echo "{{ x }}" >chat.hf/chat_template.jinja && echo {} >chat.hf/generation_config.json &&
    echo "{\"tags\":[]}" >chat.hf/tags.json && ckpt-reshard -q --from-hf chat.hf/ -o chat/ && test -e chat/tags.json &&
    moe-train -q -j 1 --init chat/ --data set/ --batch 4 --steps 3 --save-every 1 --keep 0 -o chat.run/ &&
    rm -r chat chat.run/step-00000[23] chat.run/done.json && ln -sfn step-000001 chat.run/last &&
    moe-train -q -j 1 --init chat/ --data set/ --batch 4 --steps 3 --save-every 1 --keep 0 -o chat.run/ && ckpt-reshard -q --to-hf chat.run/ -o chat.back/ &&
    cmp chat.hf/chat_template.jinja chat.back/chat_template.jinja && cmp chat.hf/generation_config.json chat.back/generation_config.json && ! test -e chat.run/last/tags.json'
ok 'evaluates: a number on stdout'    'moe-train -q -j 1 --init whole/ --valid set/ --eval-only 2>/dev/null | grep -qxE "[0-9.]+"'
ok 'mixes sets'                       'moe-train -q -j 1 --model tiny.json --data set/=3 --data set/ --batch 4 --steps 2 -o mix/'
ok 'a batch with nothing to learn is passed over and reported' \
   "sed 's/}\$/,\"weight\":0}/' rows.jsonl >zero.jsonl && shard-pack -q -t tok.json --seq 32 -o zero/ zero.jsonl &&
    moe-train -j 1 --model tiny.json --data zero/ --batch 4 --steps 2 -o zero.run/ 2>&1 | grep -c 'all weights are 0' | grep -qx 2"

# a bias of experts, moved by their load
sed 's/"vocab_size": [0-9]*/"vocab_size": 340/' "$TOP/tests/golden/hf/deepseek_v3.json" >v3.json
v3="${train/tiny.json/v3.json} --balance 0.01"
ok 'a moved bias: resumed with the same bits' \
   "$v3 -o v3/ --save-every 2 --keep 0 && cp -r v3 v3r && rm -r v3r/done.json v3r/step-000006 &&
    ln -sfn step-000004 v3r/last && $v3 -o v3r/ --save-every 2 --keep 0 && same v3 v3r &&
    ${train/tiny.json/v3.json} -o v3.still/ && ! same v3 v3.still"
x 'another one is another run' 2 'balance 0.01.*says 0.02' "${v3/0.01/0.02} -o v3/"
x 'so is none' 2 'balance 0.01.*says .none.' "${v3/--balance 0.01/} -o v3/"
x 'routers without one' 2 'balance: routers of mixtral models choose without a bias' "$train --balance 0.01 -o wrong/"

# a layer that predicts a token further
sed 's/"num_nextn_predict_layers": 0/"num_nextn_predict_layers": 1/' v3.json >mtp.json
mtp=${train/tiny.json/mtp.json}
mtps() { tail -n +2 "$1/log.jsonl" | grep -o '"mtp_loss":[^,}]*' | cut -d: -f2; }
export -f mtps
ok 'a layer that predicts further tokens: its loss is in the log, and falls' \
   "$mtp -o mtp/ --save-every 2 --keep 0 && mtps mtp | awk 'NR==1{a=\$1} END{exit !(NR == 6 && \$1 < a - 0.1)}'"
ok 'and has the weight that it is given' "$mtp --mtp-weight 0.3 -o mtp3/ && ! cmp -s <(losses mtp) <(losses mtp3)"
ok 'resumed with the same bits' \
   "cp -r mtp mtpr && rm -r mtpr/done.json mtpr/step-000006 && ln -sfn step-000004 mtpr/last && $mtp -o mtpr/ --save-every 2 --keep 0 && same mtp mtpr"
ok 'on two stages, the last of which has the embedding too, the losses are the same' \
   "$mtp --ranks 2 --pp 2 -o mtp2/ && paste <(mtps mtp; losses mtp) <(mtps mtp2; losses mtp2) |
    awk '{bad += \$1 - \$2 > 1e-4 || \$2 - \$1 > 1e-4} END{exit bad || NR != 12}'"
ok 'its checkpoint goes to Hugging Face and back, and is used without the layer' \
   'ckpt-reshard --to-hf mtp/ -o mtp.hf && ckpt-reshard --from-hf mtp.hf -o mtp.ckpt && ckpt-reshard --to-hf mtp.ckpt -o mtp.back &&
    cmp mtp.hf/model.safetensors mtp.back/model.safetensors && head -n 2 rows.jsonl | moe-sample -q --max-tokens 4 -m mtp/ | grep response'
ok 'a weight of 0 leaves it out, and says so' \
   "moe-train -j 1 --init mtp/ --data set/ --batch 4 --steps 2 --mtp-weight 0 -o without/ 2>said && grep -q 'leaves out the layers that predict further tokens (1)' said &&
    ! shard-show without/ | grep eh_proj && grep -q '\"num_nextn_predict_layers\": *0' without/last/config.json && ! grep mtp_loss without/log.jsonl"
x 'another weight is another run' 2 'mtp-weight 0.1.*says 0.2' "$mtp --mtp-weight 0.2 -o mtp/"
x 'a weight is not negative' 2 'mtp-weight -1: must be 0 or more' "$mtp --mtp-weight -1 -o wrong/"

# experts of limited capacity
ok 'capacity drops choices, and the log says how many' \
   "$train --capacity 0.5 -o drop/ && tail -n +2 drop/log.jsonl | grep -o '\"dropped\":[0-9.]*' | cut -d: -f2 | awk '{bad += \$1 < 0.4 || \$1 > 0.7} END{exit bad || NR != 6}'"
ok 'room for all is no limit'         "$train --capacity 4 -o room/ && cmp <(losses room) <(losses whole)"
x 'another capacity is another run' 2 'capacity 0.5.*says 0.6' "$train --capacity 0.6 -o drop/"
x 'groups that do not fit a micro-batch' 2 'group 2: a micro-batch of 1 rows' "$train --capacity 1 --group 2 --micro 1 -o wrong/"

# pairs
awk '{n=NR; printf "{\"id\":\"p%d\",\"prompt\":\"count %d\",\"chosen\":\" and %d\",\"rejected\":\" or %d\"}\n", n, n, n+1, n*3}' rows.jsonl >pairs.jsonl
shard-pack -q -t tok.json --seq 64 -o pairs/ pairs.jsonl
won() { grep -o '"won":[0-9.]*' "$1/log.jsonl" | tail -n 1 | cut -d: -f2; }
export -f won
ok 'bt makes a reward model of a language model' \
   'moe-train -q -j 1 --loss bt --init whole/ --data pairs/ --batch 4 --steps 30 --lr 1e-2 -o rm/ && grep -q ForSequenceClassification rm/last/config.json'
ok 'that tells the pairs apart'       'awk "BEGIN{exit !($(won rm) > 0.9)}"'
ok 'its validation is a mean over the pairs of the set, whatever the batch and the mapping' \
   'for b in "1" "7" "64" "16 --ranks 2" "8 --ranks 4 --pp 2 --ep 2"; do moe-train -q -j 1 --type f64 --loss bt --init rm/ --valid pairs/ --eval-only --batch $b || exit; done |
    awk "NR == 1 {a = \$1} {d = \$1 / a - 1; bad += d > 1e-9 || d < -1e-9} END{exit bad || NR != 5}"'
sed 's/"count /"and /' pairs.jsonl >more.jsonl
ok 'scores are in standard deviations from the mean over all sets it was trained on' \
   'shard-pack -q -t tok.json --seq 64 -o more/ more.jsonl && moe-train -q -j 1 --loss bt --init rm/ --data pairs/ --data more/ --batch 4 --steps 2 -o both/ &&
    reward-score -q -m both/ pairs.jsonl more.jsonl | awk -F"reward_chosen\":|,\"reward_rejected\":" "{n += 2; s += \$2 + \$3; q += \$2 * \$2 + \$3 * \$3} END{s /= n; q = q / n - 1; exit !(n && s * s < 1e-8 && q * q < 1e-6)}"'
ok 'and scores rows so'               'reward-score -q -m rm/ pairs.jsonl | awk -F"reward_chosen\":|,\"reward_rejected\":" "{n += \$2 + 0 > \$3 + 0} END{exit !(n > 55)}"'
ok 'scores do not depend on company'  'reward-score -q -m rm/ rows.jsonl >a.r && head -n 7 rows.jsonl | reward-score -q -j 1 -m rm/ | cmp - <(head -n 7 a.r) && tac rows.jsonl | reward-score -q -m rm/ | tac | cmp - a.r'
if reward-score -q -m rm/ --device cuda rows.jsonl >gpu.r 2>/dev/null; then
    # the last number of each row of two files, no further apart than this
    near() { paste -d' ' <(grep -o '[-0-9.e]*}$' $1 | tr -d '}') <(grep -o '[-0-9.e]*}$' $2 | tr -d '}') |
                 awk -v most=$3 '{d = $1 - $2; bad += d * d > most * most} END{exit !NR || bad}'; }
    export -f near
    ok 'a GPU scores so, in f32'  'near gpu.r a.r 1e-3'
    ok 'and about so in bf16'     'reward-score -q -m rm/ --device cuda --type bf16 rows.jsonl >bf16.r && near bf16.r a.r 0.3'
    ok 'in any company'           'for t in f32 bf16; do g="reward-score -q -m rm/ --device cuda --type $t"; $g rows.jsonl >g.r && head -n 7 rows.jsonl | $g | cmp - <(head -n 7 g.r) && tac rows.jsonl | $g | tac | cmp - g.r || exit; done'
    ok 'and log-probabilities'    'reward-score -q --logp -m whole/ rows.jsonl >c.l && reward-score -q --logp -m whole/ --device cuda rows.jsonl >g.l && near g.l c.l 1e-2'
else
    x 'no GPU is no crash' 2 '--device cuda: ' 'reward-score -m rm/ --device cuda rows.jsonl'
fi
ok 'a tag is not judged, but counts for a log-probability' \
   'sed "s/^{/{\"tag\":\"<|rw_3|>\",/" rows.jsonl >tagged.jsonl && reward-score -q -m rm/ tagged.jsonl | sed "s/\"tag\":\"<|rw_3|>\",//" | cmp - a.r &&
    ! cmp -s <(reward-score -q --logp -m whole/ tagged.jsonl | grep -o "ref_logp.*") <(reward-score -q --logp -m whole/ rows.jsonl | grep -o "ref_logp.*")'
ok 'a bad row does not decide whether rows are pairs' \
   '{ echo "{\"prompt\":\"$(printf "%0400d" 1)\",\"chosen\":\"a\",\"rejected\":\"b\"}"; cat rows.jsonl; } | reward-score -q -m rm/ --max-bad 1 | cmp - a.r'
if python3 -c 'import safetensors.numpy' 2>/dev/null; then
    x 'a score that is not finite is no reward' 1 "broken/: the model's score of answer 1 is not finite" \
      'ckpt-reshard -q --to-hf rm/ -o nan.hf/ && python3 -c "
import safetensors.numpy as s
t = dict(s.load_file(\"nan.hf/model.safetensors\")); t[\"score.weight\"] = t[\"score.weight\"] * float(\"nan\")
s.save_file(t, \"nan.hf/model.safetensors\", {\"format\": \"pt\"})" && ckpt-reshard -q --from-hf nan.hf/ -o broken/ && reward-score -q -m broken/ rows.jsonl >nan.jsonl; s=$?; ! test -s nan.jsonl && exit $s'
else
    skip 'a score that is not finite is no reward' 'no Python package safetensors'
fi
ok 'a reward model goes on'           'moe-train -q -j 1 --loss bt --init rm/ --data pairs/ --batch 4 --steps 2 -o rm2/'
ok 'dpo learns against its reference' \
   'reward-score -q -m whole/ --logp pairs.jsonl >ref.jsonl && shard-pack -q -t tok.json --seq 64 -o ref/ ref.jsonl &&
    moe-train -q -j 1 --loss dpo --init whole/ --data ref/ --batch 4 --steps 30 --lr 3e-3 -o dpo/ && awk "BEGIN{exit !($(won dpo) > 0.9)}"'
ok 'its first loss is log 2: nothing has moved yet' 'losses dpo | awk "NR==1{exit !(\$1 > 0.6931 && \$1 < 0.6932)}"'
ok 'no margin that the pairs have changes that' \
   'sed "s/}\$/,\"margin\":2}/" ref.jsonl | shard-pack -q -t tok.json --seq 64 -o ref2/ && moe-train -q -j 1 --loss dpo --init whole/ --data ref2/ --batch 4 --steps 30 --lr 3e-3 -o dpo2/ && cmp <(losses dpo) <(losses dpo2)'
ok 'bt takes it off the difference of the scores, and knows no reference' \
   'for d in pairs ref ref2; do moe-train -q -j 1 --loss bt --init whole/ --data $d/ --batch 4 --steps 1 -o $d.bt/ && losses $d.bt || exit; done | xargs | awk "{exit !(\$1 < 1 && \$2 == \$1 && \$3 > \$1 + 1.3 && \$3 < \$1 + 2)}"'
x 'dpo without a reference' 2 'needs the column ref_logp, and pairs/' 'moe-train --loss dpo --init whole/ --data pairs/ -o wrong/'
x 'pairs for a language model: as good as chosen ones' 0 'pairs/ has pairs: --loss nll takes rejected answers' 'moe-train --init whole/ --valid pairs/ --eval-only'
x 'bt without pairs' 2 'needs the column pair, and set/' 'moe-train --loss bt --init whole/ --data set/ -o wrong/'
x 'a reward model does not speak' 2 'is a reward model' 'moe-sample -m rm/ rows.jsonl'
x 'a reward model is not trained as a language model' 2 'this is a reward model' 'moe-train --init rm/ --data set/ -o wrong/'
x 'a language model does not score' 2 'no score head' 'reward-score -m whole/ rows.jsonl'
ok 'a reward model goes to Hugging Face and back' 'ckpt-reshard -q --to-hf rm/ -o rm.hf/ && ckpt-reshard -q --from-hf rm.hf/ -o rm.back/ && cmp rm.back/model-00001-of-00001.safetensors rm/last/model-00001-of-00001.safetensors'

# refused
x 'another seed is another run' 2 'whole.*seed 0.*says 1' "$train --seed 1 -o whole/"
x 'seeds that a double takes for the same' 2 'seed 9007199254740992.*says 9007199254740993' \
  "$train --seed 9007199254740992 -o big/ && $train --seed 9007199254740993 -o big/"
x 'more steps are another run' 2 'whole.*steps 6.*says 7' "moe-train -q -j 1 --model tiny.json --data set/ --batch 4 --steps 7 --lr 1e-2 --warmup 2 -o whole/"
x 'a run in use' 75 'lock' "flock whole/.lock $train -o whole/"
x 'a loss that is not finite: named, nothing written' 1 'step 2: rank 0: the gradient of [a-z_.0-9]+ is not finite' \
  'moe-train -q -j 1 --model tiny.json --data set/ --batch 4 --steps 6 --lr 1e38 --clip 0 --optimizer sgd -o nan/'
ok 'and no checkpoint came of it'     '! test -e nan/last'
x 'passed over as often as is allowed' 1 'step 2 did not commit .*; 4 bad steps, --max-bad-steps 3' \
  'moe-train -q -j 1 --model tiny.json --data set/ --batch 4 --steps 6 --lr 1e38 --clip 0 --optimizer sgd --max-bad-steps 3 -o nan3/'
ok 'each a line of the log in its place' 'test "$(tail -n +2 nan3/log.jsonl | grep -o "\"step\":[0-9]*\|\"ok\":[a-z]*" | tr "\n" " ")" = "\"step\":1 \"ok\":true \"step\":1 \"ok\":false \"step\":1 \"ok\":false \"step\":1 \"ok\":false "'
x 'a wrong tokenizer' 2 'whole/.* has tokenizer [0-9a-f]{16}, but the data was packed with' \
  'tok-train -q --vocab 330 -o other.json rows.jsonl && shard-pack -q -t other.json --seq 32 -o other/ rows.jsonl && moe-train --init whole/ --data other/ -o wrong/'
for use in 'moe-sample -m other.ckpt rows.jsonl' 'reward-score --logp -m other.ckpt rows.jsonl' 'moe-train --init other.ckpt --data other/ -o wrong/' \
           'ckpt-reshard other.ckpt -o wrong.ckpt/'; do
    x "a checkpoint with another tokenizer: ${use%% *}" 4 'other.ckpt/tokenizer.json: not the one that belongs to the model' \
      "rm -rf other.ckpt && cp -r whole/last/ other.ckpt && cp other.json other.ckpt/tokenizer.json && $use"
done
x 'a checkpoint that has lost its tokenizer' 4 'gone/tokenizer.json: missing' 'cp -r whole/last/ gone && rm gone/tokenizer.json && moe-sample -m gone rows.jsonl'
x 'sets that disagree' 2 'set/ and --data other/ disagree: tokenizer' 'moe-train --model tiny.json --data set/ --data other/ -o wrong/'
shard-pack -q -t tok.json --seq 64 -o longer/ rows.jsonl
for v in longer:sequences other:tokenizer; do
    x "a validation set that disagrees: ${v#*:}" 2 "set/ and --valid ${v%:*}/ disagree: ${v#*:}" "$train --valid ${v%:*}/ --valid-every 2 -o wrong/"
done
x 'a validation set without what the loss needs' 2 'needs the column pair, and set/' 'moe-train --loss bt --init whole/ --data pairs/ --valid set/ --valid-every 1 -o wrong/'
x '--valid-every without --valid' 2 'valid-every needs --valid' "$train --valid-every 2 -o wrong/"
ok "a folder's name may have an equals sign" 'mkdir -p lr=3 && cp -r set lr=3/ && moe-train -q -j 1 --model tiny.json --data lr=3/set/ --data lr=3/set/=2 --batch 4 --steps 1 -o equals/'
x 'a checkpoint without manifest' 4 'no manifest.json' 'cp -r whole/last/ nomani && rm nomani/manifest.json && moe-train --init nomani/ --data set/ -o wrong/'
x 'a flipped bit in a checkpoint' 4 'flip.*safetensors' \
  'cp -r whole/last/ flip && f=$(ls flip/model-*.safetensors) && printf "\377" | dd of=$f bs=1 seek=$(($(stat -c %s $f) - 5)) conv=notrunc 2>/dev/null && moe-train --init flip/ --data set/ -o wrong/'
x 'a truncated set' 4 'cut.*data-00000' 'cp -r set cut && truncate -s -8 cut/data-00000.safetensors && moe-train --model tiny.json --data cut/ -o wrong/'
x 'a vocabulary too small for the data' 1 'outside the model.s vocabulary of 300' "sed 's/:340/:300/' tiny.json >few.json && moe-train --model few.json --data set/ -o wrong/"
x '-v says how tokens travel' 0 'by --dispatch all$' \
  'moe-train -v -j 1 --model tiny.json --data set/ --batch 4 --steps 1 --ranks 2 --ep 2 -o way/'
x 'padded buffers of no capacity' 2 'dispatch padded: its buffers are as large as --capacity says' \
  'moe-train --model tiny.json --data set/ --batch 4 --steps 1 --ranks 2 --ep 2 --dispatch padded -o padded/'
ok 'padded buffers: the losses of counted rows, also of a validation, where nothing is dropped' \
  'for way in rows padded; do moe-train -q -j 1 --type f64 --model tiny.json --data set/ --batch 4 --steps 4 --ranks 4 --ep 4 --capacity 1 --dispatch $way --valid set/ --valid-every 2 -o way.$way/ || exit 1
   grep -Eo "\"(loss|valid|dropped)[a-z_]*\":[^,]*" way.$way/log.jsonl >$way.said; done; grep -q valid rows.said && grep -q dropped rows.said && diff rows.said padded.said'
x 'windows without GPUs' 2 'group etp-ep has no windows: ' \
  'moe-train --model tiny.json --data set/ --batch 4 --steps 1 --ranks 2 --ep 2 --dispatch window -o window/'
x 'a mapping that does not fit' 2 'does not fit' 'moe-train --model tiny.json --data set/ --ranks 3 --ep 2 -o wrong/'
x 'a size beyond an int' 2 'tp [0-9]+ is larger than the world' 'moe-train --model tiny.json --data set/ --tp 4294967297 -o wrong/'
x 'too many ranks for threads' 2 'threads are 1 to 1024' 'moe-train --model tiny.json --data set/ --ranks 9999 -o wrong/'
x 'many ranks that do not fit are told so at once' 2 'no mapping does' 'timeout 30 moe-train --model tiny.json --data set/ --batch 4 --ranks 360 -o wrong/'
x 'a batch that ranks cannot share' 2 'batch 3 is not a multiple' 'moe-train --model tiny.json --data set/ --ranks 2 --batch 3 -o wrong/'
x 'an unknown loss' 2 'no such loss' 'moe-train --model tiny.json --data set/ --loss hinge -o wrong/'
for o in '--beta1 2' '--beta2 1' '--eps 0' '--lr -1' '--lr inf' '--lr-floor 2' '--epochs 0' '--epochs 1e300' '--batch 0' '--steps -1' '--keep -1' '--clip -1' '--beta 0 --loss dpo'; do
    x "$o" 2 "moe-train: --[a-z0-9-]+ [-+0-9einf.]+: must be" "moe-train -q --model tiny.json --data set/ --steps 1 $o -o absurd/"
done
ok 'leaves no run' '! test -e absurd'
x 'no data' 2 'data is missing' 'moe-train --model tiny.json -o wrong/'
x 'a missing field of the config' 2 'hidden_size' "sed 's/\"hidden_size\":16,//' tiny.json >less.json && moe-train --model less.json --data set/ -o wrong/"
x 'a full disk' 1 'No space left|File too large' "ulimit -f 8; trap '' XFSZ; $train -o full/"
ok 'leaves no checkpoint'             '! test -e full/last'
finish
