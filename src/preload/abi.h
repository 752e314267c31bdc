/* SPDX-License-Identifier: MIT */
/*
 * abi.h - the wrappers of abi.c, for whoever makes the same system calls by another name
 *
 * The kernel's answers: a result, or a negated errno value.
 */
#ifndef PRELOAD_ABI_H
#define PRELOAD_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

int abi_userfaultfd(int flags);

bool abi_is_device(const char *path);
int abi_open_device(int flags);

/* *ours: whether the descriptor was one of the user engine; if not, nothing has happened. */
int abi_ioctl(int fd, unsigned long request, void *arg, bool *ours);

/* Reads messages where fd is ours, and then is true. */
bool abi_read(int fd, void *buf, size_t size, ssize_t *result);

int abi_close_range(unsigned first, unsigned last, unsigned flags);

#endif
