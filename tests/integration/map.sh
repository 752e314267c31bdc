#!/bin/bash
# SPDX-License-Identifier: MIT
# map.sh BUILD ENGINE USER there|absent COMMAND... - the command under `userfault run --map`, with $MAPPED, $BROKEN and $MODEL (mapped.c)
#
# ENGINE is kernel, user, or refused: auto, with the kernel's userfaultfd refused. USER is root, for whoever calls, or nobody. What is
# mapped either is there, with bytes that must neither be seen nor change, or is not.
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
status=0
"${as[@]}" "$dir/build/manager" "$dir/work/socket" default=model broken="model,bad=8192" -- "${before[@]}" "$dir/build/userfault" run \
	--engine "$choice" --manager socket --map "$MAPPED=default" --map "$BROKEN=broken" -- "$command" "$@" || status=$?
if [ "$there" = there ]; then
	cmp mapped before >&2 || status=1
fi
exit "$status"
