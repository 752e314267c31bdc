#!/bin/bash
# SPDX-License-Identifier: MIT
# kv-migrate.sh PROGRAM LOAD ENGINE REFUSE - a server moves under load: no command is lost and none is executed twice, and its clients
# keep their connections. ENGINE is kernel, user, or refused: where the kernel's userfaultfd is refused by REFUSE, and the choice is left to the program.
set -eu
kv=$1 load=$2 engine=$3 refuse=$4
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || :; wait; rm -rf "$dir"' EXIT

under=() served_by=$engine
if [ "$engine" = refused ]; then
	under=("$refuse" --)
	engine=auto served_by=user
fi

start() { # ARGUMENT...: a server; $address is where it serves, and $incoming where it waits for another
	local word rest
	mkfifo "$dir/said"
	"${under[@]}" "$kv" --engine "$engine" "$@" >"$dir/said" &
	pids+=($!)
	while read -r word rest; do
		case $word in
		serving) address=$rest ;;
		incoming) incoming=$rest ;;
		esac
	done < <(head -n "$(case " $* " in *' --incoming '*) echo 2 ;; *) echo 1 ;; esac)" "$dir/said")
	rm "$dir/said"
}

pair() { # HEAP [LISTEN INCOMING]: a source with its address in $source, and a destination with its addresses in $destination and $incoming
	start --listen "${2:-tcp://127.0.0.1:0}" --heap "$1"
	source=$address
	start --listen tcp://127.0.0.1:0 --heap "$1" --incoming "${3:-tcp://127.0.0.1:0}"
	destination=$address
}

migrate() { # ARGUMENT...
	"$kv" migrate "$@" --server "$source" --to "$incoming" --forward "$destination" >"$dir/moved"
	grep -q '^moved: ' "$dir/moved"
}

value() { # NAME SERVER: what INFO says
	redis-cli -p "${2##*:}" info | tr -d '\r' | sed -n "s/^$1://p"
}

stop_all() { # the source needs nobody any more, nor does the destination need it
	kill "${pids[@]}"
	wait "${pids[@]}"
	pids=()
}

start_load() { # clients that know what each answer must be
	mkfifo "$dir/go" "$dir/ready"
	"$load" "$source" 8 <"$dir/go" >"$dir/ready" &
	load_pid=$!
	exec {go}>"$dir/go" {ready}<"$dir/ready"
	read -r word <&"$ready"
	[ "$word" = ready ]
}

end_load() {
	exec {go}>&-
	wait "$load_pid"
	grep -q 'commands$' <&"$ready"
	exec {ready}<&-
	rm "$dir/go" "$dir/ready"
}

# What is there before is there after it, on either address; and what is the destination's is not the source's any more.
pair 12M
redis-benchmark -p "${source##*:}" -t set -n 20000 -r 10000 -d 500 -P 16 -q >/dev/null
for size in 1 100 5000 100000; do
	head -c "$size" /dev/urandom | redis-cli -p "${source##*:}" -x set "value$size" >/dev/null
done
digest=$("$kv" digest --server "$source")
# Who comes to the destination early waits for what is to come.
[ "$(redis-cli -p "${source##*:}" waits)$(redis-cli -p "${destination##*:}" waits)" = 01 ]
redis-cli -p "${destination##*:}" strlen value5000 >"$dir/early" &
early=$!
# All of it after the stop, and slowly, so that the memory is touched before it is there.
migrate --passes 0 --bandwidth 2M &
moving=$!
wait "$early"
[ "$(cat "$dir/early")" = 5000 ]
[ "$("$kv" digest --server "$source")" = "$digest" ]
[ "$("$kv" digest --server "$destination")" = "$digest" ]
wait "$moving"
[ "$(redis-cli -p "${source##*:}" set one 1)" = OK ]
[ "$(redis-cli -p "${destination##*:}" incr one)" = 2 ]
[ "$(redis-cli -p "${source##*:}" get one)" = 2 ]
[ "$(value process_id "$source")" = "$(value process_id "$destination")" ]
[ "$(value migration_phase "$destination")" = complete ]
[ "$(value migration_role "$destination")" = none ]
[ "$(value migration_engine "$destination")" = "$served_by" ]
[ "$(value migration_faults "$destination")" -gt 0 ]
[ "$(value migration_precopy "$destination")" -eq 0 ]

# It goes on to a third from there, and what comes to the first passes through all of them.
first=$source source=$destination
start --listen tcp://127.0.0.1:0 --heap 12M --incoming "unix:$dir/incoming"
destination=$address
digest=$("$kv" digest --server "$source")
migrate
[ "$(value migration_precopy "$destination")" -gt 0 ]
[ "$("$kv" digest --server "$first")" = "$digest" ]
[ "$(redis-cli -p "${first##*:}" incr one)" = 3 ]
[ "$(redis-cli -p "${destination##*:}" get one)" = 3 ]
stop_all

# Under load, that begins before it moves and ends after it.
for passes in 0 8; do
	pair 64M "unix:$dir/socket" "unix:$dir/incoming"
	start_load
	migrate --passes "$passes" --bandwidth 100M
	end_load
	stop_all
done

# Under redis-benchmark, which goes on till it has all its answers, and by whose connections nothing is noticed.
pair 64M
redis-benchmark -p "${source##*:}" -t incr -n 200000 -c 20 -q >"$dir/benchmark" 2>&1 &
benchmark=$!
until [ "$(redis-cli -p "${source##*:}" exists counter:__rand_int__)" = 1 ]; do :; done
migrate
wait "$benchmark"
# Each one of them was executed once.
[ "$(redis-cli -p "${destination##*:}" get counter:__rand_int__)" = 200000 ]
[ "$(redis-cli -p "${source##*:}" get counter:__rand_int__)" = 200000 ]
stop_all

until_phase() { # PHASE SERVER
	until [ "$(value migration_phase "$2")" = "$1" ]; do :; done
}

# The destination dies before it has been given the heap: the server goes on, and its clients notice nothing.
pair 64M
start_load
migrate --bandwidth 64K 2>"$dir/failed" &
moving=$!
until_phase precopy "$source"
kill -9 "${pids[1]}"
wait "$moving" && exit 1
grep -q 'the heap stays here' "$dir/failed"
end_load
[ "$(value migration_role "$source")" = none ]

# The source is ended before that: it lets go at once, and the destination takes the next one.
start --listen tcp://127.0.0.1:0 --heap 64M --incoming "unix:$dir/incoming"
destination=$address
migrate --bandwidth 64K 2>"$dir/failed" &
moving=$!
until_phase precopy "$source"
kill "${pids[0]}"
wait "${pids[0]}"
wait "$moving" && exit 1
start --listen tcp://127.0.0.1:0 --heap 64M
source=$address
[ "$(redis-cli -p "${source##*:}" set after all)" = OK ]
migrate
[ "$(redis-cli -p "${destination##*:}" get after)" = all ]
pids=("${pids[@]:2}")
stop_all

# The source is ended behind that: it stays until all has arrived, which takes longer than to end it.
pair 12M
redis-benchmark -p "${source##*:}" -t set -n 10000 -r 5000 -d 500 -P 16 -q >/dev/null
digest=$("$kv" digest --server "$source")
migrate --passes 0 --bandwidth 64K 2>"$dir/failed" &
moving=$!
until [ "$(redis-cli -p "${destination##*:}" waits)" = 0 ]; do :; done
kill "${pids[0]}"
[ "$("$kv" digest --server "$destination")" = "$digest" ]
wait "${pids[0]}"
wait "$moving" && exit 1
until_phase complete "$destination"
[ "$("$kv" digest --server "$destination")" = "$digest" ]
pids=("${pids[1]}")
stop_all

# The destination's clients have all descriptors but one: the heap cannot come, and comes when they have left.
held() {
	find "/proc/$process/fd" -mindepth 1 -regex '.*/[0-9]' -o -regex '.*/[1-3][0-9]' | wc -l
}
pair 12M tcp://127.0.0.1:0 "unix:$dir/incoming"
[ "$(redis-cli -p "${source##*:}" set comes later)" = OK ]
# REFUSE has the server for a child.
process=$(pgrep -P "${pids[1]}" || echo "${pids[1]}")
prlimit --pid "$process" --nofile=40:
clients=()
while [ "$(held)" -lt 39 ]; do
	before=$(held)
	exec {client}<>"/dev/tcp/127.0.0.1/${destination##*:}"
	clients+=("$client")
	until [ "$(held)" -gt "$before" ]; do :; done
done
migrate 2>"$dir/failed" && exit 1
for client in "${clients[@]}"; do
	exec {client}>&-
done
migrate
[ "$(redis-cli -p "${source##*:}" get comes)" = later ]
stop_all

# What cannot be: the server says why, and goes on.
pair 64M
[ "$(redis-cli -p "${source##*:}" set stays here)" = OK ]
refused() { # TEXT ARGUMENT...
	local text=$1
	shift
	! "$kv" migrate --server "$source" "$@" >"$dir/moved" 2>&1 || exit 1
	if ! { grep -q "$text" "$dir/moved" && [ "$(redis-cli -p "${source##*:}" get stays)" = here ]; }; then
		printf 'expected %s, got %s\n' "$text" "$(cat "$dir/moved")" >&2
		exit 1
	fi
}
# Also when several ask at once: each is told that it cannot be.
asking=()
for i in 1 2 3 4 5 6 7 8; do
	"$kv" migrate --server "$source" --to "unix:$dir/nothing" --forward "$destination" >"$dir/failed$i" 2>&1 &
	asking+=($!)
done
for pid in "${asking[@]}"; do
	wait "$pid" && exit 1
done
[ "$(cat "$dir/failed"? | grep -c 'the heap stays here\|already on its way')" -eq 8 ]
refused 'the heap stays here' --to "unix:$dir/nothing" --forward "$destination"
refused 'that server does not wait' --to "$incoming" --forward "$source"
refused 'Connection refused\|No such file' --to "$incoming" --forward "unix:$dir/nothing"
refused 'at least 65536' --to "$incoming" --forward "$destination" --bandwidth 1K
refused 'passes are' --to "$incoming" --forward "$destination" --passes many
refused 'clients are forwarded to' --to "$incoming" --forward nowhere
# Another size of heap.
start --listen tcp://127.0.0.1:0 --heap 32M --incoming "unix:$dir/incoming"
refused 'the heap stays here: .*regions' --to "$incoming" --forward "$address"
stop_all
