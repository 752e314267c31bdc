#!/bin/bash
# SPDX-License-Identifier: MIT
# pager-words.sh PROGRAM [MODULES] - words of a store are as many as wc(1) counts, on either engine; with MODULES also those on an NBD server.
set -eu
program=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

expect() { # WORDS ARGUMENT...
	local words=$1
	shift
	"$program" "$@" >"$dir/said"
	[ "$(head -n 1 "$dir/said")" = "$words" ]
}

# Words of all lengths, over the ends of pages, and an end that is none of a page.
seq 1 800000 | tr 3 ' ' | tr 5 '\t' >"$dir/text"
words=$(wc -w <"$dir/text")
for engine in kernel user; do
	expect "$words" --engine "$engine" --budget 256K "file:$dir/text"
	tail -n 1 "$dir/said" | grep -q "^$engine engine"
done
printf ' \n' >"$dir/space"
expect 0 "file:$dir/space"
printf word >"$dir/word"
expect 1 "file:$dir/word"
! "$program" "file:$dir/nothing" 2>"$dir/said" || exit 1
grep -q "$dir/nothing" "$dir/said"

[ $# -gt 1 ] || exit 0
export USERFAULT_MODULES=$2
for engine in kernel user; do
	# shellcheck disable=SC2016
	nbdkit --exit-with-parent -U - -r file "$dir/text" \
		--run "'$program' --engine $engine --budget 256K \"\$uri\"" >"$dir/said"
	[ "$(head -n 1 "$dir/said")" = "$words" ]
done
