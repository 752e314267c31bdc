// SPDX-License-Identifier: MIT
#include <sys/mman.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "store/resident.h"

#define BLOCK ((uint64_t)64 << 10)

/* Linux 6.5. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

struct range {
	uint64_t offset, len;
};

struct counts {
	uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

/* A block's byte: ALL, or how often it is not asked before it is asked again. */
#define ALL   255
#define AGAIN 8

void resident_init(struct resident *resident, int fd, uint64_t size)
{
	uint64_t blocks = (size + BLOCK - 1) / BLOCK;
	void *memory = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);

	*resident = (struct resident){.size = size};
	if (memory == MAP_FAILED)
		return;
	resident->seen = raw_map_own(blocks);
	if (resident->seen)
		resident->memory = memory;
	else
		raw_unmap(memory, size);
}

void resident_end(struct resident *resident)
{
	if (!resident->memory)
		return;
	raw_unmap(resident->memory, resident->size);
	raw_unmap(resident->seen, (resident->size + BLOCK - 1) / BLOCK);
}

static uint8_t ask(const struct resident *resident, int fd, uint64_t block)
{
	struct range range = {.offset = block * BLOCK, .len = BLOCK};
	struct counts counts;
	uint64_t page = 4096;

	if (range.len > resident->size - range.offset)
		range.len = resident->size - range.offset;
	if (raw_syscall6(SYS_cachestat, fd, (long)&range, (long)&counts, 0, 0, 0))
		return AGAIN;
	/* The system's pages may be larger: then fewer are enough, and to take more for enough is only slower. */
	return counts.cached >= (range.len + page - 1) / page ? ALL : AGAIN;
}

const void *resident_at(struct resident *resident, int fd, size_t len, uint64_t offset)
{
	if (!resident->memory)
		return NULL;
	for (uint64_t block = offset / BLOCK; block <= (offset + len - 1) / BLOCK; block++) {
		uint8_t seen = atomic_load_explicit(&resident->seen[block], memory_order_relaxed);

		if (seen == ALL)
			continue;
		seen = seen ? seen - 1 : ask(resident, fd, block);
		/* Lost between threads it is asked once more. */
		atomic_store_explicit(&resident->seen[block], seen, memory_order_relaxed);
		if (seen != ALL)
			return NULL;
	}
	/* Behind the end of a file that has been cut within a page its mapping shows zeros, which nobody has said. */
	if (raw_syscall3(SYS_lseek, fd, 0, SEEK_END) < (long)resident->size)
		return NULL;
	return resident->memory + offset;
}
