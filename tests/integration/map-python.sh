#!/bin/bash
# SPDX-License-Identifier: MIT
# map-python.sh BUILD ENGINE USER there|absent - Python finds in a served file what it finds in a real one.
set -eu
here=$(dirname "$0")
# shellcheck disable=SC2016
"$here/map.sh" "$@" bash -c 'cd "$1" && exec 3>&1 && diff <(LD_PRELOAD="" python3 - "$MODEL" <"$2") <(python3 - "$MAPPED" <"$2") >&2' - "$PWD" "$here/mapped.py"
