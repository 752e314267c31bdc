// SPDX-License-Identifier: MIT
/* Hiding what is missing, and leaving shown what is there. */
#include <stdbool.h>
#include <sys/mman.h>

#include "base/advice.h"
#include "base/rawsys.h"
#include "uffd/user/memory.h"

static uint64_t run_end(const struct user_memory *memory, const uint8_t *present, uint64_t start, uint64_t page,
                        uint64_t end)
{
	uint8_t first = present[(page - start) / memory->page_size];

	while (page < end && present[(page - start) / memory->page_size] == first)
		page += memory->page_size;
	return page;
}

/* Everything is inaccessible: lays guards over what is missing, or shows what is there. */
static int sort_pages(const struct user_memory *memory, uint64_t start, uint64_t end, const uint8_t *present)
{
	bool guard = memory->trap == USER_TRAP_GUARD;

	for (uint64_t page = start; page < end;) {
		uint64_t stop = run_end(memory, present, start, page, end);
		bool there = present[(page - start) / memory->page_size];
		int err = 0;

		if (guard && !there)
			err = raw_madvise(page, stop - page, MADV_GUARD_INSTALL);
		else if (!guard && there)
			err = raw_mprotect(page, stop - page, memory->prot);
		if (err)
			return err;
		page = stop;
	}
	return guard ? raw_mprotect(start, end - start, memory->prot) : 0;
}

int user_memory_arm(const struct user_memory *memory, uint64_t start, uint64_t end, uint8_t *present)
{
	/* First out of reach, so that nobody can populate what is just being found missing. */
	int err = raw_mprotect(start, end - start, PROT_NONE);

	if (!err)
		err = user_memory_present(memory, start, end, present);
	if (!err)
		err = sort_pages(memory, start, end, present);
	if (err) {
		if (memory->trap == USER_TRAP_GUARD)
			raw_madvise(start, end - start, MADV_GUARD_REMOVE);
		raw_mprotect(start, end - start, memory->prot);
	}
	return err;
}
