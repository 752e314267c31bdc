#!/bin/bash
# SPDX-License-Identifier: MIT
# claims.sh SOURCE - each test that docs/security.md names for what it claims is there.
set -eu
cd "$1"

# shellcheck disable=SC2016
named=$(grep '^|' docs/security.md | grep -oE '`[^`]*`' | tr -d '`' | sed 's/^.*: //' | grep -xE '[a-z_]+\*?' | grep _ | sort -u)
[ -n "$named" ]
for test in $named; do
	grep -rqE "^TEST\\(${test%\*}$([ "$test" != "${test%\*}" ] || echo '[,)]')" tests || {
		echo "docs/security.md: there is no test $test" >&2
		exit 1
	}
done
