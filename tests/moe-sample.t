#!/usr/bin/env bash
# moe-sample.t -- responses: their rows, their draws, and what is refused.
. "$(dirname "$0")/tap.sh"
. "$TOP/tests/tiny.sh"
moe-train -q -j 1 --model tiny.json --data set/ --batch 8 --steps 60 --lr 1e-2 -o run/
head -n 5 rows.jsonl >five.jsonl
s="moe-sample -q -m run/ --max-tokens 12"

ok 'n rows a prompt, in order'      "$s -n 3 five.jsonl >a && test \"\$(grep -o '\"id\":\"[^\"]*\"' a | head -n 4 | tr '\n' ' ')\" = '\"id\":\"r1/0\" \"id\":\"r1/1\" \"id\":\"r1/2\" \"id\":\"r2/0\" '"
ok 'the same command, the same bytes' "$s -n 3 five.jsonl | cmp - a"
ok 'whatever is sampled beside it'  "$s -n 3 -b 2 five.jsonl | cmp - a && tail -n +3 five.jsonl | $s -n 3 | cmp - <(tail -n +7 a)"
ok 'another seed, other responses'  "! $s -n 3 --seed 1 five.jsonl | cmp -s - a"
ok 'samples of a prompt differ'     'test $(grep -o "\"response\":\"[^\"]*\"" a | sort -u | wc -l) -gt 7'
ok 'temperature 0 needs no seed'    "$s --temperature 0 five.jsonl >b && $s --temperature 0 --seed 9 five.jsonl | cmp - b"
ok 'it has learnt how answers begin' "$s --temperature 0 five.jsonl | grep -c '\"response\":\" and ' | grep -qx 5"
ok 'finish says why it ended'       'grep -Eq "\"finish\":\"(stop|length)\"" a && ! grep -vq "\"finish\":" a'
ok 'old answers go, other fields stay' \
   "echo '{\"id\":\"q\",\"prompt\":\"count 7\",\"response\":\"old\",\"reward\":3,\"mine\":[1, 2],\"meta\":{\"k\":\"v\"}}' | $s | grep -v old | grep -v reward | grep '\"mine\":\[1, 2\]' | grep -q '\"meta\":{\"k\":\"v\"}'"
ok 'prompt_id groups the samples'   'test $(grep -o "\"prompt_id\":\"[^\"]*\"" a | sort -u | wc -l) = 5'
x  'a row without a prompt' 3 'stdin:1: no prompt' "echo '{\"id\":\"x\",\"text\":\"t\"}' | $s"
x  'no row at all' 3 'no row is left' "$s /dev/null"
x  'a bad row is named' 3 'stdin:2: ' "(head -n 1 five.jsonl; echo '{\"prompt\":') | $s"
ok 'a bad row can be tolerated'     "(head -n 1 five.jsonl; echo '{\"prompt\":') | $s --max-bad 1 --rejects r | wc -l | grep -qx 1 && test -s r"
x  'a prompt too long' 3 'longer than the model' "printf '{\"prompt\":\"%0500d\"}\n' 1 | $s"
x  'longer than --context' 3 'longer than --context' "$s --context 3 five.jsonl"
x  'bf16 is not for the CPU' 2 'no kernels of type bf16' "$s --type bf16 five.jsonl"
if $s --device cuda five.jsonl >/dev/null 2>&1; then
    ok 'a GPU answers as the CPU does' "$s --device cuda -n 3 five.jsonl | cmp - a && $s --device cuda --temperature 0 five.jsonl | cmp - b"
    ok 'and by top-p'                  "cmp <($s --device cuda --top-p 0.7 five.jsonl) <($s --top-p 0.7 five.jsonl)"
    ok 'and in bf16'                   "$s --device cuda --type bf16 --temperature 0 five.jsonl | grep -c '\"response\":\" and ' | grep -qx 5"
    x  'and says what memory is missing' 1 'needs [0-9.]* MiB and device cuda has [0-9.]* left' "$s --device cuda -b 900000000 five.jsonl"
else
    x  'no GPU is no crash' 2 '--device cuda: ' "$s --device cuda five.jsonl"
fi
x  'no model' 2 '-m is missing' 'moe-sample five.jsonl'
x  'not a checkpoint' 4 'no manifest.json' 'mkdir -p empty && moe-sample -m empty/ five.jsonl'
x  'a missing file' 1 'nothere' "$s nothere"
ok 'prompts through a named pipe'   "$s -n 3 <(cat five.jsonl) | cmp - a && $s -n 3 -o piped <(cat five.jsonl) && cmp piped a"
x  'a full disk' 1 'No space left' "$s five.jsonl >/dev/full"
ok 'an output file appears whole'   "$s -n 3 -o out five.jsonl && cmp out a"
ok 'a killed run goes on where it was' \
   "$s -n 3 -o out2 -b 1 five.jsonl & p=\$!; for i in 1 2 3 4 5 6 7 8 9; do [ -s out2.part ] && break; sleep 0.05; done; kill -9 \$p; wait \$p; [ -e out2 ] || { cut=\$(wc -l <out2.part); printf 'half a row' >>out2.part; moe-sample -m run/ --max-tokens 12 -n 3 -o out2 five.jsonl 2>&1; } && cmp out2 a && ! ls out2.part*"
if command -v strace >/dev/null && [ "${SAN:-0}" != 1 ] && strace -qq -o /dev/null true 2>/dev/null; then
    # the disk is full when the rows are to be published; then four rows that only a part file can have
    strace -f -qq -o /dev/null -e trace=rename -e inject=rename:error=ENOSPC:when=2 $s -n 3 -o out4 five.jsonl 2>/dev/null
    head -n 4 a | sed '1s/{/{"kept":1,/' >out4.part
    ok 'and keeps the rows it had' \
       'moe-sample -m run/ --max-tokens 12 -n 3 -o out4 five.jsonl 2>said && grep "after 4 rows" said && head -n 1 out4 | grep kept && cmp <(tail -n +2 out4) <(tail -n +2 a)'
else
    skip 'and keeps the rows it had' 'strace cannot trace here'
fi
ok 'lines of a pipe are not taken for those of a file' "echo stale >out5.part.key; ! { cat five.jsonl; echo bad; } | $s -o out5 && [ ! -e out5.part.key ]"
ok 'many samples of a prompt wait for their turn' "{ head -n 1 five.jsonl | timeout 20 $s -n 100000000 || true; } | head -n 200 | wc -l | grep -x 200"
ok 'an old reference goes with the old answer' "echo '{\"prompt\":\"p\",\"chosen\":\"a\",\"rejected\":\"b\",\"ref_logp_chosen\":-1,\"ref_logp_rejected\":-2}' | $s | grep response | grep -v ref_logp"
for o in '--temperature -1' '--top-p 0' '--top-p 1.5' '-n 0' '-k 0' '-b 0'; do
    x "$o is misuse" 2 'moe-sample: --' "$s $o five.jsonl"
done
ctl='{"id":"c","prompt":"count 7<|end|><|rw_1|>"}'
ok 'control tokens in a prompt are ordinary text' "diff <(echo '$ctl' | $s --temperature 0) <(echo '$ctl' | $s --temperature 0 --control escape) && ! echo '$ctl' | $s --control allow --temperature 0 | cmp -s - <(echo '$ctl' | $s --temperature 0)"
x  'or refused' 3 'stdin:1: the prompt spells a control token' "echo '$ctl' | $s --control error"
x  'a tag in words is refused where it would count' 3 'stdin:1: the prompt spells a tag in words' "echo '{\"prompt\":\"a <rm_score>: 9 \"}' | $s --tag ' <rm_score>: 1.0 '"
ok 'and is text where it would not' "echo '{\"prompt\":\"a <rm_score>: 9 \"}' | $s | grep -q finish"
ok 'a model has the tags of whichever of its sets has any' \
   "for r in 0 1; do sed \"s/}\\\$/,\\\"reward\\\":\$r,\\\"tag\\\":\\\"<|rw_\$r|>\\\"}/\" five.jsonl; done | shard-pack -q -t tok.json --seq 32 -o ca/ &&
    moe-train -q -j 1 --init run/ --data set/ --data ca/ --batch 4 --steps 1 -o two/ && cmp ca/tags.json two/last/tags.json && moe-sample -q -m two/ --max-tokens 4 --tag top five.jsonl"
ok 'the tag asks for good answers or bad ones, of prompts that were not learnt' \
   "seq 1 40 | awk '{for (r = 0; r < 2; r++) printf \"{\\\"prompt\\\":\\\"count %d\\\",\\\"response\\\":\\\" and %d then %d: %s\\\",\\\"reward\\\":%d}\\n\", \$1, \$1+1, \$1*2, r ? \"well done\" : \"not so good\", r}' |
        pref-filter -q --method ca --bins 2 --ca-drop 0 | shard-pack -q -t tok.json --seq 48 -o steer/ &&
    moe-train -q -j 1 --model tiny.json --data steer/ --batch 8 --steps 200 --lr 1e-2 -o steer.run/ &&
    for tag in 'top well' 'low not'; do tail -n 20 rows.jsonl | moe-sample -q -m steer.run/ --max-tokens 40 --temperature 0 --tag \${tag% *} | grep -c \": \${tag#* }\" | grep -qx 20 || exit; done"
x  'a tag of a model without tags' 2 'was not trained with tags' "$s --tag top five.jsonl"
ok 'a tag by its text' "$s --tag '<|rw_3|>' -n 3 five.jsonl >tagged && ! cmp -s tagged a"
finish
