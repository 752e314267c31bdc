#!/bin/bash
# SPDX-License-Identifier: MIT
# map-python.sh BUILD ENGINE USER there|absent - Python finds in a served file what it finds in a real one.
set -eu
here=$(dirname "$0")
# Its text, as whoever runs it may not be able to read it.
# shellcheck disable=SC2016
"$here/map.sh" "$@" bash -c 'exec 3>&1 && diff <(LD_PRELOAD="" python3 - "$MODEL" <<<"$1") <(python3 - "$MAPPED" <<<"$1") >&2' - \
	"$(<"$here/mapped.py")"
