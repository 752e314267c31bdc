#!/bin/bash
# SPDX-License-Identifier: MIT
# install.sh BUILD SOURCE - what is installed is enough: hello.c compiles against it with pkg-config alone, and runs, linked
# with the shared and with the static library; so does the command.
set -eu
build=$1 source=$2

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

meson install -C "$build" --no-rebuild --quiet --destdir "$dir"
pc=$(find "$dir" -name userfault.pc)
export PKG_CONFIG_PATH=${pc%/*} PKG_CONFIG_SYSROOT_DIR=$dir
libdir=$(dirname "$(find "$dir" -name libuserfault.a)")
export LD_LIBRARY_PATH=$libdir

run_hello() {
	"$dir/hello" >"$dir/out"
	[ "$(cat "$dir/out")" = "page 3: page made for fault number 1
page 2: page made for fault number 2
page 1: page made for fault number 3
page 0: page made for fault number 4" ]
}

# shellcheck disable=SC2046
cc -Wall -Werror "$source/examples/hello.c" $(pkg-config --cflags --libs userfault) -o "$dir/hello"
run_hello
# shellcheck disable=SC2046
cc -Wall -Werror "$source/examples/hello.c" $(pkg-config --cflags userfault) "$libdir/libuserfault.a" -o "$dir/hello"
run_hello

# Either library has the public symbols and no other that could clash with a program's own.
symbols() { # NM-OPTION... FILE
	nm --defined-only --extern-only --format=posix "$@" | awk 'NF > 1 && $2 != "A" { sub(/@.*/, "", $1); print $1 }' | sort
}
symbols "$libdir/libuserfault.a" >"$dir/static"
symbols --dynamic "$libdir/libuserfault.so" >"$dir/shared"
grep -qx uf_open "$dir/static"
if grep -v '^uf_' "$dir/static"; then
	exit 1
fi
diff "$dir/static" "$dir/shared"

# Everything that there is: each header, each manual page, what `run` preloads, completion, and what systemd and udev read.
there() { # NAME FOLDER
	[ -n "$(find "$dir" -path "*/$2/$1")" ] || {
		echo "install: there is no $2/$1" >&2
		exit 1
	}
}
for header in "$source"/include/userfault/*.h; do
	there "${header##*/}" include/userfault
done
for page in "$source"/man/*.[1-8]; do
	there "${page##*/}" "man/man${page##*.}"
done
# The name of each function finds the page whose synopsis has it.
while read -r symbol; do
	there "$symbol.3" man/man3
	link=$(find "$dir" -path "*/man/man3/$symbol.3")
	page=$(sed -n 's/^\.so //p' "$link")
	sed '/^\.Sh DESCRIPTION/q' "${link%/man3/*}/$page" | grep -Eq "^\.F[no] $symbol( |\$)" || {
		echo "install: $symbol is not in $page" >&2
		exit 1
	}
done <"$dir/shared"
there libuserfault-run.so userfault
there userfault bash-completion/completions
there _userfault zsh/site-functions
for unit in userfault.service userfault.socket userfault-control.socket userfault-metrics.socket; do
	there "$unit" systemd/system
done
there userfault.conf sysusers.d
there 60-userfaultfd.rules udev/rules.d

# What was built as a module is found beside the library: a store on a server that is not there says so, and not that it is missing.
cat >"$dir/modules.c" <<'END'
#include <stdio.h>
#include <userfault/store.h>
int main(int argc, char **argv)
{
	struct uf_store *store;
	char cause[512];

	return argc == 2 && uf_store_open(&store, argv[1], NULL, cause, sizeof(cause)) < 0 && puts(cause) >= 0 ? 0 : 1;
}
END
# shellcheck disable=SC2046
cc -Wall -Werror "$dir/modules.c" $(pkg-config --cflags --libs userfault) -o "$dir/modules"
for module in "$build"/src/libuserfault-store-*.so; do
	[ ! -e "$module" ] || [ -e "$libdir/userfault/${module##*/}" ]
done
if [ -e "$build/src/libuserfault-store-nbd.so" ]; then
	"$dir/modules" "nbd+unix:///?socket=$dir/nothing" | grep -q 'No such file or directory'
fi

# The public headers stand alone, in C++ too where there is a compiler for it.
for header in userfault.h userfault/uffd.h userfault/dirty.h userfault/store.h userfault/pager.h userfault/uapi.h \
	userfault/handover.h userfault/migrate.h; do
	echo "#include <$header>" >"$dir/header.c"
	# shellcheck disable=SC2046
	cc -std=c99 -pedantic -Wall -Werror -fsyntax-only $(pkg-config --cflags userfault) "$dir/header.c"
	if command -v c++ >/dev/null; then
		# shellcheck disable=SC2046
		c++ -x c++ -Wall -Wshadow -Werror -fsyntax-only $(pkg-config --cflags userfault) "$dir/header.c"
	fi
done

"$(find "$dir" -path '*/bin/userfault')" --version

# `run` finds the library that was installed with it, wherever that is.
"$(find "$dir" -path '*/bin/userfault')" run --engine user true
