#!/bin/bash
# SPDX-License-Identifier: MIT
# run.sh BUILD - `userfault run`: programs of strangers get a userfaultfd that works, or a clear line why not.
set -u
userfault=$1/userfault refuse=$1/tests/integration/refuse-userfaultfd stranger=$1/tests/integration/stranger
scan=$1/tests/integration/scan

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

expect() { # STATUS OUTPUT COMMAND...
	local status=$1 expected=$2 got output
	shift 2
	output=$("$@" 2>&1)
	got=$?
	if [ "$got" -ne "$status" ] || [[ "$output" != *"$expected"* ]]; then
		printf 'failed: %s\nexpected %s: %s\ngot      %s: %s\n' "$*" "$status" "$expected" "$got" "$output" >&2
		failed=1
	fi
}

# Where it is refused, the user engine takes its place; the program sees no difference.
expect 1 "userfaultfd(2)" "$refuse" -- "$stranger"
expect 0 "all as documented" "$refuse" -- "$userfault" run -- "$stranger"
expect 0 "all as documented" "$userfault" run --engine user "$stranger"
expect 0 "all as documented" "$refuse" --errno ENOSYS -- "$userfault" run "$stranger"

# What was written is told as by the kernel itself.
expect 0 "all as documented" "$scan"
expect 0 "all as documented" "$refuse" -- "$userfault" run "$scan"

# Children have it too: a shell's, and one that is executed with an environment of its own.
printf '#!/bin/sh\n"%s"\n' "$stranger" >"$dir/script"
chmod +x "$dir/script"
expect 0 "all as documented" "$refuse" -- "$userfault" run "$dir/script"
expect 0 "all as documented" "$refuse" -- "$userfault" run "$stranger" exec
expect 0 "all as documented" "$refuse" -- "$userfault" run env -i "$stranger"

# It says what it does only when asked, and passes the status on.
expect 0 "the user engine takes its place" "$refuse" -- "$userfault" run --verbose true
[ -z "$("$refuse" -- "$userfault" run true 2>&1)" ] || { echo "failed: not silent" >&2; failed=1; }
expect 7 "" "$refuse" -- "$userfault" run -- sh -c 'exit 7'
expect 1 "the kernel's userfaultfd: Operation not permitted" "$refuse" -- "$userfault" run --engine kernel true

# Where the kernel's works nothing stands before it.
if "$userfault" run --engine kernel true 2>/dev/null; then
	expect 0 "nothing stands before it" "$userfault" run --verbose true
	expect 1 "" "$userfault" run printenv LD_PRELOAD
fi

# What cannot be served is said.
printf 'int main(void) { return 0; }\n' >"$dir/static.c"
cc -static -o "$dir/static" "$dir/static.c"
expect 126 "statically linked" "$userfault" run --engine user "$dir/static"
expect 127 "no such program" "$userfault" run --engine user "$dir/nothing"
expect 126 "" "$userfault" run --engine user "$dir"
if [ "$(id -u)" -eq 0 ]; then
	cp /bin/true "$dir/setuid"
	chown nobody "$dir/setuid"
	chmod 4755 "$dir/setuid"
	expect 126 "setuid" "$userfault" run --engine user "$dir/setuid"
fi
expect 2 "no program" "$userfault" run
expect 0 "usage: userfault run" "$userfault" run --help
expect 2 "unknown engine 'other'" "$userfault" run --engine other true
expect 2 "needs a value" "$userfault" run --engine
expect 2 "unknown option '--fast'" "$userfault" run --fast true

# Files that a manager serves: what is wrong is said before the program starts.
head -c 10000 /dev/urandom >"$dir/store"
manager=("$1/tests/manager" "$dir/socket" "base=$dir/store" --)
map=("$userfault" run --manager "$dir/socket" --map)
expect 1 "/no/manager: No such file or directory" "$userfault" run --manager /no/manager --map "$dir/file=base" true
expect 1 "Connection refused" "$userfault" run --manager "@$dir/nobody" --map "$dir/file=base" true
expect 1 "store other: no such store" "${manager[@]}" "${map[@]}" "$dir/file=other" true
expect 1 "ends at 10000, before the offset" "${manager[@]}" "${map[@]}" "$dir/file=base@12K" true
expect 1 "there is no folder" "${manager[@]}" "${map[@]}" "$dir/no/file=base" true
expect 1 "not a regular file" "${manager[@]}" "${map[@]}" "$dir=base" true
expect 2 "PATH=STORE" "${manager[@]}" "${map[@]}" "$dir/file" true
expect 2 "multiple of the page size" "${manager[@]}" "${map[@]}" "$dir/file=base@100" true
expect 2 "go together" "$userfault" run --manager "$dir/socket" true
expect 2 "go together" "$userfault" run --map "$dir/file=base" true
expect 126 "statically linked" "${manager[@]}" "${map[@]}" "$dir/file=base" "$dir/static"
expect 0 "1808" "${manager[@]}" "${map[@]}" "$dir/file=base@8K" -- stat -c %s "$dir/file"
expect 0 "" "${manager[@]}" "${map[@]}" "$dir/file=base" -- cmp "$dir/file" "$dir/store"
# shellcheck disable=SC2016
expect 0 "" "${manager[@]}" "${map[@]}" "$dir/file=base" -- sh -c 'cp "$1" "$1.copy" && cmp "$1.copy" "$2"' - "$dir/file" "$dir/store"
cp /bin/true "$dir/true"
expect 126 "" "${manager[@]}" "${map[@]}" "$dir/true=base" -- env "$dir/true"

# A program that others wrote, which verifies what it reads.
expect 0 "successful run completed" "$refuse" -- "$userfault" run --engine user -- \
	stress-ng --userfaultfd 2 --userfaultfd-ops 20000 --verify

[ "$failed" -eq 0 ]
