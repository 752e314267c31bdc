// SPDX-License-Identifier: MIT
/* src/session/ on the scripted engine, with stores whose reads wait and fail as the test decides. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "session/session.h"
#include "support/actor.h"
#include "support/scripted.h"
#include "support/test.h"
#include "uffd/engine.h"

#define BASE     ((uint64_t)0x7f0000000000)
#define EVENTS   ((uint64_t)(UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMAP))
#define FEATURES (EVENTS | UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_POISON)

#define READ  SCRIPTED_READ
#define WRITE SCRIPTED_WRITE

/*
 * A store. Each page is full of a byte of its own, never 0.
 */

struct shelf {
	struct uf_store *store;
	unsigned char tag;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t held_from, held_to; /* reads that reach into this wait */
	unsigned let;                /* but for the first so many */
	uint64_t bad_from, bad_to;   /* and those that reach into this fail */
	int bad_err;                 /* with this; 0: -EIO */
	unsigned in_read, most;      /* at this moment; at once */
	unsigned reads;
	size_t longest;
};

static unsigned char content(const struct shelf *shelf, uint64_t offset)
{
	return (unsigned char)(1 + (shelf->tag + 7 * (offset / page_size)) % 251);
}

static bool reaches(uint64_t offset, size_t len, uint64_t from, uint64_t to)
{
	return offset < to && offset + len > from;
}

static int64_t shelf_read(void *state, void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause)
{
	struct shelf *shelf = state;
	unsigned number;
	bool bad;

	(void)cause;
	pthread_mutex_lock(&shelf->lock);
	number = ++shelf->reads;
	shelf->in_read++;
	if (shelf->most < shelf->in_read)
		shelf->most = shelf->in_read;
	if (shelf->longest < len)
		shelf->longest = len;
	pthread_cond_broadcast(&shelf->changed);
	while (reaches(offset, len, shelf->held_from, shelf->held_to) && number > shelf->let)
		pthread_cond_wait(&shelf->changed, &shelf->lock);
	bad = reaches(offset, len, shelf->bad_from, shelf->bad_to);
	shelf->in_read--;
	pthread_cond_broadcast(&shelf->changed);
	pthread_mutex_unlock(&shelf->lock);
	if (bad)
		return shelf->bad_err ? shelf->bad_err : -EIO;
	for (size_t at = 0; at < len; at += page_size)
		memset((char *)buf + at, content(shelf, offset + at), page_size);
	return (int64_t)len;
}

static int shelf_try_read(void *state, void *buf, size_t len, uint64_t offset)
{
	return shelf_read(state, buf, len, offset, NULL) < 0 ? -EAGAIN : 0;
}

/* `quick`: at hand, also in handlers; otherwise each read is one in the background. */
static struct shelf *new_shelf(unsigned char tag, size_t pages, bool quick)
{
	struct uf_store_ops ops = {
		.size = sizeof(ops),
		.version = UF_STORE_OPS_VERSION,
		.read = shelf_read,
		.try_read = quick ? shelf_try_read : NULL,
	};
	struct uf_store_options opts = {.size = sizeof(opts), .attempts = 2, .pause_ms = 1};
	struct shelf *shelf = calloc(1, sizeof(*shelf));

	CHECK(shelf);
	shelf->tag = tag;
	pthread_mutex_init(&shelf->lock, NULL);
	pthread_cond_init(&shelf->changed, NULL);
	CHECK_EQ(uf_store_create(&shelf->store, &ops, shelf, pages * page_size, quick ? UF_STORE_TRIES_IN_SIGNAL : 0,
	                         "shelf", &opts),
	         0);
	return shelf;
}

/* Pages, from and to. */
static void hold_reads(struct shelf *shelf, uint64_t from, uint64_t to)
{
	pthread_mutex_lock(&shelf->lock);
	shelf->held_from = from * page_size;
	shelf->held_to = to * page_size;
	pthread_cond_broadcast(&shelf->changed);
	pthread_mutex_unlock(&shelf->lock);
}

static void let_reads(struct shelf *shelf)
{
	hold_reads(shelf, 0, 0);
}

static void spoil(struct shelf *shelf, uint64_t from, uint64_t to)
{
	pthread_mutex_lock(&shelf->lock);
	shelf->bad_from = from * page_size;
	shelf->bad_to = to * page_size;
	pthread_mutex_unlock(&shelf->lock);
}

/* Until so many wait. */
static void wait_held(struct shelf *shelf, unsigned count)
{
	pthread_mutex_lock(&shelf->lock);
	while (shelf->in_read != count)
		pthread_cond_wait(&shelf->changed, &shelf->lock);
	pthread_mutex_unlock(&shelf->lock);
}

static void wait_read(struct shelf *shelf, unsigned reads)
{
	pthread_mutex_lock(&shelf->lock);
	while (shelf->reads < reads)
		pthread_cond_wait(&shelf->changed, &shelf->lock);
	pthread_mutex_unlock(&shelf->lock);
}

static unsigned reads_of(struct shelf *shelf)
{
	unsigned reads;

	pthread_mutex_lock(&shelf->lock);
	reads = shelf->reads;
	pthread_mutex_unlock(&shelf->lock);
	return reads;
}

/*
 * The session and its owner.
 */

static struct uf *uf;
static struct session session;

static struct {
	_Atomic uint64_t used, limit; /* bytes that were admitted, and may be */
	_Atomic unsigned refused;     /* how often there was no room for what somebody waits for */
	_Atomic uint32_t room;        /* futex: counts what was dismissed */
	_Atomic unsigned failed, events, touched;
	_Atomic unsigned told;
	_Atomic bool looks;   /* at each page that it is told of */
	_Atomic bool patient; /* what fails is tried again later */
	void (*on_admit)(void);
} owner = {.limit = (uint64_t)1 << 40};

static uint64_t admit(void *arg, uint64_t bytes, uint64_t unit, enum session_need need)
{
	uint64_t used = atomic_load(&owner.used), room;

	(void)arg;
	if (owner.on_admit)
		owner.on_admit();
	do {
		uint64_t limit = atomic_load(&owner.limit);

		room = used < limit ? limit - used : 0;
		room = (room < bytes ? room : bytes) & ~(unit - 1);
	} while (room && !atomic_compare_exchange_weak(&owner.used, &used, used + room));
	if (!room && need == NEED_TOUCHED)
		atomic_fetch_add(&owner.refused, 1);
	return room;
}

static void dismiss(void *arg, uint64_t bytes)
{
	(void)arg;
	CHECK(atomic_fetch_sub(&owner.used, bytes) >= bytes);
	atomic_fetch_add(&owner.room, 1);
	futex_wake(&owner.room, INT_MAX);
}

static void wait_room(void *arg)
{
	uint32_t room = atomic_load(&owner.room);

	(void)arg;
	if (atomic_load(&owner.used) + page_size > atomic_load(&owner.limit))
		futex_wait(&owner.room, room);
}

static int model_restore(void *arg, const struct space_range *range, uint64_t addr);

static void touched(void *arg, struct session_source *source, uint64_t offset)
{
	(void)arg, (void)source, (void)offset;
	atomic_fetch_add(&owner.touched, 1);
}

static bool failed(void *arg, const struct space_range *range, uint64_t addr, int err)
{
	(void)arg, (void)range, (void)addr;
	CHECK_EQ(err, -EIO);
	atomic_fetch_add(&owner.failed, 1);
	return !atomic_load(&owner.patient);
}

static void event(void *arg, const struct uffd_msg *msg)
{
	(void)arg, (void)msg;
	atomic_fetch_add(&owner.events, 1);
}

static void done(void *arg, const struct session_done *done)
{
	unsigned char value;

	(void)arg;
	atomic_fetch_add(&owner.told, 1);
	if (!atomic_load(&owner.looks))
		return;
	CHECK(scripted_load(uf, done->addr, &value));
	CHECK(done->start_ns);
}

/* Driven: the test turns all the time. */
static void ring(void *arg)
{
	(void)arg;
}

static const struct session_ops ops = {
	.admit = admit,
	.dismiss = dismiss,
	.wait_room = wait_room,
	.restore = model_restore,
	.touched = touched,
	.failed = failed,
	.event = event,
	.done = done,
	.ring = ring,
};

static void begin_with(uint64_t features, struct session_options options)
{
	options.ops = &ops;
	uf = scripted_open(features);
	CHECK_EQ(session_open(&session, uf, &options), 0);
}

static void begin(void)
{
	begin_with(FEATURES, (struct session_options){.later_ms = 1});
}

static int on_fault(struct uf *object, const struct uf_fault *fault, void *arg)
{
	(void)object, (void)arg;
	return session_fault(&session, fault->address, fault->flags & UFFD_PAGEFAULT_FLAG_WRITE);
}

static void begin_inline(void)
{
	struct uf_options opts = {.size = sizeof(opts),
	                          .required = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_POISON,
	                          .handler = on_fault};
	struct session_options options = {.ops = &ops, .inline_faults = true, .later_ms = 1};

	CHECK_EQ(uf_engine_open_negotiated(&uf, &uf_engine_scripted, &opts), 0);
	CHECK_EQ(session_open(&session, uf, &options), 0);
}

static struct session_source *new_source(const struct shelf *shelf)
{
	struct session_source *source = calloc(1, sizeof(*source));

	CHECK(source);
	source->store = shelf ? shelf->store : NULL;
	source->writable = true;
	source->order = ORDER_UNKNOWN;
	return source;
}

/* Pages of a new mapping. */
static void insert(uint64_t start, size_t pages, struct session_source *source, uint64_t offset, uint64_t unit)
{
	struct space_range range = {
		.start = start, .len = pages * page_size, .source = source, .offset = offset, .unit = unit};
	signal_mask before;

	scripted_memory(uf, start, pages);
	CHECK_EQ(uf_register(uf, (void *)(uintptr_t)start, range.len,
	                     UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP, NULL),
	         0);
	before = session_change_begin(&session);
	CHECK_EQ(space_insert(session.space, &range, NULL), 0);
	session_change_end(&session, before);
}

/* A mapping of `pages` pages at BASE, of a store of its own that is not at hand; `random`: without read-ahead. */
static struct shelf *map_as(size_t pages, bool random)
{
	struct shelf *shelf = new_shelf(1, pages, false);
	struct session_source *source = new_source(shelf);

	source->order = random ? ORDER_RANDOM : ORDER_UNKNOWN;
	insert(BASE, pages, source, 0, page_size);
	return shelf;
}

static struct shelf *map(size_t pages)
{
	return map_as(pages, false);
}

/* A layout event was read, and is applied. */
static void wait_applied(void)
{
	scripted_wait_read(uf);
	session_change_end(&session, session_change_begin(&session));
}

static uint64_t page(size_t i)
{
	return BASE + i * page_size;
}

/* With the gate closed nobody is half through. */
static enum space_page state_of(uint64_t addr)
{
	signal_mask before = session_change_begin(&session);
	enum space_page state = SPACE_MISSING;
	struct space_range range;

	CHECK(space_find(session.space, addr, &range));
	state = page_state(atomic_load(state_at(&range, addr & ~(range.unit - 1))));
	session_change_end(&session, before);
	return state;
}

static void check_room(void)
{
	signal_mask before = session_change_begin(&session);
	struct space_range range;
	uint64_t bytes = 0;

	for (uint64_t at = 0; space_next(session.space, at, &range); at = range.start + range.len)
		for (at = range.start; at < range.start + range.len; at += range.unit) {
			enum space_page state = page_state(atomic_load(state_at(&range, at)));

			CHECK(state != SPACE_FILLING && state != SPACE_LEAVING);
			bytes += state == SPACE_CLEAN || state == SPACE_DIRTY ? range.unit : 0;
		}
	CHECK_EQ(atomic_load(&owner.used), bytes);
	session_change_end(&session, before);
}

/* What is counted as present is what the space says. */
static void check_present(void)
{
	signal_mask before = session_change_begin(&session);

	CHECK_EQ(atomic_load(&session.stats.present), space_present(session.space, 0, UINT64_MAX));
	session_change_end(&session, before);
}

static void end(void)
{
	session_settle(&session);
	check_present();
	CHECK_EQ(scripted_unused(uf), 0);
	CHECK_EQ(scripted_sleepers(uf), 0);
	if (!atomic_load(&owner.events))
		check_room();
	session_close(&session);
}

/*
 * Threads.
 */

struct touch {
	uint64_t addr;
	enum scripted_access access;
};

static long do_touch(void *arg)
{
	struct touch touch = *(struct touch *)arg;

	free(arg);
	return scripted_touch(uf, touch.addr, touch.access);
}

static struct actor *touch(uint64_t addr, enum scripted_access access)
{
	struct touch *touch = malloc(sizeof(*touch));

	CHECK(touch);
	*touch = (struct touch){addr, access};
	return act_call(do_touch, touch);
}

static void check_touched(struct actor *actor)
{
	CHECK_EQ(actor_end(actor).value, 0);
}

static void check_byte(uint64_t addr, unsigned char expected)
{
	unsigned char value;

	CHECK(scripted_load(uf, addr, &value));
	CHECK_EQ(value, expected);
}

static void read_back(const struct shelf *shelf, size_t i)
{
	CHECK_EQ(scripted_touch(uf, page(i), READ), 0);
	check_byte(page(i), content(shelf, i * page_size));
}

/* Touches that the loop reads all at once: in the order of the list, -1 at its end; negative ones are writes of ~page. */
struct batch {
	struct actor *actors[64];
	unsigned count;
};

static void touch_at_once(struct batch *batch, const int *pages, unsigned count)
{
	signal_mask before = session_change_begin(&session);
	unsigned asleep = scripted_sleepers(uf);

	batch->count = count;
	for (unsigned i = 0; i < count; i++) {
		batch->actors[i] = pages[i] < 0 ? touch(page((size_t)~pages[i]), WRITE)
		                                : touch(page((size_t)pages[i]), READ);
		scripted_wait_sleepers(uf, asleep + i + 1);
	}
	session_change_end(&session, before);
}

static void end_batch(struct batch *batch)
{
	for (unsigned i = 0; i < batch->count; i++)
		check_touched(batch->actors[i]);
}

#define AT_ONCE(batch, ...) \
	touch_at_once(batch, (const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

/* The requests of one kind, in their order. */
static size_t calls_of(unsigned long request, struct scripted_call *calls, size_t room)
{
	struct scripted_call all[512];
	size_t count = scripted_calls(uf, all, 512), found = 0;

	CHECK(count <= 512);
	for (size_t i = 0; i < count; i++)
		if (all[i].request == request && found++ < room)
			calls[found - 1] = all[i];
	return found;
}

static void check_call(const struct scripted_call *call, size_t first, size_t pages)
{
	CHECK_EQ(call->address, page(first));
	CHECK_EQ(call->len, pages * page_size);
}

static void answer(unsigned long request, uint64_t addr, int err)
{
	scripted_answer(uf, &(struct scripted_answer){.request = request, .address = addr, .err = err});
}

/*
 * Batches.
 */

TEST(touches_in_a_row_are_one_copy, "Faults that follow one another, in whatever order they came, are one run.")
{
	struct scripted_call copies[4];
	struct batch batch;
	struct shelf *shelf;

	begin();
	shelf = map(64);
	AT_ONCE(&batch, 12, 8, 11, 9, 30, 10);
	end_batch(&batch);
	CHECK_EQ(calls_of(UFFDIO_COPY, copies, 4), 2);
	CHECK_EQ(reads_of(shelf), 2);
	if (copies[0].address == page(30)) {
		check_call(&copies[0], 30, 1);
		check_call(&copies[1], 8, 5);
	} else {
		check_call(&copies[0], 8, 5);
		check_call(&copies[1], 30, 1);
	}
	for (size_t i = 8; i < 13; i++)
		read_back(shelf, i);
	read_back(shelf, 30);
	end();
}

TEST(told_when_they_are_there,
     "The owner is told of a fault when its page is in place, wherever it came from, and not before.")
{
	struct shelf *quick, *slow;

	begin();
	slow = map_as(4, true);
	quick = new_shelf(2, 4, true);
	insert(BASE + 64 * page_size, 4, new_source(quick), 0, page_size);
	insert(BASE + 128 * page_size, 4, new_source(NULL), 0, page_size);
	atomic_store(&owner.looks, true);
	read_back(slow, 1);
	CHECK_EQ(scripted_touch(uf, page(65), READ), 0);
	CHECK_EQ(scripted_touch(uf, page(129), WRITE), 0);
	session_settle(&session);
	CHECK_EQ(atomic_load(&owner.told), 3);
	end();
}

TEST(reads_and_writes_are_apart, "Pages that are written to come in writable, those beside them that are read do not.")
{
	struct batch batch;
	struct shelf *shelf;

	begin();
	shelf = map_as(64, true);
	AT_ONCE(&batch, 0, 1, ~2, ~3);
	end_batch(&batch);
	for (size_t i = 0; i < 4; i++) {
		CHECK_EQ(scripted_page(uf, page(i)), i < 2 ? SCRIPTED_PROTECTED : SCRIPTED_PRESENT);
		CHECK_EQ(state_of(page(i)), i < 2 ? SPACE_CLEAN : SPACE_DIRTY);
		read_back(shelf, i);
	}
	CHECK_EQ(scripted_count(uf, UFFDIO_COPY), 2);
	CHECK_EQ(scripted_count(uf, UFFDIO_WRITEPROTECT), 0);
	end();
}

TEST(write_and_read_of_one_page, "Of a write and a read of one page at once the write decides.")
{
	struct batch batch;
	struct shelf *shelf;

	begin();
	shelf = map(64);
	AT_ONCE(&batch, 5, ~5, 5);
	end_batch(&batch);
	read_back(shelf, 5);
	CHECK_EQ(scripted_count(uf, UFFDIO_COPY), 1);
	CHECK_EQ(state_of(page(5)), SPACE_DIRTY);
	end();
}

TEST(first_writes_are_not_merged, "A write to a page in memory is no part of a run of missing ones beside it.")
{
	struct scripted_call calls[4];
	struct batch batch;

	begin();
	map_as(64, true);
	CHECK_EQ(scripted_touch(uf, page(1), READ), 0);
	scripted_forget(uf);
	AT_ONCE(&batch, ~0, ~1, ~2);
	end_batch(&batch);
	CHECK_EQ(calls_of(UFFDIO_WRITEPROTECT, calls, 4), 1);
	check_call(&calls[0], 1, 1);
	CHECK_EQ(calls_of(UFFDIO_COPY, calls, 4), 2);
	CHECK_EQ(calls[0].len, page_size);
	CHECK_EQ(calls[1].len, page_size);
	end();
}

TEST(runs_end_with_their_range, "A run does not go on into the mapping behind it, which comes from elsewhere.")
{
	struct shelf *first, *second;
	struct batch batch;

	begin();
	first = new_shelf(1, 64, false);
	second = new_shelf(101, 64, false);
	insert(BASE, 8, new_source(first), 0, page_size);
	insert(page(8), 8, new_source(second), 0, page_size);
	AT_ONCE(&batch, 6, 7, 8, 9);
	end_batch(&batch);
	check_byte(page(7), content(first, 7 * page_size));
	check_byte(page(8), content(second, 0));
	check_byte(page(9), content(second, page_size));
	end();
}

static void wait_present(size_t index)
{
	while (scripted_page(session.uf, page(index)) == SCRIPTED_MISSING)
		sched_yield();
}

TEST(large_units, "Units larger than a page come as a whole, whichever parts of them are touched.")
{
	struct session_source *source;
	struct batch batch;
	struct shelf *shelf;

	begin();
	shelf = new_shelf(1, 256, false);
	source = new_source(shelf);
	insert(BASE, 256, source, 0, 4 * page_size);
	AT_ONCE(&batch, 6, 17, 18, 19, 20, 21);
	end_batch(&batch);
	for (size_t i = 4; i < 8; i++)
		check_byte(page(i), content(shelf, i * page_size));
	for (size_t i = 16; i < 24; i++)
		check_byte(page(i), content(shelf, i * page_size));
	check_room();
	source->order = ORDER_SEQUENTIAL;
	AT_ONCE(&batch, 100, 101, 102, 103, ~104, ~107);
	end_batch(&batch);
	/* What is read ahead of them comes when it comes. */
	for (size_t i = 168; i < 228; i++)
		wait_present(i);
	session_settle(&session);
	check_room();
	/* Behind what is read ahead. */
	AT_ONCE(&batch, 240, 241, 242, 243, 244);
	end_batch(&batch);
	for (size_t i = 240; i < 246; i++)
		read_back(shelf, i);
	end();
}

TEST(streams_are_read_ahead, "A long stream is read ahead, but for the page whose touch tells that it goes on.")
{
	struct session_source *source;
	struct shelf *shelf;

	begin();
	shelf = new_shelf(1, 512, false);
	source = new_source(shelf);
	insert(BASE, 512, source, 0, page_size);
	source->order = ORDER_SEQUENTIAL;
	read_back(shelf, 0);
	for (size_t i = 1; i < 128; i++)
		if (i != 64)
			wait_present(i);
	CHECK_EQ(scripted_page(session.uf, page(64)), SCRIPTED_MISSING);
	CHECK_EQ(scripted_page(session.uf, page(128)), SCRIPTED_MISSING);
	read_back(shelf, 64);
	for (size_t i = 129; i < 256; i++)
		wait_present(i);
	CHECK_EQ(scripted_page(session.uf, page(128)), SCRIPTED_MISSING);
	for (size_t i = 0; i < 512; i++)
		read_back(shelf, i);
	end();
}

TEST(streams_find_another_mapping,
     "What is read ahead comes in whole units, also where their size is another one by then.")
{
	struct shelf *shelf;

	begin();
	shelf = new_shelf(1, 16, false);
	insert(BASE, 16, new_source(shelf), 0, 4 * page_size);
	/* Of a mapping of single pages, which was there when it was asked for. */
	session_bring_next(&session, page(1), 9 * page_size);
	session_settle(&session);
	for (size_t i = 0; i < 16; i++)
		CHECK_EQ(scripted_page(session.uf, page(i)) == SCRIPTED_MISSING, i < 4 || i >= 12);
	/* Of one that went on. */
	session_bring_next(&session, page(13), 64 * page_size);
	session_settle(&session);
	check_room();
	for (size_t i = 0; i < 16; i++)
		read_back(shelf, i);
	end();
}

TEST(many_reads_in_flight, "Faults that lie apart are fetched at the same time.")
{
	struct batch batch;
	struct shelf *shelf;

	begin();
	shelf = map_as(64, true);
	read_back(shelf, 60); /* a thread of the store's waits for work since then */
	hold_reads(shelf, 0, 64);
	AT_ONCE(&batch, 0, 4, 8, 12, 16, 20, 24, 28);
	wait_held(shelf, 8);
	CHECK_EQ(scripted_count(uf, UFFDIO_COPY), 1);
	let_reads(shelf);
	end_batch(&batch);
	CHECK_EQ(shelf->most, 8);
	for (size_t i = 0; i < 32; i += 4)
		read_back(shelf, i);
	end();
}

TEST(one_fetch_for_many_threads, "Threads that touch a page on its way wait for it, and it is not fetched again.")
{
	struct actor *actors[4];
	struct shelf *shelf;

	begin();
	shelf = map(64);
	hold_reads(shelf, 0, 64);
	for (unsigned i = 0; i < 4; i++) {
		actors[i] = touch(page(3), i == 2 ? WRITE : READ);
		wait_held(shelf, 1);
		scripted_wait_sleepers(uf, i + 1);
		scripted_wait_read(uf);
	}
	let_reads(shelf);
	for (unsigned i = 0; i < 4; i++)
		check_touched(actors[i]);
	CHECK_EQ(reads_of(shelf), 1);
	CHECK_EQ(state_of(page(3)), SPACE_DIRTY);
	end();
}

TEST(read_ahead_is_waited_for,
     "Who touches a page that is only read ahead gets it when it comes, or asks for it himself.")
{
	struct actor *actors[3];
	struct shelf *shelf;

	begin();
	shelf = map(64);
	read_back(shelf, 0);
	hold_reads(shelf, 2, 3);
	actors[0] = touch(page(1), READ); /* a stream: 2 comes with it */
	wait_held(shelf, 1);
	actors[1] = touch(page(2), READ);
	actors[2] = touch(page(2), WRITE);
	scripted_wait_sleepers(uf, 3);
	scripted_wait_read(uf);
	/* Then the page that was asked for is read alone, and the others have to ask. */
	spoil(shelf, 2, 3);
	let_reads(shelf);
	check_touched(actors[0]);
	CHECK_EQ(actor_end(actors[1]).value, -EIO);
	CHECK_EQ(actor_end(actors[2]).value, -EIO);
	check_byte(page(1), content(shelf, page_size));
	CHECK_EQ(state_of(page(2)), SPACE_LOST);
	end();
}

/*
 * Before it is asked for.
 */

struct bringing {
	uint64_t addr, len;
	bool again;
};

static long do_bring(void *arg)
{
	const struct bringing *bringing = arg;

	return session_bring(&session, bringing->addr, bringing->len, bringing->again);
}

static void bring(size_t first, size_t pages, bool again)
{
	CHECK_EQ(session_bring(&session, page(first), pages * page_size, again), 0);
	session_settle(&session);
}

TEST(brings, "session_bring() brings what is not there, and leaves what is.")
{
	struct shelf *shelf;

	begin();
	shelf = map(1024);
	CHECK_EQ(scripted_touch(uf, page(100), WRITE), 0);
	CHECK(scripted_store(uf, page(100), 99));
	bring(0, 1024, false);
	for (size_t i = 0; i < 1024; i++)
		check_byte(page(i), i == 100 ? 99 : content(shelf, i * page_size));
	CHECK_EQ(state_of(page(100)), SPACE_DIRTY);
	CHECK_EQ(state_of(page(101)), SPACE_CLEAN);
	CHECK_EQ(reads_of(shelf), 6);
	end();
}

TEST(brings_as_far_as_there_is_room, "session_bring() ends where the room does: -ENOMEM.")
{
	struct shelf *shelf;

	begin();
	shelf = map(1024);
	owner.limit = 300 * page_size;
	CHECK_EQ(session_bring(&session, BASE, 1024 * page_size, false), -ENOMEM);
	session_settle(&session);
	check_byte(page(299), content(shelf, 299 * page_size));
	CHECK_EQ(scripted_page(uf, page(300)), SCRIPTED_MISSING);
	end();
}

TEST(brings_large_units, "A few bytes of a large unit bring all of it, in a buffer that is large enough.")
{
	struct shelf *shelf = new_shelf(1, 1024, false);

	begin();
	insert(BASE, 1024, new_source(shelf), 0, 64 * page_size);
	bring(65, 1, false);
	CHECK_EQ(shelf->longest, 64 * page_size);
	for (size_t i = 64; i < 128; i++)
		check_byte(page(i), content(shelf, i * page_size));
	CHECK_EQ(scripted_page(uf, page(63)), SCRIPTED_MISSING);
	CHECK_EQ(scripted_page(uf, page(128)), SCRIPTED_MISSING);
	end();
}

TEST(small_brings_keep_to_their_buffers, "What is read at once never is more than the buffer that was taken for it.")
{
	uint64_t small = BUFFER_SMALL / page_size;
	struct shelf *shelf = new_shelf(1, 16 * small, false);

	begin();
	/* Two units, of which each fills a small one. */
	insert(BASE, 16 * small, new_source(shelf), 0, BUFFER_SMALL);
	bring(small - 1, 2, false);
	CHECK_EQ(shelf->longest, BUFFER_SMALL);
	for (size_t i = 0; i < 2 * small; i++)
		check_byte(page(i), content(shelf, i * page_size));
	end();
}

TEST(demand_comes_before_prefetch, "Reads that nobody waits for do not keep a touch from being served.")
{
	struct bringing bringing = {BASE, 4096 * page_size, false};
	struct actor *bringer;
	struct shelf *shelf;

	begin();
	shelf = map(4096 + 64);
	hold_reads(shelf, 0, 4096);
	bringer = act_call(do_bring, &bringing);
	wait_held(shelf, BUFFERS_AHEAD);
	CHECK(actor_waits(bringer));
	read_back(shelf, 4100);
	CHECK_EQ(scripted_touch(uf, page(4120), WRITE), 0);
	let_reads(shelf);
	CHECK_EQ(actor_end(bringer).value, 0);
	session_settle(&session);
	for (size_t i = 0; i < 4096; i++)
		check_byte(page(i), content(shelf, i * page_size));
	end();
}

/* With SIGUSR1 pending from within the gate the handler runs the moment it is left. */
static void note_signal(int number)
{
	(void)number;
	CHECK_EQ(atomic_load(&session.in_flight[session.phase]), 1);
	owner.on_admit = NULL;
}

static void raise_signal(void)
{
	CHECK_EQ(raise(SIGUSR1), 0);
}

TEST(fetches_are_counted_before_the_gate_opens,
     "A range that ended can be forgotten after session_settle(): whoever has claimed a page of it was counted before.")
{
	begin();
	map(64);
	CHECK(signal(SIGUSR1, note_signal) != SIG_ERR);
	owner.on_admit = raise_signal;
	bring(0, 64, false);
	CHECK(!owner.on_admit);
	end();
}

/*
 * Answers that come once in a thousand runs.
 */

static const int64_t shapes[] = {0, -EAGAIN};

TEST(copies_are_tried_again, "A COPY that is -EAGAIN, in either shape, however often, is done in the end.")
{
	struct shelf *shelf;

	begin();
	shelf = map(64);
	for (unsigned i = 0; i < 8; i++)
		scripted_answer(
			uf, &(struct scripted_answer){.request = UFFDIO_COPY, .err = -EAGAIN, .done = shapes[i % 2]});
	read_back(shelf, 0);
	end();
}

TEST(first_writes_are_tried_again,
     "So is lifting the protection of a page, with nothing else that would wake the loop.")
{
	struct shelf *shelf;

	begin();
	shelf = map(64);
	read_back(shelf, 0);
	for (unsigned i = 0; i < 8; i++)
		answer(UFFDIO_WRITEPROTECT, page(0), -EAGAIN);
	CHECK_EQ(scripted_touch(uf, page(0), WRITE), 0);
	CHECK_EQ(scripted_count(uf, UFFDIO_WRITEPROTECT), 9);
	end();
}

TEST(zeros_are_tried_again, "So is a page of zeros.")
{
	begin();
	map(64);
	scripted_remove(uf, page(0), page_size);
	wait_applied();
	for (unsigned i = 0; i < 8; i++) {
		scripted_answer(uf, &(struct scripted_answer){
					    .request = UFFDIO_ZEROPAGE, .err = -EAGAIN, .done = shapes[i % 2]});
		answer(UFFDIO_COPY, page(0), -EAGAIN);
	}
	CHECK_EQ(scripted_touch(uf, page(0), READ), 0);
	check_byte(page(0), 0);
	end();
}

TEST(refused_is_tried_again_in_any_case,
     "Who is refused as if an event were unread is served soon, however often others ask for a look at what is held.")
{
	struct actor *actor;

	begin_with(FEATURES, (struct session_options){.driven = true});
	map(64);
	answer(UFFDIO_COPY, page(0), -EAGAIN);
	actor = touch(page(0), READ);
	scripted_wait_sleepers(uf, 1);
	session_turn(&session, 1);
	while (scripted_page(uf, page(0)) == SCRIPTED_MISSING) {
		session_retry(&session);
		session_turn(&session, 0);
	}
	check_touched(actor);
	end();
}

static void remove_other(struct uf *object, void *arg)
{
	(void)arg;
	scripted_remove(object, page(40), page_size);
}

TEST(waits_for_the_event, "What is refused because a layout event is unread comes when that has been read.")
{
	struct shelf *shelf;

	begin();
	shelf = map(64);
	scripted_answer(uf,
	                &(struct scripted_answer){.request = UFFDIO_COPY, .ordinary = true, .before = remove_other});
	read_back(shelf, 0);
	CHECK(scripted_count(uf, UFFDIO_COPY) > 1);
	CHECK_EQ(scripted_touch(uf, page(40), READ), 0);
	check_byte(page(40), 0);
	end();
}

TEST(partial_progress, "A COPY that stops in the middle goes on there.")
{
	struct scripted_call copies[4];
	struct batch batch;
	struct shelf *shelf;

	begin();
	shelf = map(64);
	scripted_answer(uf, &(struct scripted_answer){
				    .request = UFFDIO_COPY, .err = -EAGAIN, .done = (int64_t)(3 * page_size)});
	AT_ONCE(&batch, 0, 1, 2, 3, 4, 5, 6, 7);
	end_batch(&batch);
	CHECK_EQ(calls_of(UFFDIO_COPY, copies, 4), 2);
	check_call(&copies[0], 0, 8);
	check_call(&copies[1], 3, 5);
	for (size_t i = 0; i < 8; i++)
		read_back(shelf, i);
	end();
}

static void put_zero(struct uf *object, void *arg)
{
	uint64_t addr = *(uint64_t *)arg;

	CHECK_EQ(uf_zeropage(object, (void *)(uintptr_t)addr, page_size, UFFDIO_ZEROPAGE_MODE_DONTWAKE), page_size);
}

TEST(present_already_wakes, "A page that turns out to be there is left as it is, and who waits for it is woken.")
{
	uint64_t there = page(1);
	struct batch batch;
	struct shelf *shelf;

	begin();
	shelf = map(64);
	scripted_answer(uf, &(struct scripted_answer){
				    .request = UFFDIO_COPY, .ordinary = true, .before = put_zero, .arg = &there});
	AT_ONCE(&batch, 0, 1, 2);
	end_batch(&batch);
	read_back(shelf, 0);
	check_byte(page(1), 0);
	read_back(shelf, 2);
	/* Who knows who has written to it. */
	CHECK_EQ(state_of(page(1)), SPACE_DIRTY);
	end();
}

TEST(unit_in_parts_is_not_clean,
     "A unit of which a part came first, and could be written to, counts as written to when the rest has come.")
{
	struct shelf *shelf = new_shelf(1, 64, false);
	struct actor *writer, *reader;

	begin();
	insert(BASE, 64, new_source(shelf), 0, 4 * page_size);
	/* Its first page comes for the writer, and the rest waits for a read of which nobody knows of the write. */
	scripted_answer(uf,
	                &(struct scripted_answer){.request = UFFDIO_COPY, .err = -EAGAIN, .done = (int64_t)page_size});
	answer(UFFDIO_COPY, page(1), -ENOENT);
	writer = touch(page(0), WRITE);
	check_touched(writer);
	CHECK(scripted_store(uf, page(0), 99));
	reader = touch(page(2), READ);
	check_touched(reader);
	check_byte(page(0), 99);
	check_byte(page(3), content(shelf, 3 * page_size));
	CHECK_EQ(state_of(page(0)), SPACE_DIRTY);
	end();
}

TEST(no_such_page_wakes, "-ENOENT: who waits is woken, and finds what there is now.")
{
	struct shelf *shelf;

	begin();
	shelf = map(64);
	answer(UFFDIO_COPY, page(0), -ENOENT);
	read_back(shelf, 0);
	answer(UFFDIO_WRITEPROTECT, page(0), -ENOENT);
	CHECK_EQ(scripted_touch(uf, page(0), WRITE), 0);
	scripted_remove(uf, page(1), page_size);
	wait_applied();
	answer(UFFDIO_ZEROPAGE, page(1), -ENOENT);
	answer(UFFDIO_COPY, page(1), -ENOENT);
	CHECK_EQ(scripted_touch(uf, page(1), READ), 0);
	end();
}

TEST(no_memory_is_tried_later, "-ENOMEM: it is tried again a while later, whatever it was.")
{
	struct shelf *shelf;

	begin();
	shelf = map(64);
	answer(UFFDIO_COPY, page(0), -ENOMEM);
	read_back(shelf, 0);
	scripted_remove(uf, page(1), page_size);
	wait_applied();
	answer(UFFDIO_ZEROPAGE, page(1), -ENOMEM);
	answer(UFFDIO_COPY, page(1), -ENOMEM);
	CHECK_EQ(scripted_touch(uf, page(1), READ), 0);
	check_byte(page(1), 0);
	end();
}

TEST(the_process_ends, "-ESRCH: there is nobody any more, and the session can be closed.")
{
	struct actor *actor;
	struct shelf *shelf;

	begin();
	shelf = map(64);
	hold_reads(shelf, 0, 64);
	actor = touch(page(0), READ);
	wait_held(shelf, 1);
	scripted_exit(uf);
	let_reads(shelf);
	CHECK_EQ(actor_end(actor).value, -ESRCH);
	session_settle(&session);
	CHECK(session.gone);
	session_close(&session);
}

/*
 * Layout.
 */

TEST(removed_while_fetched,
     "A page that is given back while it is fetched is zeros, for those who wait and those who come.")
{
	struct actor *actor;
	struct shelf *shelf;

	begin();
	shelf = map(64);
	hold_reads(shelf, 0, 64);
	actor = touch(page(0), READ);
	wait_held(shelf, 1);
	scripted_remove(uf, page(0), page_size);
	wait_applied();
	let_reads(shelf);
	check_touched(actor);
	check_byte(page(0), 0);
	read_back(shelf, 1);
	end();
}

TEST(removed_while_prefetched, "So is one that was only read ahead, or brought.")
{
	struct shelf *shelf;

	begin();
	shelf = map(64);
	hold_reads(shelf, 0, 64);
	CHECK_EQ(session_bring(&session, BASE, 16 * page_size, false), 0);
	wait_held(shelf, 1);
	scripted_remove(uf, page(4), 2 * page_size);
	wait_applied();
	let_reads(shelf);
	session_settle(&session);
	for (size_t i = 0; i < 16; i++) {
		CHECK_EQ(scripted_page(uf, page(i)), i / 2 == 2 ? SCRIPTED_MISSING : SCRIPTED_PROTECTED);
		CHECK_EQ(scripted_touch(uf, page(i), READ), 0);
		check_byte(page(i), i / 2 == 2 ? 0 : content(shelf, i * page_size));
	}
	end();
}

/* Comes between the moment a page is about to be put in place and that: the page is removed, and the event read, if that can be. */
static void remove_now(struct uf *object, void *arg)
{
	(void)arg;
	scripted_remove(object, page(0), page_size);
	/* The loop wants to change the space, whether it has read the event or not. */
	while (!(atomic_load(&session.gate.word) & GATE_CLOSED))
		sched_yield();
}

TEST(no_page_between_event_and_change,
     "Between the reading of an event and its being applied no page is put in place by anybody.")
{
	struct shelf *shelf;

	begin();
	shelf = map(64);
	scripted_answer(uf,
	                &(struct scripted_answer){
				.request = UFFDIO_COPY, .address = page(0), .ordinary = true, .before = remove_now});
	(void)shelf;
	CHECK_EQ(session_bring(&session, BASE, 8 * page_size, false), 0);
	session_settle(&session);
	wait_applied();
	CHECK_EQ(scripted_touch(uf, page(0), READ), 0);
	check_byte(page(0), 0);
	end();
}

TEST(unmapped_while_fetched, "Who waits for a page that is unmapped is woken, and what was fetched is put nowhere.")
{
	struct shelf *first, *second;
	struct actor *actor;

	begin();
	first = map(64);
	second = new_shelf(101, 64, false);
	hold_reads(first, 0, 64);
	actor = touch(page(0), READ);
	CHECK_EQ(session_bring(&session, page(1), 8 * page_size, false), 0);
	wait_held(first, 2);
	scripted_unmap(uf, BASE, 64 * page_size);
	wait_applied();
	/* Another mapping at the same place, whose page 0 is fetched as well. */
	CHECK_EQ(space_ranges(session.space), 0);
	insert(BASE, 64, new_source(second), 16 * page_size, page_size);
	hold_reads(second, 17, 18);
	CHECK_EQ(session_bring(&session, page(1), page_size, false), 0);
	wait_held(second, 1);
	let_reads(first);
	check_touched(actor);
	check_byte(page(0), content(second, 16 * page_size));
	CHECK_EQ(scripted_page(uf, page(1)), SCRIPTED_MISSING);
	let_reads(second);
	for (size_t i = 1; i < 10; i++) {
		CHECK_EQ(scripted_touch(uf, page(i), READ), 0);
		check_byte(page(i), content(second, (16 + i) * page_size));
	}
	end();
}

TEST(unmapped_units_wake_all,
     "Whatever part of a unit somebody waits for that is unmapped while it is held, he is woken.")
{
	struct shelf *shelf = new_shelf(1, 64, false);
	struct actor *actors[2];

	owner.patient = true;
	begin_with(FEATURES, (struct session_options){.later_ms = 300});
	insert(BASE, 64, new_source(shelf), 0, 4 * page_size);
	spoil(shelf, 0, 4);
	for (unsigned i = 0; i < 2; i++) {
		actors[i] = touch(page(1 + i), i ? WRITE : READ);
		while (atomic_load(&owner.failed) <= i)
			sched_yield();
	}
	session_settle(&session);
	scripted_unmap(uf, BASE, 4 * page_size);
	wait_applied();
	CHECK_EQ(actor_end(actors[0]).value, -EFAULT);
	CHECK_EQ(actor_end(actors[1]).value, -EFAULT);
	end();
}

TEST(moved_while_fetched,
     "A page that moves while it is fetched is put in place neither here nor there, and fetched again.")
{
	struct actor *actor;
	struct shelf *shelf;

	begin();
	shelf = map(64);
	hold_reads(shelf, 0, 64);
	actor = touch(page(2), READ);
	wait_held(shelf, 1);
	scripted_remap(uf, BASE, page(1024), 64 * page_size);
	wait_applied();
	let_reads(shelf);
	CHECK_EQ(actor_end(actor).value, -EFAULT);
	session_settle(&session);
	CHECK_EQ(scripted_page(uf, page(1024 + 2)), SCRIPTED_MISSING);
	for (size_t i = 0; i < 64; i++) {
		CHECK_EQ(scripted_touch(uf, page(1024 + i), i % 2 ? READ : WRITE), 0);
		check_byte(page(1024 + i), content(shelf, i * page_size));
	}
	end();
}

TEST(moved_there_and_back, "So is one that has come back meanwhile: whoever asks then gets it once.")
{
	struct actor *actors[2];
	struct shelf *shelf;

	begin();
	shelf = map(64);
	hold_reads(shelf, 0, 64);
	actors[0] = touch(page(2), READ);
	wait_held(shelf, 1);
	scripted_remap(uf, BASE, page(1024), 64 * page_size);
	scripted_remap(uf, page(1024), BASE, 64 * page_size);
	wait_applied();
	actors[1] = touch(page(2), WRITE);
	wait_held(shelf, 2);
	let_reads(shelf);
	check_touched(actors[0]);
	check_touched(actors[1]);
	read_back(shelf, 2);
	end();
}

static void check_page(const struct shelf *shelf, uint64_t addr, size_t from, bool zero)
{
	CHECK_EQ(scripted_touch(uf, addr, READ), 0);
	check_byte(addr, zero ? 0 : content(shelf, from * page_size));
}

TEST(events_cut_large_units,
     "A layout event may begin and end within a unit: what it speaks of is what it says, and the rest as before.")
{
	struct shelf *shelf = new_shelf(1, 64, false);
	struct session_source *source = new_source(shelf);
	struct actor *actor;

	begin();
	source->order = ORDER_RANDOM;
	insert(BASE, 64, source, 0, 4 * page_size);
	check_page(shelf, page(0), 0, false);
	/* In memory; still missing; on its way. */
	hold_reads(shelf, 8, 12);
	actor = touch(page(8), READ);
	wait_held(shelf, 1);
	scripted_remove(uf, page(1), page_size);
	scripted_remove(uf, page(5), 2 * page_size);
	scripted_remove(uf, page(9), page_size);
	wait_applied();
	let_reads(shelf);
	check_touched(actor);
	for (size_t i = 0; i < 12; i++)
		check_page(shelf, page(i), i, i == 1 || i == 5 || i == 6 || i == 9);
	/* By no multiple of the unit, from the middle of one to the middle of another. */
	scripted_remap(uf, page(14), page(33), 8 * page_size);
	scripted_unmap(uf, page(25), page_size);
	wait_applied();
	for (size_t i = 0; i < 8; i++)
		check_page(shelf, page(33 + i), 14 + i, false);
	check_page(shelf, page(13), 13, false);
	check_page(shelf, page(22), 22, false);
	check_page(shelf, page(24), 24, false);
	check_page(shelf, page(26), 26, false);
	check_page(shelf, page(32), 32, false);
	check_page(shelf, page(41), 41, false);
	check_page(shelf, page(63), 63, false);
	end();
}

/* With the gate closed nobody is half through. */
static uint64_t present(void)
{
	signal_mask before = session_change_begin(&session);
	uint64_t bytes = atomic_load(&session.stats.present);

	session_change_end(&session, before);
	return bytes;
}

TEST(present_pages_are_counted,
     "The count of what is present follows pages that come, and those that layout events take.")
{
	struct shelf *shelf;

	begin();
	shelf = map_as(64, true);
	for (size_t i = 0; i < 16; i++)
		read_back(shelf, i);
	session_settle(&session);
	CHECK_EQ(present(), 16 * page_size);
	scripted_remove(uf, page(2), 4 * page_size);
	wait_applied();
	CHECK_EQ(present(), 12 * page_size);
	CHECK_EQ(scripted_touch(uf, page(3), READ), 0);
	CHECK_EQ(present(), 13 * page_size);
	scripted_remap(uf, page(8), page(1024), 8 * page_size);
	wait_applied();
	CHECK_EQ(present(), 13 * page_size);
	/* What was there counts until it is told that it has gone. */
	scripted_coming(uf, true);
	scripted_remap(uf, page(24), page(1024), 8 * page_size);
	wait_applied();
	CHECK_EQ(present(), 13 * page_size);
	scripted_unmap(uf, page(1024), 8 * page_size);
	scripted_coming(uf, false);
	wait_applied();
	CHECK_EQ(present(), 5 * page_size);
	scripted_unmap(uf, BASE, 3 * page_size);
	wait_applied();
	CHECK_EQ(present(), 3 * page_size);
	end();
}

TEST(moved_there_and_back_is_another_fetch,
     "A fetch of a page that went and came back, and is fetched again, puts nothing in place: it may be out of date.")
{
	struct actor *actor, *again;
	struct shelf *shelf;

	begin();
	shelf = map_as(64, true);
	hold_reads(shelf, 0, 64);
	actor = touch(page(2), READ);
	wait_held(shelf, 1);
	scripted_remap(uf, BASE, page(1024), 64 * page_size);
	scripted_remap(uf, page(1024), BASE, 64 * page_size);
	wait_applied();
	again = touch(page(2), READ);
	wait_held(shelf, 2);
	CHECK_EQ(atomic_load(&owner.used), 2 * page_size);
	pthread_mutex_lock(&shelf->lock);
	shelf->let = 1;
	pthread_cond_broadcast(&shelf->changed);
	pthread_mutex_unlock(&shelf->lock);
	/* The first ends: what it had room for is given back, or its page is there. */
	while (atomic_load(&owner.used) == 2 * page_size && scripted_page(uf, page(2)) == SCRIPTED_MISSING)
		sched_yield();
	CHECK_EQ(scripted_page(uf, page(2)), SCRIPTED_MISSING);
	CHECK_EQ(state_of(page(2)), SPACE_FILLING);
	let_reads(shelf);
	check_touched(actor);
	check_touched(again);
	read_back(shelf, 2);
	end();
}

/*
 * Stores that fail.
 */

TEST(without_a_thread_it_waits,
     "What nobody could try to read, for want of a thread, is not lost: it is asked for again.")
{
	struct actor *actors[2];
	struct shelf *shelf;

	begin();
	shelf = map(64);
	shelf->bad_err = -EAGAIN;
	spoil(shelf, 0, 64);
	actors[0] = touch(page(3), READ);
	actors[1] = touch(page(4), WRITE);
	wait_read(shelf, 8);
	CHECK(actor_waits(actors[0]));
	spoil(shelf, 0, 0);
	check_touched(actors[0]);
	check_touched(actors[1]);
	CHECK_EQ(atomic_load(&owner.failed), 0);
	CHECK_EQ(session.stats.poisoned, 0);
	read_back(shelf, 3);
	read_back(shelf, 4);
	end();
}

TEST(only_what_failed_is_lost,
     "A page that cannot be read is poisoned after the retries; those that came with it are not.")
{
	struct shelf *shelf;

	begin();
	shelf = map(64);
	spoil(shelf, 2, 3);
	read_back(shelf, 0);
	read_back(shelf, 1); /* and 2, in vain */
	CHECK_EQ(owner.failed, 0);
	CHECK_EQ(scripted_touch(uf, page(2), READ), -EIO);
	CHECK_EQ(owner.failed, 1);
	CHECK_EQ(scripted_page(uf, page(2)), SCRIPTED_POISONED);
	CHECK_EQ(scripted_touch(uf, page(2), WRITE), -EIO);
	CHECK_EQ(session.stats.poisoned, page_size);
	read_back(shelf, 3);
	/* And when it can be read. */
	spoil(shelf, 0, 0);
	bring(0, 64, false);
	CHECK_EQ(scripted_page(uf, page(2)), SCRIPTED_POISONED);
	bring(0, 64, true);
	read_back(shelf, 2);
	end();
}

TEST(of_many_touched_only_the_bad_is_lost,
     "Of pages that are touched at once only those that cannot be read are poisoned.")
{
	struct batch batch;
	struct shelf *shelf;

	begin();
	shelf = map_as(64, true);
	spoil(shelf, 11, 12);
	AT_ONCE(&batch, 9, 10, 11, 12, 13);
	for (unsigned i = 0; i < batch.count; i++)
		CHECK_EQ(actor_end(batch.actors[i]).value, i == 2 ? -EIO : 0);
	for (size_t i = 9; i < 14; i++)
		if (i != 11)
			read_back(shelf, i);
	end();
}

TEST(poison_is_tried_again, "A thread that waits for a lost page gets its signal though a layout event is in the way.")
{
	struct shelf *shelf;

	begin();
	shelf = map(64);
	spoil(shelf, 0, 1);
	answer(UFFDIO_POISON, page(0), -EAGAIN);
	answer(UFFDIO_POISON, page(0), -EAGAIN);
	CHECK_EQ(scripted_touch(uf, page(0), READ), -EIO);
	end();
}

TEST(poison_of_a_unit_in_parts, "All of a lost unit is poisoned, also when a part of it had come.")
{
	struct shelf *shelf = new_shelf(1, 64, false);
	struct actor *writer;

	begin();
	insert(BASE, 64, new_source(shelf), 0, 4 * page_size);
	scripted_answer(uf,
	                &(struct scripted_answer){.request = UFFDIO_COPY, .err = -EAGAIN, .done = (int64_t)page_size});
	answer(UFFDIO_COPY, page(1), -ENOENT);
	check_touched(touch(page(0), WRITE));
	spoil(shelf, 0, 4);
	writer = touch(page(2), WRITE);
	CHECK_EQ(actor_end(writer).value, -EIO);
	CHECK_EQ(scripted_touch(uf, page(1), READ), -EIO);
	CHECK_EQ(scripted_touch(uf, page(3), READ), -EIO);
	end();
}

TEST(without_poison_it_waits,
     "Where pages cannot be poisoned, who touches a lost one waits until it is brought after all.")
{
	struct actor *actors[2];
	struct shelf *shelf;

	begin_with(FEATURES & ~(uint64_t)UFFD_FEATURE_POISON, (struct session_options){.later_ms = 1});
	shelf = map(64);
	spoil(shelf, 0, 1);
	actors[0] = touch(page(0), READ);
	while (state_of(page(0)) != SPACE_LOST)
		sched_yield();
	actors[1] = touch(page(0), WRITE);
	scripted_wait_sleepers(uf, 2);
	scripted_wait_read(uf);
	/* It is served behind that. */
	read_back(shelf, 9);
	CHECK_EQ(scripted_sleepers(uf), 2);
	CHECK_EQ(scripted_count(uf, UFFDIO_WAKE), 0);
	spoil(shelf, 0, 0);
	bring(0, 1, true);
	check_touched(actors[0]);
	check_touched(actors[1]);
	read_back(shelf, 0);
	end();
}

TEST(later, "If the owner is patient, what fails is asked for again until it comes.")
{
	struct actor *actors[2];
	struct shelf *shelf;

	owner.patient = true;
	begin();
	shelf = map(64);
	spoil(shelf, 0, 1);
	actors[0] = touch(page(0), READ);
	wait_read(shelf, 8);
	actors[1] = touch(page(0), WRITE);
	scripted_wait_sleepers(uf, 2);
	wait_read(shelf, reads_of(shelf) + 8);
	read_back(shelf, 5);
	CHECK_EQ(scripted_sleepers(uf), 2);
	spoil(shelf, 0, 0);
	check_touched(actors[0]);
	check_touched(actors[1]);
	read_back(shelf, 0);
	CHECK(owner.failed >= 4);
	end();
}

TEST(later_is_no_spin, "Between two attempts lies the time that was set.")
{
	struct session_options options = {.later_ms = 100000};
	struct actor *actor;
	struct shelf *shelf;

	owner.patient = true;
	begin_with(FEATURES, options);
	shelf = map(64);
	spoil(shelf, 0, 1);
	actor = touch(page(0), READ);
	wait_read(shelf, 2);
	while (!atomic_load(&owner.failed))
		sched_yield();
	for (size_t i = 5; i < 64; i += 5)
		read_back(shelf, i);
	CHECK_EQ(owner.failed, 1);
	CHECK(actor_waits(actor));
	/* Another touch asks at once, and is for all. */
	spoil(shelf, 0, 0);
	CHECK_EQ(scripted_touch(uf, page(0), WRITE), 0);
	check_touched(actor);
	end();
}

/*
 * Room.
 */

TEST(no_room, "A touch for which there is no room is held, and served after session_retry().")
{
	struct actor *actors[3];
	struct shelf *shelf;

	begin();
	shelf = map(64);
	scripted_remove(uf, page(20), page_size);
	wait_applied();
	owner.limit = 0;
	actors[0] = touch(page(0), READ);
	actors[1] = touch(page(10), WRITE);
	actors[2] = touch(page(20), READ);
	scripted_wait_sleepers(uf, 3);
	scripted_wait_read(uf);
	while (atomic_load(&owner.refused) < 3)
		sched_yield();
	session_retry(&session);
	CHECK_EQ(scripted_sleepers(uf), 3);
	owner.limit = (uint64_t)1 << 40;
	session_retry(&session);
	for (unsigned i = 0; i < 3; i++)
		check_touched(actors[i]);
	read_back(shelf, 0);
	read_back(shelf, 10);
	check_byte(page(20), 0);
	end();
}

TEST(no_room_for_more, "With room for one page a touch gets its page, and nothing is read ahead.")
{
	struct batch batch;
	struct shelf *shelf;

	begin();
	shelf = map(64);
	owner.limit = 2 * page_size;
	AT_ONCE(&batch, 0, 1);
	end_batch(&batch);
	AT_ONCE(&batch, 2, 3);
	while (atomic_load(&owner.refused) < 2)
		sched_yield();
	CHECK_EQ(scripted_sleepers(uf), 2);
	owner.limit = 64 * page_size;
	session_retry(&session);
	end_batch(&batch);
	for (size_t i = 0; i < 4; i++)
		read_back(shelf, i);
	end();
}

/*
 * Closing, and several threads.
 */

static long do_close(void *arg)
{
	(void)arg;
	session_close(&session);
	return 0;
}

TEST(close_waits_for_fetches, "session_close() waits for what is in flight.")
{
	struct actor *closer;
	struct shelf *shelf;

	begin();
	shelf = map(64);
	hold_reads(shelf, 0, 64);
	CHECK_EQ(session_bring(&session, BASE, 8 * page_size, false), 0);
	CHECK_EQ(session_bring(&session, page(20), 8 * page_size, false), 0);
	wait_held(shelf, 2);
	closer = act_call(do_close, NULL);
	CHECK(actor_waits(closer));
	let_reads(shelf);
	CHECK_EQ(actor_end(closer).value, 0);
	CHECK_EQ(scripted_descriptors(), 0);
}

TEST(many_loops_end, "A session with several threads can be closed at any time.")
{
	for (unsigned i = 0; i < 200; i++) {
		begin_with(FEATURES, (struct session_options){.threads = 1 + i % 4});
		if (i % 3 == 0) {
			map(4);
			CHECK_EQ(scripted_touch(uf, page(i % 4), READ), 0);
		}
		session_close(&session);
		owner.used = 0;
	}
}

TEST(many_loops_forget_nothing, "What is held is served, whichever of several threads hears that there is room.")
{
	struct actor *actors[8];
	struct shelf *shelf;

	begin_with(FEATURES, (struct session_options){.threads = 4});
	shelf = map(64);
	for (unsigned i = 0; i < 50; i++) {
		owner.limit = atomic_load(&owner.used);
		owner.refused = 0;
		for (unsigned k = 0; k < 8; k++)
			actors[k] = touch(page(k * 8), READ);
		while (atomic_load(&owner.refused) < 8)
			sched_yield();
		owner.limit = (uint64_t)1 << 40;
		session_retry(&session);
		for (unsigned k = 0; k < 8; k++)
			check_touched(actors[k]);
		for (unsigned k = 0; k < 8; k++)
			read_back(shelf, k * 8);
		scripted_unmap(uf, BASE, 64 * page_size);
		wait_applied();
		insert(BASE, 64, new_source(shelf), 0, page_size);
	}
	end();
}

/*
 * The gate.
 */

static long pass_gate(void *arg)
{
	gate_enter(arg);
	gate_leave(arg);
	return 0;
}

/* How often threads other than this one have gone to sleep, or been made to wait. */
static long others_switched(void)
{
	struct rusage all, own;

	CHECK_EQ(getrusage(RUSAGE_SELF, &all), 0);
	CHECK_EQ(getrusage(RUSAGE_THREAD, &own), 0);
	return all.ru_nvcsw + all.ru_nivcsw - own.ru_nvcsw - own.ru_nivcsw;
}

TEST(who_waits_at_the_gate_sleeps,
     "Threads that find the gate closed sleep until it is opened, and do not wake one another.")
{
	struct timespec moment = {.tv_nsec = 5000000};
	struct gate gate = {0};
	struct actor *actors[4];

	for (unsigned i = 0; i < 30; i++) {
		long before, after;

		gate_close(&gate);
		for (unsigned k = 0; k < 4; k++)
			actors[k] = act_call(pass_gate, &gate);
		do {
			before = others_switched();
			nanosleep(&moment, NULL);
			after = others_switched();
		} while (before != after);
		gate_open(&gate);
		for (unsigned k = 0; k < 4; k++)
			check_touched(actors[k]);
	}
}

/*
 * Inline.
 */

TEST(inline_at_once, "On the thread that faults: what is at hand is put in place there, and nobody is woken for it.")
{
	struct scripted_call copies[4];
	struct shelf *shelf = new_shelf(1, 64, true);

	begin_inline();
	insert(BASE, 64, new_source(shelf), 0, page_size);
	read_back(shelf, 7);
	CHECK_EQ(scripted_touch(uf, page(20), WRITE), 0);
	check_byte(page(20), content(shelf, 20 * page_size));
	CHECK_EQ(calls_of(UFFDIO_COPY, copies, 4), 2);
	check_call(&copies[0], 7, 1);
	CHECK_EQ(copies[0].mode, UFFDIO_COPY_MODE_WP | UFFDIO_COPY_MODE_DONTWAKE);
	CHECK_EQ(copies[1].mode, UFFDIO_COPY_MODE_DONTWAKE);
	CHECK_EQ(scripted_touch(uf, page(7), WRITE), 0);
	CHECK_EQ(state_of(page(7)), SPACE_DIRTY);
	CHECK_EQ(scripted_count(uf, UFFDIO_WRITEPROTECT), 1);
	end();
}

TEST(inline_fetch, "What has to be fetched is fetched by the loop, once for all threads that want it.")
{
	struct actor *actors[6];
	struct shelf *shelf;

	begin_inline();
	shelf = map(64);
	hold_reads(shelf, 0, 64);
	for (unsigned i = 0; i < 6; i++)
		actors[i] = touch(page(i % 2), i == 4 ? WRITE : READ);
	wait_held(shelf, 2);
	for (unsigned i = 0; i < 6; i++)
		CHECK(actor_waits(actors[i]));
	let_reads(shelf);
	for (unsigned i = 0; i < 6; i++)
		check_touched(actors[i]);
	CHECK_EQ(reads_of(shelf), 2);
	read_back(shelf, 0);
	read_back(shelf, 1);
	end();
}

TEST(inline_lost, "A page that cannot be read is -EIO for every thread that waits for it.")
{
	struct actor *actors[4];
	struct shelf *shelf;

	begin_inline();
	shelf = map(64);
	spoil(shelf, 0, 1);
	hold_reads(shelf, 0, 1);
	for (unsigned i = 0; i < 4; i++)
		actors[i] = touch(page(0), READ);
	wait_held(shelf, 1);
	let_reads(shelf);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(actor_end(actors[i]).value, -EIO);
	CHECK_EQ(owner.failed, 1);
	end();
}

TEST(inline_later, "If the owner is patient, threads that wait inline wait on.")
{
	struct actor *actors[3];
	struct shelf *shelf;

	owner.patient = true;
	begin_inline();
	shelf = map(64);
	spoil(shelf, 0, 1);
	for (unsigned i = 0; i < 3; i++)
		actors[i] = touch(page(0), i ? READ : WRITE);
	wait_read(shelf, 10);
	spoil(shelf, 0, 0);
	for (unsigned i = 0; i < 3; i++)
		check_touched(actors[i]);
	read_back(shelf, 0);
	end();
}

TEST(inline_without_memory,
     "Who waits inline tries again by himself: nothing is left to the loop as well, however often.")
{
	struct shelf *shelf = new_shelf(1, 64, true);

	begin_inline();
	session.options.later_ms = 1000000;
	insert(BASE, 64, new_source(shelf), 0, page_size);
	for (unsigned i = 0; i < 5; i++)
		answer(UFFDIO_COPY, page(3), -ENOMEM);
	read_back(shelf, 3);
	end();
	CHECK(!session.posts && !session.kept.held && !session.kept.later);
}

TEST(inline_room, "Inline, threads wait for room themselves, and for what the loop waits for.")
{
	struct actor *actors[3];
	struct shelf *slow, *quick = new_shelf(101, 64, true);

	begin_inline();
	slow = map(64);
	insert(page(1024), 64, new_source(quick), 0, page_size);
	owner.limit = 0;
	actors[0] = touch(page(0), READ);
	actors[1] = touch(page(9), WRITE);
	actors[2] = touch(page(1024), READ);
	for (unsigned i = 0; i < 3; i++)
		CHECK(actor_waits(actors[i]));
	owner.limit = (uint64_t)1 << 40;
	atomic_fetch_add(&owner.room, 1);
	futex_wake(&owner.room, INT_MAX);
	session_retry(&session);
	for (unsigned i = 0; i < 3; i++)
		check_touched(actors[i]);
	read_back(slow, 0);
	read_back(slow, 9);
	check_byte(page(1024), content(quick, 0));
	end();
}

/*
 * Everything at once, against a model: what each page holds.
 */

#define MODEL_PAGES \
	192 /* at BASE; of them from MOVING on at an address that changes, and from RENEWED on of a store that does */
#define MOVING  128
#define RENEWED 160
#define TOUCHES 1500

struct model_page {
	pthread_mutex_t lock;  /* held by who changes it */
	_Atomic uint32_t turn; /* odd while it is being changed */
	_Atomic unsigned char value;
	unsigned char resting; /* where it is RESTING */
};

static struct {
	struct model_page pages[MODEL_PAGES];
	_Atomic uint64_t moving; /* the address of page MOVING */
	struct shelf *shelves[2];
	uint64_t unit;
	bool events; /* the layout changes; otherwise pages are evicted */
	_Atomic unsigned touches;
	_Atomic bool over;
} model;

/* Taken by who touches, so that nobody does between mmap(2) and the registration: that would be zeros for good. */
static pthread_rwlock_t mapping = PTHREAD_RWLOCK_INITIALIZER;

static uint64_t model_addr(size_t i)
{
	return i >= MOVING && i < RENEWED ? atomic_load(&model.moving) + (i - MOVING) * page_size : page(i);
}

static void begin_change(size_t first, size_t pages)
{
	for (size_t i = first; i < first + pages; i++) {
		pthread_mutex_lock(&model.pages[i].lock);
		atomic_fetch_add(&model.pages[i].turn, 1);
	}
}

static void end_change(size_t first, size_t pages)
{
	for (size_t i = first; i < first + pages; i++) {
		atomic_fetch_add(&model.pages[i].turn, 1);
		pthread_mutex_unlock(&model.pages[i].lock);
	}
}

/* False: it is elsewhere by now. */
static bool model_touch(size_t i, enum scripted_access access, uint64_t *addr)
{
	int err;

	*addr = model_addr(i);
	if (i >= RENEWED)
		pthread_rwlock_rdlock(&mapping);
	err = scripted_touch(uf, *addr, access);
	if (i >= RENEWED)
		pthread_rwlock_unlock(&mapping);
	CHECK(!err || (err == -EFAULT && i >= MOVING));
	return !err;
}

static void model_read(size_t i)
{
	struct model_page *model_page = &model.pages[i];
	uint32_t turn = atomic_load(&model_page->turn);
	unsigned char value, expected;
	uint64_t addr;

	while (!model_touch(i, READ, &addr) || !scripted_load(uf, addr, &value))
		sched_yield();
	expected = atomic_load(&model_page->value);
	if (turn % 2 == 0 && atomic_load(&model_page->turn) == turn)
		CHECK_EQ(value, expected);
}

static void model_write(size_t i, unsigned char value)
{
	uint64_t addr;

	begin_change(i, 1);
	while (!model_touch(i, WRITE, &addr) || !scripted_store(uf, addr, value))
		sched_yield();
	atomic_store(&model.pages[i].value, value);
	end_change(i, 1);
}

static long model_touches(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg, i = 0;

	for (unsigned n = 0; n < TOUCHES; n++) {
		i = rand_r(&seed) % 3 ? (i + 1) % MODEL_PAGES : (unsigned)rand_r(&seed) % MODEL_PAGES;
		if (rand_r(&seed) % 8)
			model_read(i);
		else
			model_write(i, (unsigned char)rand_r(&seed));
		atomic_fetch_add(&model.touches, 1);
	}
	return 0;
}

static long model_brings(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (!atomic_load(&model.over)) {
		size_t i = (size_t)rand_r(&seed) % MODEL_PAGES, pages = 1 + (size_t)rand_r(&seed) % 32;
		int err = session_bring(&session, model_addr(i), pages * page_size, rand_r(&seed) % 2);

		CHECK(!err || err == -ENOMEM);
		if (rand_r(&seed) % 4 == 0)
			session_settle(&session);
		sched_yield();
	}
	return 0;
}

static void model_remove(unsigned *seed)
{
	size_t unit = model.unit / page_size, pages = unit * (1 + (size_t)rand_r(seed) % 2);
	size_t first = (size_t)rand_r(seed) % (MOVING - pages) / unit * unit;

	begin_change(first, pages);
	scripted_remove(uf, page(first), pages * page_size);
	for (size_t i = first; i < first + pages; i++)
		atomic_store(&model.pages[i].value, 0);
	end_change(first, pages);
}

static void model_move(void)
{
	uint64_t from = atomic_load(&model.moving), to = from == page(1024) ? page(2048) : page(1024);

	scripted_remap(uf, from, to, (RENEWED - MOVING) * page_size);
	atomic_store(&model.moving, to);
	wait_applied();
}

static void model_renew(unsigned *seed)
{
	struct shelf *shelf = model.shelves[rand_r(seed) % 2];
	size_t pages = MODEL_PAGES - RENEWED;

	for (size_t i = RENEWED; i < MODEL_PAGES; i++)
		begin_change(i, 1);
	scripted_unmap(uf, page(RENEWED), pages * page_size);
	wait_applied();
	pthread_rwlock_wrlock(&mapping);
	insert(page(RENEWED), pages, new_source(shelf), 0, model.unit);
	pthread_rwlock_unlock(&mapping);
	for (size_t i = RENEWED; i < MODEL_PAGES; i++) {
		atomic_store(&model.pages[i].value, content(shelf, (i - RENEWED) * page_size));
		end_change(i, 1);
	}
}

static long model_layout(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (unsigned n = 0; !atomic_load(&model.over); n++) {
		/* If it never stood still nobody would get anywhere. */
		while (atomic_load(&model.touches) < 4 * n && !atomic_load(&model.over))
			sched_yield();
		model_remove(&seed);
		if (n % 8 == 0)
			model_move();
		/* Writers of these hold the pages while they wait for them, so they must come. */
		if (n % 64 == 0)
			model_renew(&seed);
		wait_applied();
	}
	return 0;
}

/* Out of memory, as a pager does it; with a whole unit claimed. */
static void take_out(const struct space_range *range, uint64_t addr, bool dirty)
{
	void *at = (void *)(uintptr_t)addr;

	while (dirty && uf_writeprotect(uf, at, range->unit, UFFDIO_WRITEPROTECT_MODE_WP))
		;
	for (uint64_t done = 0; done < range->unit; done += page_size) {
		size_t i = (addr + done - BASE) / page_size;

		CHECK(scripted_load(uf, addr + done, &model.pages[i].resting));
	}
	scripted_remove(uf, addr, range->unit);
	session_release(&session, state_at(range, addr), dirty ? SPACE_RESTING : SPACE_MISSING, 0, 0);
	dismiss(NULL, range->unit);
}

static int model_restore(void *arg, const struct space_range *range, uint64_t addr)
{
	char *bytes = malloc(range->unit);
	uint64_t done = 0;
	ssize_t n;

	(void)arg;
	CHECK(bytes);
	for (uint64_t at = 0; at < range->unit; at += page_size)
		memset(bytes + at, model.pages[(addr + at - BASE) / page_size].resting, page_size);
	while (done < range->unit) {
		n = uf_copy(uf, (void *)(uintptr_t)(addr + done), bytes + done, range->unit - done, 0);
		done += n > 0 ? (uint64_t)n : n == -EEXIST ? page_size : 0;
	}
	free(bytes);
	return SPACE_DIRTY;
}

static long model_evicts(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (!atomic_load(&model.over)) {
		uint64_t addr = page((size_t)rand_r(&seed) % MODEL_PAGES);
		signal_mask before = session_enter(&session);
		struct space_range range;

		if (space_find(session.space, addr, &range)) {
			addr &= ~(range.unit - 1);
			if (session_claim(state_at(&range, addr), SPACE_CLEAN, SPACE_LEAVING))
				take_out(&range, addr, false);
			else if (session_claim(state_at(&range, addr), SPACE_DIRTY, SPACE_LEAVING))
				take_out(&range, addr, true);
		}
		session_leave(&session, before);
		session_retry(&session);
	}
	return 0;
}

/* Whatever a kernel may answer, and stores and owners as well. */
static long model_chaos(void *arg)
{
	static const unsigned long requests[] = {UFFDIO_COPY, UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_WRITEPROTECT};
	static const int errors[] = {-EAGAIN, -EAGAIN, -EAGAIN, -ENOENT, -ENOMEM};
	unsigned seed = (unsigned)(uintptr_t)arg;

	while (!atomic_load(&model.over)) {
		unsigned bad = (unsigned)rand_r(&seed) % MODEL_PAGES;
		struct scripted_answer wrong = {.request = requests[rand_r(&seed) % 4],
		                                .err = errors[rand_r(&seed) % 5]};

		if (wrong.request == UFFDIO_COPY && wrong.err == -EAGAIN) {
			wrong.ordinary = rand_r(&seed) % 2;
			wrong.done = wrong.ordinary ? (int64_t)page_size : shapes[rand_r(&seed) % 2];
		}
		/* A handler that is refused gives up, and so it should. */
		if (wrong.request == UFFDIO_WRITEPROTECT && session.options.inline_faults)
			wrong.err = -EAGAIN;
		if (scripted_unused(uf) < 4)
			scripted_answer(uf, &wrong);
		spoil(model.shelves[0], bad, bad + (unsigned)rand_r(&seed) % 3);
		if (rand_r(&seed) % 8 == 0)
			owner.limit = atomic_load(&owner.used) + 4 * model.unit;
		for (unsigned n = (unsigned)rand_r(&seed) % 64; n; n--)
			sched_yield();
		owner.limit = (uint64_t)1 << 40;
		dismiss(NULL, 0);
		session_retry(&session);
	}
	spoil(model.shelves[0], 0, 0);
	return 0;
}

static void model_pages(void)
{
	for (size_t i = 0; i < MODEL_PAGES; i++) {
		size_t from = i < RENEWED ? i : i - RENEWED;

		pthread_mutex_init(&model.pages[i].lock, NULL);
		model.pages[i].value = content(model.shelves[0], from * page_size);
	}
	model.moving = page(1024);
	insert(BASE, MOVING, new_source(model.shelves[0]), 0, model.unit);
	insert(page(1024), RENEWED - MOVING, new_source(model.shelves[0]), MOVING * page_size, model.unit);
	insert(page(RENEWED), MODEL_PAGES - RENEWED, new_source(model.shelves[0]), 0, model.unit);
}

/* After begin_*(). */
static void against_model(bool quick, size_t unit, bool events)
{
	struct actor *actors[4], *others[3];

	owner.patient = true;
	model.unit = unit * page_size;
	model.events = events;
	model.shelves[0] = new_shelf(1, MODEL_PAGES, quick);
	model.shelves[1] = new_shelf(101, MODEL_PAGES, quick);
	model_pages();
	for (uintptr_t i = 0; i < 4; i++)
		actors[i] = act_call(model_touches, (void *)(i + 1));
	others[0] = act_call(model_brings, (void *)5);
	others[1] = act_call(model_chaos, (void *)6);
	others[2] = act_call(events ? model_layout : model_evicts, (void *)7);
	for (unsigned i = 0; i < 4; i++)
		check_touched(actors[i]);
	atomic_store(&model.over, true);
	for (unsigned i = 0; i < 3; i++)
		actor_end(others[i]);
	session_settle(&session);
	for (size_t i = 0; i < MODEL_PAGES; i++)
		model_read(i);
	session_settle(&session);
	CHECK_EQ(scripted_sleepers(uf), 0);
	if (!events)
		check_room();
	session_close(&session);
}

TEST(model_with_events, "Faults, brings, failures and layout events in any order: every touch finds what it should.")
{
	begin();
	against_model(false, 1, true);
}

TEST(model_with_events_and_threads, "The same with several threads, and pages that are at hand.")
{
	begin_with(FEATURES, (struct session_options){.later_ms = 1, .threads = 3});
	against_model(true, 1, true);
}

TEST(model_with_large_units, "The same with units of several pages.")
{
	begin();
	against_model(false, 4, true);
}

TEST(model_with_eviction, "Faults, brings and failures, while pages leave memory: every touch finds what it should.")
{
	begin_with(FEATURES & ~EVENTS, (struct session_options){.later_ms = 1});
	against_model(false, 1, false);
}

TEST(model_with_eviction_of_large_units, "The same with units of several pages, and several threads.")
{
	begin_with(FEATURES & ~EVENTS, (struct session_options){.later_ms = 1, .threads = 3});
	against_model(true, 4, false);
}

TEST(model_inline, "The same on the threads that fault, from stores that take their time.")
{
	begin_inline();
	against_model(false, 1, false);
}

TEST(model_inline_at_once, "The same from stores that are at hand.")
{
	begin_inline();
	against_model(true, 4, false);
}
