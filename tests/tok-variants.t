#!/usr/bin/env bash
# tok-variants.t -- tokenizer.json files of every make: the ids and the text of the `tokenizers` package, or refused by
# name.  VARIANTS=5000: so many (make check-long).
. "$(dirname "$0")/tap.sh"

TEXT=$TOP/$BUILD/tests/text
export TEXT PYTHONDONTWRITEBYTECODE=1
if ! python3 -c 'import tokenizers' 2>/dev/null; then
    skip 'ids and text are those of tokenizers, or the file is refused' 'no Python package tokenizers'
    finish
fi
{ cat "$TOP"/LICENSE "$TOP"/man/*.[157] "$TOP"/lib/text/*.c; } | pref-cat -q -f text >corpus.jsonl
tok-train -q --vocab 2000 -o ours.json corpus.jsonl
python3 "$TOP/tests/tok_witness.py" files ours.json corpus.jsonl
ok 'ids and text are those of tokenizers, or the file is refused' \
    "python3 \$TOP/tests/tok_variants.py ours.json kinds.jsonl \$TEXT 0 ${VARIANTS:-200} 2>/dev/null"
finish
