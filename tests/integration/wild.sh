#!/bin/bash
# SPDX-License-Identifier: MIT
# wild.sh BUILD - faults that are not the engine's stay what they are, and a debugger sees through the trap.
set -u
build=$1 failed=0
over=("$build/tests/integration/refuse-userfaultfd" -- "$build/userfault" run --engine user --)
wild=$build/tests/integration/wild

fail() {
	echo "failed: $*" >&2
	failed=1
}

ulimit -c 0
"${over[@]}" "$wild" crash 2>/dev/null
status=$?
[ $status -eq 139 ] || fail "a wild read does not crash: $status"
output=$("${over[@]}" "$wild" handler)
status=$?
if [ $status -ne 3 ] || [ "$output" != told ]; then
	fail "the program's own handler was not told of a wild read: $status, $output"
fi

# A real debugger, on a thread that waits in a fault.
exec {from}< <(exec "$build/userfault" run --engine user -- "$wild" wait)
pid=$!
read -r line <&"$from"
[ "$line" = waiting ] || fail "no fault came: $line"
trace=$(gdb -p "$pid" -batch -nx -ex 'thread apply all bt' 2>&1)
case $trace in
*"ptrace: Operation not permitted"*) echo "the debugger may not look: the backtrace was not tested" ;;
*"touch_the_page"*"main"*"signal handler called"* | *"signal handler called"*"touch_the_page"*"main"*) ;;
*) fail "no sound backtrace through the trap:"$'\n'"$trace" ;;
esac
kill -KILL "$pid"
wait "$pid" 2>/dev/null

[ "$failed" -eq 0 ]
