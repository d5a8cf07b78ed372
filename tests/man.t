#!/usr/bin/env bash
# man.t -- the manual and the programs say the same: options in `tool --help` are those of
# man/tool.1, every tool has a page and a test, every format a page in section 5.
. "$(dirname "$0")/tap.sh"

# Options that every tool has are described once, in moeutils(7).
common='^(help|version|config|print-config|quiet|verbose|lock)$'
of_help() { "$1" --help | sed -nE 's/^ +(-., *)?--([a-z0-9][a-z0-9-]*).*/\2/p' | sort -u; }
of_page() { grep '^\.It Fl' "$1" | grep -oE 'Fl -[a-z0-9][a-z0-9-]*' | sed 's/Fl -//' | sort -u; }
own() { grep -Ev "$common"; }
agree() { "$1" --help >/dev/null && diff <(of_page "$TOP/man/$1.1" | own) <(of_help "$1" | own); }
lint() { mandoc -Tlint -W warning "$1" >&2; }
export common; export -f of_help of_page own agree lint

for c in "$TOP"/tools/*.c; do
    [ -e "$c" ] || continue
    tool=$(basename "$c" .c)
    ok "$tool: the page's options are those of --help" "agree $tool"
    ok "$tool has a page and a test" "test -s \$TOP/man/$tool.1 && test -s \$TOP/tests/$tool.t"
    ok "$tool: the page has its sections" \
       "for s in NAME SYNOPSIS DESCRIPTION 'EXIT STATUS' EXAMPLES 'SEE ALSO'; do
            grep -q \"^\\.Sh \$s\$\" \$TOP/man/$tool.1 || { echo no \$s; exit 1; }; done"
    ok "$tool reads the configuration that it prints" \
       "$tool --print-config >c && $tool --config c --print-config | cmp - c"
    x  "$tool refuses an unknown option" 2 "^$tool: .*no-such-option" "$tool --no-such-option"
done

listed() { sed -n 's/^\.It Xr \([a-z-]*\) 1$/\1/p' "$TOP/man/moeutils.7" | sort; }
made() { (cd "$TOP/tools" && ls -- *.c | sed 's/\.c$//' | sort); }
export -f listed made
ok 'moeutils(7) lists the tools there are' 'diff <(listed) <(made)'

for f in "$TOP"/formats/*.md; do
    [ -e "$f" ] || continue
    ok "$(basename "$f") has a page in section 5" "ls \$TOP/man/*$(basename "$f" .md).5"
done

for page in "$TOP"/man/*.[157]; do
    [ -e "$page" ] || continue
    name=$(basename "$page")
    if command -v mandoc >/dev/null; then
        ok "$name is clean" "lint $page"
    else
        skip "$name is clean" 'no mandoc'
    fi
    case $name in
    *.1) ok "$name is a tool's" "test -e \$TOP/tools/${name%.1}.c" ;;
    esac
done

# The checks themselves can fail.
printf '.It Fl o , Fl -output Ar file\n.It Fl -only-in-page\n' >x.1
ok 'options are read from a page' 'of_page x.1 | tr "\n" " " | grep -qx "only-in-page output "'
printf '#!/bin/sh\necho "  -o, --output FILE  o"; echo "      --only-in-help  of --output"\n' >tool
chmod +x tool
ok 'options are read from --help' 'of_help ./tool | tr "\n" " " | grep -qx "only-in-help output "'
finish
