#!/bin/bash
# SPDX-License-Identifier: MIT
# map-qemu.sh BUILD ENGINE - a virtual machine whose memory was saved goes on, with the memory coming in as it is touched.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/served.sh"
here=$(cd "$(dirname "$0")" && pwd)
as --32 -o "$dir/guest.o" "$here/guest.s"
ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o "$dir/guest" "$dir/guest.o"

python3 "$here/guest.py" save "$dir" >"$dir/saved"
mv "$dir/ram" "$dir/store"
sum=$(sha256sum <"$dir/store")
served "$dir/store" "$dir/ram" python3 "$here/guest.py" resume "$dir" >"$dir/resumed"
[ "$(cat "$dir/resumed")" -gt "$(cat "$dir/saved")" ]
[ "$(sha256sum <"$dir/store")" = "$sum" ]
# Of 16384 pages the guest uses a fourth of a half, and what the firmware left.
[ "$(faults)" -gt 2000 ]
[ "$(faults)" -lt 12000 ]
