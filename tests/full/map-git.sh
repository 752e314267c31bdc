#!/bin/bash
# SPDX-License-Identifier: MIT
# map-git.sh BUILD ENGINE - git over a pack that is served: all objects, with their checksums, and the same history.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/served.sh"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null HOME=$dir
git="git -C $dir/repository -c user.name=test -c user.email=test@invalid -c gc.auto=0 -c pack.threads=1"

git init -q "$dir/repository"
for revision in 1 2 3 4 5 6; do
	for file in $(seq 40); do
		{ seq "$revision" $((file * 50)); head -c 20000 /dev/urandom | base64; } >"$dir/repository/$file"
	done
	$git add .
	$git commit -qm "revision $revision"
done
$git repack -qad
pack=$(echo "$dir"/repository/.git/objects/pack/*.pack)

ask() { # WHERE
	# shellcheck disable=SC2086
	"${under[@]}" $git fsck --full --strict >"$dir/$1.fsck" 2>&1
	# shellcheck disable=SC2086
	"${under[@]}" $git log -p --stat >"$dir/$1.log"
	# shellcheck disable=SC2086
	"${under[@]}" $git cat-file --batch-all-objects --batch >"$dir/$1.objects"
}
under=(env)
ask real
mv "$pack" "$dir/store"
under=(served "$dir/store" "$pack")
ask served
for what in fsck log objects; do
	cmp "$dir/real.$what" "$dir/served.$what"
done
[ "$(faults)" -gt 0 ]
