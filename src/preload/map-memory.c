// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "preload/map-link.h"
#include "preload/map-memory.h"
#include "preload/map-ranges.h"
#include "preload/map.h"
#include "uffd/user/layout.h"

#define KEPT_FLAGS (MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_32BIT)

#ifndef MAP_32BIT
#define MAP_32BIT 0
#endif

static uint64_t page_up(uint64_t len)
{
	uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE);

	return (len + page_size - 1) & ~(page_size - 1);
}

/*
 * Placing.
 */

long map_place_void(uint64_t addr, size_t len, int prot, int flags)
{
	_cleanup_fd int empty = (int)raw_syscall3(SYS_memfd_create, (long)"userfault-void", MFD_CLOEXEC, 0);

	if (empty < 0)
		return empty;
	return user_layout_mmap(addr, len, prot, MAP_PRIVATE | flags, empty, 0);
}

/*
 * Nobody may see it before it is given: not a thread that knows where it will be, nor the kernel, which fills memory that is to be locked with
 * zeros (mlockall(2)). So it cannot be accessed until then.
 */
static long place_pages(const struct map_range *range)
{
	size_t len = range->end - range->start;
	long at = user_layout_mmap(range->start, len, PROT_NONE,
	                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	int err;

	if (raw_failed(at))
		return at;
	err = map_link_give(range);
	return err ? err : user_layout_mprotect(range->start, len, range->prot, -1);
}

/* All of the mapping is void first; then what the file has of it takes its place. With the lock held. */
static long place(const struct map_file *file, struct map_range range, size_t len, int flags)
{
	uint64_t end = page_up(file->size), size = page_up(len);
	long at, err;

	if (map_ranges_reserve(4))
		return -ENOMEM;
	at = map_place_void(range.start, size, range.prot, flags & KEPT_FLAGS);
	if (raw_failed(at))
		return at;
	map_ranges_drop((uint64_t)at, (uint64_t)at + size);
	range.start = (uint64_t)at;
	range.end = range.start + size;
	range.file = file;
	if (range.offset < end) {
		struct map_range pages = range;

		pages.end = range.start + (end - range.offset < size ? end - range.offset : size);
		err = place_pages(&pages);
		if (err) {
			user_layout_munmap(range.start, size);
			return err;
		}
		map_ranges_add(&pages);
		range.start = pages.end;
	}
	if (range.start < range.end) {
		range.file = NULL;
		map_ranges_add(&range);
	}
	return at;
}

long map_view(const struct map_file *file, uint64_t offset, size_t len)
{
	return place(file, (struct map_range){.offset = offset, .prot = PROT_READ}, len, 0);
}

void map_unview(uint64_t addr, size_t len)
{
	if (!map_ranges_reserve(2) && !user_layout_munmap(addr, page_up(len)))
		map_ranges_drop(addr, addr + page_up(len));
}

/*
 * mmap(2).
 */

static long map_file(const struct map_file *file, bool writes, uint64_t addr, size_t len, int prot, int flags,
                     uint64_t offset)
{
	bool shared = (flags & MAP_TYPE) != MAP_PRIVATE;
	signal_mask before;
	long at;

	if (shared && (prot & PROT_WRITE))
		return writes ? -EROFS : -EACCES;
	before = map_lock();
	at = place(file, (struct map_range){.start = addr, .offset = offset, .prot = prot, .shared = shared}, len,
	           flags);
	map_unlock(before);
	return at;
}

/* Over memory of ours. */
static long map_over(uint64_t addr, size_t len, int prot, int flags, int fd, uint64_t offset)
{
	signal_mask before = map_lock();
	long at = map_ranges_reserve(1) ? -ENOMEM : user_layout_mmap(addr, len, prot, flags, fd, offset);

	if (!raw_failed(at))
		map_ranges_drop((uint64_t)at, (uint64_t)at + page_up(len));
	map_unlock(before);
	return at;
}

long map_mmap(uint64_t addr, size_t len, int prot, int flags, int fd, uint64_t offset)
{
	const struct map_file *file;
	bool writes;
	long at;

	if ((flags & MAP_FIXED) && map_ranges_reach(addr, addr + page_up(len)))
		at = map_over(addr, len, prot, flags, fd, offset);
	else
		at = user_layout_mmap(addr, len, prot, flags, fd, offset);
	if (at != -EACCES || (flags & MAP_ANONYMOUS))
		return at;
	file = map_of_fd(fd, &writes);
	return file ? map_file(file, writes, addr, len, prot, flags, offset) : at;
}

/*
 * The rest.
 */

int map_munmap(uint64_t addr, size_t len)
{
	signal_mask before;
	int err;

	if (!map_ranges_reach(addr, addr + page_up(len)))
		return user_layout_munmap(addr, len);
	before = map_lock();
	err = map_ranges_reserve(2) ? -ENOMEM : user_layout_munmap(addr, len);
	if (!err)
		map_ranges_drop(addr, addr + page_up(len));
	map_unlock(before);
	return err;
}

/* With the lock held. Not `ours`: what goes over ours. */
static long remap(bool ours, uint64_t addr, size_t old_size, size_t new_size, int flags, uint64_t new_addr)
{
	size_t kept = old_size < new_size ? old_size : new_size;
	long at = user_layout_mremap(addr, old_size, new_size, flags, new_addr);

	if (raw_failed(at))
		return at;
	if (flags & MREMAP_FIXED)
		map_ranges_drop((uint64_t)at, (uint64_t)at + new_size);
	if (!ours)
		return at;
	map_ranges_drop(addr + kept, addr + old_size);
	if ((uint64_t)at != addr)
		map_ranges_move(addr, addr + kept, (uint64_t)at);
	return at;
}

/* Into a larger mapping of the file, over whose beginning the old one is moved: what was written to it stays. With the lock held. */
static long grow(struct map_range range, uint64_t addr, size_t old_size, size_t new_size, int flags, uint64_t new_addr)
{
	long at, err;

	if (!(flags & MREMAP_MAYMOVE) || !range.file || addr + old_size > range.end)
		return -ENOMEM;
	range.offset += addr - range.start;
	range.start = flags & MREMAP_FIXED ? new_addr : 0;
	at = place(range.file, range, new_size, flags & MREMAP_FIXED ? MAP_FIXED : 0);
	if (raw_failed(at))
		return at;
	err = remap(true, addr, old_size, old_size, MREMAP_MAYMOVE | MREMAP_FIXED, (uint64_t)at);
	if (!raw_failed(err))
		return at;
	user_layout_munmap((uint64_t)at, new_size);
	map_ranges_drop((uint64_t)at, (uint64_t)at + new_size);
	return err;
}

long map_mremap(uint64_t addr, size_t old_len, size_t new_len, int flags, uint64_t new_addr)
{
	size_t old_size = page_up(old_len), new_size = page_up(new_len);
	const struct map_range *range;
	signal_mask before;
	long at;

	if (!map_ranges_reach(addr, addr + old_size + !old_size) &&
	    !((flags & MREMAP_FIXED) && map_ranges_reach(new_addr, new_addr + new_size)))
		return user_layout_mremap(addr, old_len, new_len, flags, new_addr);
	before = map_lock();
	range = map_ranges_in(addr, addr + old_size + !old_size);
	if (map_ranges_reserve(8))
		at = -ENOMEM;
	else if (range && (!old_size || !new_size || (addr & ((uint64_t)sysconf(_SC_PAGESIZE) - 1)) ||
	                   (flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED))))
		at = -EINVAL;
	else if (range && new_size > old_size)
		at = grow(*range, addr, old_size, new_size, flags, new_addr);
	else
		at = remap(range, addr, old_size, new_size, flags, new_addr);
	map_unlock(before);
	return at;
}

static bool is_shared_in(uint64_t start, uint64_t end)
{
	for (size_t i = 0; i < map_ranges_count(); i++) {
		const struct map_range *range = map_ranges_at(i);

		if (range->shared && range->start < end && range->end > start)
			return true;
	}
	return false;
}

int map_mprotect(uint64_t addr, size_t len, int prot, int pkey)
{
	signal_mask before;
	int err;

	if (!(prot & PROT_WRITE) || !map_ranges_reach(addr, addr + page_up(len)))
		return user_layout_mprotect(addr, len, prot, pkey);
	before = map_lock();
	err = is_shared_in(addr, addr + page_up(len)) ? -EACCES : user_layout_mprotect(addr, len, prot, pkey);
	map_unlock(before);
	return err;
}

int map_madvise(uint64_t addr, size_t len, int advice)
{
	uint64_t end = addr + page_up(len);
	bool forks = advice == MADV_DONTFORK || advice == MADV_DOFORK;
	signal_mask before;
	int err = 0;

	/* A file's memory cannot be emptied on fork, nor freed when the kernel likes. */
	if (!(forks || advice == MADV_WIPEONFORK || advice == MADV_FREE) || !map_ranges_reach(addr, end))
		return user_layout_madvise(addr, len, advice);
	before = map_lock();
	if (map_ranges_reserve(2))
		err = -ENOMEM;
	else if (!forks && map_ranges_in(addr, end))
		err = -EINVAL;
	if (!err)
		err = user_layout_madvise(addr, len, advice);
	if (!err && forks)
		map_ranges_unfork(addr, end, advice == MADV_DONTFORK);
	map_unlock(before);
	return err;
}

/*
 * Forks.
 */

static signal_mask before_fork;

void map_fork_prepare(void)
{
	if (map_any())
		before_fork = map_lock();
}

void map_fork_parent(void)
{
	if (map_any())
		map_unlock(before_fork);
}

void map_fork_child(bool threads)
{
	if (!map_any())
		return;
	map_read_forked();
	map_link_forked(threads);
	map_unlock(before_fork);
}
