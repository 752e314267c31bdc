#!/bin/bash
# SPDX-License-Identifier: MIT
# sandbox.sh BUILD HANDED REFUSE - the manager has given up what it says, and misses none of it: with stores of every kind, records, a prefetch,
# metrics, questions, clients of either engine and a worker that is killed no system call is refused.
set -eu
build=$1 handed=$2 refuse=$3

dir=$(mktemp -d)
export USERFAULT_MODULES=$build/src
servers=()
clean() {
	[ ${#servers[@]} -eq 0 ] || kill "${servers[@]}" 2>/dev/null || true
	rm -rf "$dir"
}
trap clean EXIT
trap 'echo "sandbox: line $LINENO: $BASH_COMMAND" >&2' ERR

fail() {
	echo "sandbox: $*" >&2
	exit 1
}

of() { # PID FIELD: from its status
	sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status"
}

until_there() { # FILE PID
	until [ -e "$1" ]; do
		kill -0 "$2" 2>/dev/null || fail "$(cat "$dir/log")"
	done
}

serve() { # URI [OPTION...]: a manager that is traced; $manager
	local uri=$1
	shift
	rm -f "$dir/trace"
	touch "$dir/start"
	strace -D -f -qq -Z -o "$dir/trace" "$build/userfault" serve --listen "$dir/manager" --control "$dir/control" \
		--record "$dir/records" --prefetch "$dir/records" --store default="$uri" "$@" 2>"$dir/log" &
	manager=$!
	servers+=("$manager")
	until_there "$dir/manager" "$manager"
}

served() {
	"$handed" "$dir/manager" >"$dir/got" || fail "$(cat "$dir/log")"
	cmp "$dir/store" "$dir/got"
	"$refuse" -- "$handed" "$dir/manager" >"$dir/got" || fail "$(cat "$dir/log")"
	cmp "$dir/store" "$dir/got"
}

worker() {
	"$build/userfault" stat --control "$dir/control" --json | grep -o '"worker_pid": *[0-9]*' | head -n 1 | grep -o '[0-9]*$'
}

ended() { # when all of it has, the trace is whole
	kill "$manager"
	wait "$manager" || fail "$(cat "$dir/log")"
	servers=("${servers[@]:0:${#servers[@]}-1}")
}

head -c 3000000 /dev/urandom >"$dir/store"
mkdir "$dir/records"
uris=("file:$dir/store")
if [ -e "$build/src/libuserfault-store-nbd.so" ]; then
	nbdkit -f -U "$dir/nbd" -P "$dir/pid" file "$dir/store" &
	servers+=($!)
	until_there "$dir/pid" $!
	uris+=("nbd+unix:///?socket=$dir/nbd")
fi
for uri in "${uris[@]}"; do
	for metrics in '' 127.0.0.1:0; do
		# shellcheck disable=SC2086
		serve "$uri" ${metrics:+--metrics $metrics}
		served
		first=$(worker)
		for task in "$manager" "$first"; do
			[ "$(of "$task" NoNewPrivs)" = 1 ] || fail "$task can get new privileges"
			[ "$(of "$task" Seccomp)" = 2 ] || fail "$task has no filter"
			# DAC_OVERRIDE and DAC_READ_SEARCH
			for set in CapEff CapPrm CapInh; do
				(((0x$(of "$task" $set) & ~6) == 0)) || fail "$task has capabilities: $(of "$task" $set)"
			done
		done
		# It is written when it is seen that a client has ended, and read by the next manager.
		until [ "$dir/records/default.workingset" -nt "$dir/start" ]; do
			if grep 'cannot be written' "$dir/log" || ! kill -0 "$manager"; then
				fail "no working set"
			fi
		done
		kill -KILL "$first"
		served
		[ "$(worker)" != "$first" ] || fail "the worker was not replaced"
		ended
		if grep ' EPERM ' "$dir/trace"; then
			fail "system calls are refused, with $uri"
		fi
	done
done

# Without it all is as it was.
serve "file:$dir/store" --no-sandbox
served
[ "$(of "$manager" Seccomp)$(of "$manager" NoNewPrivs)" = "$(of $$ Seccomp)$(of $$ NoNewPrivs)" ] || fail "--no-sandbox"
ended
