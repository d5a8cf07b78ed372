#!/usr/bin/env bash
# pipelines.t -- every pipeline runs.  With SMALL=1 in its environment a pipeline shrinks its work to
# seconds; its argument is the folder it works in; what it has to say is a table on stdout.
. "$(dirname "$0")/tap.sh"

for p in "$TOP"/pipelines/*; do
    [ -x "$p" ] && [ -f "$p" ] || continue
    name=$(basename "$p")
    if [ -e /usr/share/games/fortunes/fortunes ]; then
        ok "$name runs and prints a table" \
           "SMALL=1 timeout 300 \$TOP/pipelines/$name \$W/$name.work >table && test -s table"
    else
        skip "$name runs and prints a table" 'no fortunes package'
    fi
done
[ "$n" -gt 0 ] || skip 'pipelines' 'none in the tree'
finish
