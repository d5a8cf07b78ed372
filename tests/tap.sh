# tap.sh -- the harness of the shell tests: one line is one claim.
#
#   . tests/tap.sh
#   t  NAME 'command'                 stdout, stderr and status equal tests/golden/<test>/NAME
#   ok NAME 'command'                 exits 0
#   x  NAME STATUS 'regex' 'command'  exits with STATUS and says regex (extended) on stderr or stdout
#   skip NAME 'why'
#   finish                            prints the plan; exits 1 when a claim failed
#
# Commands run by bash with pipefail, in a scratch folder $W of their own, the tools first in PATH, the
# source tree in $TOP and real data in $DATA (may be absent: have_data || skip ...).

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=${BUILD:-build/cpu}
PATH=$TOP/$BUILD/bin:$TOP/build/venv/bin:$PATH # build/venv: the witnesses of ./setup --tests
DATA=${MOEUTILS_TESTDATA:-$TOP/../shared/data}
GOLD=$TOP/tests/golden/$(basename "$0" .t)
W=$(mktemp -d) && trap 'rm -rf "$W"' EXIT && cd "$W" || exit 1
export PATH TOP DATA W MOEUTILS_THREADS=${MOEUTILS_THREADS:-2}
unset MOEUTILS_CONFIG MOEUTILS_DEVICE
n=0 failed=0

have_data() { [ -d "$DATA" ]; }
verdict() { # STATUS NAME
    n=$((n + 1))
    if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; failed=$((failed + 1)); fi
}
run() { bash -c "set -o pipefail; $1" >.out 2>.err </dev/null; }
explain() { sed 's/^/# /' .out .err | head -n 20; }

ok() {
    run "$2"; local s=$?
    verdict $s "$1"; [ $s = 0 ] || { echo "# exit $s: $2"; explain; }
}
x() {
    run "$4"; local s=$? r=1
    [ $s = "$2" ] && { [ -z "$3" ] || cat .out .err | grep -Eq -- "$3"; } && r=0
    verdict $r "$1"; [ $r = 0 ] || { echo "# exit $s, wanted $2 and /$3/: $4"; explain; }
}
t() {
    run "$2"; local s=$?
    { cat .out; sed 's/^/! /' .err; echo "exit $s"; } >.got
    [ -z "${ACCEPT:-}" ] || { mkdir -p "$GOLD" && cp .got "$GOLD/$1"; }
    diff -u "$GOLD/$1" .got >.diff 2>&1; s=$?
    verdict $s "$1"; [ $s = 0 ] || sed 's/^/# /' .diff | head -n 40
}
skip() { n=$((n + 1)); echo "ok $n - $1 # SKIP $2"; }
finish() { echo "1..$n"; [ $failed = 0 ]; exit; }
