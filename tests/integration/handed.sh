#!/bin/bash
# SPDX-License-Identifier: MIT
# handed.sh BUILD - the example that hands its memory over prints the store, on either engine.
set -eu
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for size in 1 4096 300000; do
	head -c "$size" /dev/urandom >"$work/store"
	for before in env "$REFUSE_USERFAULTFD --"; do
		# shellcheck disable=SC2086
		"$build/tests/manager" "$work/socket" default="$work/store" -- $before "$build/examples/handed" "$work/socket" >"$work/got"
		cmp "$work/store" "$work/got"
	done
done
# What the manager cannot do is said.
if "$build/tests/manager" "$work/socket" other="$work/store" -- "$build/examples/handed" "$work/socket" 2>"$work/error"; then
	echo "handed: a store that is not there was served" >&2
	exit 1
fi
grep -qx 'handed: no such store' "$work/error"
