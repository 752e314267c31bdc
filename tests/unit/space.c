// SPDX-License-Identifier: MIT
#include <errno.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "space/space.h"
#include "space/tree.h"
#include "support/test.h"

#define PAGE     4096ull
#define HUGE     0x200000ull
#define MANY     1000000u
#define SEARCHED 100000u

static char source;

static struct space *new_space(void)
{
	struct space *space = NULL;

	CHECK_EQ(space_new(&space), 0);
	return space;
}

static uint64_t insert_unit(struct space *space, uint64_t start, uint64_t len, uint64_t unit)
{
	struct space_range range = {.start = start, .len = len, .source = &source, .offset = start / 2, .unit = unit};
	uint64_t id = 0;

	CHECK_EQ(space_insert(space, &range, &id), 0);
	return id;
}

static uint64_t insert(struct space *space, uint64_t start, uint64_t pages)
{
	return insert_unit(space, start, pages * PAGE, PAGE);
}

static int try_insert(struct space *space, uint64_t start, uint64_t len, uint64_t offset, uint64_t unit)
{
	struct space_range range = {.start = start, .len = len, .offset = offset, .unit = unit};

	return space_insert(space, &range, NULL);
}

static struct space_range find(const struct space *space, uint64_t addr)
{
	struct space_range range;

	CHECK(space_find(space, addr, &range));
	return range;
}

static bool is_there(const struct space *space, uint64_t addr)
{
	struct space_range range;

	return space_find(space, addr, &range);
}

static _Atomic uint8_t *state_at(const struct space *space, uint64_t addr)
{
	struct space_range range = find(space, addr);

	return &range.state[(addr - range.start) / range.unit];
}

TEST(empty_space_has_nothing,
     "In a new space there is no range anywhere, and unmapping and removing nothing is no error.")
{
	struct space *space = new_space();
	struct space_range range;

	CHECK(!is_there(space, 0) && !is_there(space, UINT64_MAX) && !space_next(space, 0, &range));
	CHECK_EQ(space_ranges(space), 0);
	CHECK_EQ(space_unmap(space, 0, UINT64_MAX - PAGE + 1), 0);
	CHECK_EQ(space_remove(space, 0, UINT64_MAX - PAGE + 1), 0);
	CHECK_EQ(space_move(space, 0, PAGE, PAGE), 0);
	space_free(space);
	space_free(NULL);
}

TEST(range_is_found_as_inserted, "A search gives what was inserted, with an id of its own and all pages MISSING.")
{
	struct space *space = new_space();
	uint64_t first = insert(space, 8 * PAGE, 4), second = insert_unit(space, HUGE, 3 * HUGE, HUGE);
	struct space_range range = find(space, HUGE + 5);

	CHECK(first && second && first != second);
	CHECK(range.start == HUGE && range.len == 3 * HUGE && range.id == second && range.source == &source);
	CHECK(range.offset == HUGE / 2 && range.unit == HUGE);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(range.state[i], SPACE_MISSING);
	CHECK(!is_there(space, 8 * PAGE - 1) && is_there(space, 8 * PAGE));
	CHECK(is_there(space, 12 * PAGE - 1) && !is_there(space, 12 * PAGE));
	CHECK_EQ(space_ranges(space), 2);
	space_free(space);
}

TEST(next_is_the_first_that_ends_behind,
     "The next range is the one that the address lies in, or else the one above it.")
{
	struct space *space = new_space();
	struct space_range range;

	insert(space, 8 * PAGE, 4);
	insert(space, 12 * PAGE, 1);
	insert(space, 20 * PAGE, 1);
	CHECK(space_next(space, 0, &range) && range.start == 8 * PAGE);
	CHECK(space_next(space, 12 * PAGE - 1, &range) && range.start == 8 * PAGE);
	CHECK(space_next(space, 12 * PAGE, &range) && range.start == 12 * PAGE);
	CHECK(space_next(space, 13 * PAGE, &range) && range.start == 20 * PAGE);
	CHECK(!space_next(space, 21 * PAGE, &range));
	space_free(space);
}

TEST(what_lies_there_is_not_covered,
     "-EEXIST where the new range would touch one that is there, by as little as a page.")
{
	struct space *space = new_space();

	insert(space, 8 * PAGE, 4);
	CHECK_EQ(try_insert(space, 8 * PAGE, 4 * PAGE, 0, PAGE), -EEXIST);
	CHECK_EQ(try_insert(space, 0, 9 * PAGE, 0, PAGE), -EEXIST);
	CHECK_EQ(try_insert(space, 11 * PAGE, 9 * PAGE, 0, PAGE), -EEXIST);
	CHECK_EQ(try_insert(space, 0, 100 * PAGE, 0, PAGE), -EEXIST);
	CHECK_EQ(try_insert(space, 9 * PAGE, PAGE, 0, PAGE), -EEXIST);
	CHECK_EQ(try_insert(space, 0, 8 * PAGE, 0, PAGE), 0);
	CHECK_EQ(try_insert(space, 12 * PAGE, PAGE, 0, PAGE), 0);
	CHECK_EQ(space_ranges(space), 3);
	space_free(space);
}

TEST(unsound_ranges_are_refused, "-EINVAL: no length, no such unit, not aligned to it, or an end that cannot be told.")
{
	struct space *space = new_space();

	CHECK_EQ(try_insert(space, PAGE, 0, 0, PAGE), -EINVAL);
	CHECK_EQ(try_insert(space, PAGE, PAGE, 0, 0), -EINVAL);
	CHECK_EQ(try_insert(space, PAGE, PAGE, 0, 2048), -EINVAL);
	CHECK_EQ(try_insert(space, 3 * PAGE, 3 * PAGE, 0, 3 * PAGE), -EINVAL);
	CHECK_EQ(try_insert(space, PAGE + 1, PAGE, 0, PAGE), -EINVAL);
	CHECK_EQ(try_insert(space, PAGE, PAGE + 1, 0, PAGE), -EINVAL);
	CHECK_EQ(try_insert(space, PAGE, HUGE, 0, HUGE), -EINVAL);
	CHECK_EQ(try_insert(space, HUGE, HUGE + PAGE, 0, HUGE), -EINVAL);
	CHECK_EQ(try_insert(space, 0 - PAGE, PAGE, 0, PAGE), -EINVAL);
	CHECK_EQ(try_insert(space, 0 - PAGE, 2 * PAGE, 0, PAGE), -EINVAL);
	CHECK_EQ(try_insert(space, 0, PAGE, UINT64_MAX - PAGE + 1, PAGE), -EINVAL);
	CHECK_EQ(try_insert(space, 0, 1ull << 63, 0, 1ull << 63), 0);
	CHECK_EQ(try_insert(space, 0 - 2 * PAGE, PAGE, UINT64_MAX - PAGE, PAGE), 0);
	CHECK_EQ(space_ranges(space), 2);
	CHECK(is_there(space, 0 - PAGE - 1) && !is_there(space, 0 - PAGE));
	space_free(space);
}

TEST(unsound_areas_are_refused, "-EINVAL, and nothing has changed: no length, not aligned, an end that cannot be told.")
{
	static const uint64_t areas[][2] = {
		{0, 0}, {PAGE, PAGE - 1}, {PAGE + 8, PAGE}, {PAGE, 0 - PAGE}, {0 - PAGE, HUGE}};
	struct space *space = new_space();

	insert(space, 0, 16);
	for (size_t i = 0; i < sizeof(areas) / sizeof(*areas); i++) {
		CHECK_EQ(space_unmap(space, areas[i][0], areas[i][1]), -EINVAL);
		CHECK_EQ(space_remove(space, areas[i][0], areas[i][1]), -EINVAL);
		CHECK_EQ(space_move(space, areas[i][0], 1ull << 40, areas[i][1]), -EINVAL);
		CHECK_EQ(space_move(space, 1ull << 40, areas[i][0], areas[i][1]), -EINVAL);
	}
	CHECK_EQ(find(space, 0).len, 16 * PAGE);
	CHECK_EQ(*state_at(space, PAGE), SPACE_MISSING);
	space_free(space);
}

TEST(parts_keep_what_they_had,
     "What is left on both sides of a hole keeps its id, its states, and its place in the source.")
{
	struct space *space = new_space();
	uint64_t id = insert(space, 8 * PAGE, 8);
	struct space_range above, below;

	*state_at(space, 9 * PAGE) = SPACE_DIRTY;
	*state_at(space, 13 * PAGE) = SPACE_CLEAN | SPACE_SAVED;
	CHECK_EQ(space_unmap(space, 10 * PAGE, 2 * PAGE), 0);
	below = find(space, 8 * PAGE);
	above = find(space, 12 * PAGE);
	CHECK(below.len == 2 * PAGE && below.id == id && below.offset == 4 * PAGE && below.state[1] == SPACE_DIRTY);
	CHECK(above.len == 4 * PAGE && above.id == id && above.offset == 8 * PAGE && above.source == &source);
	CHECK_EQ(above.state[1], SPACE_CLEAN | SPACE_SAVED);
	CHECK(!is_there(space, 10 * PAGE) && !is_there(space, 12 * PAGE - 1));
	space_free(space);
}

TEST(unmap_passes_over_holes, "One unmap ends many ranges and parts of two others, whatever lies between them.")
{
	struct space *space = new_space();

	for (uint64_t i = 0; i < 100; i++)
		insert(space, 4 * i * PAGE, 2);
	CHECK_EQ(space_unmap(space, PAGE, 395 * PAGE + PAGE), 0);
	CHECK_EQ(space_ranges(space), 2);
	CHECK(find(space, 0).len == PAGE && find(space, 397 * PAGE).len == PAGE);
	CHECK_EQ(space_unmap(space, 0, UINT64_MAX - PAGE + 1), 0);
	CHECK_EQ(space_ranges(space), 0);
	space_free(space);
}

TEST(ids_are_never_used_again, "What comes to where something has gone has another id.")
{
	struct space *space = new_space();
	uint64_t last = 0;

	for (unsigned i = 0; i < 1000; i++) {
		uint64_t id = insert(space, PAGE, 4);

		CHECK(id > last);
		last = id;
		CHECK_EQ(space_unmap(space, PAGE, 4 * PAGE), 0);
	}
	space_free(space);
}

TEST(new_range_has_no_old_states, "All pages of a new range are MISSING, also where its states lie where others did.")
{
	struct space *space = new_space();

	for (unsigned i = 0; i < 1000; i++) {
		uint64_t pages = 1 + i * 7;

		insert(space, PAGE, pages);
		for (uint64_t page = 0; page < pages; page++) {
			_Atomic uint8_t *state = state_at(space, PAGE + page * PAGE);

			CHECK_EQ(*state, SPACE_MISSING);
			*state = 0xff;
		}
		CHECK_EQ(space_unmap(space, PAGE, pages * PAGE), 0);
	}
	space_free(space);
}

TEST(pages_are_not_cut,
     "-EINVAL where an area begins or ends within a page; pages that it has wholly may be larger than its alignment.")
{
	struct space *space = new_space();

	insert(space, HUGE - PAGE, 1);
	insert_unit(space, HUGE, 2 * HUGE, HUGE);
	CHECK_EQ(space_unmap(space, HUGE + PAGE, PAGE), -EINVAL);
	CHECK_EQ(space_remove(space, HUGE - PAGE, 2 * PAGE), -EINVAL);
	CHECK_EQ(*state_at(space, HUGE - PAGE), SPACE_MISSING);
	CHECK_EQ(space_move(space, HUGE - PAGE, 1ull << 40, 2 * PAGE), -EINVAL);
	CHECK_EQ(space_move(space, 1ull << 40, 3 * HUGE - PAGE, PAGE), -EINVAL);
	CHECK_EQ(space_ranges(space), 2);
	CHECK_EQ(space_remove(space, HUGE - PAGE, HUGE + PAGE), 0);
	CHECK(*state_at(space, HUGE - PAGE) == SPACE_REMOVED && *state_at(space, HUGE) == SPACE_REMOVED);
	CHECK_EQ(*state_at(space, 2 * HUGE), SPACE_MISSING);
	CHECK_EQ(space_unmap(space, HUGE - PAGE, HUGE + PAGE), 0);
	CHECK_EQ(find(space, 2 * HUGE).len, HUGE);
	space_free(space);
}

TEST(removed_pages_keep_only_the_pin, "Removed pages are REMOVED, and PINNED if they were, whatever else they were.")
{
	struct space *space = new_space();

	insert(space, 0, 258);
	for (unsigned i = 0; i < 256; i++)
		*state_at(space, (1 + i) * PAGE) = (uint8_t)i;
	CHECK_EQ(space_remove(space, PAGE, 256 * PAGE), 0);
	for (unsigned i = 0; i < 256; i++)
		CHECK_EQ(*state_at(space, (1 + i) * PAGE), SPACE_REMOVED | (i & SPACE_PINNED));
	CHECK(*state_at(space, 0) == SPACE_MISSING && *state_at(space, 257 * PAGE) == SPACE_MISSING);
	CHECK_EQ(space_ranges(space), 1);
	space_free(space);
}

/* What a byte of state is afterwards when these, of all that there are, begin again. */
static unsigned settled(unsigned state, unsigned begin_again)
{
	return begin_again & 1u << (state & SPACE_STATE) ? state & ~SPACE_STATE : state;
}

TEST(moved_pages_keep_their_states,
     "A moved page is as it was, but MISSING if somebody worked on it or it was RESTING.")
{
	const unsigned begin_again = 1u << SPACE_FILLING | 1u << SPACE_LEAVING | 1u << SPACE_RESTING;
	struct space *space = new_space();
	uint64_t to = 1ull << 40, id = insert(space, 0, 258);
	struct space_range range;

	for (unsigned i = 0; i < 256; i++)
		*state_at(space, (1 + i) * PAGE) = (uint8_t)i;
	CHECK_EQ(space_move(space, PAGE, to, 256 * PAGE), 0);
	range = find(space, to);
	CHECK(range.start == to && range.len == 256 * PAGE && range.id == id && range.offset == PAGE);
	for (unsigned i = 0; i < 256; i++)
		CHECK_EQ(range.state[i], settled(i, begin_again));
	CHECK_EQ(space_ranges(space), 3);
	CHECK(!is_there(space, PAGE) && !is_there(space, 256 * PAGE) && is_there(space, 257 * PAGE));
	space_free(space);
}

TEST(refined_units_become_pages, "Units that reach into the area become pages, each as all of it was, but MISSING if "
                                 "somebody worked on it; the rest stays.")
{
	const unsigned begin_again = 1u << SPACE_FILLING | 1u << SPACE_LEAVING | 1u << SPACE_RESTING;
	struct space *space = new_space();
	uint64_t unit = 16 * PAGE, id = insert_unit(space, 0, 258 * unit, unit), turn = find(space, 0).turn;
	struct space_range range;

	for (unsigned i = 0; i < 258; i++)
		*state_at(space, i * unit) = (uint8_t)(255 - i);
	CHECK_EQ(space_refine(space, unit + PAGE, 254 * unit, PAGE), 0);
	CHECK_EQ(space_ranges(space), 3);
	range = find(space, 0);
	CHECK(range.len == unit && range.unit == unit && range.turn == turn && range.state[0] == 255);
	range = find(space, unit);
	CHECK(range.start == unit && range.len == 255 * unit && range.unit == PAGE && range.id == id);
	CHECK(range.offset == unit && range.source == &source && range.turn != turn);
	for (unsigned i = 0; i < 255 * 16; i++)
		CHECK_EQ(range.state[i], settled(254 - i / 16, begin_again));
	range = find(space, 256 * unit);
	CHECK(range.len == 2 * unit && range.unit == unit && range.turn == turn && range.state[0] == 255);
	CHECK_EQ(space_remove(space, 2 * unit + PAGE, PAGE), 0);
	CHECK_EQ(*state_at(space, 2 * unit) & SPACE_STATE, SPACE_MISSING);
	CHECK_EQ(*state_at(space, 2 * unit + PAGE) & SPACE_STATE, SPACE_REMOVED);
	CHECK_EQ(*state_at(space, 2 * unit + 2 * PAGE) & SPACE_STATE, SPACE_MISSING);
	CHECK_EQ(space_refine(space, 0, 258 * unit, PAGE / 2), -EINVAL);
	CHECK_EQ(space_refine(space, unit, unit, PAGE), 0);
	CHECK_EQ(space_ranges(space), 3);
	space_free(space);
}

TEST(present_bytes_are_counted, "What is CLEAN or DIRTY is present, as far as it lies in the area.")
{
	struct space *space = new_space();

	insert(space, 0, 64);
	insert_unit(space, 64 * PAGE, 64 * PAGE, 4 * PAGE);
	for (unsigned i = 0; i < 64; i++)
		*state_at(space, i * PAGE) = (uint8_t)(i % 8);
	*state_at(space, 64 * PAGE) = SPACE_DIRTY;
	*state_at(space, 68 * PAGE) = SPACE_CLEAN | SPACE_ACTIVE;
	CHECK_EQ(space_present(space, 0, UINT64_MAX), (16 + 8) * PAGE);
	CHECK_EQ(space_present(space, 3 * PAGE, 66 * PAGE), (15 + 2) * PAGE);
	CHECK_EQ(space_present(space, 66 * PAGE, 69 * PAGE), 3 * PAGE);
	CHECK_EQ(space_present(space, 72 * PAGE, 90 * PAGE), 0);
	space_free(space);
}

TEST(move_ends_what_lay_there, "What lay at the destination ends, also where nothing comes to.")
{
	struct space *space = new_space();
	uint64_t moved = insert(space, 2 * PAGE, 2), kept = insert(space, 100 * PAGE, 10);

	CHECK_EQ(space_move(space, 0, 102 * PAGE, 6 * PAGE), 0);
	CHECK(find(space, 101 * PAGE).id == kept && find(space, 108 * PAGE).id == kept);
	CHECK(!is_there(space, 102 * PAGE) && !is_there(space, 107 * PAGE) && !is_there(space, 2 * PAGE));
	CHECK_EQ(find(space, 104 * PAGE).id, moved);
	CHECK_EQ(space_ranges(space), 3);
	space_free(space);
}

TEST(move_within_a_range, "A part of a range may go over another part of it; but not over itself.")
{
	struct space *space = new_space();

	insert(space, 0, 10);
	*state_at(space, PAGE) = SPACE_DIRTY;
	CHECK_EQ(space_move(space, PAGE, 2 * PAGE, 2 * PAGE), -EINVAL);
	CHECK_EQ(space_move(space, 2 * PAGE, PAGE, 2 * PAGE), -EINVAL);
	CHECK_EQ(space_move(space, PAGE, PAGE, PAGE), -EINVAL);
	CHECK_EQ(space_ranges(space), 1);
	CHECK_EQ(space_move(space, PAGE, 7 * PAGE, PAGE), 0);
	CHECK_EQ(space_ranges(space), 4);
	CHECK(*state_at(space, 7 * PAGE) == SPACE_DIRTY && find(space, 7 * PAGE).offset == PAGE);
	CHECK(find(space, 8 * PAGE).offset == 8 * PAGE && !is_there(space, PAGE));
	space_free(space);
}

TEST(huge_pages_move_by_huge_pages, "-EINVAL where the distance is no multiple of the unit of a range that goes.")
{
	struct space *space = new_space();

	insert_unit(space, HUGE, HUGE, HUGE);
	CHECK_EQ(space_move(space, HUGE - PAGE, 1ull << 40, HUGE + PAGE), -EINVAL);
	CHECK_EQ(find(space, HUGE).start, HUGE);
	CHECK_EQ(space_move(space, HUGE - PAGE, (1ull << 40) - PAGE, HUGE + PAGE), 0);
	CHECK_EQ(find(space, 1ull << 40).len, HUGE);
	space_free(space);
}

#ifndef __SANITIZE_THREAD__ /* it makes system calls of its own, */
/* Searches, where the kernel ends the process for any call but read, write and exit. */
static void search_in_strict_mode(const struct space *space)
{
	struct space_range range;
	long found = 0;

	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
		raw_syscall3(SYS_exit, 77, 0, 0);
	for (uint64_t addr = 0; addr < 4000 * PAGE; addr += PAGE / 2)
		found += space_find(space, addr, &range) + space_next(space, addr, &range);
	raw_syscall3(SYS_exit, found != 2000 * 2 + 8000 - 2, 0, 0);
}

TEST(search_makes_no_system_call, "A search calls nothing, so it can be made in a signal handler.")
{
	struct space *space = new_space();
	pid_t child;
	int status;

	for (uint64_t i = 0; i < 2000; i++)
		insert(space, 2 * i * PAGE, 1);
	child = fork();
	if (!child)
		search_in_strict_mode(space);
	CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		SKIP("seccomp is not to be had here");
	CHECK_EQ(WEXITSTATUS(status), 0);
	space_free(space);
}

#endif

static _Atomic bool finished;

static void *touch_states(void *arg)
{
	struct space *space = arg;

	while (!finished)
		for (uint64_t i = 0; i < 64; i++)
			atomic_fetch_xor(state_at(space, i * PAGE), SPACE_ACTIVE);
	return NULL;
}

TEST(states_change_while_others_search, "Pages are removed while others change the states of the same pages.")
{
	struct space *space = new_space();
	pthread_t thread;

	insert(space, 0, 64);
	for (uint64_t i = 0; i < 64; i++)
		*state_at(space, i * PAGE) = SPACE_CLEAN | SPACE_PINNED;
	CHECK_EQ(pthread_create(&thread, NULL, touch_states, space), 0);
	for (unsigned i = 0; i < 1000; i++)
		CHECK_EQ(space_remove(space, 0, 64 * PAGE), 0);
	finished = true;
	pthread_join(thread, NULL);
	for (uint64_t i = 0; i < 64; i++)
		CHECK_EQ(*state_at(space, i * PAGE) & ~SPACE_ACTIVE, SPACE_REMOVED | SPACE_PINNED);
	space_free(space);
}

/* Pages of address space that this process has, and of memory. */
static void own_pages(size_t *mapped, size_t *resident)
{
	FILE *statm = fopen("/proc/self/statm", "r");

	CHECK(statm && fscanf(statm, "%zu %zu", mapped, resident) == 2);
	fclose(statm);
}

static void allow_more_memory(bool allowed)
{
	struct rlimit limit;
	size_t mapped, resident;

	own_pages(&mapped, &resident);
	CHECK_EQ(getrlimit(RLIMIT_AS, &limit), 0);
	limit.rlim_cur = allowed ? limit.rlim_max : mapped * page_size;
	CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
}

TEST(no_memory_changes_nothing,
     "-ENOMEM from each of them leaves all as it was; a range that ends or shrinks needs no memory.")
{
	unsigned refused[3] = {0};

	for (unsigned ranges = 3; ranges < 200; ranges++) {
		struct space *space = new_space();
		int err[5];

		for (uint64_t i = 0; i < ranges; i++)
			insert(space, 4 * i * PAGE, 3);
		allow_more_memory(false);
		err[0] = try_insert(space, 1ull << 40, 5000 * PAGE, 0, PAGE);
		err[1] = space_unmap(space, PAGE, PAGE);
		err[2] = space_move(space, 5 * PAGE, 1ull << 41, PAGE);
		err[3] = space_unmap(space, 2 * PAGE, PAGE);
		err[4] = space_unmap(space, 4 * (ranges - 1) * PAGE, PAGE);
		allow_more_memory(true);
		for (unsigned i = 0; i < 3; i++) {
			CHECK(!err[i] || err[i] == -ENOMEM);
			refused[i] += !!err[i];
		}
		CHECK(err[0] && !err[3] && !err[4] && !is_there(space, 1ull << 40));
		CHECK(is_there(space, PAGE) == !!err[1] && is_there(space, 5 * PAGE) == !!err[2]);
		CHECK_EQ(space_ranges(space), ranges + !err[1] + 2 * !err[2] - (!err[1] ? 1 : 0));
		space_free(space);
	}
	CHECK(refused[0] && refused[1] && refused[2]);
}

/* Checks order and priorities; the greatest depth, and the sum of all. */
static unsigned walk(const struct space_tree *tree, uint64_t *sum)
{
	static struct {
		uint32_t node;
		unsigned depth;
	} stack[1024];
	unsigned deepest = 0, top = 0;
	uint32_t seen = 0;

	for (stack[top].node = tree->root, stack[top++].depth = 1; top;) {
		unsigned depth = stack[--top].depth;
		const struct space_node *node = &tree->nodes[stack[top].node];

		seen++;
		*sum += depth;
		deepest = depth > deepest ? depth : deepest;
		for (unsigned i = 0; i < 2; i++) {
			const struct space_node *child = &tree->nodes[node->child[i]];

			if (!node->child[i])
				continue;
			CHECK(child->priority <= node->priority && (child->range.start > node->range.start) == i);
			CHECK(top < 1000);
			stack[top].node = node->child[i];
			stack[top++].depth = depth + 1;
		}
	}
	CHECK_EQ(seen, tree->count);
	return deepest;
}

static void check_depth(const struct space_tree *tree)
{
	uint64_t sum = 0;
	unsigned deepest = walk(tree, &sum);

	printf("# %u ranges: depth %u, %.1f on average\n", tree->count, deepest, (double)sum / tree->count);
	/* log2(SEARCHED) is 17. */
	CHECK(deepest <= 4 * 17 && sum / tree->count <= 2 * 17);
}

static void add_many(struct space_tree *tree, uint64_t factor, uint64_t shift)
{
	for (uint64_t i = 0; i < SEARCHED; i++) {
		struct space_range range = {
			.start = (i * factor + shift) % SEARCHED * 2 * PAGE, .len = PAGE, .unit = PAGE};

		CHECK_EQ(space_tree_reserve(tree, 1), 0);
		space_tree_add(tree, &range);
	}
}

TEST(a_search_is_short, "Among 100,000 ranges a search looks at no more than 68, in whatever order they came and went.")
{
	static const uint64_t orders[] = {1, 61803};

	for (unsigned i = 0; i < sizeof(orders) / sizeof(*orders); i++) {
		struct space_tree tree = {0};

		add_many(&tree, orders[i], SEARCHED - 1);
		check_depth(&tree);
		/* A half goes, and as many come above. */
		for (uint64_t j = 0; tree.count > SEARCHED / 2; j++)
			space_tree_remove(&tree, 1 + (uint32_t)(j * 7919 % tree.count));
		check_depth(&tree);
		for (uint64_t j = SEARCHED; tree.count < SEARCHED; j++) {
			struct space_range range = {.start = j * 2 * PAGE, .len = PAGE, .unit = PAGE};

			CHECK_EQ(space_tree_reserve(&tree, 1), 0);
			space_tree_add(&tree, &range);
		}
		check_depth(&tree);
		space_tree_free(&tree);
	}
}

TEST(memory_is_a_byte_a_page, "1,000,000 ranges take a constant each and a byte a page; what they took goes with them.")
{
	struct space *space = new_space();
	size_t empty = space_memory(space);

	for (uint64_t i = 0; i < MANY; i++)
		insert(space, i * 4 * PAGE, 3);
	CHECK(space_memory(space) <= 3 * MANY + MANY * 200 + empty);
	for (uint64_t i = 0; i < MANY; i++)
		if (i % 1000)
			CHECK_EQ(space_unmap(space, i * 4 * PAGE, 3 * PAGE), 0);
	CHECK(space_memory(space) <= MANY / 1000 * (page_size + 400) + empty);
	CHECK_EQ(space_unmap(space, 0, 1ull << 62), 0);
	CHECK(space_memory(space) <= empty + page_size);
	space_free(space);
}

#ifndef __SANITIZE_THREAD__ /* and notes every look at a byte in memory of its own */
TEST(untouched_states_take_no_memory, "A range of 16 TiB costs nothing as long as no state in it changes.")
{
	struct space *space = new_space();
	size_t mapped, before, after;

	own_pages(&mapped, &before);
	insert(space, 1ull << 44, 1ull << 32);
	*state_at(space, (1ull << 44) + (1ull << 43)) = SPACE_CLEAN;
	own_pages(&mapped, &after);
	CHECK((after - before) * page_size <= 8 << 20);
	space_free(space);
}

#endif

TEST(states_beside_a_hole_stay, "Whatever part of a long range ends, the states of the rest are as they were.")
{
	uint64_t pages = 5 * page_size;

	for (uint64_t below = page_size - 40; below <= page_size; below += 4)
		for (uint64_t above = 3 * page_size - 40; above <= 3 * page_size; above += 4) {
			struct space *space = new_space();
			_Atomic uint8_t *state;

			insert(space, 0, pages);
			state = state_at(space, 0);
			for (uint64_t i = 0; i < pages; i++)
				state[i] = SPACE_DIRTY;
			CHECK_EQ(space_unmap(space, below * PAGE, (above - below) * PAGE), 0);
			state = state_at(space, 0);
			for (uint64_t i = 0; i < below; i++)
				CHECK(state[i] == SPACE_DIRTY);
			state = state_at(space, above * PAGE);
			for (uint64_t i = 0; i < pages - above; i++)
				CHECK(state[i] == SPACE_DIRTY);
			space_free(space);
		}
}

TEST(states_that_end_are_given_back,
     "What is left of a range that was taken away page by page takes what it needs, not what the whole did.")
{
	struct space *space = new_space();
	uint64_t pages = 1u << 18;

	insert(space, 0, pages);
	for (uint64_t i = 0; i < pages; i++)
		*state_at(space, i * PAGE) = SPACE_DIRTY;
	CHECK(space_memory(space) > pages);
	for (uint64_t i = 0; i < pages; i++)
		if (i % (pages / 4) != 5)
			CHECK_EQ(space_unmap(space, (i * 7919 + 5) % pages * PAGE, PAGE), 0);
	CHECK(space_memory(space) <= pages / 2048 + 20 * page_size);
	space_free(space);
}
