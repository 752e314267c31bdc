#!/bin/bash
# SPDX-License-Identifier: MIT
# run-conformance.sh BUILD USER TEST... - the conformance suite as a program that knows only libc, with the kernel's userfaultfd
# refused and the user engine in its place; USER is root for whoever calls, or nobody.
set -eu
build=$1 user=$2
shift 2

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/src/preload"
cp -L "$build/userfault" "$build/tests/conformance/conformance" "$build/tests/integration/refuse-userfaultfd" \
	"$build/src/libuserfault.so.0" "$dir"
cp -L "$build/src/preload/libuserfault-run.so" "$dir/src/preload"
chmod -R a+rX "$dir"
export LD_LIBRARY_PATH=$dir

as=()
if [ "$user" = nobody ] && [ "$(id -u)" -eq 0 ]; then
	as=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all)
fi
cd "$dir"
"${as[@]}" ./refuse-userfaultfd -- ./userfault run --engine user -- ./conformance --engine libc "$@"
