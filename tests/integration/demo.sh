#!/bin/bash
# SPDX-License-Identifier: MIT
# demo.sh BUILD SOURCE ENGINE - the demo in a short form ends well, prints what it promises, and leaves a page that needs nothing but itself.
#
# ENGINE is root, nobody, or refused: for whoever calls, without any privilege, or where the kernel's userfaultfd is refused.
set -eu
build=$1 source=$2 engine=$3

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
	echo "$*" >&2
	cat "$dir/said" >&2
	exit 1
}

# What nobody can read must be copied: the demo writes into its build folder.
mkdir -p "$dir/build/src/preload" "$dir/build/examples" "$dir/build/demo" "$dir/scripts" "$dir/temporary"
cp -L "$build/userfault" "$build/tests/integration/refuse-userfaultfd" "$build/src/libuserfault.so.0" "$dir/build"
cp -L "$build/src/preload/libuserfault-run.so" "$dir/build/src/preload"
cp -L "$build/examples/kv" "$dir/build/examples"
cp -L "$build"/demo/demo-{page,refused,scattered,traffic} "$dir/build/demo"
cp "$source/scripts/demo" "$dir/scripts"
export LD_LIBRARY_PATH=$dir/build TMPDIR=$dir/temporary DEMO_STORE=4 DEMO_TEXT=4 DEMO_SECONDS=1
as=()
case $engine in
nobody)
	chmod -R a+rwX "$dir"
	as=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all)
	;;
refused) as=("$dir/build/refuse-userfaultfd" --) ;;
esac

"${as[@]}" "$dir/scripts/demo" >"$dir/said" 2>&1 || fail "the demo ended with status $?"
expect() { # PATTERN
	grep -Eq "$1" "$dir/said" || fail "there is no line like '$1'"
}

if [ "$engine" = root ]; then
	expect '^  8 programs got exactly the bytes of the file, kernel engine: '
else
	expect "^3  The kernel's userfaultfd is refused to this user"
fi
expect '^  8 programs got exactly the bytes of the file, user engine: '
expect '^  what was recorded, brought ahead: '
expect '^  phase +before +precopy +stopped +postcopy +after$'
expect '^  requests a second +[0-9]'
expect '^  latency, p99 +[0-9]'
expect '^  the server was stopped for [0-9]'
expect '^  moved [0-9.]+ [KM]iB before the stop and [0-9.]+ [KM]?i?B after it, in '
expect 'were requested because the server touched them, [0-9,]+ faults: p50 '
expect '^  digest of all keys: equal on both sides$'
expect 'requests, each answered with the bytes that it must be'
! grep -q WRONG "$dir/said" || fail "something is wrong"

page=$dir/build/demo/report.html
[ "$(tail -c 8 "$page")" = '</html>' ] || fail "the page has no end"
for part in 'Latency of requests' 'The stop, enlarged' 'Where and when pages were asked for' 'All runs'; do
	grep -q "$part" "$page" || fail "the page has no part '$part'"
done
! grep -Eiq 'https?://|<link|src=|@import' "$page" || fail "the page loads something"
[ -z "$(ls -A "$dir/temporary")" ] || fail "it leaves behind: $(ls "$dir/temporary")"

# What goes wrong is told: a program that is served and says otherwise than of the file itself.
if [ "$engine" = root ]; then
	mkdir "$dir/bin"
	# shellcheck disable=SC2016
	printf '#!/bin/sh\necho "$LD_PRELOAD"\n' >"$dir/bin/md5sum"
	chmod +x "$dir/bin/md5sum"
	if PATH=$dir/bin:$PATH "$dir/scripts/demo" >"$dir/said" 2>&1; then
		fail "the demo ended well with a program that was served wrong bytes"
	fi
	expect 'WRONG: md5sum says otherwise'
	# On both engines.
	expect '^2 things were not as they must be'
fi
