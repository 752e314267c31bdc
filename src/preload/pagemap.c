// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "preload/descriptors.h"
#include "preload/pagemap.h"
#include "uffd/trycopy.h"
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

static uint64_t pages_of(const struct page_region *regions, int count)
{
	uint64_t pages = 0;

	for (int i = 0; i < count; i++)
		pages += (regions[i].end - regions[i].start) / (uint64_t)sysconf(_SC_PAGESIZE);
	return pages;
}

/* The next regions of the program's vector, of which it has `*found` in `*pages` pages. False: that was the last of it, or an error. */
static bool scan_on(struct pm_scan_arg *scan, const struct pm_scan_arg *whole, int *found, uint64_t *pages, int *err)
{
	struct page_region regions[REGIONS];
	uint64_t left = whole->vec_len - (uint64_t)*found;
	int count;

	scan->vec = whole->vec ? (uintptr_t)regions : 0;
	scan->vec_len = left < REGIONS ? left : REGIONS;
	if (whole->max_pages)
		scan->max_pages = whole->max_pages - *pages;
	count = user_pagemap_scan(scan);
	if (count <= 0) {
		*err = count;
		return false;
	}
	if (try_copy((struct page_region *)(uintptr_t)whole->vec + *found, regions,
	             (size_t)count * sizeof(regions[0]))) {
		*err = -EFAULT;
		return false;
	}
	*found += count;
	*pages += pages_of(regions, count);
	/* Where it stopped before the end, and not for want of our own room alone, the program is to go on from there. */
	if (scan->walk_end == scan->end || scan->walk_end <= scan->start || (uint64_t)*found == whole->vec_len ||
	    *pages == whole->max_pages)
		return false;
	scan->start = scan->walk_end;
	return true;
}

bool pagemap_ioctl(int fd, unsigned long request, void *argument, int *result)
{
	struct pm_scan_arg whole, scan;
	uint64_t pages = 0;
	int found = 0, err = 0;

	if (request != PAGEMAP_SCAN || !is_opened(fd) || try_copy(&whole, argument, sizeof(whole)))
		return false;
	if (!user_pagemap_covers(whole.start, whole.end))
		return false;
	scan = whole;
	while (scan_on(&scan, &whole, &found, &pages, &err))
		;
	if (try_copy(&((struct pm_scan_arg *)argument)->walk_end, &scan.walk_end, sizeof(scan.walk_end)))
		err = -EFAULT;
	*result = err ? err : found;
	return true;
}
