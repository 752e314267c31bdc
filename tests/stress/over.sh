#!/bin/bash
# SPDX-License-Identifier: MIT
# over.sh BUILD PROGRAM [ARGUMENT...] - a program over the user engine, with the kernel's userfaultfd refused
build=$1
shift
exec "$build/tests/integration/refuse-userfaultfd" -- "$build/userfault" run --engine user -- "$@"
