#!/usr/bin/env bash
# tok-import.t -- tokenizers of other formats: the ids of the programs whose formats they are, and of the `tokenizers`
# package reading what they become.  TOK_MB=50: on so much text (2).
. "$(dirname "$0")/tap.sh"

TEXT=$TOP/$BUILD/tests/text
export TEXT PYTHONDONTWRITEBYTECODE=1
{ cat "$TOP"/LICENSE "$TOP"/man/*.[157] "$TOP"/lib/text/*.c; } | pref-cat -q -f text >corpus.jsonl
tok-train -q --vocab 2000 -o ours.json corpus.jsonl

# ---- tiktoken ----
x 'a tiktoken file that is not known' 2 'bad.tiktoken: a tiktoken file does not say .*cl100k_base, o200k_base, Qwen, Llama 3' \
    'echo "IQ== 0" >bad.tiktoken; $TEXT json bad.tiktoken'
x 'a line that is no rank' 2 'not a tokenizer.json' 'echo "I=== 0" >bad.tiktoken; $TEXT json bad.tiktoken'

x 'a tekken file of other ranks' 2 'token 1 of "vocab" has no "token_bytes" in base64, or another "rank"' \
    'echo "{\"config\":{\"pattern\":\"a\",\"default_vocab_size\":9,\"default_num_special_tokens\":3},\"vocab\":[{\"rank\":0,\"token_bytes\":\"AA==\"},{\"rank\":2,\"token_bytes\":\"AQ==\"}]}" >bad.json; $TEXT json bad.json'
x 'one without tokens' 2 'has no tokens' 'sed "s/\"vocab\":.*/\"vocab\":[]}/" bad.json >empty.json; $TEXT json empty.json'

# ---- a vocabulary and merges ----
pair() { mkdir -p "$1" && python3 -c "
import json
t = json.load(open('$2'))
json.dump(t['model']['vocab'], open('$1/vocab.json', 'w'))
merges = [m if isinstance(m, str) else ' '.join(m) for m in t['model']['merges']]
open('$1/merges.txt', 'w').write('#version: 0.2\n' + ''.join(m + '\n' for m in merges))"; }
pair ours ours.json
same='python3 -c "
import json, sys
a, b = (json.load(open(f)) for f in sys.argv[1:])
flat = lambda t: [m if isinstance(m, str) else \" \".join(m) for m in t[\"model\"][\"merges\"]]
assert a[\"model\"][\"vocab\"] == b[\"model\"][\"vocab\"] and flat(a) == flat(b) and a[\"added_tokens\"] == b[\"added_tokens\"]"'
ok 'a folder of vocab.json and merges.txt is the tokenizer.json it came from' "\$TEXT json ours >back.json && $same ours.json back.json"
ok 'so is either file' '$TEXT json ours/merges.txt | cmp - back.json && $TEXT json ours/vocab.json | cmp - back.json'
ok 'vocab.bpe and encoder.json too' 'mkdir -p old && cp ours/vocab.json old/encoder.json && cp ours/merges.txt old/vocab.bpe && $TEXT json old | cmp - back.json'
x 'a vocabulary without merges' 1 'merges.txt: No such file' 'mkdir -p alone; cp ours/vocab.json alone; $TEXT json alone'
x 'merges of another vocabulary' 2 'merges.txt:2: "x yz" or a part of it is not in' 'cp -r ours wrong; printf "#version: 0.2\nx yz\n" >wrong/merges.txt; $TEXT json wrong'
x 'an unknown class' 2 'class BertTokenizer is not supported' 'echo "{\"tokenizer_class\":\"BertTokenizer\"}" >wrong/tokenizer_config.json; cp ours/merges.txt wrong; $TEXT json wrong'
x 'an added token of another id' 2 'added token "<new>" has the id 70, which is "Ć"' \
    'echo "{\"added_tokens_decoder\":{\"70\":{\"content\":\"<new>\"}}}" >wrong/tokenizer_config.json; $TEXT json wrong'

x 'and one under two ids' 2 'added token "<.end.>" has the id 9000, and is token 6' \
    'echo "{\"added_tokens_decoder\":{\"9000\":{\"content\":\"<|end|>\"}}}" >wrong/tokenizer_config.json; $TEXT json wrong'

# ---- what tokenizer_config.json says ----
config() { mkdir -p cfg; cp ours.json cfg/tokenizer.json; echo "$1" >cfg/tokenizer_config.json
    echo '{"text":"a"}' | shard-pack -q -t cfg -o set/ && python3 -c 'import json; m = json.load(open("set/manifest.json")); print(m["bos"], m["eos"])'; }
export -f config
ok 'bos and eos by name' '[ "$(config "{}")" = "0 1" ]'
ok 'bos and eos by tokenizer_config.json' '[ "$(config "{\"add_bos_token\": true, \"bos_token\": {\"content\": \"<|user|>\"}, \"eos_token\": \"<|end|>\"}")" = "3 6" ]'
ok 'no bos' '[ "$(config "{\"add_bos_token\": false, \"bos_token\": \"<|bos|>\"}")" = "-1 1" ]'
ok 'no bos, said otherwise' '[ "$(config "{\"bos_token\": null, \"eos_token\": \"<|end|>\"}")" = "-1 6" ]'
ok 'a set carries it, and says the same' 'cmp cfg/tokenizer_config.json set/tokenizer_config.json && echo "{\"text\":\"a\"}" | shard-pack -q -t set -o set2/ && cmp set/manifest.json set2/manifest.json'
x 'a token that it alone has' 2 'tokenizer_config.json: added token "<new>" has the id 2000, which the tokenizer does not' 'config "{\"added_tokens_decoder\": {\"2000\": {\"content\": \"<new>\"}}}"'
x 'an end that is no token' 2 'tokenizer_config.json: "eos_token" is "<nonesuch>", which the tokenizer lacks' 'config "{\"eos_token\": \"<nonesuch>\"}"'
x 'one that is no name' 2 'tokenizer_config.json: "bos_token" names no token' 'config "{\"bos_token\": 7}"'
x 'a broken one' 2 'tokenizer_config.json: ' 'config "{"'

# ---- against the packages ----
if ! python3 -c 'import tiktoken, sentencepiece, tokenizers' 2>/dev/null; then
    skip 'ids are those of tiktoken, sentencepiece and tokenizers' 'these Python packages are not all here'
    finish
    exit
fi
python3 "$TOP/tests/tok_witness.py" files ours.json corpus.jsonl
ok "there is text" "PYTHONPATH=\$TOP/tests python3 \$TOP/tests/tok_import.py rows \$DATA rows.jsonl ${TOK_MB:-2}"
python3 "$TOP/tests/tok_import.py" cases "$DATA/tokenizers" >cases
have_data || skip 'GPT-2, cl100k_base, Mistral' "no data in $DATA"
for p in dashscope llama_models mistral_common quicktok; do
    python3 -c "import importlib.util as u, sys; sys.exit(not u.find_spec('$p'))" || skip "the files of $p" "no Python package $p"
done
while IFS=$'\t' read -r kind name file; do
    ok "$name: ids and text are those of $kind" "\$TEXT ids $file <rows.jsonl 2>/dev/null >got && python3 \$TOP/tests/tok_import.py compare $kind $name $file rows.jsonl got"
    ok "$name: and of tokenizers" "\$TEXT json $file >as.json && python3 \$TOP/tests/tok_witness.py compare as.json rows.jsonl got"
done <cases
ok 'a set carries a tokenizer.json' '$TEXT json sp-bytes.model >as.json && pref-cat -q corpus.jsonl | shard-pack -q -t sp-bytes.model --overlong split -o sp/ && cmp as.json sp/tokenizer.json'
ok 'tokens of its tokenizer_config.json are added to a model' 'mkdir -p more && cp sp-bytes.model more/tokenizer.model &&
    echo "{\"added_tokens_decoder\":{\"0\":{\"content\":\"<unk>\",\"special\":true},\"3000\":{\"content\":\"hello\",\"rstrip\":true}}}" >more/tokenizer_config.json &&
    $TEXT json more >as.json && $TEXT ids more <kinds.jsonl 2>/dev/null >got && grep -q "3000,3000" got && python3 $TOP/tests/tok_witness.py compare as.json kinds.jsonl got'
refuses() { x "SentencePiece: refuses $1" 2 "m.model: .*$2" "python3 -c '
import sentencepiece
sentencepiece.SentencePieceTrainer.train(input=\"corpus.txt\", model_prefix=\"m\", vocab_size=600, minloglevel=2, num_threads=1, $3)' && \$TEXT json m.model"; }
refuses unigram            'the kind unigram; only BPE' 'model_type="unigram"'
refuses 'a normalisation'  '"nmt_nfkc" .* is not supported' 'model_type="bpe"'
refuses 'removal of space' 'remove_extra_whitespaces' 'model_type="bpe", normalization_rule_name="identity"'
refuses 'space behind'     'treat_whitespace_as_suffix' 'model_type="bpe", normalization_rule_name="identity", remove_extra_whitespaces=False, treat_whitespace_as_suffix=True'
x 'a model that is cut off' 2 'not a tokenizer.json' 'head -c 900 m.model >cut.model; $TEXT json cut.model'
# ---- chat templates ----
G=$TOP/tests/chat_golden.py
python3 "$G" rows >asked.jsonl
for base in ours llama metaspace-first; do
    mkdir -p "chat-$base" && python3 "$G" tokenizer $base.json "chat-$base/tokenizer.json"
    for name in $(sed 's/.*"template": "\([^"]*\)".*/\1/' "$TOP/tests/golden/tok-import/chat.jsonl" | sort -u); do
        ok "$base, $name: the ids of what transformers makes" "\$TEXT chat ${name%@*} chat-$base <asked.jsonl >got 2>/dev/null && python3 $G compare chat-$base/tokenizer.json $name got"
    done
done
program() { cp chat-ours/tokenizer.json "$1" && python3 -c 'import json, sys
json.dump({"bos_token": "<s>", "eos_token": "</s>", "chat_template": sys.argv[1]}, open(sys.argv[2], "w"))' "$2" "$1/tokenizer_config.json"; }
CHATML="{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
CHATML+="{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
mkdir -p known unknown beside none
program known "$CHATML"
program unknown "$CHATML "
program beside "" && echo -n "${CHATML//message/ message }" >beside/chat_template.jinja
echo '{"prompt":"p","response":"r"}' >asked
ok 'auto: recognised' 'shard-pack -q -t known --template auto -o c/ asked && python3 -c "import json; assert json.load(open(\"c/manifest.json\"))[\"template\"] == \"chatml\""'
ok 'whatever its white space, and beside' '$TEXT chat auto beside <asked 2>/dev/null | grep chatml'
TRL=$(python3 -c 'import importlib.util as u, os; s = u.find_spec("trl"); print(os.path.join(os.path.dirname(s.origin), "chat_templates") if s else "")')
for pair in llama3=llama3 llama3_1=llama3.1 llama3_2=llama3.1 qwen2_5=qwen2.5 qwen3=qwen3 qwen3_instruct_2507=chatml; do
    if [ -e "$TRL/${pair%=*}.jinja" ]; then
        ok "auto: the package trl's ${pair%=*}" "cp '$TRL/${pair%=*}.jinja' beside/chat_template.jinja && \$TEXT chat auto beside <asked 2>/dev/null | grep '\"template\":\"${pair#*=}\"'"
    else
        skip "auto: the package trl's ${pair%=*}" 'no Python package trl'
    fi
done
x 'not recognised' 2 'chat_template \([0-9a-f]{16}\) is none of those that are recognised; by name there are: plain .*qwen3' 'shard-pack -q -t unknown --template auto -o c/ asked'
x 'none there' 2 'has no chat_template' 'cp ours.json none/tokenizer.json; shard-pack -q -t none --template auto -o c/ asked'
x 'an unknown name' 2 'no chat template "nonesuch"; there are: plain chat' 'shard-pack -q -t known --template nonesuch -o c/ asked'
x 'a token that the tokenizer lacks' 3 'lacks a token of the chat template' 'shard-pack -q -t ours.json --template llama3 -o c/ asked'
x 'a system where there is no place for it' 3 'no place for a system' \
    'echo "{\"prompt\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"u\"}],\"response\":\"r\"}" | shard-pack -q -t known --template mistral -o c/'
if have_data; then
    for m in qwen3 deepseek-v3; do
        mkdir -p real-$m && zstdcat "$DATA/tokenizers/$m/tokenizer.json.zst" >real-$m/tokenizer.json && cp "$DATA/tokenizers/$m/tokenizer_config.json" real-$m
        ok "$m: ids and text are those of tokenizers" "\$TEXT ids real-$m <rows.jsonl >got 2>/dev/null && python3 \$TOP/tests/tok_witness.py compare real-$m/tokenizer.json rows.jsonl got"
        ok "$m itself, recognised" "\$TEXT chat auto real-$m <asked.jsonl >got 2>/dev/null && grep -q '\"template\":\"$m\"' got && python3 $G compare real-$m/tokenizer.json $m got"
    done
    zstdcat "$DATA/tokenizers/qwen3/tokenizer.json.zst" >qwen3.json
    pair qwen3 qwen3.json
    cp "$DATA/tokenizers/qwen3/tokenizer_config.json" qwen3
    ok 'Qwen 3 as vocab.json and merges.txt has the ids of its tokenizer.json' \
        '$TEXT ids qwen3 <kinds.jsonl >got 2>/dev/null && python3 $TOP/tests/tok_witness.py compare qwen3.json kinds.jsonl got'
fi
finish
