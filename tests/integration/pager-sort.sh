#!/bin/bash
# SPDX-License-Identifier: MIT
# pager-sort.sh PROGRAM - a store sorted in place, in a sixteenth of its size, is what sort(1) makes of it, on either engine.
set -eu
program=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

numbers() { # FILE
	od -A n -v -t u8 -w8 "$1"
}

head -c 4M /dev/urandom >"$dir/keys"
numbers "$dir/keys" | LC_ALL=C sort -n >"$dir/expected"
for engine in kernel user; do
	for unit in 4K 32K; do
		cp "$dir/keys" "$dir/sorted"
		"$program" --engine "$engine" --budget 256K --unit "$unit" --verify "file:$dir/sorted" >"$dir/said"
		numbers "$dir/sorted" | cmp - "$dir/expected"
		grep -qx '524288 numbers in order, and the same as before' "$dir/said"
		tail -n 1 "$dir/said" | grep -q "^$engine engine"
	done
done

# What is in order already, and what is all the same; the budget is the smallest that there is.
cp "$dir/sorted" "$dir/again"
"$program" --budget 256K --unit 32K --verify "file:$dir/again" >"$dir/said"
cmp "$dir/sorted" "$dir/again"
head -c 1M /dev/zero >"$dir/zeros"
"$program" --budget 32K --unit 4K --verify "file:$dir/zeros" >"$dir/said"
cmp "$dir/zeros" <(head -c 1M /dev/zero)

# A cause, and not only a failure.
fails() { # TEXT ARGUMENT...
	local text=$1
	shift
	! "$program" "$@" 2>"$dir/said" || exit 1
	grep -q "$text" "$dir/said"
}
fails "$dir/nothing" "file:$dir/nothing"
head -c 100 /dev/zero >"$dir/odd"
fails '100 bytes' "file:$dir/odd"
fails 'a budget is at least' --budget 4K "file:$dir/zeros"
fails 'usage' --budget many "file:$dir/zeros"
