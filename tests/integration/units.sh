#!/bin/bash
# SPDX-License-Identifier: MIT
# units.sh BUILD SOURCE HANDED - systemd takes the units as they are meant, finds nothing open that could be shut, and the manager serves on
# sockets of the names that the units give them.
set -eu
build=$1 source=$2 handed=$3

dir=$(mktemp -d)
activated=
clean() {
	# All whom it serves have ended by then, and its worker follows it.
	[ -z "$activated" ] || kill -KILL "$activated" 2>/dev/null || true
	rm -rf "$dir"
}
trap clean EXIT

fail() {
	echo "units: $*" >&2
	exit 1
}

# Built where nothing is installed.
cp "$source"/packaging/systemd/*.socket "$dir"
sed "s:@bindir@/userfault:$(realpath "$build")/userfault:" "$source/packaging/systemd/userfault.service.in" >"$dir/userfault.service"
said=$(SYSTEMD_UNIT_PATH="$dir:" systemd-analyze verify --man=no "$dir"/userfault*.s* 2>&1) || fail "$said"
[ -z "$said" ] || fail "$said"
# In tenths; 0 is best.
systemd-analyze security --offline=yes --threshold=15 "$dir/userfault.service" >"$dir/security" || fail "$(cat "$dir/security")"

# Whatever the units call their sockets is what the manager asks for.
head -c 300000 /dev/urandom >"$dir/store"
sockets=() names=
for unit in userfault userfault-control; do
	name=$(sed -n 's/^FileDescriptorName=//p' "$dir/$unit.socket")
	sockets+=(--listen "$dir/$name")
	names+=${names:+:}$name
done
systemd-socket-activate "${sockets[@]}" --fdname="$names" "$build/userfault" serve --store default="file:$dir/store" >"$dir/log" 2>&1 &
activated=$!
until [ -S "$dir/handover" ] && [ -S "$dir/control" ]; do
	kill -0 "$activated" || fail "$(cat "$dir/log")"
done
"$handed" "$dir/handover" >"$dir/got"
cmp "$dir/store" "$dir/got"
"$build/userfault" stat --control "$dir/control" --json >"$dir/stat"
grep -q '"accepted": *1' "$dir/stat" || fail "$(cat "$dir/stat")"

# Users and groups, as they would be made in an empty system.
mkdir -p "$dir/root/etc" "$dir/root/usr/lib/sysusers.d"
cp "$source/packaging/systemd/userfault.sysusers" "$dir/root/usr/lib/sysusers.d/userfault.conf"
systemd-sysusers --root="$dir/root" 2>"$dir/log" || fail "$(cat "$dir/log")"
grep -q '^userfault:.*:/var/lib/userfault:' "$dir/root/etc/passwd"
grep -q '^userfaultfd:' "$dir/root/etc/group"
