/* SPDX-License-Identifier: MIT */
/*
 * pagemap.h - descriptors of /proc/self/pagemap, whose entries are corrected when they are read
 *
 * Some programs look there whether a page is write-protected.
 */
#ifndef PRELOAD_PAGEMAP_H
#define PRELOAD_PAGEMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

void pagemap_opened(int fd, const char *path);
void pagemap_closed(int fd);

/* After a read of `len` bytes at `offset` of fd into buf; nothing for any other descriptor. */
void pagemap_correct(int fd, void *buf, ssize_t len, off_t offset);

/* The same after a read that has moved the descriptor's position. */
void pagemap_correct_at_position(int fd, void *buf, ssize_t len);

/* The PAGEMAP_SCAN ioctl. False: nothing has happened, and it is for the kernel; else *result is 0 or more, or -errno. */
bool pagemap_ioctl(int fd, unsigned long request, void *arg, int *result);

#endif
