#!/bin/bash
# SPDX-License-Identifier: MIT
# pager-random.sh PROGRAM - what threads read at random is what od(1) reads there, on either engine; a working set is found again.
set -eu
program=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

faults() {
	sed -n 's/.*: \([0-9]*\) faults.*/\1/p' "$dir/said"
}

head -c $((4096 * 1000 + 100)) /dev/urandom >"$dir/table"
cp "$dir/table" "$dir/before"
od -A d -v -t x8 -w8 "$dir/table" | LC_ALL=C sort >"$dir/expected"
for engine in kernel user; do
	# In a sixteenth of its size.
	"$program" --engine "$engine" --budget 256K --threads 4 --reads 2000 --print "file:$dir/table" >"$dir/said"
	grep -E '^[0-9]+ [0-9a-f]{16}$' "$dir/said" >"$dir/read"
	[ "$(wc -l <"$dir/read")" -eq 8000 ]
	LC_ALL=C sort -u "$dir/read" | LC_ALL=C comm -23 - "$dir/expected" | cmp - /dev/null
	tail -n 1 "$dir/said" | grep -q "^$engine engine"

	# The same places again, with room for all of them: what was touched first before is there already.
	"$program" --engine "$engine" --threads 2 --reads 500 --record "$dir/set" "file:$dir/table" >"$dir/said"
	[ "$(faults)" -gt 400 ]
	"$program" --engine "$engine" --threads 2 --reads 500 --replay "$dir/set" "file:$dir/table" >"$dir/said"
	[ "$(faults)" -eq 0 ]
done
cmp "$dir/table" "$dir/before"

"$program" --seconds 1 "file:$dir/table" >"$dir/said"
grep -q '^[0-9]* reads in [1-9]' "$dir/said"

fails() { # TEXT ARGUMENT...
	local text=$1
	shift
	! "$program" "$@" 2>"$dir/said" || exit 1
	grep -q "$text" "$dir/said"
}
fails "$dir/table" --replay "$dir/table" "file:$dir/table"
fails "$dir/nothing" "file:$dir/nothing"
fails usage --threads 0 "file:$dir/table"
