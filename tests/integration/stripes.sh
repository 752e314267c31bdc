#!/bin/bash
# SPDX-License-Identifier: MIT
# stripes.sh PROGRAM - what was striped over three files is read back in order.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

head -c $((64 * 1024 * 30)) /dev/urandom >"$dir/whole"
split -b 64K -d -a 2 "$dir/whole" "$dir/stripe."
number=0
for stripe in "$dir"/stripe.*; do
	cat "$stripe" >>"$dir/part.$((number % 3))"
	number=$((number + 1))
done
"$1" "$dir"/part.0 "$dir"/part.1 "$dir"/part.2 | cmp - "$dir/whole"
if "$1" "$dir/nothing" 2>"$dir/said"; then
	exit 1
fi
grep -q "$dir/nothing" "$dir/said"
