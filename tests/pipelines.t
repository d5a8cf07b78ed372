#!/usr/bin/env bash
# pipelines.t -- every pipeline runs.  With SMALL=1 in its environment a pipeline shrinks its work
# to seconds; its argument is the folder it works in; what it has to say is a table on stdout.  The
# lines that the README offers for pasting run, too.
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
sed -n '/^```sh$/,/^```$/p' "$TOP/README.md" | grep -v '^```\|^PATH=' >lines
mkdir tree && ln -s "$TOP/pipelines" tree
if [ -e /usr/share/games/fortunes/fortunes ]; then
    ok 'the lines in the README work when pasted' \
       'test -s lines && cd tree && bash -eo pipefail ../lines'
else
    skip 'the lines in the README work when pasted' 'no fortunes package'
fi
finish
