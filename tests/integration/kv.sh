#!/bin/bash
# SPDX-License-Identifier: MIT
# kv.sh PROGRAM - the key-value server does what redis-cli and redis-benchmark expect, and survives what nobody should send.
# shellcheck disable=SC2016
set -eu
kv=$1
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || :; wait; rm -rf "$dir"' EXIT

start() { # ARGUMENT...: a server; $address is where it serves
	local word
	mkfifo "$dir/said"
	"$kv" "$@" >"$dir/said" &
	pids+=($!)
	read -r word address <"$dir/said"
	[ "$word" = serving ]
	rm "$dir/said"
}

cli() {
	redis-cli --no-raw -p "${address##*:}" "$@"
}

expect() { # EXPECTED COMMAND...
	local expected=$1 got
	shift
	got=$(cli "$@")
	if [ "$got" != "$expected" ]; then
		printf '%s\nexpected %s\ngot      %s\n' "$*" "$expected" "$got" >&2
		exit 1
	fi
}

start --listen tcp://127.0.0.1:0 --heap 16M
expect PONG ping
expect '"hello"' ping hello
expect '"a b"' echo 'a b'
expect OK set a 1
expect '"1"' get a
expect '(nil)' get b
expect '(integer) 2' incr a
expect '(integer) -1' decr b
expect '(integer) 9' incrby b 10
expect '(nil)' set a 5 NX
expect '(nil)' set c 5 XX
expect OK set c 5 NX
expect '(integer) 3' exists a b c d
expect $'1) "2"\n2) "9"\n3) (nil)' mget a b d
expect OK mset k1 v1 k2 v2
expect '(integer) 5' dbsize
expect '(integer) 5' append k1 xyz
expect '(integer) 5' strlen k1
expect '(integer) 0' strlen none
expect '(integer) 2' del k1 k2 none
expect OK select 0
expect '(empty array)' command
expect '(empty array)' command docs
expect $'1) "save"\n2) ""' config get save
expect '(error) ERR unknown command '"'nonsense'" nonsense
expect "(error) ERR wrong number of arguments for 'get' command" get
expect "(error) ERR wrong number of arguments for 'mset' command" mset a b c
expect '(error) ERR syntax error' set a b c
expect '(error) ERR DB index is out of range' select 1
expect OK set max 9223372036854775807
expect '(error) ERR increment or decrement would overflow' incr max
expect OK set word value
expect '(error) ERR value is not an integer or out of range' incr word
expect '"value"' get word
cli info | grep -q 'keys=5'

# The same keys and values have the same digest, in whatever order they came.
digest=$("$kv" digest --server "$address")
expect "\"$digest\"" digest
expect OK set word other
[ "$digest" != "$("$kv" digest --server "$address")" ]
expect OK set word value
[ "$digest" = "$("$kv" digest --server "$address")" ]
expect OK flushall
expect '(integer) 0' dbsize

# Any bytes, of any length.
head -c 3000000 /dev/urandom >"$dir/value"
cli -x set binary <"$dir/value" >/dev/null
redis-cli -p "${address##*:}" --raw get binary | head -c -1 | cmp - "$dir/value"

# A full heap says so, and keeps what it has.
for i in 1 2 3 4 5 6; do
	cli -x set "more$i" <"$dir/value" >"$dir/got"
done
grep -q '^(error) OOM ' "$dir/got"
redis-cli -p "${address##*:}" --raw get binary | head -c -1 | cmp - "$dir/value"
expect OK flushall
expect OK set small value

# Lines, pipelining, and what is no request: an error, and the end of the connection.
talk() { # sends its input, and prints all that comes back
	exec {socket}<>"/dev/tcp/127.0.0.1/${address##*:}"
	cat >&"$socket"
	cat <&"$socket"
	exec {socket}>&-
}
printf 'SET x 1\r\nincr x\r\n*2\r\n$3\r\nGET\r\n$1\r\nx\r\nquit\r\n' | talk >"$dir/got"
printf '+OK\r\n:2\r\n$1\r\n2\r\n+OK\r\n' | cmp - "$dir/got"
printf 'get x\r\n*1\r\nping\r\nset x broken\r\n' | talk >"$dir/got"
printf '$1\r\n2\r\n-ERR Protocol error: expected '"'\$'"'\r\n' | cmp - "$dir/got"
expect '"2"' get x

# Random bytes in the place of a length, and behind it.
for size in $(seq 1 37 1500); do
	exec {socket}<>"/dev/tcp/127.0.0.1/${address##*:}"
	{
		printf '*%d\r\n$3\r\nGET\r\n$' "$((size % 4))"
		head -c "$size" /dev/urandom
	} >&"$socket"
	exec {socket}>&-
done
expect '"2"' get x

# Clients that go away in the middle of a request.
for i in 1 2 3; do
	exec {socket}<>"/dev/tcp/127.0.0.1/${address##*:}"
	printf '*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$1000\r\n' >&"$socket"
	exec {socket}>&-
done
expect '"2"' get x

for pipeline in 1 32; do
	redis-benchmark -p "${address##*:}" -t ping,set,get,incr,mset -n 20000 -r 1000 -P "$pipeline" --csv >"$dir/got"
	[ "$(grep -c '^"' "$dir/got")" -eq 7 ]
done
[ "$(cli dbsize)" != '(integer) 0' ]

# A unix socket; it is removed at the end, and one that was left behind is replaced.
start --listen "unix:$dir/socket"
[ "$address" = "unix:$dir/socket" ]
[ "$(redis-cli -s "$dir/socket" set a b)" = OK ]
kill "${pids[-1]}"
wait "${pids[-1]}"
[ ! -e "$dir/socket" ]
start --listen "unix:$dir/socket"
kill -9 "${pids[-1]}"
wait "${pids[-1]}" || :
[ -S "$dir/socket" ]
start --listen "unix:$dir/socket"
[ "$(redis-cli -s "$dir/socket" dbsize)" = 0 ]

# One line says what is wrong.
fails() { # STATUS TEXT ARGUMENT...
	local status=$1 text=$2 got=0
	shift 2
	"$kv" "$@" >"$dir/got" 2>&1 || got=$?
	[ "$got" -eq "$status" ] && [ "$(wc -l <"$dir/got")" -eq 1 ] && grep -q "$text" "$dir/got"
}
fails 2 'see --help'
fails 2 'unrecognized option' --nonsense
fails 2 'nonsense: nothing is expected' nonsense
fails 2 '10 is not\|a heap has' --listen unix:x --heap 10
fails 2 'not a size' --listen unix:x --heap 1X
fails 2 'no engine none' --listen unix:x --engine none
fails 2 'somewhere is not an address' --listen somewhere
fails 2 'migrate needs' migrate --server unix:x
fails 1 'unix:/nothing: No such file or directory' digest --server unix:/nothing
fails 1 'cannot listen at .*Address already in use' --listen "unix:$dir/socket"
"$kv" --help | grep -q '^usage: kv --listen'

# And all ended well.
kill "${pids[0]}"
wait "${pids[0]}"
