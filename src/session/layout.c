// SPDX-License-Identifier: MIT
/*
 * What layout events do to a space. Contract: session_apply() in session.h.
 *
 * The kernel tells of a mapping that has moved, or ended, after it has let go of the address space, in whatever order its threads come to that,
 * and not whose event it is. So while one thread is about to be told of, another may have moved something to where its mapping was, and have been
 * told of first. Where a mapping arrives at a place that is taken, the one there must be gone already, and its own event is still to come: until
 * then it is kept aside. Those of a place depart in the order in which they came. A departure of all of what is kept aside is taken for
 * that of the oldest; of a part, for the newcomer's, since what departed did so as a whole.
 *
 * A move is told twice, that it went and then that its old place was unmapped, and its thread goes on after that. Between the two something else may
 * have arrived there. So the old place is noted as left, and the unmap that begins there is its own.
 *
 * What cannot be known. A newcomer may depart itself, once it has come, before the one before it is told of. When two have departed from one place
 * and nothing tells which was which, they are in doubt, and what they hold is lost: a signal, and never another's bytes. Until then a
 * departure is only doubtful: as long as something is untold the kernel puts no page in place (EAGAIN), so nothing can be brought from the
 * wrong place; and once all has been told (session_all_told()) only one has departed, and it was the oldest.
 *
 * The child of a fork is told of nothing that departed before. So what it has from its parent may be there no more, and ends where
 * something arrives.
 *
 * All that is kept for later lies in the space itself, at addresses that no process has, so that a log of the space has it too: the address, and in
 * the bits above it one of these.
 */
#include <errno.h>
#include <unistd.h>

#include "session/session.h"

#define ABOVE 57
_Static_assert(SESSION_ASIDE == (uint64_t)1 << ABOVE, "");

/* What departed, and is untold: the oldest of a place first. More than that are not told apart. */
#define ASIDE  1u
#define ASIDES 7u
/* Places that were left, and whose unmap is untold. Their offset is where what was there went, or PARTLY: a part of it has been told. */
#define LEFT   8u
#define LEFTS  7u
#define PARTLY ((uint64_t)1 << 62)
/* Places that two may have departed from. Their offset is where the first is now, in the space; 0: nowhere. */
#define DOUBT 15u

/* The content of what was lost: it lies behind the end of any store. */
#define LOST ((uint64_t)1 << 61)

static uint64_t address_of(uint64_t at)
{
	return at & (SESSION_ASIDE - 1);
}

static uint64_t kept_at(unsigned what, uint64_t at)
{
	return at + ((uint64_t)what << ABOVE);
}

/* The first range kept as `what` that reaches into [start, end), by the addresses that it is kept for. */
static bool next_kept(const struct space *space, unsigned what, uint64_t start, uint64_t end, struct space_range *range)
{
	return start < end && space_next(space, kept_at(what, start), range) && range->start < kept_at(what, end);
}

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
 * How much of [at, end), the rest of [from, end) that an event tells of, is alike: of what was kept aside, *what says as what; or not of that, and *what
 * is 0.
 */
static uint64_t part(const struct space *space, uint64_t from, uint64_t at, uint64_t end, unsigned *what)
{
	uint64_t until = end;

	for (*what = ASIDE; *what < ASIDE + ASIDES; ++*what) {
		struct space_range range;
		uint64_t start, stop;

		if (!next_kept(space, *what, at, end, &range))
			continue;
		start = address_of(range.start);
		stop = start + range.len;
		if (start > at) {
			until = start < until ? start : until;
			continue;
		}
		until = stop < until ? stop : until;
		if (start >= from && stop <= end)
			return until - at;
	}
	*what = 0;
	return until - at;
}

/* Whether the call that brought something to `at` has not returned: its second half is untold. With MREMAP_DONTUNMAP it looks so until all is told. */
static bool is_arriving(const struct space *space, uint64_t at)
{
	for (unsigned what = LEFT; what < LEFT + LEFTS; what++) {
		struct space_range left;

		for (uint64_t next = 0; next_kept(space, what, next, SESSION_ASIDE, &left);
		     next = address_of(left.start) + left.len)
			if (at - left.offset < left.len)
				return true;
	}
	return false;
}

/* Whether nobody else can have departed from [at, end), of which what is kept as `what` is told to have. */
static bool is_certain(const struct space *space, unsigned what, uint64_t at, uint64_t end)
{
	struct space_range range;

	while (++what < ASIDE + ASIDES)
		if (next_kept(space, what, at, end, &range))
			return false;
	for (; space_next(space, at, &range) && range.start < end; at = range.start + range.len)
		if (!is_arriving(space, range.start > at ? range.start : at))
			return false;
	return true;
}

/* What lies there, kept aside or not, is no more what it was taken for. */
static int lose(struct space *space, uint64_t start, uint64_t len)
{
	uint64_t at = start, end = start + len;
	int err = make_ends(space, at, len);

	for (struct space_range range; !err && at < end && space_next(space, at, &range) && range.start < end;) {
		uint64_t from = range.start > at ? range.start : at;
		uint64_t to = range.start + range.len < end ? range.start + range.len : end;
		struct space_range lost = {.start = from,
		                           .len = to - from,
		                           .source = range.source,
		                           .offset = LOST + address_of(from),
		                           .unit = range.unit};

		at = to;
		if (range.offset >= LOST)
			continue;
		err = space_unmap(space, from, to - from);
		if (!err)
			err = space_insert(space, &lost, NULL);
	}
	return err;
}

/* What is kept in the space is a range, and a range has a source: that of no page. */
static int keep(struct space *space, unsigned what, uint64_t start, uint64_t len, uint64_t offset)
{
	struct space_range any,
		kept = {.start = kept_at(what, start), .len = len, .offset = offset, .unit = system_page()};
	int err = space_unmap(space, kept.start, len);

	/* Without any there is nothing that could be taken for something else. */
	if (err || !space_next(space, 0, &any))
		return err;
	kept.source = any.source;
	return space_insert(space, &kept, NULL);
}

/* The first of `count` ways to keep something that is free there; the last, if none is. */
static unsigned free_way(const struct space *space, unsigned what, unsigned count, uint64_t start, uint64_t end)
{
	unsigned last = what + count - 1;
	struct space_range range;

	/* Above all that is taken: those of a place depart in order. */
	while (last > what && !next_kept(space, last - 1, start, end, &range))
		last--;
	return last;
}

/* What lies at [from, from + len) goes to `to`, or (0) ends: places that are in doubt say where it is now. */
static int follow(struct space *space, uint64_t from, uint64_t to, uint64_t len)
{
	struct space_range doubt;
	int err = 0;

	for (uint64_t at = 0; !err && next_kept(space, DOUBT, at, SESSION_ASIDE, &doubt);) {
		uint64_t start = address_of(doubt.start), is = doubt.offset;

		at = start + doubt.len;
		if (!is || is >= from + len || is + doubt.len <= from)
			continue;
		if (is >= from && is + doubt.len <= from + len) {
			err = keep(space, DOUBT, start, doubt.len, to ? to + (is - from) : 0);
		} else {
			err = lose(space, is, doubt.len);
			if (!err)
				err = keep(space, DOUBT, start, doubt.len, 0);
		}
	}
	return err;
}

/* What lies where something is about to arrive. */
static int put_aside(struct space *space, uint64_t start, uint64_t len)
{
	struct space_range range;
	int err = 0;

	for (uint64_t at = start; !err && space_next(space, at, &range) && range.start < start + len;) {
		uint64_t from = range.start > start ? range.start : start;
		uint64_t to = range.start + range.len < start + len ? range.start + range.len : start + len;
		unsigned what = free_way(space, ASIDE, ASIDES, from, to);

		if (source_of(&range)->inherited) {
			err = space_unmap(space, from, to - from);
		} else {
			err = follow(space, from, kept_at(what, from), to - from);
			if (!err)
				err = move_part(space, from, kept_at(what, from), to - from);
		}
		at = to;
	}
	return err;
}

/* Two have departed from the place that is in doubt: all that were, or are, there. */
static int lose_all(struct space *space, const struct space_range *doubt)
{
	uint64_t start = address_of(doubt->start);
	int err = doubt->offset ? lose(space, doubt->offset, doubt->len) : 0;

	for (unsigned what = 0; !err && what < ASIDE + ASIDES; what++)
		err = lose(space, kept_at(what, start), doubt->len);
	return err;
}

/* A part of what an event of [from, end) tells of departs: to `to`, or (0) for good. */
static int depart(struct space *space, uint64_t from, uint64_t end, uint64_t at, uint64_t len, uint64_t to,
                  unsigned what)
{
	struct space_range doubt;
	bool doubtful = false;
	int err = 0;

	if (next_kept(space, DOUBT, at, at + len, &doubt)) {
		if (address_of(doubt.start) >= from && address_of(doubt.start) + doubt.len <= end)
			err = lose_all(space, &doubt);
	} else if (what && !is_certain(space, what, at, at + len)) {
		doubtful = true;
	}
	if (!err)
		err = follow(space, kept_at(what, at), to, len);
	if (!err && doubtful)
		err = keep(space, DOUBT, at, len, to);
	if (err)
		return err;
	return to ? move_part(space, kept_at(what, at), to, len) : space_unmap(space, kept_at(what, at), len);
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
		unsigned what;

		n = part(space, from, at, end, &what);
		err = depart(space, from, end, at, n, to + (at - from), what);
	}
	return !err && departures ? keep(space, free_way(space, LEFT, LEFTS, from, end), from, len, to) : err;
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

/* The place that was left and that this unmap is of, or (false) of none. One of all of it counts before one of a part. */
static bool find_left(const struct space *space, uint64_t start, uint64_t len, unsigned *what, struct space_range *left)
{
	unsigned partly = 0;

	for (*what = LEFT; *what < LEFT + LEFTS; ++*what) {
		if (!space_find(space, kept_at(*what, start), left) || address_of(left->start) != start)
			continue;
		if (len == left->len)
			return true;
		if (len < left->len && !partly)
			partly = *what;
	}
	*what = partly;
	return partly && space_find(space, kept_at(partly, start), left);
}

/* The second half of a move. Told in parts, it may as well be of a part of what has arrived there since, and then the rest is still to come. */
static int unmap_left(struct space *space, const struct space_range *left, unsigned what, uint64_t start, uint64_t len)
{
	uint64_t rest = left->len - len, page = system_page();
	int err = space_unmap(space, left->start, left->len);

	if (!err && rest)
		err = keep(space, what, start + len, rest, PARTLY);
	for (uint64_t at = start; !err && rest && at < start + len; at += page) {
		struct space_range range;

		if (space_find(space, at, &range) && !is_arriving(space, at))
			err = lose(space, at, page);
	}
	return err;
}

static int unmap(struct space *space, uint64_t start, uint64_t len)
{
	uint64_t end = start + len;
	struct space_range left;
	unsigned what;
	int err;

	if (find_left(space, start, len, &what, &left))
		return unmap_left(space, &left, what, start, len);
	err = make_ends(space, start, len);
	for (uint64_t at = start, n; !err && at < end; at += n) {
		n = part(space, start, at, end, &what);
		err = depart(space, start, end, at, n, 0, what);
	}
	return err;
}

bool session_is_owed(const struct space *space)
{
	struct space_range range;

	return space_next(space, SESSION_ASIDE, &range);
}

bool session_in_doubt(const struct space *space)
{
	struct space_range doubt;

	return next_kept(space, DOUBT, 0, SESSION_ASIDE, &doubt);
}

bool session_next_stay(const struct space *space, uint64_t *start, uint64_t *len)
{
	struct space_range left, first = {.start = UINT64_MAX}, there;

	for (unsigned what = LEFT; what < LEFT + LEFTS; what++) {
		for (uint64_t at = *start; next_kept(space, what, at, SESSION_ASIDE, &left);
		     at = left.start + left.len) {
			left.start = address_of(left.start);
			if (left.start < *start || left.offset == PARTLY ||
			    next_kept(space, 0, left.start, left.start + left.len, &there))
				continue;
			if (left.start < first.start)
				first = left;
			break;
		}
	}
	if (!first.len)
		return false;
	*start = first.start;
	*len = first.len;
	return true;
}

int session_stay(struct space *space, uint64_t start, uint64_t len)
{
	struct space_range any, stays = {.start = start, .len = len, .unit = system_page()};
	int err;

	if (!space_next(space, 0, &any))
		return 0;
	stays.source = any.source;
	err = space_insert(space, &stays, NULL);
	/* Tried again, or there is something all the same. */
	if (err && err != -EEXIST)
		return err;
	return err ? 0 : space_remove(space, start, len);
}

int session_all_told(struct space *space)
{
	return space_unmap(space, SESSION_ASIDE, DOUBT * SESSION_ASIDE);
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
