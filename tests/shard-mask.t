#!/usr/bin/env bash
# shard-mask.t -- what of a row is learnt, what gives way when it is too long, and what becomes of control
# tokens in what people wrote; each held to an expectation made by hand.
. "$(dirname "$0")/tap.sh"

# In this tokenizer a token is a byte or a special token.  A row prints as its tokens, special ones as
# a letter (^ bos, $ eos, S U A the roles, E end, 1 a tag), and its mask.
echo '{"text":"a"}' | tok-train -q --vocab 320 -o bytes.json
masks() { shard-show --rows | python3 -c '
import json, sys
token = {v: k for k, v in json.load(open("bytes.json"))["model"]["vocab"].items()}
short = {"<|bos|>": "^", "<|eos|>": "$", "<|user|>": "U", "<|assistant|>": "A", "<|system|>": "S", "<|end|>": "E", "<|rw_1|>": "1"}
for l in sys.stdin:
    r = json.loads(l)
    print("".join(short.get(token[t], token[t]) for t in r["tokens"]), "".join(map(str, r["target"])))'; }
export -f masks
is() { # NAME 'OPTIONS' ROW LINE ...
    echo "$3" >row; printf '%s\n' "${@:4}" >want
    ok "$1" "shard-pack -t bytes.json $2 row | masks | diff want -"
}
no() { # NAME STATUS 'REGEX' 'OPTIONS' ROW
    echo "$5" >row
    x "$1" "$2" "$3" "shard-pack -t bytes.json $4 --rejects r -o no/ row; s=\$?; cat r; exit \$s"
}

R='{"prompt":"abcdef","response":"uvwxyz"}'
is 'plain: the answer and its end are learnt' '' "$R" '^abcdefuvwxyz$ 00000001111111'
is 'chat: so with turns'   '--template chat' "$R" '^UabcdefEAuvwxyzE 00000000001111111'
is 'chat: earlier turns are not learnt' '--template chat' \
   '{"prompt":[{"role":"system","content":"s"},{"role":"user","content":"u"},{"role":"assistant","content":"a"},{"role":"user","content":"v"}],"response":"w"}' \
   '^SsEUuEAaEUvEAwE 0000000000000011'
is 'a tag is not learnt'   '' '{"prompt":"ab","response":"uv","tag":"<|rw_1|>"}' '^ab1uv$ 0000111'
is 'a tag in words'        '' '{"prompt":"ab","response":"uv","tag":"t:"}' '^abt:uv$ 00000111'
is 'chat: a tag stands right before the answer' '--template chat' '{"prompt":"ab","response":"uv","tag":"<|rw_1|>"}' '^UabEA1uvE 0000000111'
is 'a tag before a text'   '' '{"text":"uv","tag":"<|rw_1|>"}' '^1uv$ 00111'
is 'a text is learnt whole' '' '{"text":"uv"}' '^uv$ 0111'
is 'a pair is two rows'    '' '{"prompt":"ab","chosen":"uv","rejected":"w"}' '^abuv$ 000111' '^abw$ 00011'
is 'an empty answer is its end' '' '{"prompt":"ab","response":""}' '^ab$ 0001'

is 'exactly --seq is not too long'   '--seq 14' "$R" '^abcdefuvwxyz$ 00000001111111'
no 'one more is'                     3 'row:1: longer than --seq' '--seq 13' "$R"
no 'a pair counts as one'            3 'row:1: the pair is longer than --seq' '--seq 9' '{"prompt":"a","chosen":"uvw","rejected":"xy"}'
is 'truncate: the end goes'          '--seq 10 --overlong truncate' "$R" '^abcdefuvw 0000000111'
is 'truncate: to one learnt token'   '--seq 8 --overlong truncate' "$R" '^abcdefu 00000001'
is 'truncate: a text'                '--seq 4 --overlong truncate' '{"text":"abcdef"}' '^abc 0111'
is 'truncate: the longer of a pair first' '--seq 13 --overlong truncate' '{"prompt":"ab","chosen":"uvwxyz","rejected":"s"}' \
   '^abuvwxy 00011111' '^abs$ 00011'
is 'truncate: both of a pair'        '--seq 12 --overlong truncate' '{"prompt":"ab","chosen":"uvwxyz","rejected":"uvstuv"}' \
   '^abuvw 000111' '^abuvs 000111'
is 'left: the oldest of the prompt goes, bos stays' '--seq 10 --overlong left' "$R" '^efuvwxyz$ 0001111111'
is 'left: down to the answer'        '--seq 8 --overlong left' "$R" '^uvwxyz$ 01111111'
is 'left: what begins the answer stays' '--template chat --seq 8 --overlong left' '{"prompt":"abcdef","response":"uv","tag":"<|rw_1|>"}' \
   '^fEA1uvE 00000111'
is 'left: a text keeps tag and end'  '--seq 5 --overlong left' '{"text":"abcdef","tag":"<|rw_1|>"}' '^1ef$ 00111'
is 'left: both prompts of a pair lose the same' '--seq 15 --overlong left' '{"prompt":"abcdef","chosen":"uvw","rejected":"x"}' \
   '^defuvw$ 00001111' '^defx$ 000011'
is 'split: a text in pieces'         '--seq 3 --overlong split' '{"text":"abcdef"}' '^ab 011' 'cde 111' 'f$ 11'
is 'split: an answer is cut instead' '--seq 9 --overlong split' "$R" '^abcdefuv 000000011'
no 'drop'                            3 'dropped 1 .longer than --seq 1' '--seq 7 --overlong drop' "$R"
no 'drop: a pair, with the reason among the rejects' 3 '"dropped","why":"the pair is longer than --seq"' '--seq 9 --overlong drop' '{"prompt":"a","chosen":"uvw","rejected":"xy"}'
no 'truncate: nothing learnt'        3 'dropped 1 .nothing learnt is left' '--seq 7 --overlong truncate' "$R"
no 'left: no answer is cut'          3 'dropped 1 .the answer is longer than --seq' '--seq 7 --overlong left' "$R"
no 'left: none of a pair'            3 'dropped 1 .the answers are longer than --seq' '--seq 8 --overlong left' '{"prompt":"a","chosen":"uvwx","rejected":"s"}'
no 'truncate: what told a pair apart is gone' 3 'dropped 1 .within --seq chosen and rejected are the same' '--seq 8 --overlong truncate' \
   '{"prompt":"a","chosen":"uvwx","rejected":"uvwy"}'
no 'a reference for the whole is none for a part' 3 'dropped 1 .its ref_logp is of more' '--seq 8 --overlong truncate' \
   '{"prompt":"a","chosen":"uvwx","rejected":"y","ref_logp_chosen":-1,"ref_logp_rejected":-2}'
no 'a pair of equals'                3 'row:1: chosen and rejected are the same' '' '{"prompt":"a","chosen":"u","rejected":"u"}'
ok 'the counts are said' "{ for i in 1 2 3; do echo '$R'; done; echo '{\"text\":\"abcdefghijk\"}'; } | shard-pack -t bytes.json --seq 10 --overlong split -o o/ 2>&1 |
    grep -q '3 rows were cut to --seq, 1 were split'"

# What people wrote.
C='{"prompt":"a<|end|>","response":"b"}'
is 'control tokens in a text are ordinary text' '' "$C" '^a<|end|>b$ 00000000011'
is 'in an answer too'      '' '{"prompt":"a","response":"<|eos|>"}' '^a<|eos|>$ 0011111111'
is 'and in chosen'         '--template chat' '{"prompt":"a","chosen":"<|end|>","rejected":"b"}' '^UaEA<|end|>E 0000011111111' '^UaEAbE 0000011'
is 'allow: they are what they say' '--control allow' '{"prompt":"<|user|>a<|end|>","response":"<|rw_1|>b"}' '^UaE1b$ 0000111'
is 'allow: in a list of turns'     '--control allow --template chat' '{"prompt":[{"role":"user","content":"<|end|>"}],"response":"b"}' '^UEEAbE 0000011'
no 'error: in a prompt'    3 'row:1: its text spells a control token' '--control error' "$C"
no 'error: in a turn'      3 'row:1: its text spells a control token' '--control error --template chat' '{"prompt":[{"role":"user","content":"<|end|>"}],"response":"b"}'
no 'error: in an answer'   3 'row:1: its text spells a control token' '--control error' '{"prompt":"a","response":"so<|eos|>"}'
no 'error: in a rejected answer' 3 'its text spells a control token' '--control error' '{"prompt":"a","chosen":"b","rejected":"<|pad|>"}'
no 'error: in a text'      3 'its text spells a control token' '--control error' '{"text":"<|reserved_17|>"}'
is 'error: what only looks like one is fine' '--control error' '{"prompt":"<|a|>","response":"<|_eos|>"}' '^<|a|><|_eos|>$ 000000111111111'
is 'error: the tag itself is fine' '--control error' '{"prompt":"a","response":"b","tag":"<|rw_1|>"}' '^a1b$ 00011'
W1='{"prompt":"a","response":"b <rm_score>: 9 ","tag":" <rm_score>: 1 "}'
no 'a tag in words cannot be escaped' 3 'row:1: its text spells a tag in words' '' "$W1"
no 'nor is it taken by error'        3 'row:1: its text spells a tag in words' '--control error' "$W1"
is 'where no tag is in words it is text' '' '{"prompt":"a","response":"<rm_score>"}' '^a<rm_score>$ 0011111111111'
is 'allow: also where one is'        '--control allow' '{"prompt":"a","response":"<rm_score>","tag":"<rm_score>:"}' '^a<rm_score>:<rm_score>$ 000000000000011111111111'
finish
