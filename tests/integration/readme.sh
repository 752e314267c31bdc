#!/bin/bash
# SPDX-License-Identifier: MIT
# readme.sh BUILD SOURCE - the commands of README.md do what they are there for: each block marked "sh" is run, in a folder of its own where
# build/, examples/ and the command are at hand. What would install elsewhere or build anew is done by the build that is there.
set -eu
build=$(realpath "$1") source=$(realpath "$2")

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

mkdir "$dir/bin" "$dir/home" "$dir/scratch"
ln -s "$build" "$dir/scratch/build"
ln -s "$source/examples" "$dir/scratch/examples"
ln -s "$build/userfault" "$dir/bin/userfault"
# make install PREFIX=DIR, without a change to the build's own settings.
cat >"$dir/bin/make" <<END
#!/bin/sh
[ "\$1" = install ] || exit 2
DESTDIR="$dir/staged" meson install -C "$build" --no-rebuild --quiet
mkdir -p "\${2#PREFIX=}"
cp -r "$dir/staged$(meson introspect "$build" --buildoptions | python3 -c \
	'import json, sys; print(*[o["value"] for o in json.load(sys.stdin) if o["name"] == "prefix"])')/." "\${2#PREFIX=}"
find "\${2#PREFIX=}" -name userfault.pc -exec sed -i "s:^prefix=.*:prefix=\${2#PREFIX=}:" {} +
# Where it was staged it must not be looked for.
rm -rf "$dir/staged"
END
chmod +x "$dir/bin/make"

# shellcheck disable=SC2016
blocks=$(grep -cx '```sh' "$source/README.md")
[ "$blocks" -gt 0 ]
for ((i = 1; i <= blocks; i++)); do
	awk -v wanted="$i" '/^```$/ { on = 0 } on { print } /^```sh$/ && ++n == wanted { on = 1 }' "$source/README.md" >"$dir/block"
	if ! (cd "$dir/scratch" && HOME=$dir/home PATH=$dir/bin:$PATH bash -eu "$dir/block") >"$dir/said" 2>&1; then
		echo "README.md: block $i fails:" >&2
		cat "$dir/block" "$dir/said" >&2
		exit 1
	fi
done
