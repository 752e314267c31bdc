#!/bin/bash
# SPDX-License-Identifier: MIT
# completion.sh BUILD SOURCE - the shells complete just the commands and options that --help tells.
set -eu
build=$1 source=$2

fail() {
	echo "completion: $*" >&2
	exit 1
}

bash_gives() { # WORD...: what completes the last one, sorted
	bash --norc -c '
		source "$1"
		shift
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
		_userfault
		printf "%s\n" "${COMPREPLY[@]}"' bash "$source/packaging/completion/userfault.bash" "$@" | sort
}

# Of the words that begin an option in zsh's specifications: what stands before the text in brackets.
zsh_gives() { # COMMAND
	awk -v command="$1" '$0 ~ "^\t\t" command "\\)" { on = 1 } on { print } on && /;;/ { exit }' "$source/packaging/completion/_userfault" |
		grep -oE -e "--[a-z-]+(}'|)\[" | grep -oE -e '--[a-z-]+' | sort
}

helped() { # COMMAND
	"$build/userfault" "$1" --help | grep -oE -e '(^|[ [])--[a-z-]+' | grep -oE -e '--[a-z-]+' | sort -u | grep -vx -e --help || true
	echo --help
}

same() { # WHAT EXPECTED GOT
	[ "$2" = "$3" ] || fail "$1: --help tells
$2
and completion
$3"
}

commands=$("$build/userfault" --help | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p' | sort)
same "bash, commands" "$commands" "$(bash_gives userfault '' | grep -v '^-')"
same "bash, options" "--help
--version" "$(bash_gives userfault -)"
same "zsh, commands" "$commands" "$(sed -n "s/^\t\t'\([a-z][a-z]*\):.*/\1/p" "$source/packaging/completion/_userfault" | sort)"
for command in $commands; do
	[ "$command" != help ] || continue
	options=$(helped "$command" | sort)
	same "bash, $command" "$options" "$(bash_gives userfault "$command" -)"
	same "zsh, $command" "$options" "$(zsh_gives "$command")"
done

# Values.
same "bash, engines" "auto
kernel
user" "$(bash_gives userfault run --engine '')"
same "bash, a value" "kernel" "$(bash_gives userfault run --engine k)"
for column in $(bash_gives userfault top --sort ''); do
	if "$build/userfault" top --sort "$column" --control /nowhere/socket --once 2>&1 | grep -q 'no column'; then
		fail "there is no column $column"
	fi
done
same "bash, a folder" "$source/packaging" "$(bash_gives userfault serve --record "$source/packagin")"
# What follows the program is not ours.
[ -z "$(bash_gives userfault run true --eng)" ] || fail "options of run behind the program"

zsh -fc 'autoload -U compinit && compinit -D && fpath=($1 $fpath) && autoload -Uz _userfault && autoload +X _userfault' \
	zsh "$source/packaging/completion"
