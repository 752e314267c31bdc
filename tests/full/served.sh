# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# served.sh - what the tests of whole programs share; `. served.sh BUILD ENGINE`. ENGINE is kernel, user, or refused: auto, with the kernel's
# userfaultfd refused.
set -eu
build=$1 engine=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
before=() choice=$engine
if [ "$engine" = refused ]; then
	before=("$build/tests/integration/refuse-userfaultfd" --)
	choice=auto
fi

served() { # STORE-FILE PATH COMMAND...: with PATH served from the file; $dir/report has the manager's counts
	local store=$1 path=$2
	shift 2
	MANAGER_REPORT=$dir/report "$build/tests/manager" "$dir/socket" default="$store" -- "${before[@]}" "$build/userfault" run \
		--engine "$choice" --manager "$dir/socket" --map "$path=default" -- "$@"
}

faults() { # how many pages were brought
	sed 's/.*faults //' "$dir/report"
}
