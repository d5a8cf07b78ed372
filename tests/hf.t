#!/usr/bin/env bash
# hf.t -- models of every family trained here by several ranks, given to transformers, and reward models
# taken from it: no key is missing or unexpected, and both give the same scores.  PyTorch's distributed
# checkpoints read our slices.
. "$(dirname "$0")/tap.sh"
. "$TOP/tests/tiny.sh"

export witness="python3 $TOP/tests/hf_witness.py"
python3 -c 'import sys, importlib.util as u
sys.exit(not all(u.find_spec(m) for m in ("torch", "transformers", "safetensors")))' 2>/dev/null ||
    { skip 'everything' 'no torch, transformers and safetensors'; finish; }

awk '{printf "{\"prompt\":\"count %d\",\"chosen\":\" and %d\",\"rejected\":\" or %d\"}\n", NR, NR + 1, NR * 3}' rows.jsonl >pairs.jsonl
shard-pack -q -t tok.json --seq 64 -o pairs/ pairs.jsonl
# documents that hardly ever end, so that answers are long
awk '{t = ""; for (i = 0; i < 12; i++) t = t " count " NR + i " and " NR * i; printf "{\"text\":\"%s\"}\n", t}' rows.jsonl >long.jsonl
shard-pack -q -t tok.json --seq 128 -o long/ long.jsonl
models= answers= slices= rewards= made= back=
for config in "$TOP"/tests/golden/hf/*.json; do
    export family=$(basename "$config" .json) mapping='--ranks 2 --tp 2'
    ! grep -q 'expert' "$config" || mapping='--ranks 4 --tp 2 --ep 2'
    sed 's/"vocab_size": [0-9]*/"vocab_size": 340/' "$config" >$family.json
    ok "$family: trained by several ranks, given to Hugging Face" \
       'moe-train -q --model $family.json --data long/ --batch 4 --steps 2 --lr 1e-2 $mapping -o $family.run/ &&
        ckpt-reshard --to-hf $family.run/ -o $family/ && reward-score -q --logp -m $family.run/ rows.jsonl >$family.rows'
    ok "$family: answers, each token the likeliest" \
       'head -n 5 rows.jsonl | moe-sample -q --temperature 0 --max-tokens 200 -m $family.run/ >$family.said'
    answers+=" $family $family.said"
    models+=" $family $family.rows" slices+=" $family.run/last $family"
    case $family in llama | qwen3)
        ok "$family: with experts" \
           'ckpt-reshard --upcycle 4,2,2 $family.run/ -o $family.moe && ckpt-reshard --to-hf $family.moe -o $family.up &&
            reward-score -q --logp -m $family.moe rows.jsonl >$family.up.rows'
        models+=" $family.up $family.up.rows" ;;
    esac
    grep -qs "SequenceClassification(" "$(python3 -c 'import importlib.util as u; print(u.find_spec("transformers").submodule_search_locations[0])')/models/$family/modeling_$family.py" || continue
    ok "$family: a reward model made here" \
       'moe-train -q -j 1 --loss bt --init $family.run/ --data pairs/ --batch 4 --steps 2 --lr 1e-2 -o $family.bt/ &&
        ckpt-reshard --to-hf $family.bt/ -o $family.rm/ && reward-score -q --raw -m $family.bt/ rows.jsonl >$family.rm.rows'
    rewards+=" $family.rm $family.rm.rows"
    made+=" $family $family.tf" back+=" $family.out $family.tf.rows"
done
export models answers slices rewards made back
ok 'transformers opens them and gives our log-probabilities'        '$witness scores set $models'
ok 'and generate() the answers of moe-sample'                        '$witness generate set $answers'
ok 'transformers opens the reward models and gives our scores'      '$witness scores set $rewards'
ok 'PyTorch puts the slices of several ranks together'              '$witness slices $slices'
ok 'reward models made by transformers, there and back: the same tensors' \
   '$witness reward $made && for tf in *.tf; do
        f=${tf%.tf} && cp $f/tokenizer.json $tf && ckpt-reshard --from-hf $tf -o $f.in && ckpt-reshard --to-hf $f.in -o $f.out &&
        shard-show --diff $tf $f.out && grep -q LABEL_0 $f.out/config.json && reward-score -q --raw -m $f.in rows.jsonl >$tf.rows || exit 1
    done'
ok 'and the same scores'                                            '$witness scores set $back'
batch=$(grep -o '"sequences": [0-9]*' set/manifest.json | head -n 1 | cut -d' ' -f2)
ok 'biases of experts move by the loads that transformers counts' \
   "moe-train -q --model deepseek_v3.json --data set/ --batch $batch --micro 1 --steps 6 --lr 1e-3 --balance 0.01 \
        --ranks 2 --ep 2 --save-every 1 --keep 0 -o even/ && \$witness balance set 0.01 even"
finish
