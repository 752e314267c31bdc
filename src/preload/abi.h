/* SPDX-License-Identifier: MIT */
/*
 * abi.h - the wrappers of abi.c, for whoever makes the same system calls by another name
 *
 * The kernel's answers: a result, or a negated errno value.
 */
#ifndef PRELOAD_ABI_H
#define PRELOAD_ABI_H

int abi_userfaultfd(int flags);

int abi_close_range(unsigned first, unsigned last, unsigned flags);

#endif
