#!/bin/bash
# SPDX-License-Identifier: MIT
# run-qemu.sh BUILD ENGINE - QEMU as it is, whose postcopy migration and background snapshots are made of userfaultfd. ENGINE is kernel; or
# refused: with the kernel's userfaultfd refused, under `userfault run`.
set -eu
build=$1 engine=$2
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
prefix=()
if [ "$engine" = refused ]; then
	prefix=("$build/tests/integration/refuse-userfaultfd" -- "$build/userfault" run --)
fi
as --32 -o "$dir/guest.o" "$here/guest.s"
ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o "$dir/guest" "$dir/guest.o"

# Pages were waited for, unless nothing was left to wait for.
[ "$(python3 "$here/moves.py" postcopy "$dir" "${prefix[@]}")" -gt 0 ]
python3 "$here/moves.py" snapshot "$dir" "${prefix[@]}"
