#!/usr/bin/env bash
# stories260k.t -- real trained weights, taken in from a Hugging Face folder, say word for word what the
# program they were trained with says.  stories260k.py is that program's arithmetic in numpy.
. "$(dirname "$0")/tap.sh"

src=$DATA/stories260K python=$(command -v python3)
why=
[ -e "$src/stories260K.bin" ] || why='no stories260K in the test data'
command -v moe-sample >/dev/null || why='no moe-sample in this build'
[ -n "$python" ] && "$python" -c 'import numpy' 2>/dev/null || why='no python3 with numpy'
if [ -n "$why" ]; then
    skip 'the model says what the reference program says' "$why"
    finish
fi
export src story="$python $TOP/tests/stories260k.py $src"

ok 'the reference program tells a story' \
   '$story --greedy 120 >want && [ $(wc -w <want) -gt 50 ] && grep -q "^Once upon a time, " want'
ok 'the model becomes a checkpoint'      '$story hf && ckpt-reshard --from-hf hf -o ckpt/'
ok 'and says the same, 120 tokens long' \
   'echo "{\"id\":\"a\",\"prompt\":\"\"}" | moe-sample -m ckpt --temperature 0 --max-tokens 120 >row.jsonl &&
    '"$python"' -c "
import json
row, want = json.loads(open(\"row.jsonl\").read()), open(\"want\", encoding=\"utf-8\").read()
assert row[\"response\"] == want, row[\"response\"]"'
ok 'from a checkpoint cut in three, too' \
   'ckpt-reshard --files 3 ckpt -o cut/ &&
    echo "{\"id\":\"a\",\"prompt\":\"\"}" | moe-sample -m cut --temperature 0 --max-tokens 120 | cmp - row.jsonl'
ok 'and Hugging Face gets it back unchanged' \
   'ckpt-reshard --to-hf cut -o back/ && '"$python $TOP"'/tests/hf_folder.py same hf back &&
    cmp hf/tokenizer.json back/tokenizer.json'
finish
