#!/bin/bash
# SPDX-License-Identifier: MIT
# map.sh BUILD ENGINE USER there|absent COMMAND... - the command under `userfault run --map`, with $MAPPED, $BROKEN and $MODEL (mapped.c)
#
# ENGINE is kernel, user, or refused: auto, with the kernel's userfaultfd refused. USER is root, for whoever calls, or nobody. What is
# mapped either is there, with bytes that must neither be seen nor change, or is not. The manager is that of the tests, or with MAP_MANAGER=serve
# the real one.
set -eu
build=$1 engine=$2 user=$3 there=$4
shift 4

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/build/src/preload" "$dir/work"
cp -L "$build/userfault" "$build/tests/manager" "$build/tests/integration/refuse-userfaultfd" "$build/src/libuserfault.so.0" "$dir/build"
cp -L "$build/src/preload/libuserfault-run.so" "$dir/build/src/preload"
command=$1
shift
if [ -e "$command" ]; then
	cp -L "$command" "$dir/build"
	command=$dir/build/$(basename "$command")
fi
head -c 1234567 /dev/urandom >"$dir/work/model"
if [ "$there" = there ]; then
	yes 'the bytes of the path itself' | head -c 100000 >"$dir/work/mapped"
	cp "$dir/work/mapped" "$dir/work/before"
fi
chmod -R a+rX "$dir"
chmod a+rwx "$dir/work"
export LD_LIBRARY_PATH=$dir/build MODEL=$dir/work/model MAPPED=$dir/work/mapped BROKEN=$dir/work/broken

as=()
[ "$user" != nobody ] || as=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all)
before=()
choice=$engine
if [ "$engine" = refused ]; then
	before=("$dir/build/refuse-userfaultfd" --)
	choice=auto
fi
cd "$dir/work"
run=("${before[@]}" "$dir/build/userfault" run --engine "$choice" --manager socket --map "$MAPPED=default" --map "$BROKEN=broken" --)
status=0
if [ "${MAP_MANAGER-}" = serve ]; then
	# A file that is cut while it is served has lost its pages.
	cp model cut
	"${as[@]}" "$dir/build/userfault" serve --listen "$dir/work/socket" --control none --store default="file:$dir/work/model" \
		--store broken="file:$dir/work/cut" 2>"$dir/work/said" &
	manager=$!
	trap 'kill "$manager"; wait "$manager" 2>/dev/null; rm -rf "$dir"' EXIT
	until "${as[@]}" "${run[@]}" true 2>/dev/null; do
		kill -0 "$manager" || { cat said >&2; exit 1; }
	done
	truncate -s 8192 cut
	"${as[@]}" "${run[@]}" "$command" "$@" || status=$?
	kill -0 "$manager" || { cat said >&2; exit 1; }
else
	"${as[@]}" "$dir/build/manager" "$dir/work/socket" default=model broken="model,bad=8192" -- "${run[@]}" "$command" "$@" || status=$?
fi
if [ "$there" = there ]; then
	cmp mapped before >&2 || status=1
fi
exit "$status"
