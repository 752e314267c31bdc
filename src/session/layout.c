// SPDX-License-Identifier: MIT
/* What layout events do to a space. Contract: session_apply() in session.h. */
#include <errno.h>
#include <unistd.h>

#include "session/session.h"

static uint64_t system_page(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* An area may end within a unit, where that is larger than the memory's page: the unit becomes pages. 0 or -ENOMEM. */
static int make_ends(struct space *space, uint64_t start, uint64_t len)
{
	const uint64_t ends[] = {start, start + len}, page = system_page();
	int err = 0;

	for (unsigned i = 0; i < 2 && !err; i++) {
		struct space_range range;

		if (space_find(space, ends[i], &range) && ends[i] % range.unit)
			err = space_refine(space, ends[i] & ~(page - 1), page, page);
	}
	return err;
}

/* No multiple of its unit lies between the two places: the units become pages. */
static int move(struct space *space, uint64_t from, uint64_t to, uint64_t len)
{
	int err = make_ends(space, from, len);

	if (!err)
		err = make_ends(space, to, len);
	if (!err)
		err = space_move(space, from, to, len);
	if (err != -EINVAL)
		return err;
	err = space_refine(space, from, len, system_page());
	return err ? err : space_move(space, from, to, len);
}

/* Pages whose source brings them again: as if they had been mapped anew, so that what is on its way finds them changed. */
static int renew(struct space *space, const struct space_range *range, uint64_t start, uint64_t len)
{
	struct space_range fresh = *range;
	int err = space_unmap(space, start, len);

	fresh.offset = offset_at(range, start);
	fresh.start = start;
	fresh.len = len;
	return err ? err : space_insert(space, &fresh, NULL);
}

static int remove_pages(struct space *space, uint64_t start, uint64_t len)
{
	uint64_t end = start + len, at = start;
	struct space_range range;
	int err = make_ends(space, start, len);

	while (!err && space_next(space, at, &range) && range.start < end) {
		uint64_t from = range.start > start ? range.start : start;
		uint64_t to = range.start + range.len < end ? range.start + range.len : end;

		err = source_of(&range)->comes_again ? renew(space, &range, from, to - from)
		                                     : space_remove(space, from, to - from);
		at = to;
		if (at >= end)
			break;
	}
	return err;
}

static int unmap(struct space *space, uint64_t start, uint64_t len)
{
	int err = make_ends(space, start, len);

	return err ? err : space_unmap(space, start, len);
}

int session_apply(struct space *space, const struct uffd_msg *msg)
{
	switch (msg->event) {
	case UFFD_EVENT_REMOVE:
		return remove_pages(space, msg->arg.remove.start, msg->arg.remove.end - msg->arg.remove.start);
	case UFFD_EVENT_UNMAP:
		return unmap(space, msg->arg.remove.start, msg->arg.remove.end - msg->arg.remove.start);
	case UFFD_EVENT_REMAP:
		return move(space, msg->arg.remap.from, msg->arg.remap.to, msg->arg.remap.len);
	default:
		return 0;
	}
}
