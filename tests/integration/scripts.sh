#!/bin/bash
# SPDX-License-Identifier: MIT
# scripts.sh BUILD SOURCE - what the Makefile calls does what it says also where things are not as they should be.
set -eu
build=$1 source=$2

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
	echo "$*" >&2
	exit 1
}

# A set-up that was interrupted, early or late, is made anew, and one that is complete is left alone.
mkdir -p "$dir/build/meson-private"
cp "$build/meson-private/coredata.dat" "$dir/build/meson-private"
(cd "$source" && scripts/configure "$dir/build")
[ -e "$dir/build/build.ninja" ] || fail "configure: no build.ninja after an early interruption"
rm "$dir/build/meson-info/meson-info.json" "$dir/build/meson-private/build.dat"
(cd "$source" && scripts/configure "$dir/build")
[ -e "$dir/build/meson-private/build.dat" ] || fail "configure: not complete after a late interruption"
touch "$dir/build/meson-private/untouched"
(cd "$source" && scripts/configure "$dir/build")
[ -e "$dir/build/meson-private/untouched" ] || fail "configure: a complete set-up was made anew"
# Nor does one stay that may have missed what is installed now.
if [ -e /var/lib/dpkg/status ]; then
	touch -d '1990-01-01 UTC' "$dir/build/build.ninja"
	(cd "$source" && scripts/configure "$dir/build")
	[ "$dir/build/build.ninja" -nt /var/lib/dpkg/status ] || fail "configure: a set-up from before packages were installed was left alone"
fi

# `make install` takes any path, also a relative one. Nothing is built or installed here: meson says what it was told.
mkdir "$dir/bin"
printf '#!/bin/sh\nexit 0\n' >"$dir/bin/ninja"
printf '#!/bin/sh\nprintf "[%%s]" "$@"\necho\n' >"$dir/bin/meson"
chmod +x "$dir/bin/ninja" "$dir/bin/meson"
unset PREFIX DESTDIR MAKEFLAGS MAKELEVEL
expect() { # EXPECTED VARIABLE...
	local expected=$1 got
	shift
	got=$(PATH=$dir/bin:$PATH make -s --no-print-directory -C "$source" \
		-o build/build.ninja -o build/meson-info/meson-info.json install "$@")
	[ "$got" = "$expected" ] || fail "make install $*: expected
$expected
got
$got"
}
expect "[configure][build][-Dprefix=/usr/local]
[install][-C][build][--quiet]"
expect "[configure][build][-Dprefix=/a b]
[install][-C][build][--quiet]" "PREFIX=/a b"
expect "[configure][build][-Dprefix=$source/it's]
[install][-C][build][--quiet][--destdir][$source/c  d]" "PREFIX=it's" "DESTDIR=c  d"
expect "[configure][build][-Dprefix=/opt]
[install][-C][build][--quiet][--destdir][/c d]" PREFIX=/opt/ "DESTDIR=/e/../c d"
