// SPDX-License-Identifier: MIT
#include <unistd.h>

#include "uffd/user/pagemap.h"
#include "uffd/user/space.h"

#define WRITE_PROTECTED ((uint64_t)1 << 57)
#define GUARD           ((uint64_t)1 << 58) /* Linux 6.15 */

static void correct(const struct user_range *range, uint64_t *entry, uint64_t page)
{
	uint8_t state = *user_page_state(range, page);

	*entry &= ~(WRITE_PROTECTED | GUARD);
	if (state & USER_PAGE_PROTECTED)
		*entry |= WRITE_PROTECTED;
}

void user_pagemap_correct(uint64_t *entries, size_t count, uint64_t start)
{
	size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
	signal_mask before;

	if (!user_space_reaches(start, start + count * page_size))
		return;
	before = user_space_lock();
	for (size_t i = 0; i < count; i++) {
		const struct user_range *range = user_space_at(start + i * page_size);

		if (range)
			correct(range, &entries[i], start + i * page_size);
	}
	user_space_unlock(before);
}
