// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/statfs.h>
#include <unistd.h>
#include <linux/magic.h>

#include "support/memory.h"
#include "support/test.h"

static const struct {
	enum uf_memory kind;
	bool shared;
} kinds[MEMORY_SOURCES] = {
	[MEMORY_ANON] = {UF_MEMORY_ANON, false},         [MEMORY_DEV_ZERO_PRIVATE] = {UF_MEMORY_ANON, false},
	[MEMORY_SHARED_ANON] = {UF_MEMORY_SHMEM, true},  [MEMORY_DEV_ZERO] = {UF_MEMORY_SHMEM, true},
	[MEMORY_MEMFD] = {UF_MEMORY_SHMEM, true},        [MEMORY_MEMFD_PRIVATE] = {UF_MEMORY_SHMEM, false},
	[MEMORY_TMPFS] = {UF_MEMORY_SHMEM, true},        [MEMORY_SYSV] = {UF_MEMORY_SHMEM, true},
	[MEMORY_HUGE_ANON] = {UF_MEMORY_HUGETLB, false}, [MEMORY_HUGE_SHARED] = {UF_MEMORY_HUGETLB, true},
	[MEMORY_HUGE_MEMFD] = {UF_MEMORY_HUGETLB, true},
};

static int open_file(const struct memory *memory)
{
	int fd;

	switch (memory->source) {
	case MEMORY_DEV_ZERO:
	case MEMORY_DEV_ZERO_PRIVATE:
		fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
		break;
	case MEMORY_MEMFD:
	case MEMORY_MEMFD_PRIVATE:
		fd = memfd_create("test", MFD_CLOEXEC);
		break;
	case MEMORY_TMPFS:
		fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		if (fd < 0)
			SKIP("no tmpfs file in /dev/shm: %s", strerror(errno));
		break;
	case MEMORY_HUGE_MEMFD:
		fd = memfd_create("test", MFD_CLOEXEC | MFD_HUGETLB);
		break;
	default:
		return -1;
	}
	CHECK(fd >= 0);
	if (memory->source != MEMORY_DEV_ZERO && memory->source != MEMORY_DEV_ZERO_PRIVATE)
		CHECK_EQ(ftruncate(fd, (off_t)memory->len), 0);
	return fd;
}

static char *map(void *at, size_t len, int flags, int fd)
{
	char *p = mmap(at, len, PROT_READ | PROT_WRITE, flags | (at ? MAP_FIXED : 0), fd, 0);

	if (p == MAP_FAILED)
		FAIL("mmap of %zu bytes with flags %#x: %s", len, (unsigned)flags, strerror(errno));
	return p;
}

/* A place with an untouchable page at either end, taken up by MAP_FIXED. */
static char *place(size_t len)
{
	char *p = mmap(NULL, len + 2 * page_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(p != MAP_FAILED);
	return p + page_size;
}

static char *map_sysv(size_t len)
{
	int id = shmget(IPC_PRIVATE, len, IPC_CREAT | 0600);
	char *p;

	if (id < 0)
		SKIP("no System V shared memory: %s", strerror(errno));
	p = shmat(id, place(len), SHM_REMAP);
	shmctl(id, IPC_RMID, NULL);
	CHECK(p != (void *)-1);
	return p;
}

struct memory memory_map(enum memory_source source, size_t pages)
{
	bool huge = kinds[source].kind == UF_MEMORY_HUGETLB;
	struct memory memory = {
		.source = source,
		.kind = kinds[source].kind,
		.shared = kinds[source].shared,
		.page = huge ? huge_page_size : page_size,
	};
	int flags = (memory.shared ? MAP_SHARED : MAP_PRIVATE) | MAP_NORESERVE;

	if (huge && free_huge_pages() < pages)
		SKIP("needs %zu free huge pages (vm.nr_hugepages)", pages);
	memory.len = pages * memory.page;
	memory.fd = open_file(&memory);
	if (memory.fd < 0)
		flags |= MAP_ANONYMOUS;
	if (source == MEMORY_SYSV)
		memory.at = map_sysv(memory.len);
	else if (huge)
		memory.at = map(NULL, memory.len, flags | MAP_HUGETLB, memory.fd);
	else
		memory.at = map(place(memory.len), memory.len, flags, memory.fd);
	return memory;
}

char *memory_alias(const struct memory *memory)
{
	char *p;

	CHECK(memory->shared);
	if (memory->fd >= 0 && memory->source != MEMORY_DEV_ZERO)
		return map(NULL, memory->len, MAP_SHARED, memory->fd);
	p = mremap(memory->at, 0, memory->len, MREMAP_MAYMOVE);
	CHECK(p != MAP_FAILED);
	return p;
}

char *anon(size_t pages)
{
	return memory_map(MEMORY_ANON, pages).at;
}

unsigned char pattern(size_t page)
{
	return (unsigned char)(page % 251 + 1);
}

char *filled(size_t pages)
{
	char *p = anon(pages);

	for (size_t i = 0; i < pages; i++)
		memset(p + i * page_size, pattern(i), page_size);
	return p;
}

char *unmapped(size_t pages)
{
	/* The lower end of a larger hole: a mapping that the kernel or a library puts into it goes to the upper end. */
	size_t len = (pages + 64) * page_size;
	char *p = place(len);

	CHECK_EQ(munmap(p, len), 0);
	return p;
}

char *file_backed(size_t pages)
{
	static const char *const candidates[] = {"/bin/sh", "/proc/self/exe"};

	for (size_t i = 0; i < sizeof(candidates) / sizeof(candidates[0]); i++) {
		int fd = open(candidates[i], O_RDONLY | O_CLOEXEC);
		struct statfs fs;

		if (fd >= 0 && fstatfs(fd, &fs) == 0 && fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC)
			return map(place(pages * page_size), pages * page_size, MAP_PRIVATE, fd);
		if (fd >= 0)
			close(fd);
	}
	SKIP("every file of this system lies in tmpfs");
}
