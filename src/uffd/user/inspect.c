// SPDX-License-Identifier: MIT
/*
 * What lies in a range, which of its pages are there, and the second view of shared memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/ioctl.h>
#include <linux/types.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/advice.h"
#include "base/rawsys.h"
#include "uffd/user/memory.h"

/* The kernel's own layout; distribution headers are older than the request (Linux 6.11). */
struct procmap_request {
	__u64 size, flags, addr;
	__u64 start, end, vma_flags, page_size, offset, inode;
	__u32 dev_major, dev_minor;
	__u32 name_size, build_id_size;
	__u64 name, build_id;
};
#define PROCMAP_REQUEST          _IOWR('f', 17, struct procmap_request)
#define PROCMAP_READABLE         (1 << 0)
#define PROCMAP_WRITABLE         (1 << 1)
#define PROCMAP_EXECUTABLE       (1 << 2)
#define PROCMAP_SHARED           (1 << 3)
#define PROCMAP_COVERING_OR_NEXT (1 << 4)

/* Looks, a millisecond apart, in which no page came back from the swap device. */
#define BRING_IN_PATIENCE 10000

/* One mapping of this process. */
struct mapping {
	uint64_t start, end, offset, inode;
	dev_t dev;
	int prot;
	bool shared;
	size_t page_size;
	size_t swapped; /* bytes, of the file's pages as well; from smaps only */
	char name[4096];
};

/* Where mappings are learnt from: the request, or else a single pass over smaps. */
struct maps {
	int fd;
	FILE *smaps;
};

static int maps_open(struct maps *maps)
{
	maps->smaps = NULL;
	maps->fd = raw_open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	return maps->fd < 0 ? maps->fd : 0;
}

static void maps_close(struct maps *maps)
{
	raw_close(maps->fd);
	if (maps->smaps)
		fclose(maps->smaps);
}

/* Fills in the first mapping that ends behind addr. 1, 0 when there is none, or -errno where the kernel lacks it. */
static int query(int fd, uint64_t addr, struct mapping *mapping)
{
	struct procmap_request request = {
		.size = sizeof(request),
		.flags = PROCMAP_COVERING_OR_NEXT,
		.addr = addr,
		.name = (uint64_t)(uintptr_t)mapping->name,
		.name_size = sizeof(mapping->name),
	};
	int err = raw_ioctl(fd, PROCMAP_REQUEST, &request);

	if (err)
		return err == -ENOENT ? 0 : err;
	if (!request.name_size)
		mapping->name[0] = '\0';
	mapping->start = request.start;
	mapping->end = request.end;
	mapping->offset = request.offset;
	mapping->inode = request.inode;
	mapping->dev = makedev(request.dev_major, request.dev_minor);
	mapping->prot = (request.vma_flags & PROCMAP_READABLE ? PROT_READ : 0) |
	                (request.vma_flags & PROCMAP_WRITABLE ? PROT_WRITE : 0) |
	                (request.vma_flags & PROCMAP_EXECUTABLE ? PROT_EXEC : 0);
	mapping->shared = request.vma_flags & PROCMAP_SHARED;
	mapping->page_size = request.page_size;
	return 1;
}

/* Other lines of smaps may begin with what looks like a number, so nothing is stored before all of it is known. */
static void parse_heading(const char *line, struct mapping *mapping)
{
	uint64_t start, end, offset, inode;
	unsigned dev_major, dev_minor;
	char perms[5];
	int name = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n", &start, &end, perms, &offset,
	           &dev_major, &dev_minor, &inode, &name) < 7)
		return;
	mapping->start = start;
	mapping->end = end;
	mapping->offset = offset;
	mapping->inode = inode;
	mapping->dev = makedev(dev_major, dev_minor);
	mapping->prot = (perms[0] == 'r' ? PROT_READ : 0) | (perms[1] == 'w' ? PROT_WRITE : 0) |
	                (perms[2] == 'x' ? PROT_EXEC : 0);
	mapping->shared = perms[3] == 's';
	snprintf(mapping->name, sizeof(mapping->name), "%.*s", (int)strcspn(line + name, "\n"), line + name);
}

/* As query(), for rising addresses. */
static int read_smaps(FILE *smaps, uint64_t addr, struct mapping *mapping)
{
	char *line = NULL;
	size_t room = 0;
	int found = 0;

	mapping->end = 0;
	while (!found && getline(&line, &room, smaps) > 0) {
		size_t kib;

		if (sscanf(line, "KernelPageSize: %zu kB", &kib) == 1) {
			mapping->page_size = kib * 1024;
		} else if (sscanf(line, "Swap: %zu kB", &kib) == 1) {
			mapping->swapped = kib * 1024;
			found = mapping->end > addr;
		} else {
			parse_heading(line, mapping);
		}
	}
	free(line);
	return found;
}

static int maps_next(struct maps *maps, uint64_t addr, struct mapping *mapping)
{
	if (!maps->smaps) {
		int n = query(maps->fd, addr, mapping);

		if (n >= 0)
			return n;
		maps->smaps = fopen("/proc/self/smaps", "re");
		if (!maps->smaps)
			return -errno;
	}
	return read_smaps(maps->smaps, addr, mapping);
}

/* The device of memfd, shared anonymous and System V memory, which is mounted nowhere. */
static bool is_kernel_mount(dev_t dev)
{
	int fd = memfd_create("userfault-probe", MFD_CLOEXEC);
	struct stat status;
	bool same;

	if (fd < 0)
		return false;
	same = !fstat(fd, &status) && status.st_dev == dev;
	raw_close(fd);
	return same;
}

static bool is_tmpfs_mount(dev_t dev)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	while (mounts && !found && getline(&line, &room, mounts) > 0) {
		const char *type = strstr(line, " - ");
		unsigned dev_major, dev_minor;

		found = type && sscanf(line, "%*d %*d %u:%u", &dev_major, &dev_minor) == 2 &&
		        makedev(dev_major, dev_minor) == dev &&
		        (!strncmp(type, " - tmpfs ", 9) || !strncmp(type, " - devtmpfs ", 12));
	}
	free(line);
	if (mounts)
		fclose(mounts);
	return found;
}

static bool is_anonymous_name(const char *name)
{
	return !name[0] || !strcmp(name, "[heap]") || !strncmp(name, "[stack", 6) || !strncmp(name, "[anon:", 6);
}

/* The mapping of a device is not memory, though its node lies in tmpfs; but /dev/zero, mapped privately, is anonymous. */
static bool is_device(const struct mapping *mapping, bool *zero)
{
	struct stat status;

	if (stat(mapping->name, &status) || status.st_ino != mapping->inode || status.st_dev != mapping->dev)
		return false;
	*zero = S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 5);
	return !S_ISREG(status.st_mode);
}

static int classify(const struct mapping *mapping, size_t system_page)
{
	bool zero = false;

	if (!mapping->inode)
		return is_anonymous_name(mapping->name) && !mapping->shared ? UF_MEMORY_ANON : -EINVAL;
	if (is_device(mapping, &zero))
		return zero && !mapping->shared ? UF_MEMORY_ANON : -EINVAL;
	if (mapping->page_size > system_page)
		return UF_MEMORY_HUGETLB;
	return is_kernel_mount(mapping->dev) || is_tmpfs_mount(mapping->dev) ? UF_MEMORY_SHMEM : -EINVAL;
}

/* Whether the kernel knows guard pages, and knows them in the memory of files. */
static bool guards_work(bool file)
{
	/* Unknown, yes, no: of anonymous memory, of files. */
	static _Atomic int states[2];
	int known = atomic_load_explicit(&states[file], memory_order_relaxed);
	long at;

	if (known)
		return known == 1;
	at = raw_mmap(0, 1, PROT_READ | PROT_WRITE, (file ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);
	if (raw_failed(at))
		return false;
	known = raw_madvise((uint64_t)at, (size_t)sysconf(_SC_PAGESIZE), MADV_GUARD_INSTALL) ? 2 : 1;
	raw_munmap((uint64_t)at, 1);
	atomic_store_explicit(&states[file], known, memory_order_relaxed);
	return known == 1;
}

/*
 * Guards cannot be laid on mlocked memory, which no list of mappings short of smaps tells. MADV_COLD is refused there as
 * well, and otherwise only makes one page a better candidate for being swapped out.
 */
static enum user_trap best_trap(const struct user_memory *piece)
{
	if (piece->type == UF_MEMORY_HUGETLB || !guards_work(piece->type == UF_MEMORY_SHMEM))
		return USER_TRAP_PROTECT;
	return raw_madvise(piece->start, piece->page_size, MADV_COLD) ? USER_TRAP_PROTECT : USER_TRAP_GUARD;
}

static int describe(const struct mapping *mapping, uint64_t start, uint64_t end, bool protect_only,
                    struct user_memory *piece)
{
	int type = classify(mapping, (size_t)sysconf(_SC_PAGESIZE));

	if (type < 0)
		return type;
	*piece = (struct user_memory){
		.start = mapping->start > start ? mapping->start : start,
		.end = mapping->end < end ? mapping->end : end,
		.type = (enum uf_memory)type,
		.shared = mapping->shared,
		.prot = mapping->prot,
		.page_size = mapping->page_size,
		.trap = USER_TRAP_PROTECT,
	};
	if (!protect_only)
		piece->trap = best_trap(piece);
	return 0;
}

int user_memory_inspect(uint64_t start, uint64_t end, bool protect_only, struct user_memory *pieces, size_t room)
{
	struct mapping mapping;
	struct maps maps;
	size_t count = 0;
	int n = maps_open(&maps);

	if (n)
		return n;
	for (uint64_t addr = start; addr < end; addr = mapping.end) {
		n = maps_next(&maps, addr, &mapping);
		if (n <= 0 || mapping.start >= end)
			break;
		n = count < room ? describe(&mapping, start, end, protect_only, &pieces[count]) : -ENOSPC;
		if (n)
			break;
		count++;
	}
	maps_close(&maps);
	return n < 0 ? n : (int)count;
}

/* hugetlbfs cannot be mapped twice by mremap(). With CAP_CHECKPOINT_RESTORE its file can be had. */
static long alias_by_file(const struct user_memory *memory)
{
	struct mapping mapping;
	struct maps maps;
	char path[64];
	int n = maps_open(&maps), fd;
	long at;

	if (n)
		return n;
	n = maps_next(&maps, memory->start, &mapping);
	maps_close(&maps);
	if (n <= 0 || mapping.start > memory->start || mapping.end < memory->end)
		return n < 0 ? n : -EFAULT;
	snprintf(path, sizeof(path), "/proc/self/map_files/%" PRIx64 "-%" PRIx64, mapping.start, mapping.end);
	fd = raw_open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return fd;
	/* NORESERVE: huge pages that the program reserved serve the alias as well. */
	at = raw_mmap(0, memory->end - memory->start, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
	              mapping.offset + (memory->start - mapping.start));
	raw_close(fd);
	return at;
}

static long make_alias(const struct user_memory *memory)
{
	size_t len = memory->end - memory->start;
	long at;
	int err;

	if (memory->type == UF_MEMORY_HUGETLB)
		return alias_by_file(memory);
	at = raw_mremap(memory->start, 0, len, MREMAP_MAYMOVE);
	if (raw_failed(at))
		return at;
	err = raw_mprotect((uint64_t)at, len, PROT_READ | PROT_WRITE);
	if (!err)
		return at;
	raw_munmap((uint64_t)at, len);
	return err == -EACCES ? -EPERM : err;
}

int user_memory_prepare(struct user_memory *memory)
{
	long at;

	if (!memory->shared || memory->alias)
		return 0;
	at = make_alias(memory);
	if (raw_failed(at)) {
		memory->alias_error = (int)at;
		return (int)at;
	}
	memory->alias = (char *)at;
	memory->alias_error = 0;
	return 0;
}

void user_memory_dispose(struct user_memory *memory)
{
	raw_unmap(memory->alias, memory->end - memory->start);
	memory->alias = NULL;
}

/* Of `pages` pages, those that the page tables hold, or that are swapped out. */
static int present_here(const struct user_memory *memory, uint64_t start, size_t pages, uint8_t *present)
{
	size_t system_page = (size_t)sysconf(_SC_PAGESIZE), stride = memory->page_size / system_page;
	int fd = raw_open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), err = 0;
	uint64_t entries[512];

	if (fd < 0)
		return fd;
	for (size_t done = 0; done < pages && !err;) {
		size_t n = stride > 1 ? 1 : pages - done < 512 ? pages - done : 512;
		ssize_t got = raw_pread(fd, entries, n * sizeof(entries[0]),
		                        (start / system_page + done * stride) * sizeof(entries[0]));

		if (got != (ssize_t)(n * sizeof(entries[0])))
			err = got < 0 ? (int)got : -EFAULT;
		/* A guard counts as swapped out (bit 62) and is told by bit 58 (Linux 6.15). */
		for (size_t i = 0; i < n && !err; i++)
			present[done + i] |= entries[i] >> 63 || (entries[i] >> 62 && !(entries[i] >> 58 & 1));
		done += n;
	}
	raw_close(fd);
	return err;
}

/* How much of the alias's file is swapped out: bytes, or -errno. Fills in the mapping if it is any. */
static long swapped_out(uint64_t addr, struct mapping *mapping)
{
	struct sysinfo info;
	FILE *smaps;
	int found;

	/* Almost always nothing is, on the whole machine; reading smaps is dear. */
	if (!sysinfo(&info) && info.freeswap == info.totalswap)
		return 0;
	smaps = fopen("/proc/self/smaps", "re");
	if (!smaps)
		return -errno;
	found = read_smaps(smaps, addr, mapping);
	fclose(smaps);
	return found ? (long)mapping->swapped : -EFAULT;
}

/* Reads one byte of each resident page, which makes a page of the swap cache one of the file, and adds none to the file. */
static int settle_resident(const struct mapping *mapping, size_t system_page)
{
	int fd = user_memory_descriptor();
	unsigned char resident[512];
	char byte;

	for (uint64_t at = mapping->start; fd >= 0 && at < mapping->end; at += sizeof(resident) * system_page) {
		size_t pages = (mapping->end - at) / system_page;
		int err;

		pages = pages < sizeof(resident) ? pages : sizeof(resident);
		err = raw_mincore(at, pages * system_page, resident);
		if (err)
			return err;
		for (size_t i = 0; i < pages; i++)
			if (resident[i] & 1)
				raw_pread(fd, &byte, 1, at + i * system_page);
	}
	return fd < 0 ? fd : 0;
}

/* mincore() takes pages of a file that are swapped out for missing ones: brings them all in. */
static int bring_in(uint64_t alias)
{
	size_t system_page = (size_t)sysconf(_SC_PAGESIZE);
	long least = LONG_MAX;
	struct mapping mapping;

	for (unsigned idle = 0; idle < BRING_IN_PATIENCE; idle++) {
		struct timespec pause = {.tv_nsec = 1000000};
		long left = swapped_out(alias, &mapping);
		int err;

		if (left <= 0)
			return (int)left;
		if (left < least) {
			least = left;
			idle = 0;
		} else {
			/* The swap device is at work. */
			nanosleep(&pause, NULL);
		}
		raw_madvise(mapping.start, mapping.end - mapping.start, MADV_WILLNEED);
		err = settle_resident(&mapping, system_page);
		if (err)
			return err;
	}
	return -EAGAIN;
}

/* Adds those that the file holds. */
static int present_in_file(const struct user_memory *memory, uint64_t at, size_t pages, uint8_t *present)
{
	size_t system_page = (size_t)sysconf(_SC_PAGESIZE), stride = memory->page_size / system_page;
	unsigned char resident[512];

	if (memory->type == UF_MEMORY_SHMEM && memory->shared) {
		int err = bring_in(at);

		if (err)
			return err;
	}
	for (size_t done = 0; done < pages;) {
		size_t n = stride > 1 ? 1 : pages - done < 512 ? pages - done : 512;
		int err = raw_mincore(at + done * memory->page_size, n * system_page, resident);

		if (err)
			return err;
		for (size_t i = 0; i < n; i++)
			present[done + i] |= resident[i] & 1;
		done += n;
	}
	return 0;
}

int user_memory_present(const struct user_memory *memory, uint64_t start, uint64_t end, uint8_t *present)
{
	size_t pages = (end - start) / memory->page_size;
	uint64_t at = start;
	int err = 0;

	memset(present, 0, pages);
	if (memory->shared)
		at = memory->alias ? (uint64_t)(uintptr_t)memory->alias + (start - memory->start) : start;
	if (!memory->shared || memory->type == UF_MEMORY_HUGETLB)
		err = present_here(memory, start, pages, present);
	/* Of hugetlbfs mincore() sees the page tables, or looks for the wrong page of the file where there are none. */
	if (!err && memory->type == UF_MEMORY_HUGETLB && at != start)
		err = present_here(memory, at, pages, present);
	else if (!err && memory->type == UF_MEMORY_SHMEM)
		err = present_in_file(memory, at, pages, present);
	return err;
}
