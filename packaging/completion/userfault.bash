# SPDX-License-Identifier: MIT
# Completion of userfault(1) for bash. That it knows what --help tells is seen to by tests/integration/completion.sh.

_userfault_options() { # COMMAND
	case $1 in
	'') echo "--help --version" ;;
	probe) echo "--json --help" ;;
	report) echo "--output --help" ;;
	run) echo "--engine --verbose --manager --map --help" ;;
	serve)
		echo "--listen --store --budget --workers --record --prefetch --control --metrics --allow-uid --max-clients" \
			"--max-clients-of-user --max-regions --handover-timeout --grace --no-sandbox --help"
		;;
	stat) echo "--control --json --help" ;;
	top) echo "--control --interval --sort --once --help" ;;
	esac
}

# What an option's value can be, of what begins with WORD. False: the option has no value.
_userfault_value() { # COMMAND OPTION WORD
	case $1$2 in
	run--engine) mapfile -t COMPREPLY < <(compgen -W "auto kernel user" -- "$3") ;;
	top--sort)
		mapfile -t COMPREPLY < <(compgen -W "ID PID NAME ENGINE OF FAULTS/S P50 P99 CACHE STORE ZERO AHEAD EVENTS/S WAIT" -- "$3")
		;;
	serve--allow-uid | serve-u) mapfile -t COMPREPLY < <(compgen -u -- "$3") ;;
	serve--record | serve-r | serve--prefetch | serve-p) _userfault_paths -d "$3" ;;
	run--manager | serve--listen | serve-l | serve--control | serve-c | stat--control | top--control | report--output | report-o)
		_userfault_paths -f "$3"
		;;
	run--map | top--interval | serve-[sbwm]) ;;
	serve--store | serve--budget | serve--workers | serve--metrics | serve--max-* | serve--handover-timeout | serve--grace) ;;
	*) return 1 ;;
	esac
}

_userfault_paths() { # -f|-d WORD
	compopt -o filenames 2>/dev/null
	mapfile -t COMPREPLY < <(compgen "$1" -- "$2")
}

# Where the program stands that `run` starts; 0: it is not there yet.
_userfault_program() {
	local i

	for ((i = 2; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--engine | --manager | --map) ((++i)) ;;
		--) echo $((i + 1)) && return ;;
		-*) ;;
		*) echo "$i" && return ;;
		esac
	done
	echo 0
}

_userfault() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} program

	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W "probe report run serve stat top help $(_userfault_options '')" -- "$word")
		return
	fi
	if [ "$command" = run ]; then
		program=$(_userfault_program)
		if ((program && program < COMP_CWORD)); then
			# Where bash-completion is there, the program's own completion.
			if declare -F _command_offset >/dev/null; then
				_command_offset "$program"
			else
				_userfault_paths -f "$word"
			fi
			return
		fi
	fi
	_userfault_value "$command" "$before" "$word" && return
	if [[ $word == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_userfault_options "$command")" -- "$word")
	elif [ "$command" = run ]; then
		mapfile -t COMPREPLY < <(compgen -c -- "$word")
	elif [ "$command" = report ]; then
		_userfault_paths -f "$word"
	fi
}

complete -F _userfault userfault
