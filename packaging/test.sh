#!/bin/bash
# SPDX-License-Identifier: MIT
# test.sh SOURCE - the packages are built, pass lintian, and in a new Debian are installed, work, and leave nothing when they are purged.
set -eu
source=$1

# What is mounted below goes when this ends.
[ "${UNSHARED-}" ] || UNSHARED=1 exec unshare --mount --pid --fork --kill-child "$0" "$@"

dir=$(mktemp -d)
mount -t tmpfs -o size=3G package "$dir"
clean() {
	umount -R "$dir" 2>/dev/null || umount -R -l "$dir"
	rmdir "$dir"
}
trap clean EXIT
root=$dir/root

fail() {
	echo "package: $*" >&2
	exit 1
}

in_root() {
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"
}

# Everything but what records that something was installed at all.
files() {
	(cd "$root" && find . -xdev \( -path ./proc -o -path ./dev -o -path ./var/lib/dpkg -o -path ./var/lib/apt -o -path ./var/cache -o \
		-path ./var/log -o -path ./tmp -o -path ./etc/shadow- -o -path ./etc/gshadow- \) -prune -o -print | sort)
}

echo "# building"
"$source/scripts/package" "$dir/deb"
said=$(lintian --allow-root --fail-on error,warning "$dir"/deb/*.changes 2>&1) || fail "lintian: $said"

echo "# a new Debian"
mirror=$(apt-cache policy base-files | sed -n 's/^ *[0-9]* \(http[^ ]*\) .*/\1/p' | head -n 1)
debootstrap --variant=minbase "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root" "${mirror:-http://deb.debian.org/debian}" \
	>"$dir/log" 2>&1 || fail "$(tail -n 20 "$dir/log")"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
# The same servers and proxies as outside.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp -r /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
in_root apt-get -q update >"$dir/log" 2>&1 || fail "$(tail -n 20 "$dir/log")"

install() {
	in_root apt-get -q -y --no-install-recommends install "$@" >"$dir/log" 2>&1 || fail "$(tail -n 20 "$dir/log")"
}

# What they depend on stays; it is not ours.
depends=$(for deb in "$dir"/deb/*.deb; do dpkg-deb -f "$deb" Depends; done | sed 's/[,|]/\n/g' | sed 's/ *(.*//; s/^ *//' |
	grep -v -e '^$' -e userfault -e '^systemd' | sort -u)
# shellcheck disable=SC2086
install $depends systemd-standalone-sysusers
files >"$dir/before"
mkdir "$root/tmp/deb"
cp "$dir"/deb/*.deb "$root/tmp/deb"
rm "$root"/tmp/deb/*-dbgsym_*
echo "# installing"
debs=("$root"/tmp/deb/*.deb)
install "${debs[@]#"$root"}"

echo "# using"
in_root userfault --version
in_root userfault probe --json >/dev/null
in_root userfault run --engine user true
in_root id userfault >/dev/null
in_root getent group userfaultfd >/dev/null
# Modules are found where they were installed.
for module in "$root"/usr/lib/*/userfault/libuserfault-store-*.so; do
	if in_root ldd "${module#"$root"}" | grep 'not found'; then
		fail "${module##*/}: a library is missing"
	fi
done
modules=("$root"/usr/lib/*/userfault/*.so)
[ ${#modules[@]} -eq 4 ] || fail "modules: ${modules[*]}"
# A program is compiled with what is in the package, and is served by the manager, which is nobody but its user.
cc --sysroot="$root" "$root/usr/share/doc/userfault/examples/handed.c" -o "$root/tmp/handed" -luserfault -pthread
head -c 300000 /dev/urandom >"$root/tmp/store"
chmod 644 "$root/tmp/store"
mkdir -m 755 "$root/tmp/run"
in_root chown userfault /tmp/run
in_root setpriv --reuid userfault --regid userfault --clear-groups userfault serve --listen /tmp/run/manager --control none \
	--store default=file:/tmp/store 2>"$dir/log" &
manager=$!
until [ -S "$root/tmp/run/manager" ]; do
	kill -0 "$manager" || fail "$(cat "$dir/log")"
done
in_root /tmp/handed /tmp/run/manager >"$dir/got"
cmp "$root/tmp/store" "$dir/got"
kill "$manager"
wait "$manager" || true

echo "# purging"
in_root dpkg --purge userfault userfault-modules userfault-doc libuserfault-dev libuserfault0 >"$dir/log" 2>&1 || fail "$(cat "$dir/log")"
files >"$dir/after"
diff "$dir/before" "$dir/after" || fail "purging leaves something behind"
