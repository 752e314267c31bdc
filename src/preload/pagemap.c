// SPDX-License-Identifier: MIT
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "preload/descriptors.h"
#include "preload/pagemap.h"
#include "uffd/user/pagemap.h"

/* One bit a number, and whether there is any. Relaxed: who reads a descriptor has opened it before. */
static _Atomic uint64_t opened[DESCRIPTORS_MAX / 64];
static _Atomic bool any;

static bool is_pagemap(const char *path)
{
	char own[32];

	if (!path || strncmp(path, "/proc/", 6) != 0)
		return false;
	snprintf(own, sizeof(own), "/proc/%d/pagemap", raw_getpid());
	return !strcmp(path, "/proc/self/pagemap") || !strcmp(path, "/proc/thread-self/pagemap") || !strcmp(path, own);
}

void pagemap_opened(int fd, const char *path)
{
	if (fd >= DESCRIPTORS_MAX || !is_pagemap(path))
		return;
	atomic_store_explicit(&any, true, memory_order_relaxed);
	atomic_fetch_or_explicit(&opened[fd / 64], (uint64_t)1 << (fd % 64), memory_order_relaxed);
}

void pagemap_closed(int fd)
{
	if (fd >= 0 && fd < DESCRIPTORS_MAX && atomic_load_explicit(&any, memory_order_relaxed))
		atomic_fetch_and_explicit(&opened[fd / 64], ~((uint64_t)1 << (fd % 64)), memory_order_relaxed);
}

static bool is_opened(int fd)
{
	return atomic_load_explicit(&any, memory_order_relaxed) && fd >= 0 && fd < DESCRIPTORS_MAX &&
	       (atomic_load_explicit(&opened[fd / 64], memory_order_relaxed) >> (fd % 64) & 1);
}

void pagemap_correct(int fd, void *buf, ssize_t len, off_t offset)
{
	uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE);

	/* The kernel gives whole entries, at offsets of whole entries. */
	if (len >= 8 && is_opened(fd))
		user_pagemap_correct(buf, (size_t)len / 8, (uint64_t)offset / 8 * page_size);
}

void pagemap_correct_at_position(int fd, void *buf, ssize_t len)
{
	if (len >= 8 && is_opened(fd))
		pagemap_correct(fd, buf, len, lseek(fd, 0, SEEK_CUR) - len);
}

/* The program's structures are worked on with its space locked, so on copies; as many regions at a time as find room on a stack. */
#define REGIONS 256

bool pagemap_ioctl(int fd, unsigned long request, void *argument, int *result)
{
	struct page_region regions[REGIONS];
	struct pm_scan_arg scan;
	void *vector;

	if (request != PAGEMAP_SCAN || !is_opened(fd) || !argument)
		return false;
	memcpy(&scan, argument, sizeof(scan));
	if (!user_pagemap_covers(scan.start, scan.end))
		return false;
	vector = (void *)(uintptr_t)scan.vec;
	scan.vec = (uintptr_t)regions;
	if (scan.vec_len > REGIONS)
		scan.vec_len = REGIONS;
	*result = user_pagemap_scan(&scan);
	if (*result > 0)
		memcpy(vector, regions, (size_t)*result * sizeof(regions[0]));
	((struct pm_scan_arg *)argument)->walk_end = scan.walk_end;
	return true;
}
