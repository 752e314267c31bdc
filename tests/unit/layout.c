// SPDX-License-Identifier: MIT
/* What layout events do to a space, in the orders in which the kernel may tell of them: session_apply(). */
#include "session/session.h"
#include "support/test.h"

#define EVENTS (UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)
#define PAGE   4096u
#define HERE   ((uint64_t)0x10000000)
#define THERE  ((uint64_t)0x20000000)
#define FAR    ((uint64_t)0x30000000)

static struct session_source one, two, child = {.inherited = true};

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
