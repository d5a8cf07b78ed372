#!/usr/bin/env bash
# ckpt-reshard.t -- Hugging Face folders in and out without losing a bit, checkpoints cut anew, and
# everything that does not fit refused by name.  hf_folder.py is the witness: it reads and writes the
# format by itself.
. "$(dirname "$0")/tap.sh"

python=$(command -v python3) || { skip 'everything' 'no python3'; finish; }
export hf="$python $TOP/tests/hf_folder.py" golden="$TOP/tests/golden/hf"
export hf_golden="$python $TOP/tests/hf_golden.py"
there_and_back() { # NAME DTYPE FILES [OPTION ...]
    rm -rf "$1".* && $hf make "$1.hf" "${@:2}" && ckpt-reshard --from-hf "$1.hf" -o "$1.ckpt/" &&
        ckpt-reshard --to-hf "$1.ckpt" -o "$1.back/" && $hf same "$1.hf" "$1.back"
}
export -f there_and_back

# ---- without losing a bit ----

for type in F32 BF16 F16 mixed; do
    ok "$type: there and back, the same bytes" "there_and_back $type $type 1"
done
for family in qwen3_moe olmoe qwen2_moe llama qwen2 qwen3 deepseek_v2 deepseek_v3; do
    ok "$family: there and back" "there_and_back $family mixed 2 family=$family"
done
ok 'norms of queries and keys cut into files, and back' \
   'ckpt-reshard --files 4 olmoe.ckpt -o norms/ && ckpt-reshard norms -o norms.whole/ && diff -r olmoe.ckpt norms.whole'
ok 'from three files and an index'     'there_and_back three F32 3'
ok 'a tied head stays tied'            'there_and_back tied F32 1 tied && ! grep -r lm_head tied.ckpt tied.back &&
                                        grep -q "\"tie_word_embeddings\": *true" tied.back/config.json'
ok 'a checkpoint of one file is a Hugging Face folder too' '$hf same F32.hf F32.ckpt'
ok 'tokenizer files travel both ways'  'for f in tokenizer.json tokenizer_config.json special_tokens_map.json chat_template.jinja generation_config.json vocab.json; do
                                            cmp F32.hf/$f F32.ckpt/$f && cmp F32.hf/$f F32.back/$f || exit 1
                                        done; ! ls F32.back/manifest.json 2>/dev/null'
ok 'and what we do not know in config.json' \
   'python3 -c "
import json
a, b = (json.load(open(f\"three.{x}/config.json\")) for x in (\"hf\", \"back\"))
assert {k: b.get(k) for k in a} == a, (a, b)"'
ok 'the same command gives the same bytes' \
   'ckpt-reshard --from-hf F32.hf -o again/ && diff -r F32.ckpt again'
ok 'a layer that predicts further tokens: there and back, its copies of embedding and head held once' \
   'there_and_back further mixed 2 family=deepseek_v3 further && $hf list further.back | grep layers.2.shared_head.head &&
    shard-show further.ckpt | grep layers.2.eh_proj && ! shard-show further.ckpt | grep -E "layers.2.(embed_tokens|shared_head.head)"'
ok 'and the two do not differ' 'shard-show --diff further.ckpt further.hf'
ok 'a folder that lacks the copies gets them' \
   '$hf make lacks.hf BF16 1 family=deepseek_v3 further drop=model.layers.2.embed_tokens.weight drop=model.layers.2.shared_head.head.weight &&
    ckpt-reshard --from-hf lacks.hf -o lacks.ckpt && ckpt-reshard --to-hf lacks.ckpt -o lacks.back &&
    $hf make full.hf BF16 1 family=deepseek_v3 further && $hf same full.hf lacks.back'
ok 'one that speaks of such a layer and has none: it is said, and config.json then too' \
   '$hf make speaks.hf F32 1 family=deepseek_v3 says=1 && ckpt-reshard --from-hf speaks.hf -o speaks.ckpt 2>said &&
    grep -q "speaks of layers that predict further tokens, and there are none" said &&
    ckpt-reshard --to-hf speaks.ckpt -o speaks.back && $hf same speaks.hf speaks.back &&
    grep -q "\"num_nextn_predict_layers\": *0" speaks.back/config.json'
ok '--to-hf in files of a size, with an index' \
   'ckpt-reshard --to-hf --max-shard-size 2k mixed.ckpt -o many && [ "$(ls many/*.safetensors | wc -l)" -ge 3 ] &&
    $hf same mixed.hf many && $hf files many 2048'
ok 'as many as there are tensors'      'ckpt-reshard --to-hf --max-shard-size 1 mixed.ckpt -o one-each &&
                                        $hf same mixed.hf one-each && $hf files one-each 1'
ok '--from-hf in files of a size: the index makes them a Hugging Face folder' \
   'ckpt-reshard --from-hf --max-shard-size 2k mixed.hf -o parts.ckpt && $hf same mixed.hf parts.ckpt &&
    $hf files parts.ckpt 2048 && ckpt-reshard parts.ckpt -o parts.one && diff -r mixed.ckpt parts.one'
ok '--dtype bfloat16 rounds to even' \
   'there_and_back finite F32 1 finite && ckpt-reshard --to-hf --dtype bfloat16 finite.ckpt -o half/ &&
    $hf rounded finite.hf half && grep -q "\"bfloat16\"" half/config.json'
ok 'but not the biases that experts are chosen with' \
   '$hf make v3 F32 1 finite family=deepseek_v3 && ckpt-reshard --from-hf --dtype bfloat16 v3 -o v3.ckpt && ckpt-reshard --to-hf v3.ckpt -o v3.hf/ &&
    $hf list v3.hf | awk "{n[(/e_score_correction_bias/ ? \"bias \" : \"\") \$2]++} END{exit !(length(n) == 2 && n[\"bias F32\"] && n[\"BF16\"])}"'
ok 'and so on the way in'              'ckpt-reshard --from-hf --dtype bfloat16 finite.hf -o half.ckpt && $hf rounded finite.hf half.ckpt'
for family in mixtral qwen3_moe olmoe qwen2_moe deepseek_v2 deepseek_v3; do
    ok "$family: experts in one tensor a layer, as transformers keeps them; out as the hub has them" \
       "rm -rf fused; \$hf make fused BF16 2 fused family=$family && \$hf make apart.$family BF16 1 family=$family &&
        ckpt-reshard --from-hf fused -o fused.ckpt && ckpt-reshard --to-hf fused.ckpt -o fused.back &&
        \$hf same apart.$family fused.back"
    ok "$family: FP8 in blocks becomes BF16" \
       "rm -rf fp8; \$hf make fp8 BF16 2 fp8 family=$family && ckpt-reshard --from-hf fp8 -o fp8.ckpt &&
        ckpt-reshard --to-hf fp8.ckpt -o fp8.back && \$hf widened fp8 fp8.back && ! grep -q quantization fp8.back/config.json"
done
ok 'one expert, in one tensor' \
   '$hf make alone.fused BF16 1 fused experts=1 && $hf make alone BF16 1 experts=1 && ckpt-reshard --from-hf alone.fused -o alone.ckpt &&
    ckpt-reshard --to-hf alone.ckpt -o alone.back && $hf same alone alone.back'
ok 'a folder of the hub: links to blobs, a README, code; what is not copied is said' \
   'mkdir -p hub/blobs hub/main && rm -rf links && $hf make links F32 2 && echo 1 >links/README.md && echo 2 >links/modeling_x.py &&
    for f in links/*; do mv $f hub/blobs/${f##*/}.blob && ln -s ../blobs/${f##*/}.blob hub/main/${f##*/} || exit 1; done &&
    ckpt-reshard --from-hf hub/main/ -o hub.ckpt/ 2>said && grep -qx "ckpt-reshard: hub/main/: not copied: README.md" said &&
    ckpt-reshard --to-hf hub.ckpt/ -o hub.back/ 2>said && ! grep . said && cmp hub.back/modeling_x.py hub/main/modeling_x.py && [ ! -L hub.back/modeling_x.py ] &&
    shard-show --diff hub/main hub.back/ && $hf same F32.hf hub.back'
ok 'config.json comes back with what was there: nothing is added to it' \
   'python3 -c "
import json
a, b = (json.load(open(f\"F32.{x}/config.json\")) for x in (\"hf\", \"back\"))
assert a == b, (a, b)"'
ok 'what older folders have beside the weights is computed anew' \
   'rm -rf old.hf; $hf make old.hf F32 2 tied add=model.layers.0.self_attn.rotary_emb.inv_freq copy=model.embed_tokens.weight:lm_head.weight &&
    $hf make tied2.hf F32 1 tied && ckpt-reshard --from-hf old.hf -o old.ckpt && ckpt-reshard --to-hf old.ckpt -o old.back &&
    $hf same tied2.hf old.back'

# ---- cut anew ----

ok 'cut into five files by rows, and back' \
   'ckpt-reshard --files 5 mixed.ckpt -o cut/ && ls cut/model-0000{1,2,3,4,5}-of-00005.safetensors &&
    ! ls cut/*.index.json 2>/dev/null && ckpt-reshard cut -o whole/ && diff -r mixed.ckpt whole'
ok 'a cut checkpoint to Hugging Face'  'ckpt-reshard --to-hf cut/ -o cut.hf && $hf same mixed.hf cut.hf'
ok 'a run stands for its last checkpoint' \
   'mkdir run && cp -r mixed.ckpt run/step-000001 && ln -s step-000001 run/last &&
    ckpt-reshard run/ -o of-run/ && diff -r mixed.ckpt of-run'
ok 'an older checkpoint is replaced'   'cp -r F32.ckpt old && ckpt-reshard mixed.ckpt -o old/ && diff -r mixed.ckpt old'
if [ "${SAN:-0}" = 1 ]; then
    skip 'stopped half-way, it leaves nothing' 'sanitizers are slow'
    skip 'one tensor at a time: 250 MB in 64 MiB of memory' 'sanitizers keep what was freed'
else
    export rss="$python $TOP/tests/reshard_rss.py"
    ok 'stopped half-way, it leaves nothing; killed, what the next one clears away' \
       '$rss make half && for s in TERM KILL; do
            ckpt-reshard --from-hf half -o half.ckpt & p=$!; until [ -d .half.ckpt.tmp ]; do sleep 0.01; done
            kill -$s $p; wait $p; [ $? -gt 128 ] && [ ! -e half.ckpt ] && { [ $s = KILL ] || [ ! -e .half.ckpt.tmp ]; } || exit 1
        done; ckpt-reshard --from-hf half -o half.ckpt && [ ! -e .half.ckpt.tmp ] && shard-show --diff half half.ckpt; s=$?; rm -r half*; exit $s'
    ok 'one tensor at a time: 250 MB in 64 MiB of memory, in, cut, cut otherwise, and out' \
       '$rss make large && $rss peak 64 ckpt-reshard --from-hf large -o large.ckpt && $rss peak 64 ckpt-reshard --files 3 large.ckpt -o large.3 &&
        $rss peak 64 ckpt-reshard --files 4 large.3 -o large.4 && $rss peak 64 ckpt-reshard --to-hf large.4 -o large.back &&
        shard-show --diff large large.back && rm -r large large.*'
    x 'and what holds more is seen' 1 'MiB resident at most' '$rss peak 64 python3 -c "x = bytearray(1 << 27)"'
fi
ok 'nothing of the work is left'       '! ls -d .*.tmp */.*.tmp */.spool 2>/dev/null'

# ---- faults of a Hugging Face folder: named, status 4, nothing written ----

faulty() { rm -rf bad.hf out && $hf make bad.hf F32 2 "$@" && { ckpt-reshard --from-hf bad.hf -o out; s=$?
           [ ! -e out ] || { echo 'something was written'; exit 99; }; exit $s; }; }
export -f faulty
gate=model.layers.1.block_sparse_moe.gate.weight
x 'a missing tensor'     4 "bad.hf: tensor \"$gate\" is missing"            "faulty drop=$gate"
x 'an unknown tensor'    4 '00001-of-00002.safetensors: tensor "aux.head" is none of this model' 'faulty add=aux.head'
x 'another shape'        4 "tensor \"$gate\" has shape \(8, 3\), config.json asks for \(3, 8\)" "faulty transpose=$gate"
x 'integers'             4 "tensor \"$gate\" is I32, not a type of weights" "faulty type=$gate:I32"
x 'a tensor in two files' 4 'tensor "model.norm.weight" is in another file or tensor too' 'faulty twice=model.norm.weight'
x 'every fault counts'   4 'bad.hf: 2 faults in the weights; nothing was written' "faulty drop=$gate add=b"
x 'a head where it is tied' 4 'tensor "lm_head.weight" is none of this model' 'faulty tied add=lm_head.weight'
x 'another head where it is tied' 4 'tensor "lm_head.weight" is none of this model' 'faulty tied copy=model.embed_tokens.weight:lm_head.weight type=lm_head.weight:F32'
fused=model.layers.0.mlp.experts
more='family=deepseek_v3 further'
x 'a copy that is none' 4 'tensor "model.layers.2.embed_tokens.weight" is not the same as "model.embed_tokens.weight", which it stands for' \
  "faulty $more copy=lm_head.weight:model.layers.2.embed_tokens.weight"
x 'a layer that predicts further tokens, without its norm' 4 'tensor "model.layers.2.enorm.weight" is missing' "faulty $more drop=model.layers.2.enorm.weight"
x 'more such layers than config.json speaks of' 4 'tensor "model.layers.2.enorm.weight" is none of this model' "faulty $more says=0"
x 'experts apart and in one tensor' 4 "tensor \"$fused.down_proj\" is in another file or tensor too" \
  "faulty fused copy=$fused.down_proj:model.layers.0.block_sparse_moe.experts.1.w2.weight"
x 'experts in one tensor of another shape' 4 "\"$fused.down_proj\" has shape \(2, 2\), config.json asks for \(3, 8, 10\)" \
  "faulty fused drop=$fused.down_proj add=$fused.down_proj"
x 'FP8 without factors'  4 "tensor \"$gate\" is F8_E4M3 and has no \"${gate}_scale_inv\"" "faulty fp8 drop=${gate}_scale_inv"
x 'factors of what is no FP8' 4 "tensor \"$gate\" is not F8_E4M3 and has a" "faulty fp8 type=$gate:F32"
x 'factors of other blocks' 4 "tensor \"${gate}_scale_inv\" has shape \(3, 1\), the blocks of its weight are \(1, 3\)" "faulty fp8 transpose=${gate}_scale_inv"
x 'FP8 that config.json does not mention' 4 "tensor \"$gate\" is F8_E4M3, not a type of weights" "faulty type=$gate:F8_E4M3"
x 'other quantised weights' 2 '"quantization_config": quantised weights' \
  'rm -rf bad.hf; $hf make bad.hf F32 1 fp8; sed -i s/\"fp8\"/\"awq\"/ bad.hf/config.json; ckpt-reshard --from-hf bad.hf -o o'
x 'a tokenizer with more tokens than the embedding' 4 "bad.hf/tokenizer.json: gives out token 11; config.json's \"vocab_size\" is 11" \
  'rm -rf bad.hf; $hf make bad.hf F32 1; echo "{\"model\":{\"vocab\":{\"a\":0,\"b\":9}},\"added_tokens\":[{\"id\":11}]}" >bad.hf/tokenizer.json; ckpt-reshard --from-hf bad.hf -o o'
x 'or one of vocabulary and merges' 4 'bad.hf/added_tokens.json: gives out token 12' \
  'rm -rf bad.hf; $hf make bad.hf F32 1; rm bad.hf/tokenizer.json; echo "{\"a\":10}" >bad.hf/vocab.json; echo "{\"<x>\":12}" >bad.hf/added_tokens.json; ckpt-reshard --from-hf bad.hf -o o'
ok 'but not with as many' 'echo "{\"model\":{\"vocab\":{\"a\":10}}}" >bad.hf/tokenizer.json; ckpt-reshard --from-hf bad.hf -o few && cmp few/tokenizer.json bad.hf/tokenizer.json'
x 'a file that is cut'   4 'model-00002-of-00002.safetensors' \
  'rm -rf bad.hf; $hf make bad.hf F32 2; truncate -s -1 bad.hf/model-00002-of-00002.safetensors; ckpt-reshard --from-hf bad.hf -o o'
x 'a file that is gone'  4 'model-00002-of-00002.safetensors: missing' \
  'rm bad.hf/model-00002-of-00002.safetensors; ckpt-reshard --from-hf bad.hf -o o'
x 'an index that is cut' 4 'model.safetensors.index.json: ' \
  'truncate -s 100 bad.hf/model.safetensors.index.json; ckpt-reshard --from-hf bad.hf -o o'
x 'an index that is wrong' 4 'index.json: tensor "model.norm.weight" is not in model-00002-of-00002.safetensors' \
  'rm -rf bad.hf; $hf make bad.hf F32 2; sed -i "s/\(\"model.norm.weight\": \"model-0000\)./\12/" bad.hf/*.index.json; ckpt-reshard --from-hf bad.hf -o o'
x 'an index that leads elsewhere' 4 '"../x" is no file name' \
  'echo "{\"weight_map\":{\"a\":\"../x\"}}" >bad.hf/model.safetensors.index.json; ckpt-reshard --from-hf bad.hf -o o'
x 'an index that leads up' 4 '"[.][.]" is no file name' \
  'echo "{\"weight_map\":{\"a\":\"..\"}}" >bad.hf/model.safetensors.index.json; ckpt-reshard --from-hf bad.hf -o o'
x 'an index of nothing'  4 'index.json names no files' \
  'echo "{\"weight_map\":{}}" >bad.hf/model.safetensors.index.json; ckpt-reshard --from-hf bad.hf -o o'
x 'no weights'           4 'bad.hf: neither model.safetensors nor model.safetensors.index.json$' \
  'rm bad.hf/model*; ckpt-reshard --from-hf bad.hf -o o'
x 'weights of another format' 4 'index.json; there is pytorch_model.bin, which is not read' \
  'touch bad.hf/pytorch_model.bin bad.hf/training_args.bin; ckpt-reshard --from-hf bad.hf -o o'
x 'a link to nothing'    4 'there is model.safetensors, which leads nowhere' \
  'ln -s nowhere bad.hf/model.safetensors; ckpt-reshard --from-hf bad.hf -o o'
x 'a tokenizer that is a link to nothing' 1 'dangling/vocab.json: No such file' \
  'cp -r F32.hf dangling; ln -sf nowhere dangling/vocab.json; ckpt-reshard --from-hf dangling -o o'
x 'a pointer of Git LFS' 4 'lfs/model.safetensors: a pointer of Git LFS' \
  'cp -r F32.hf lfs; echo "version https://git-lfs.github.com/spec/v1" >lfs/model.safetensors; ckpt-reshard --from-hf lfs -o o'
x 'a pipe for weights'   1 'pipe/model.safetensors: not a regular file' \
  'cp -r F32.hf pipe; rm pipe/model.safetensors; mkfifo pipe/model.safetensors; timeout 10 ckpt-reshard --from-hf pipe -o o'
x 'no such folder'       1 'nobody/nothing: No such file' 'ckpt-reshard --from-hf nobody/nothing -o o'
x 'no config.json'       4 'bad.hf: no config.json: not a Hugging Face folder' \
  'rm bad.hf/config.json; ckpt-reshard --from-hf bad.hf -o o'
x 'another model of the family' 2 'config.json: "architectures" is "MixtralForQuestionAnswering"; known are: MixtralForCausalLM, ' \
  'cp -r F32.hf qa; sed -i s/ForCausalLM/ForQuestionAnswering/ qa/config.json; ckpt-reshard --from-hf qa -o o'
x 'more experts than memory' 2 'config.json: "num_hidden_layers" times the experts of a layer is more than' \
  'cp -r F32.hf wide; sed -i "s/\(num_local_experts.: \)3/\12000000000/" wide/config.json; ckpt-reshard --from-hf wide -o o'
x 'another family'       2 'config.json: "model_type" is "t5"' \
  'cp -r F32.hf t5; sed -i s/\"mixtral\"/\"t5\"/ t5/config.json; ckpt-reshard --from-hf t5 -o o'
ok 'none of them wrote anything' '[ ! -e o ] && [ ! -e out ]'

# ---- faults of a checkpoint ----

x 'a Hugging Face folder is no checkpoint' 4 \
  '^ckpt-reshard: F32.hf: no manifest.json: not a checkpoint \(unfinished, or a Hugging Face folder: see ckpt-reshard --from-hf\)$' \
  'ckpt-reshard F32.hf -o o'
x 'an unfinished run'    4 'unfinished: no manifest.json' 'mkdir unfinished; ckpt-reshard unfinished -o o'
x 'nothing there'        1 'nowhere: No such file'        'ckpt-reshard nowhere -o o'
x 'a flipped bit'        4 'model-00001-of-00001.safetensors.*model.norm.weight' \
  'cp -r F32.ckpt rot && $hf flip rot/model-00001-of-00001.safetensors model.norm.weight && ckpt-reshard --to-hf rot -o o'
x 'a tensor no family has' 1 'odd: 35 tensors of the model, a 34-tensor family' \
  'cp -r tied.ckpt odd && cp F32.ckpt/m*.json F32.ckpt/*.safetensors odd && sed -zi "s/,.\"hashes\".*/}/" odd/manifest.json && ckpt-reshard --to-hf odd -o o'
ok 'none of them wrote anything either' '[ ! -e o ]'

ok 'the tags of the training data travel along' \
   'cp -r F32.hf tagged && echo "{\"tags\":[]}" >tagged/tags.json && ckpt-reshard --from-hf tagged -o tagged.ckpt && ckpt-reshard --files 2 tagged.ckpt -o t2 && cmp t2/tags.json tagged/tags.json'
x 'others are refused' 4 't2/tags.json: not the one that belongs to the model' 'echo "{}" >t2/tags.json; ckpt-reshard t2 -o o'

# ---- misuse ----

x 'no output'            2 '-o DIR/ is wanted'             'ckpt-reshard F32.ckpt'
x 'no input'             2 'is wanted, 0 are given'        'ckpt-reshard -o o'
x 'two inputs'           2 '2 are given'                   'ckpt-reshard F32.ckpt mixed.ckpt -o o'
x 'both directions'      2 'exclude each other'            'ckpt-reshard --from-hf --to-hf F32.hf -o o'
x '--dtype elsewhere'    2 '--dtype is for'            'ckpt-reshard --dtype float16 F32.ckpt -o o'
x '--max-shard-size elsewhere' 2 '--max-shard-size is for' 'ckpt-reshard --max-shard-size 1g F32.ckpt -o o'
x '--files elsewhere'    2 '--files only cuts a checkpoint'  'ckpt-reshard --files 2 --from-hf F32.hf -o o'
x 'files of nothing'     2 '--max-shard-size 0: at least 1' 'ckpt-reshard --max-shard-size 0 --from-hf F32.hf -o o'
x 'no files at all'      2 '--files 0: 1 to 99999'         'ckpt-reshard --files 0 F32.ckpt -o o'
x 'a type there is not'  2 'int4'                          'ckpt-reshard --to-hf --dtype int4 F32.ckpt -o o'
x 'a folder of something else is not replaced' 2 'home/: exists and has thesis in it, which no checkpoint' \
  'mkdir home && touch home/thesis home/config.json && ckpt-reshard F32.ckpt -o home/'
ok 'and is still there'  'test -e home/thesis'
x 'the input is not replaced' 2 '-o F32.ckpt/: is the input' 'ckpt-reshard --to-hf F32.ckpt -o F32.ckpt/'
x 'nor the last of a run' 2 '-o run/step-000001: is the input' 'ckpt-reshard --to-hf run/ -o run/step-000001'
ok 'but a checkpoint is cut anew in its place' 'cp -r F32.ckpt inplace && ckpt-reshard --files 2 inplace -o inplace/ && shard-show --diff inplace F32.ckpt'
x 'a folder for the output that is not there' 1 'nowhere/out: No such file' 'ckpt-reshard F32.ckpt -o nowhere/out'
x 'a file too large'     1 'File too large' 'ulimit -f 4; ckpt-reshard F32.ckpt -o large.out'
ok 'leaves nothing'      '! ls -d .large.out.tmp large.out 2>/dev/null'
x 'a set is not replaced' 2 'aset: exists and has data-0000[01].safetensors in it' \
  'cp -r $TOP/formats/samples/set aset && ckpt-reshard --to-hf F32.ckpt -o aset'
x 'output to a device'   1 '/dev/full'                     'ckpt-reshard F32.ckpt -o /dev/full'

# ---- outside witnesses ----

# Whether a package's file is there; importing some of them takes seconds.
has() { $python -c "
import importlib.util as u, os, sys
s = u.find_spec('$1')
sys.exit(not (s and os.path.exists(os.path.join(os.path.dirname(s.origin), '$2'))))"; }
if has safetensors numpy.py && has numpy .; then
    ok 'the safetensors package opens our files' "$python - <<'PY'
import glob
from safetensors import safe_open
for path in glob.glob('cut/*.safetensors') + glob.glob('F32.ckpt/*.safetensors'):
    with safe_open(path, 'numpy') as f:
        assert f.metadata()['format'] == 'pt'
        assert all(f.get_slice(k).get_shape() for k in f.keys())
PY"
else
    skip 'the safetensors package opens our files' 'no safetensors package'
fi
if has torch distributed/checkpoint/hf_storage.py && has safetensors torch.py; then
    ok 'PyTorch puts a cut checkpoint together' "$python - <<'PY'
import torch, torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
want = load_file('mixed.hf/model.safetensors')
got = {k: torch.zeros_like(v) for k, v in want.items()}
dcp.load(got, storage_reader=dcp.HuggingFaceStorageReader('cut'), no_dist=True)
bits = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
for k, v in want.items():
    assert torch.equal(got[k].view(bits[v.dtype]), v.view(bits[v.dtype])), k
PY"
else
    skip 'PyTorch puts a cut checkpoint together' 'no PyTorch with distributed checkpoints'
fi
if has transformers models/mixtral && has torch . && has safetensors numpy.py; then
    ok 'what save_pretrained wrote, there and back' \
       '$hf_golden --save tf 60KB && for f in mixtral qwen3_moe olmoe qwen2_moe llama qwen2 qwen3 deepseek_v2 deepseek_v2_lite deepseek_v3; do
            [ -e tf/$f/model.safetensors.index.json ] && mkdir -p tf.in tf.cut tf.out &&
            ckpt-reshard --from-hf tf/$f -o tf.in/$f && ckpt-reshard --files 2 tf.in/$f -o tf.cut/$f &&
            ckpt-reshard --to-hf tf.cut/$f -o tf.out/$f && $hf same tf/$f tf.out/$f || exit 1
        done'
    ok 'transformers opens it, and the checkpoint: every key, the same logits' \
       '$hf_golden --logits $golden tf.out tf.in'
else
    skip 'what save_pretrained wrote, there and back' 'no transformers package'
    skip 'transformers opens it, and the checkpoint: every key, the same logits' 'no transformers package'
fi
finish
