// SPDX-License-Identifier: MIT
/* What layout events do to a space, in the orders in which the kernel may tell of them: session_apply(). */
#include "session/session.h"
#include "support/test.h"

#define EVENTS (UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)
#define PAGE   4096u
#define HERE   ((uint64_t)0x10000000)
#define THERE  ((uint64_t)0x20000000)
#define FAR    ((uint64_t)0x30000000)
#define ELSE   ((uint64_t)0x40000000)

static struct session_source one, two, three, child = {.inherited = true};

static struct space *make(void)
{
	struct space *space;

	CHECK_EQ(space_new(&space), 0);
	return space;
}

static void lay(struct space *space, uint64_t addr, unsigned pages, struct session_source *source, uint64_t offset)
{
	struct space_range range = {
		.start = addr, .len = pages * PAGE, .source = source, .offset = offset, .unit = PAGE};

	CHECK_EQ(space_insert(space, &range, NULL), 0);
}

static void moved(struct space *space, uint64_t from, uint64_t to, unsigned pages)
{
	struct uffd_msg msg = {.event = UFFD_EVENT_REMAP};

	msg.arg.remap.from = from;
	msg.arg.remap.to = to;
	msg.arg.remap.len = pages * PAGE;
	CHECK_EQ(session_apply(space, &msg, EVENTS), 0);
}

static void told(struct space *space, uint8_t event, uint64_t start, unsigned pages)
{
	struct uffd_msg msg = {.event = event};

	msg.arg.remove.start = start;
	msg.arg.remove.end = start + pages * PAGE;
	CHECK_EQ(session_apply(space, &msg, EVENTS), 0);
}

/* What a page's content is: its source and offset; NULL: nothing lies there. */
static void expect(const struct space *space, uint64_t addr, const struct session_source *source, uint64_t offset)
{
	struct space_range range;
	bool found = space_find(space, addr, &range);

	CHECK_EQ(found, source != NULL);
	if (!found)
		return;
	CHECK(range.source == source);
	CHECK_EQ(offset_at(&range, addr), offset);
}

TEST(arrival_told_before_departure,
     "What arrives where another was keeps its pages, and so does the other, wherever it went.")
{
	struct space *space = make();

	lay(space, HERE, 4, &one, 0);
	lay(space, THERE, 4, &two, 0);
	/* One thread: HERE -> FAR. Another: THERE -> HERE, and its event comes first. */
	moved(space, THERE, HERE, 4);
	expect(space, HERE, &two, 0);
	moved(space, HERE, FAR, 4);
	for (unsigned i = 0; i < 4; i++) {
		expect(space, HERE + i * PAGE, &two, i * PAGE);
		expect(space, FAR + i * PAGE, &one, i * PAGE);
	}
	expect(space, THERE, NULL, 0);
	space_free(space);
}

TEST(arrival_told_before_an_unmap, "What arrives where another was unmapped is not unmapped when that is told.")
{
	struct space *space = make();

	lay(space, HERE, 8, &one, 0);
	lay(space, THERE, 4, &two, 0);
	moved(space, THERE, HERE + 2 * PAGE, 4);
	told(space, UFFD_EVENT_UNMAP, HERE, 8);
	expect(space, HERE, NULL, 0);
	expect(space, HERE + PAGE, NULL, 0);
	for (unsigned i = 0; i < 4; i++)
		expect(space, HERE + (2 + i) * PAGE, &two, i * PAGE);
	expect(space, HERE + 6 * PAGE, NULL, 0);
	told(space, UFFD_EVENT_UNMAP, THERE, 4);
	/* And nothing is left of what was kept aside. */
	told(space, UFFD_EVENT_UNMAP, HERE, 8);
	CHECK_EQ(space_ranges(space), 0);
	space_free(space);
}

TEST(a_part_of_what_arrived_departs, "An event that tells of a part of what was there is of what has arrived since.")
{
	struct space *space = make();

	lay(space, HERE, 4, &one, 0);
	lay(space, THERE, 4, &two, 0);
	moved(space, THERE, HERE, 4);
	moved(space, HERE + PAGE, FAR + PAGE, 1);
	expect(space, FAR + PAGE, &two, PAGE);
	told(space, UFFD_EVENT_REMOVE, HERE, 1);
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	expect(space, HERE, &two, 0);
	expect(space, HERE + PAGE, NULL, 0);
	expect(space, HERE + 2 * PAGE, &two, 2 * PAGE);
	space_free(space);
}

TEST(a_move_is_told_twice,
     "What arrives where something has moved away stays, when it is told that the old place of that was unmapped.")
{
	struct space *space = make();

	lay(space, HERE, 4, &one, 0);
	lay(space, THERE, 4, &two, 0);
	moved(space, HERE, FAR, 4);
	/* Another thread, and its own unmap. */
	moved(space, THERE, HERE, 4);
	told(space, UFFD_EVENT_UNMAP, THERE, 4);
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	for (unsigned i = 0; i < 4; i++) {
		expect(space, HERE + i * PAGE, &two, i * PAGE);
		expect(space, FAR + i * PAGE, &one, i * PAGE);
	}
	/* That was all of it: the next is of what is there. */
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	expect(space, HERE, NULL, 0);
	CHECK_EQ(space_ranges(space), 1);
	space_free(space);
}

TEST(an_old_place_is_told_in_parts, "An unmap may be told for each of the mappings that were there.")
{
	struct space *space = make();

	lay(space, HERE, 4, &one, 0);
	lay(space, THERE, 2, &two, 0);
	moved(space, HERE, FAR, 4);
	moved(space, THERE, HERE, 2);
	told(space, UFFD_EVENT_UNMAP, HERE, 1);
	told(space, UFFD_EVENT_UNMAP, HERE + PAGE, 3);
	expect(space, HERE, &two, 0);
	expect(space, HERE + PAGE, &two, PAGE);
	space_free(space);
}

TEST(a_child_is_not_told,
     "What a child has from its parent ends where something arrives: nobody will tell of its departure.")
{
	struct space *space = make();

	lay(space, HERE, 4, &child, 0);
	lay(space, THERE, 4, &two, 0);
	moved(space, THERE, HERE, 4);
	moved(space, HERE, FAR, 4);
	told(space, UFFD_EVENT_UNMAP, THERE, 4);
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	expect(space, HERE, NULL, 0);
	expect(space, FAR, &two, 0);
	CHECK_EQ(space_ranges(space), 1);
	space_free(space);
}

TEST(chains, "Three that move on to each other's places, told of in the opposite order.")
{
	struct space *space = make();

	lay(space, HERE, 4, &one, 0);
	lay(space, THERE, 4, &two, 0);
	lay(space, FAR, 4, &child, 64 * PAGE);
	child.inherited = false;
	/* In truth: one leaves HERE for a place of its own, two goes HERE, and the third goes THERE. */
	moved(space, FAR, THERE, 4);
	moved(space, THERE, HERE, 4);
	moved(space, HERE, FAR, 4);
	expect(space, THERE, &child, 64 * PAGE);
	expect(space, HERE, &two, 0);
	expect(space, FAR, &one, 0);
	space_free(space);
}

/* One has gone from HERE, of which nothing is told, and another has come there, of which all is. */
static struct space *replaced(void)
{
	struct space *space = make();

	lay(space, HERE, 4, &one, 0);
	lay(space, THERE, 4, &two, 0);
	moved(space, THERE, HERE, 4);
	told(space, UFFD_EVENT_UNMAP, THERE, 4);
	return space;
}

/* What was lost: another's content is never taken for it, and no store has it. */
static void expect_lost(const struct space *space, uint64_t addr, unsigned pages)
{
	for (unsigned i = 0; i < pages; i++) {
		struct space_range range;

		CHECK(space_find(space, addr + i * PAGE, &range));
		CHECK(offset_at(&range, addr + i * PAGE) > (uint64_t)1 << 60);
	}
}

static void expect_all(const struct space *space, uint64_t addr, unsigned pages, const struct session_source *source)
{
	for (unsigned i = 0; i < pages; i++)
		expect(space, addr + i * PAGE, source, source ? i * PAGE : 0);
}

static void all_told(struct space *space)
{
	CHECK_EQ(session_all_told(space), 0);
	CHECK(!session_is_owed(space));
}

TEST(newcomer_that_departs_too, "Two that departed from one place, told of in an order that nobody knows, are lost, "
                                "and not taken for one another.")
{
	struct space *space = make();

	lay(space, HERE, 4, &one, 0);
	lay(space, THERE, 4, &two, 0);
	/* One thread: HERE -> FAR, told of last. Another: THERE -> HERE -> ELSE. Or the other way round. */
	moved(space, THERE, HERE, 4);
	told(space, UFFD_EVENT_UNMAP, THERE, 4);
	moved(space, HERE, ELSE, 4);
	expect_all(space, ELSE, 4, &one);
	CHECK(session_in_doubt(space));
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	moved(space, HERE, FAR, 4);
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	expect_lost(space, ELSE, 4);
	expect_lost(space, FAR, 4);
	expect_all(space, HERE, 4, NULL);
	all_told(space);
	expect_lost(space, ELSE, 4);
	space_free(space);
}

TEST(doubt_follows, "What is in doubt is lost wherever it is by then.")
{
	struct space *space = replaced();

	moved(space, HERE, ELSE, 4);
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	moved(space, ELSE, THERE, 4);
	told(space, UFFD_EVENT_UNMAP, ELSE, 4);
	/* Another lies there now, of which there is no doubt. */
	lay(space, ELSE, 4, &two, 0);
	moved(space, HERE, FAR, 4);
	expect_lost(space, THERE, 4);
	expect_lost(space, FAR, 4);
	expect_all(space, ELSE, 4, &two);
	space_free(space);
}

TEST(doubt_ends, "Once all has been told, the one that departed was the oldest, and nothing is lost.")
{
	struct space *space = replaced();

	moved(space, HERE, ELSE, 4);
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	all_told(space);
	moved(space, HERE, FAR, 4);
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	expect_all(space, ELSE, 4, &one);
	expect_all(space, FAR, 4, &two);
	expect_all(space, HERE, 4, NULL);
	space_free(space);
}

TEST(arriving_is_not_departing, "What has not come yet, as its old place tells, cannot have gone: there is no doubt.")
{
	struct space *space = make();

	lay(space, HERE, 4, &one, 0);
	lay(space, THERE, 4, &two, 0);
	moved(space, THERE, HERE, 4);
	moved(space, HERE, ELSE, 4);
	CHECK(!session_in_doubt(space));
	told(space, UFFD_EVENT_UNMAP, THERE, 4);
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	moved(space, HERE, FAR, 4);
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	expect_all(space, ELSE, 4, &one);
	expect_all(space, FAR, 4, &two);
	CHECK(!session_is_owed(space));
	space_free(space);
}

TEST(unmapped_in_doubt, "Of two departures one of which is an end, what moved is lost; of two ends nothing is left.")
{
	for (unsigned ends = 1; ends <= 2; ends++) {
		struct space *space = make();

		lay(space, HERE, 4, &one, 0);
		lay(space, THERE, 4, &two, 0);
		moved(space, THERE, HERE, 4);
		told(space, UFFD_EVENT_UNMAP, THERE, 4);
		told(space, UFFD_EVENT_UNMAP, HERE, 4);
		expect_all(space, HERE, 4, &two);
		if (ends == 2) {
			told(space, UFFD_EVENT_UNMAP, HERE, 4);
		} else {
			moved(space, HERE, FAR, 4);
			expect_lost(space, FAR, 4);
			told(space, UFFD_EVENT_UNMAP, HERE, 4);
		}
		expect_all(space, HERE, 4, NULL);
		all_told(space);
		space_free(space);
	}
}

TEST(three_at_one_place, "Each that departed from a place untold is kept, whatever came after; in order, or lost.")
{
	struct space *space = make();

	lay(space, HERE, 4, &one, 0);
	lay(space, THERE, 4, &two, 0);
	lay(space, FAR, 4, &three, 0);
	/* The first and the second have gone, and neither was told of. */
	moved(space, THERE, HERE, 4);
	told(space, UFFD_EVENT_UNMAP, THERE, 4);
	moved(space, FAR, HERE, 4);
	told(space, UFFD_EVENT_UNMAP, FAR, 4);
	expect_all(space, HERE, 4, &three);
	moved(space, HERE, ELSE, 4);
	moved(space, HERE, FAR, 4);
	expect_lost(space, ELSE, 4);
	expect_lost(space, FAR, 4);
	/* Which of the three is there still, nobody knows either. */
	expect_lost(space, HERE, 4);
	space_free(space);
}

TEST(left_twice,
     "A place that is left again before the unmap of the first time is told is owed two: a newcomer is not theirs.")
{
	struct space *space = make();

	lay(space, HERE, 4, &one, 0);
	lay(space, THERE, 4, &two, 0);
	lay(space, ELSE, 4, &three, 0);
	moved(space, HERE, FAR, 4);
	moved(space, THERE, HERE, 4);
	told(space, UFFD_EVENT_UNMAP, THERE, 4);
	moved(space, HERE, THERE, 4);
	moved(space, ELSE, HERE, 4);
	told(space, UFFD_EVENT_UNMAP, ELSE, 4);
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	expect_all(space, FAR, 4, &one);
	expect_all(space, THERE, 4, &two);
	expect_all(space, HERE, 4, &three);
	CHECK(!session_is_owed(space));
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	expect_all(space, HERE, 4, NULL);
	space_free(space);
}

TEST(newcomer_unmapped_in_part,
     "Where it cannot be told whether a part of a newcomer was unmapped, or of the place before it, it is lost.")
{
	struct space *space = make();
	uint64_t start = 0, len = 0;

	lay(space, HERE, 4, &one, 0);
	lay(space, THERE, 4, &two, 0);
	moved(space, HERE, FAR, 4);
	moved(space, THERE, HERE, 4);
	told(space, UFFD_EVENT_UNMAP, THERE, 4);
	told(space, UFFD_EVENT_UNMAP, HERE, 1);
	expect_lost(space, HERE, 1);
	expect(space, HERE + PAGE, &two, PAGE);
	/* More than what is left of the place: of what lies around as well. */
	lay(space, HERE + 4 * PAGE, 1, &three, 0);
	told(space, UFFD_EVENT_UNMAP, HERE, 5);
	for (unsigned i = 0; i < 5; i++)
		expect(space, HERE + i * PAGE, NULL, 0);
	/* Of a place of which a part was told nobody knows that it stays. */
	CHECK(!session_next_stay(space, &start, &len));
	all_told(space);
	expect_all(space, HERE, 4, NULL);
	space_free(space);
}

TEST(old_place_stays,
     "A place that was left, and is not unmapped, once all is told, is there still, and empty (MREMAP_DONTUNMAP).")
{
	struct space *space = make();
	uint64_t start = 0, len = 0;
	struct space_range range;

	lay(space, HERE, 4, &one, 0);
	lay(space, THERE, 4, &two, 0);
	moved(space, THERE, ELSE, 4);
	told(space, UFFD_EVENT_UNMAP, THERE, 4);
	CHECK(!session_next_stay(space, &start, &len));
	moved(space, HERE, FAR, 4);
	CHECK(session_is_owed(space));
	expect_all(space, HERE, 4, NULL);
	CHECK(session_next_stay(space, &start, &len));
	CHECK(start == HERE && len == 4 * PAGE);
	CHECK_EQ(session_stay(space, start, len), 0);
	all_told(space);
	for (unsigned i = 0; i < 4; i++) {
		CHECK(space_find(space, HERE + i * PAGE, &range));
		CHECK_EQ(page_state(atomic_load(state_at(&range, HERE + i * PAGE))), SPACE_REMOVED);
		expect(space, FAR + i * PAGE, &one, i * PAGE);
	}
	told(space, UFFD_EVENT_UNMAP, HERE, 4);
	expect_all(space, HERE, 4, NULL);
	expect_all(space, FAR, 4, &one);
	space_free(space);
}
