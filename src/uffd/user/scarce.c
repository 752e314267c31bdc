// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "uffd/user/scarce.h"

static void set_states(struct user_range *range, uint64_t start, size_t len, uint8_t state)
{
	/* In order for a holder of the lock that is killed (space.h). */
	atomic_signal_fence(memory_order_seq_cst);
	memset(user_page_state(range, start), state, len / range->memory.page_size);
	atomic_signal_fence(memory_order_seq_cst);
}

int user_scarce_keep(struct user_range *range, uint64_t start, size_t len, bool protect, int err)
{
	uint8_t state = USER_PAGE_HIDDEN | USER_PAGE_READY | (protect ? USER_PAGE_PROTECTED : 0);

	if (err != -ENOMEM || range->memory.trap != USER_TRAP_PROTECT ||
	    !(range->mode & UFFDIO_REGISTER_MODE_MISSING)) {
		user_memory_shut(&range->memory, start, len);
		set_states(range, start, len, USER_PAGE_HIDDEN);
		return err;
	}
	set_states(range, start, len, state);
	return 0;
}

/* A page that a monitor can be asked for, to make a run longer. */
static bool is_missing(struct user_range *range, uint64_t page)
{
	return (*user_page_state(range, page) & (USER_PAGE_HIDDEN | USER_PAGE_READY | USER_PAGE_POISONED)) ==
	       USER_PAGE_HIDDEN;
}

enum user_verdict user_scarce_judge(struct user_range *range, uint64_t *addr)
{
	const struct user_memory *memory = &range->memory;
	size_t page_size = memory->page_size;
	uint64_t start = *addr & ~(uint64_t)(page_size - 1), end = start + page_size;
	uint8_t state = *user_page_state(range, start);
	bool protect = state & USER_PAGE_PROTECTED;

	while (start > memory->start && *user_page_state(range, start - page_size) == state)
		start -= page_size;
	while (end < memory->end && *user_page_state(range, end) == state)
		end += page_size;
	set_states(range, start, end - start, protect ? USER_PAGE_PROTECTED : 0);
	if (!user_memory_show(memory, start, end - start, !protect))
		return USER_RETRY;
	set_states(range, start, end - start, state);
	if (end < memory->end && is_missing(range, end))
		*addr = end;
	else if (start > memory->start && is_missing(range, start - page_size))
		*addr = start - page_size;
	else
		return USER_RETRY;
	return USER_FAULT;
}
