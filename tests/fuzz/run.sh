#!/bin/bash
# SPDX-License-Identifier: MIT
# run.sh PROGRAM CORPUS RUNS - the corpus, and then RUNS inputs made of it from a fixed seed. What is found is left in the folder of PROGRAM.
set -u
# libFuzzer adds to the first folder.
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
"$1" -runs="$3" -seed=1 -max_len=4096 -verbosity=0 -artifact_prefix="$1"- "$found" "$2"
