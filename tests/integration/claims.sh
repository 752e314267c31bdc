#!/bin/bash
# SPDX-License-Identifier: MIT
# claims.sh SOURCE - each test that docs/security.md names for what it claims is there, in the program that it is said to be in.
#
# What shows a claim is the last column of a table: `PROGRAM: test`, `test` for another one of the program named last in this row, or
# `PROGRAM` for all of its tests; and elsewhere in the text what has the first of these forms. A star stands for anything.
set -eu
cd "$1"

sources() { # PROGRAM, as meson has it: its files
	local name=$1
	case $name in
	# The lists have also what macros make.
	conformance-*) echo tests/conformance/*.c tests/conformance/*.tests ;;
	unit-*) ls "tests/unit/${name#unit-}.c" ;;
	fuzz-*) ls "tests/fuzz/${name#fuzz-}.c" ;;
	*)
		name=${name%-\*} name=${name%-kernel} name=${name%-user}
		find tests/integration tests/stress -name "$name.c" -o -name "$name.sh" | grep .
		;;
	esac
}

has() { # PROGRAM TEST
	local files
	files=$(sources "$1" 2>/dev/null) || { echo "there is no program $1" >&2; return 1; }
	# shellcheck disable=SC2086
	[ -z "$2" ] || grep -qE "^([A-Z_]+\\()?${2//\*/[a-z0-9_]*}(,|\$)" $files || { echo "there is no test $2 in $1" >&2; return 1; }
}

row() { # the last column of a row
	local program='' token rest=$1
	while [[ $rest =~ \`([^\`]*)\`(.*) ]]; do
		token=${BASH_REMATCH[1]} rest=${BASH_REMATCH[2]}
		case $token in
		*': '*)
			program=${token%%: *}
			has "$program" "${token#*: }" || return 1
			;;
		*_*) has "${program:-none, for $token}" "$token" || return 1 ;;
		*)
			program=$token
			has "$program" '' || return 1
			;;
		esac
	done
}

check() { # < text
	local line column
	while read -r line; do
		case $line in
		'|'*)
			column=${line%|}
			row "${column##*|}" || return 1
			;;
		*)
			while [[ $line =~ \`([a-z*-]+: [a-z0-9_*]+)\`(.*) ]]; do
				line=${BASH_REMATCH[2]}
				row "\`${BASH_REMATCH[1]}\`" || return 1
			done
			;;
		esac
	done
}

# shellcheck disable=SC2016
refused() { # LINE: what is claimed in vain
	! check <<<"$1" 2>/dev/null || { echo "claims.sh: '$1' is taken for true" >&2; exit 1; }
}

check <docs/security.md || { echo "docs/security.md claims what nothing shows" >&2; exit 1; }
# shellcheck disable=SC2016
{
	check <<<'| claim | `serve-hostile-*: regions_are_checked`, `clients_are_counted`; `unit-workingset: names` |'
	refused '| claim | `serve-hostile-*: regions_are_checked`, `lost_source_poisons` |'
	refused '| claim | `unit-store: names` |'
	refused '| claim | `unit-nothing: names` |'
	refused '| claim | `nothing-*` |'
	refused '| claim | `regions_are_checked` |'
	refused 'As a test shows: `unit-workingset: dam`.'
}
