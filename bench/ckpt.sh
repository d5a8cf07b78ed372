#!/usr/bin/env bash
# ckpt.sh -- saving a checkpoint of 3.2 GB and cutting it anew, beside dd conv=fsync of the same bytes.
set -euo pipefail

[ -x "$BUILD/bench/ckpt" ] || { echo "ckpt: skipped, no $BUILD/bench/ckpt (make bench makes it)"; exit 0; }
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT
cd "$dir"
room=$(df -Pk . | awk 'NR == 2 {print int($4 / 1e6)}')
[ "$room" -ge 12 ] || { echo "ckpt: skipped, $room GB of room where 12 are wanted"; exit 0; }
"$BUILD/bench/ckpt" .
