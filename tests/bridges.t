#!/usr/bin/env bash
# bridges.t -- documents to Megatron's and WebDataset's formats and back: what other readers find there is
# what a set has, and a set made of it is the set made of the rows.
. "$(dirname "$0")/tap.sh"

S=$TOP/formats/samples
export S T=$S/tokenizer.json witness="python3 $TOP/tests/bridge_witness.py"
has() { python3 -c "import $1" 2>/dev/null; }
# sets NAME [OPTION ...]: NAME.jsonl as a set, as NAME.tar, and as a set of that
through_tar() {
    shard-pack -q -t $T --seq 128 "${@:2}" -o $1/ $1.jsonl && shard-pack -q -t $T "${@:2}" --to webdataset -o $1.tar $1.jsonl &&
        shard-pack -q -t $T --seq 128 --from webdataset "${@:2}" -o $1.back/ $1.tar && shard-show --diff $1 $1.back
}
rows() { shard-show --rows "$1"; }
export -f through_tar rows

cp $S/text.jsonl $S/pairs.jsonl $S/answers.jsonl .
sed 's/}$/,"margin":0.3,"ref_logp_chosen":-3.7,"ref_logp_rejected":-4.25}/' pairs.jsonl >margins.jsonl

# ---- Megatron ----

ok 'text to Megatron, and back: the same set' \
   'shard-pack -q -t $T --seq 64 --overlong split -o text/ text.jsonl && shard-pack -q -t $T --to megatron -o text text.jsonl &&
    shard-pack -q -t $T --seq 64 --overlong split --from megatron -o back/ text && shard-show --diff text back'
ok '.bin and .idx name the same'       'shard-pack -q -t $T --seq 64 --from megatron -o b2/ text.bin && shard-pack -q -t $T --seq 64 --from megatron -o b3/ text.idx && diff -r b2 b3'
ok 'the same rows, the same bytes'     'shard-pack -q -t $T --to megatron -o again.bin text.jsonl && cmp text.bin again.bin && cmp text.idx again.idx'
x  'masks and weights are missed, and said' 0 'holds neither masks nor weights: [1-9][0-9]* tokens .*, and 2 documents' 'shard-pack -t $T --to megatron -o a answers.jsonl'
x  'text has none to miss'             0 '[0-9] tokens \([0-9]+ learnt\) of 3 documents' 'shard-pack -t $T --to megatron -o a text.jsonl 2>&1 | tee log; ! grep -q masks log'
x  'pairs are refused'                 3 'pairs.jsonl:1: .*a pair, which Megatron' 'shard-pack -t $T --to megatron -o p pairs.jsonl'
ok 'and leave nothing'                 '! ls p.bin p.idx 2>/dev/null'
ok 'an output whose rows went bad leaves the old one' 'shard-pack -q -t $T --to megatron -o old text.jsonl && cp old.idx was.idx &&
    ! shard-pack -q -t $T --to megatron -o old pairs.jsonl 2>/dev/null && cmp old.idx was.idx && cmp old.bin text.bin'
x  'no prefix'                         2 '-o PREFIX is wanted' 'shard-pack -t $T --to megatron text.jsonl'

# cut N: PREFIX bad with the index or the tokens cut to N bytes; patch AT BYTES: some of the index changed
bad() { cp text.bin bad.bin; cp text.idx bad.idx; }
patch() { bad; printf "$2" | dd of=bad.idx bs=1 seek=$1 conv=notrunc status=none; }
from_bad() { shard-pack -t $T --from megatron -o no/ bad; }
export -f bad patch from_bad
x  'an index that is cut'              4 'bad.idx: it is not as long as its counts say' 'bad; truncate -s -1 bad.idx; from_bad'
x  'one without a header'              4 'bad.idx: not an index of Megatron' 'bad; truncate -s 20 bad.idx; from_bad'
x  'other bytes'                       4 'bad.idx: not an index of Megatron' 'patch 0 X; from_bad'
x  'another version'                   4 'bad.idx: not version 1'  'patch 9 "\2"; from_bad'
x  'floats'                            4 'bad.idx: its tokens are of no type of integers' 'patch 17 "\6"; from_bad'
x  'counts beyond reason'              4 'not as long as its counts'  'patch 25 "\177"; from_bad'
x  'tokens that are cut'               4 'a sequence lies outside of the .bin' 'bad; truncate -s -1 bad.bin; from_bad'
x  'a sequence before the first byte'  4 'a sequence lies outside of the .bin' 'patch 53 "\377"; from_bad'
x  'documents out of order'            4 'its documents are not in order' 'patch 78 "\3"; from_bad'
x  'a token the tokenizer lacks'       3 'bad: document 1: a token that is none of the tokenizer' 'bad; printf "\377\377" | dd of=bad.bin conv=notrunc status=none; from_bad'
x  'no such file'                      1 'nowhere.idx: No such' 'shard-pack -t $T --from megatron nowhere -o no/'
ok 'none of them wrote anything'       '[ ! -e no ]'

# ---- WebDataset ----

ok 'text to a tar, and back: the same set'                  'through_tar text'
ok 'answers with weights and rewards'                       'through_tar answers --template chat'
ok 'pairs'                                                  'through_tar pairs --template chat'
ok 'pairs with margins and log-probabilities'               'through_tar margins'
ok 'a tar goes through a pipe, and compressed'              'shard-pack -q -t $T --to webdataset answers.jsonl | gzip | shard-pack -q -t $T --seq 128 --from webdataset -o piped/ - &&
                                                             shard-pack -q -t $T --seq 128 -o plain/ answers.jsonl && shard-show --diff plain piped'
ok 'the same rows, the same bytes'                          'shard-pack -q -t $T --to webdataset margins.jsonl | cmp - margins.tar'
ok 'tar lists it'                                           'tar tf answers.tar | sed -n 1,4p | tr "\n" " " | grep -qx "000000000.tokens.npy 000000000.target.npy 000000000.json 000000001.tokens.npy "'
x  'a tar that is cut'                                      4 'cut.tar: ' 'head -c 3000 answers.tar >cut.tar; shard-pack -t $T --from webdataset -o no/ cut.tar'
# repack FILE [OTHER]: a set of margins.tar with one file gone, or another in its place
repack() { rm -rf x; mkdir x; tar xf margins.tar -C x; if [ $# = 2 ]; then cat "$2" >x/$1; else rm x/$1; fi; (cd x; tar cf ../re.tar *); shard-pack -t $T --from webdataset -o no/ re.tar; }
export -f repack
x  'a sample without tokens'                                4 're.tar: sample 000000001 has no tokens.npy' 'repack 000000001.tokens.npy'
x  'a target of another length'                             4 'sample 000000000 has [0-9]+ targets for' 'tar xOf text.tar 000000001.target.npy >t.npy; repack 000000000.target.npy t.npy'
x  'what is no array'                                       4 're.tar: 000000001.tokens.npy: not an array of NumPy' 'repack 000000001.tokens.npy <(echo nonsense-and-more)'
x  'what is no JSON'                                        4 're.tar: 000000001.json: ' 'repack 000000001.json <(echo "{")'
x  'a weight below 0'                                       3 're.tar: document 2: "weight" is negative' 'repack 000000001.json <(echo "{\"weight\":-1,\"pair\":0,\"margin\":0.3,\"ref_logp\":-4.25}")'
x  'half a pair'                                            3 're.tar: document 2: the other document of its pair' 'repack 000000001.json <(echo "{\"pair\":7,\"margin\":1,\"ref_logp\":-1}")'
x  'a later document of another kind'                       3 're.tar: document 3: not a pair, and the first row is one' 'repack 000000002.json <(echo "{}")'
x  'longer than --seq'                                      3 'text.tar: document 1: longer than --seq' 'shard-pack -t $T --seq 8 --from webdataset -o no/ text.tar'
ok 'unless they may be cut'                                 'shard-pack -q -t $T --seq 8 --overlong truncate --from webdataset -o eight/ text.tar && shard-pack -q -t $T --seq 8 --overlong truncate -o eight2/ text.jsonl && shard-show --diff eight eight2'
x  'or dropped'                                             3 'no document is kept' 'shard-pack -t $T --seq 2 --overlong drop --from webdataset -o no/ text.tar'
x  'shards have options that others have not'               2 'are for shards, not --to webdataset' 'shard-pack -t $T --window 3 --to webdataset text.jsonl'
x  'rows have too'                                          2 'are for rows, not --from webdataset' 'shard-pack -t $T --rejects r --from webdataset text.tar -o no/'
ok 'two tars one after the other'                           'shard-pack -q -t $T --seq 128 --from webdataset -o two/ margins.tar margins.tar && cat margins.jsonl margins.jsonl >twice.jsonl && shard-pack -q -t $T --seq 128 -o two2/ twice.jsonl && shard-show --diff two two2'
ok 'one format to the other'                                'shard-pack -q -t $T --from webdataset --to megatron -o other text.tar && cmp other.bin text.bin && cmp other.idx text.idx'
ok 'none of them wrote anything'                            '[ ! -e no ]'

# ---- outside witnesses ----

if has numpy && has safetensors.numpy; then
    ok 'Megatron'"'"'s layout, by hand' '$witness megatron back text'
    for type in i4 i8 u1 i2 u2; do
        export type
        ok "a document of several sequences, tokens of $type" \
           '$witness megatron-make made $type 2 1 && shard-pack -q -t $T --from megatron -o made.$type/ made && rows made.$type/ >made.rows &&
            grep -c "\"tokens\":\[47,48,49,40,41,42,43\]" made.rows | grep -qx 1 && grep -c "\"tokens\":\[44,45,46\]" made.rows | grep -qx 1'
    done
    x 'a document of no sequences is bad' 3 'made: document 2: nothing in it is learnt' '$witness megatron-make made i8 2 0 1 && shard-pack -t $T --from megatron -o no/ made'
    ok 'the tar, by tarfile and numpy' 'for s in text answers pairs margins; do $witness tar $s $s.tar || exit 1; done'
else
    skip 'Megatron, and tar by hand' 'no numpy and safetensors'
fi
if has megatron.core; then
    ok 'megatron.core reads it' '$witness megatron-core back text'
    ok 'and what it writes becomes a set' \
       '$witness megatron-core-make core && shard-pack -q -t $T --from megatron -o core/ core && rows core/ >core.rows && [ $(wc -l <core.rows) = 2 ] &&
        sed -n 1p core.rows | grep -q "\"tokens\":\[47,48,49\]" && sed -n 2p core.rows | grep -q "\"tokens\":\[40,41,42,43,44,45,46\]"'
else
    skip 'megatron.core reads it' 'no package megatron-core'
fi
if has webdataset; then
    ok 'the webdataset package decodes it' 'for s in text answers pairs margins; do $witness webdataset $s $s.tar || exit 1; done'
    ok 'what it writes becomes a set'      '$witness webdataset-make theirs.tar && shard-pack -q -t $T --seq 16 --from webdataset -o theirs/ theirs.tar &&
        rows theirs/ >theirs.rows && [ $(wc -l <theirs.rows) = 3 ] &&
        sed -n 2p theirs.rows | grep -q "\"weight\":0.5,\"tokens\":\[43,44,45\],\"target\":\[0,1,1\]"'
else
    skip 'the webdataset package decodes it' 'no webdataset package'
fi
finish
