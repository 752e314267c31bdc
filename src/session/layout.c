// SPDX-License-Identifier: MIT
/*
 * What layout events do to a space. Contract: session_apply() in session.h.
 *
 * The kernel tells of a mapping that has moved, or ended, after it has let go of the address space. So while one thread is about to be told
 * of, another may have moved something to where its mapping was, and have been told of first. Where a mapping arrives at a place that is taken,
 * the one there must be gone already, and its own event is still to come: until then it is kept aside, at addresses that no process has. The
 * next event that tells of all of it is its own. (Where that is not so, because what has arrived is as large and departs before the other is told
 * of, nobody can know: the kernel does not say whose event it is.)
 *
 * A move is told twice: that it went, and then that its old place was unmapped. Between the two something else may have arrived there. So the old
 * place is noted, at other such addresses, and the unmap that begins there is its own.
 *
 * The child of a fork is told of nothing that departed before. So what it has from its parent may be there no more, and ends where
 * something arrives.
 */
#include <errno.h>
#include <unistd.h>

#include "session/session.h"

#define ASIDE SESSION_ASIDE
#define LEFT  (SESSION_ASIDE << 1)

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
static int move_part(struct space *space, uint64_t from, uint64_t to, uint64_t len)
{
	int err = space_move(space, from, to, len);

	if (err != -EINVAL)
		return err;
	err = space_refine(space, from, len, system_page());
	return err ? err : space_move(space, from, to, len);
}

/*
 * How much of [at, end), the rest of [from, end) that an event tells of, is alike: kept aside, or, as *aside tells, not. What departed did so as a
 * whole, so an event that tells of a part of it only is of what has arrived there since.
 */
static uint64_t part(const struct space *space, uint64_t from, uint64_t at, uint64_t end, bool *aside)
{
	struct space_range range;
	uint64_t until;

	*aside = false;
	if (!space_next(space, at | ASIDE, &range) || range.start >= (end | ASIDE))
		return end - at;
	if (range.start > (at | ASIDE))
		return range.start - (at | ASIDE);
	until = range.start + range.len;
	*aside = range.start >= (from | ASIDE) && until <= (end | ASIDE);
	return (until < (end | ASIDE) ? until : (end | ASIDE)) - (at | ASIDE);
}

/* What lies where something is about to arrive. */
static int put_aside(struct space *space, uint64_t start, uint64_t len)
{
	struct space_range range;
	int err = 0;

	for (uint64_t at = start; !err && space_next(space, at, &range) && range.start < start + len;) {
		uint64_t from = range.start > start ? range.start : start;
		uint64_t to = range.start + range.len < start + len ? range.start + range.len : start + len;

		err = source_of(&range)->inherited ? space_unmap(space, from, to - from)
		                                   : move_part(space, from, from | ASIDE, to - from);
		at = to;
	}
	return err;
}

/* What has moved to `to` has left its old place, of which an unmap is to be told. */
static int note_left(struct space *space, uint64_t from, uint64_t to, uint64_t len)
{
	struct space_range range, left = {.start = from | LEFT, .len = len, .unit = system_page()};
	int err = space_unmap(space, left.start, len);

	if (err || !space_next(space, to, &range) || range.start >= to + len)
		return err;
	/* Every range has a source. It is that of no page. */
	left.source = range.source;
	return space_insert(space, &left, NULL);
}

/* Whether this unmap is of a place that was left. */
static bool was_left(const struct space *space, uint64_t start, uint64_t len)
{
	struct space_range left;

	return space_find(space, start | LEFT, &left) && left.start == (start | LEFT) && len <= left.len;
}

static int move(struct space *space, uint64_t from, uint64_t to, uint64_t len, bool departures)
{
	uint64_t end = from + len;
	int err = make_ends(space, from, len);

	if (!err)
		err = make_ends(space, to, len);
	if (!err && departures)
		err = put_aside(space, to, len);
	for (uint64_t at = from, n; !err && at < end; at += n) {
		bool aside;

		n = part(space, from, at, end, &aside);
		err = move_part(space, aside ? at | ASIDE : at, to + (at - from), n);
	}
	return !err && departures ? note_left(space, from, to, len) : err;
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
	uint64_t end = start + len;
	bool left = was_left(space, start, len);
	int err = space_unmap(space, start | LEFT, len);

	if (err || left)
		return err;
	err = make_ends(space, start, len);
	for (uint64_t at = start, n; !err && at < end; at += n) {
		bool aside;

		n = part(space, start, at, end, &aside);
		err = space_unmap(space, aside ? at | ASIDE : at, n);
	}
	return err;
}

int session_apply(struct space *space, const struct uffd_msg *msg, uint64_t features)
{
	switch (msg->event) {
	case UFFD_EVENT_REMOVE:
		return remove_pages(space, msg->arg.remove.start, msg->arg.remove.end - msg->arg.remove.start);
	case UFFD_EVENT_UNMAP:
		return unmap(space, msg->arg.remove.start, msg->arg.remove.end - msg->arg.remove.start);
	case UFFD_EVENT_REMAP:
		return move(space, msg->arg.remap.from, msg->arg.remap.to, msg->arg.remap.len,
		            features & UFFD_FEATURE_EVENT_UNMAP);
	default:
		return 0;
	}
}
