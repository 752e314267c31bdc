// SPDX-License-Identifier: MIT
/*
 * What lies in a range, and the second view of shared memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/ioctl.h>
#include <linux/types.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
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

/* One mapping of this process. */
struct mapping {
	uint64_t start, end, offset, inode;
	dev_t dev;
	int prot;
	bool shared;
	size_t page_size;
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
