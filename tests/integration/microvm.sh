#!/bin/bash
# SPDX-License-Identifier: MIT
# microvm.sh PROGRAM REFUSE - a virtual machine moves while its guest writes to all of its memory, and the guest finds each page as it left it.
set -eu
microvm=$1 refuse=$2
[ -w /dev/kvm ] || exit 77

dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || :; wait; rm -rf "$dir"' EXIT

receive() { # ARGUMENT...: waits for a guest at $incoming; what it says then can be read from $said
	local word
	mkfifo "$dir/said"
	"$microvm" --incoming "unix:$dir/incoming" "$@" >"$dir/said" &
	pids=($!)
	exec {said}<"$dir/said"
	read -r word incoming <&"$said"
	[ "$word" = incoming ]
	rm "$dir/said"
}

for precopy in 0 1 5; do
	receive --passes 5
	"$microvm" --to "$incoming" --precopy "$precopy" >"$dir/went"
	grep -q '^gone after [0-9]* passes' "$dir/went"
	wait "${pids[0]}"
	cat <&"$said" >"$dir/came"
	exec {said}<&-
	pids=()
	grep -q '^came after [0-9]* passes, and each page was right in 5 more' "$dir/came"
	went=$(sed -n 's/^gone after \([0-9]*\) .*/\1/p' "$dir/went")
	[ "$(sed -n 's/^came after \([0-9]*\) .*/\1/p' "$dir/came")" = "$went" ]
	if [ "$precopy" -eq 0 ]; then
		# All of it, but pages of nothing but zeros, of which there are none.
		grep -q ' 0.0 MiB before the stop and 64' "$dir/went"
	else
		# All of it once, and then what the guest had written to since: its writes are seen.
		[ "$(sed -n 's/.*passes: \([0-9]*\)\..*/\1/p' "$dir/went")" -ge 64 ]
	fi
done

fails() { # STATUS TEXT COMMAND...
	local status=$1 text=$2 got=0
	shift 2
	"$@" >"$dir/got" 2>&1 || got=$?
	if [ "$got" -ne "$status" ] || ! grep -q "$text" "$dir/got"; then
		printf '%s\nexpected %s: %s\ngot      %s: %s\n' "$*" "$status" "$text" "$got" "$(cat "$dir/got")" >&2
		exit 1
	fi
}

# Where the kernel's userfaultfd cannot be had, it says why it is needed.
fails 1 'takes a userfaultfd with full rights' "$refuse" -- "$microvm" --incoming "unix:$dir/incoming"
fails 1 'the guest stays here' "$microvm" --to "unix:$dir/nothing" --passes 1
fails 2 'see --help' "$microvm"
fails 2 'power of two' "$microvm" --to unix:x --memory 3M
fails 2 'not from' "$microvm" --to unix:x --memory 3X
"$microvm" --help | grep -q '^usage: microvm --incoming'
