// SPDX-License-Identifier: MIT
/*
 * Random operations on a space, against a model that keeps what lies at each 4096 bytes of a window.
 *
 * SPACE_SEED=N does the same again, SPACE_COUNT=N for so many operations.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>

#include "space/space.h"
#include "support/test.h"

#define CELL 4096u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LESS(count) ((count) / 4)
#else
#define LESS(count) (count)
#endif

struct cell {
	uint32_t piece; /* the same for all of one range, and for no other in its space; 0: nothing lies there */
	uint32_t unit;  /* in cells; the state is the same for all of a page */
	uint64_t id, offset;
	void *source;
	uint8_t state;
};

struct world {
	struct space *space;
	struct cell *cells;
	uint64_t last_id;
};

enum kind { INSERT, UNMAP, REMOVE, MOVE, KINDS };

struct operation {
	enum kind kind;
	size_t at, to, cells;
	uint64_t start, len; /* as they are passed: not always what `at` and `cells` say */
	struct space_range range;
};

static struct {
	uint64_t seed, random, operation;
	uint64_t base;
	size_t cells, longest; /* of the window; and of what is done something to */
	uint32_t pieces;
	bool starve;
	uint64_t done[KINDS], starved[KINDS];
	size_t most; /* ranges that there were at once */
	struct world world;
} run;

#define WRONG(format, ...)                                                      \
	FAIL("SPACE_SEED=%" PRIu64 " operation %" PRIu64 ": " format, run.seed, \
	     run.operation __VA_OPT__(, ) __VA_ARGS__)
#define HOLDS(condition)                         \
	do {                                     \
		if (!(condition))                \
			WRONG("%s", #condition); \
	} while (0)

static uint64_t below(uint64_t limit)
{
	run.random ^= run.random << 13;
	run.random ^= run.random >> 7;
	run.random ^= run.random << 17;
	return (run.random >> 11) % limit;
}

static bool one_in(uint64_t n)
{
	return !below(n);
}

static uint64_t address(size_t cell)
{
	return run.base + cell * CELL;
}

static void check_cell(const struct world *world, size_t i)
{
	const struct cell *cell = &world->cells[i];
	uint64_t addr = address(i) + below(CELL);
	struct space_range found, next;

	if (!cell->piece) {
		HOLDS(!space_find(world->space, addr, &found));
		return;
	}
	HOLDS(space_find(world->space, addr, &found));
	HOLDS(space_next(world->space, addr, &next) && !memcmp(&found, &next, sizeof(next)));
	HOLDS(found.start <= addr && addr - found.start < found.len);
	HOLDS(found.id == cell->id && found.source == cell->source && found.unit == (uint64_t)cell->unit * CELL);
	HOLDS(found.offset + (address(i) - found.start) == cell->offset);
	HOLDS(found.state[(addr - found.start) / found.unit] == cell->state);
}

/* One range: returns the cell behind it. */
static size_t check_piece(const struct world *world, size_t first)
{
	const struct cell *cell = &world->cells[first];
	size_t end = first;
	struct space_range range;

	HOLDS(space_next(world->space, first ? address(first) - 1 : 0, &range) || !first);
	HOLDS(space_next(world->space, address(first), &range));
	while (end < run.cells && world->cells[end].piece == cell->piece)
		end++;
	HOLDS(range.start == address(first) && range.len == (end - first) * CELL);
	HOLDS(range.id == cell->id && range.source == cell->source && range.offset == cell->offset);
	HOLDS(range.unit == (uint64_t)cell->unit * CELL);
	for (size_t i = first; i < end; i += cell->unit)
		HOLDS(range.state[(i - first) / cell->unit] == world->cells[i].state);
	return end;
}

static void check_all(const struct world *world)
{
	size_t i = 0, ranges = 0, pages = 0;
	struct space_range range;

	while (i < run.cells) {
		size_t first = i;

		if (!world->cells[i].piece) {
			i++;
			continue;
		}
		i = check_piece(world, i);
		ranges++;
		pages += (i - first) / world->cells[first].unit;
		/* The next range is the next that the model has. */
		for (first = i; first < run.cells && !world->cells[first].piece; first++)
			;
		if (first < run.cells)
			HOLDS(space_next(world->space, address(i), &range) && range.start == address(first));
		else
			HOLDS(!space_next(world->space, address(i - 1) + CELL - 1, &range) ||
			      range.start <= address(i - 1));
	}
	HOLDS(space_ranges(world->space) == ranges);
	HOLDS(space_memory(world->space) <= pages + ranges * (4 * page_size + 400) + 4 * page_size);
}

static void cut(struct world *world, size_t i)
{
	struct cell *cells = world->cells;
	uint32_t piece = i && i < run.cells ? cells[i].piece : 0;

	if (!piece || cells[i - 1].piece != piece)
		return;
	run.pieces++;
	for (; i < run.cells && cells[i].piece == piece; i++)
		cells[i].piece = run.pieces;
}

static void clear(struct world *world, size_t at, size_t cells)
{
	cut(world, at);
	cut(world, at + cells);
	memset(&world->cells[at], 0, cells * sizeof(struct cell));
}

static bool state_is(uint8_t state, unsigned a, unsigned b, unsigned c)
{
	unsigned page = state & SPACE_STATE;

	return page == a || page == b || page == c;
}

static bool is_area(const struct operation *op)
{
	return op->cells && op->start % CELL == 0 && op->len % CELL == 0 && op->start + op->len > op->start;
}

static bool cuts_page(const struct world *world, size_t i)
{
	return i < run.cells && world->cells[i].piece && i % world->cells[i].unit;
}

static int expect_insert(const struct world *world, const struct operation *op)
{
	const struct space_range *range = &op->range;

	if (!is_area(op) || range->start % range->unit || range->len % range->unit ||
	    range->offset + range->len < range->offset)
		return -EINVAL;
	for (size_t i = op->at; i < op->at + op->cells; i++)
		if (world->cells[i].piece)
			return -EEXIST;
	return 0;
}

static int expect(const struct world *world, const struct operation *op)
{
	size_t way = op->to > op->at ? op->to - op->at : op->at - op->to;

	if (op->kind == INSERT)
		return expect_insert(world, op);
	if (!is_area(op) || cuts_page(world, op->at) || cuts_page(world, op->at + op->cells))
		return -EINVAL;
	if (op->kind != MOVE)
		return 0;
	if (way < op->cells || address(op->to) + op->len <= address(op->to))
		return -EINVAL;
	if (cuts_page(world, op->to) || cuts_page(world, op->to + op->cells))
		return -EINVAL;
	for (size_t i = op->at; i < op->at + op->cells; i++)
		if (world->cells[i].piece && way % world->cells[i].unit)
			return -EINVAL;
	return 0;
}

static void apply_insert(struct world *world, const struct operation *op, uint64_t id)
{
	HOLDS(id > world->last_id);
	world->last_id = id;
	run.pieces++;
	for (size_t i = 0; i < op->cells; i++)
		world->cells[op->at + i] = (struct cell){.piece = run.pieces,
		                                         .unit = (uint32_t)(op->range.unit / CELL),
		                                         .id = id,
		                                         .offset = op->range.offset + i * CELL,
		                                         .source = op->range.source};
}

static void apply_remove(struct world *world, const struct operation *op)
{
	for (size_t i = op->at; i < op->at + op->cells; i++)
		if (world->cells[i].piece)
			world->cells[i].state = (uint8_t)(SPACE_REMOVED | (world->cells[i].state & SPACE_PINNED));
}

static void apply_move(struct world *world, const struct operation *op)
{
	clear(world, op->to, op->cells);
	cut(world, op->at);
	cut(world, op->at + op->cells);
	for (size_t i = 0; i < op->cells; i++) {
		struct cell cell = world->cells[op->at + i];

		if (state_is(cell.state, SPACE_FILLING, SPACE_LEAVING, SPACE_RESTING))
			cell.state &= (uint8_t)~SPACE_STATE;
		world->cells[op->to + i] = cell;
	}
	memset(&world->cells[op->at], 0, op->cells * sizeof(struct cell));
}

static int carry_out(struct world *world, const struct operation *op, uint64_t *id)
{
	switch (op->kind) {
	case INSERT:
		return space_insert(world->space, &op->range, id);
	case UNMAP:
		return space_unmap(world->space, op->start, op->len);
	case REMOVE:
		return space_remove(world->space, op->start, op->len);
	default:
		return space_move(world->space, op->start, address(op->to), op->len);
	}
}

/* That this process may have so many pages of address space more than now. */
static void allow(size_t pages)
{
	struct rlimit limit;
	size_t now = 0;
	FILE *statm = fopen("/proc/self/statm", "r");
	int found = statm ? fscanf(statm, "%zu", &now) : 0;

	CHECK(found == 1);
	fclose(statm);
	CHECK_EQ(getrlimit(RLIMIT_AS, &limit), 0);
	limit.rlim_cur = pages == SIZE_MAX ? limit.rlim_max : (now + pages) * page_size;
	CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
}

/* With as little memory as will do: whenever it was not enough, nothing has changed. */
static int carry_out_starving(struct world *world, const struct operation *op, uint64_t *id)
{
	for (size_t pages = 0;; pages++) {
		int err;

		allow(pages);
		err = carry_out(world, op, id);
		allow(SIZE_MAX);
		if (err != -ENOMEM)
			return err;
		run.starved[op->kind]++;
		check_all(world);
	}
}

static void operate(struct world *world, const struct operation *op)
{
	int expected = expect(world, op), got;
	uint64_t id = 0;

	got = (run.starve ? carry_out_starving : carry_out)(world, op, &id);
	if (got != expected)
		WRONG("kind %d, cell %zu to %zu, %zu cells: %d instead of %d", op->kind, op->at, op->to, op->cells, got,
		      expected);
	if (!got) {
		run.done[op->kind]++;
		if (op->kind == INSERT)
			apply_insert(world, op, id);
		else if (op->kind == UNMAP)
			clear(world, op->at, op->cells);
		else if (op->kind == REMOVE)
			apply_remove(world, op);
		else
			apply_move(world, op);
	}
	check_cell(world, op->at);
	check_cell(world, op->to);
	if (op->cells) {
		check_cell(world, op->at + op->cells - 1);
		check_cell(world, op->at + below(op->cells));
	}
}

static void pick_range(struct operation *op, uint64_t unit)
{
	static char sources[4];
	struct space_range *range = &op->range;

	*range = (struct space_range){.start = op->start, .len = op->len, .unit = unit * CELL};
	if (!one_in(4))
		range->source = &sources[below(sizeof(sources))];
	if (one_in(4))
		range->offset = UINT64_MAX - range->len + one_in(4);
	else if (!one_in(4))
		range->offset = below(1u << 30) * (one_in(4) ? 1 : CELL);
}

static void pick(struct operation *op)
{
	size_t unit = (size_t)1 << below(3), scale = 1;

	while (scale < run.longest && !one_in(5))
		scale *= 2;
	*op = (struct operation){.at = below(run.cells), .to = below(run.cells), .cells = below(scale + 1)};
	if (!one_in(3)) {
		op->at -= op->at % unit;
		op->to -= op->to % unit;
		op->cells += unit - op->cells % unit;
	}
	if (op->cells > run.cells - op->at)
		op->cells = run.cells - op->at;
	if (op->cells > run.cells - op->to)
		op->cells = run.cells - op->to;
	op->start = address(op->at) + (one_in(200) ? below(CELL) : 0);
	op->len = op->cells * CELL + (one_in(200) ? below(CELL) : 0);
	/* Most inserts meet something that lies there already. */
	op->kind = one_in(2) ? INSERT : (enum kind)below(KINDS);
	pick_range(op, unit);
}

static void change_state(struct world *world)
{
	size_t i = below(run.cells), unit = world->cells[i].unit;
	struct space_range range;
	uint8_t state = (uint8_t)below(256);

	if (!world->cells[i].piece)
		return;
	HOLDS(space_find(world->space, address(i), &range));
	range.state[(address(i) - range.start) / range.unit] = state;
	for (size_t cell = i - i % unit; cell < i - i % unit + unit; cell++)
		world->cells[cell].state = state;
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

static void tell(void)
{
	static const char *const names[KINDS] = {"insert", "unmap", "remove", "move"};

	printf("# at most %zu ranges; done and without memory:", run.most);
	for (unsigned kind = 0; kind < KINDS; kind++)
		printf(" %s %" PRIu64 " %" PRIu64, names[kind], run.done[kind], run.starved[kind]);
	printf("\n");
}

/* A window of so many cells, at the lowest addresses or at the highest. */
static void random_operations(uint64_t seed, bool top, size_t cells, size_t longest, uint64_t count)
{
	struct world *world = &run.world;
	uint64_t check_each = 100 + cells;

	run.seed = setting("SPACE_SEED", seed);
	run.random = run.seed * 0x9e3779b97f4a7c15u + 1;
	run.cells = cells;
	run.longest = longest;
	run.base = top ? (uint64_t)0 - cells * CELL : 0;
	world->cells = calloc(cells, sizeof(struct cell));
	CHECK_EQ(space_new(&world->space), 0);
	count = setting("SPACE_COUNT", LESS(count));
	for (run.operation = 0; run.operation < count; run.operation++) {
		struct operation op;

		pick(&op);
		for (size_t i = 0; i < 2 + cells / 256; i++)
			change_state(world);
		operate(world, &op);
		if (run.most < space_ranges(world->space))
			run.most = space_ranges(world->space);
		if (run.operation % check_each == 0)
			check_all(world);
	}
	check_all(world);
	space_free(world->space);
	tell();
}

TEST(low_addresses_are_as_the_model_has_them, "Spaces at the lowest addresses do what a plain list of pages does.")
{
	random_operations(1, false, 64, 32, 1500000);
}

TEST(high_addresses_are_as_the_model_has_them, "Spaces at the highest addresses do so too.")
{
	random_operations(2, true, 64, 16, 1500000);
}

TEST(long_ranges_are_as_the_model_has_them, "So do ranges whose states take many pages.")
{
	random_operations(3, false, 1u << 16, 1u << 14, 3000);
}

TEST(many_ranges_are_as_the_model_has_them, "So do many ranges.")
{
	random_operations(4, true, 4096, 4, 200000);
}

TEST(without_memory_all_stays_as_it_was, "What fails for want of memory changes nothing, and goes well later.")
{
	run.starve = true;
	random_operations(5, false, 1024, 8, 10000);
	CHECK_EQ(run.starved[REMOVE], 0);
}
