// SPDX-License-Identifier: MIT
/* Pagers when several things happen at once, in an order that the test makes where it can. */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "support/paged.h"

#define PAGE 4096u
#define KIB  ((uint64_t)1 << 10)
#define MIB  ((uint64_t)1 << 20)

/*
 * Touches that come together: the loop is kept busy until all of them are there, and then finds them at once. Inline there is nothing
 * to be merged.
 */
static void touch_together(struct uf_pager *pager, struct toucher *touchers, const char *const *at, unsigned count)
{
	struct fake busy;
	struct uf_store *store = fake_open(&busy, MIB, FAKE_TRIES);
	char *apart = paged_map(pager, store, 0, MIB, UF_PAGER_READ_ONLY, 0);
	struct toucher first;

	atomic_store(&busy.try_held, true);
	start_touch(&first, apart);
	if (paged_way == UF_PAGER_THREAD)
		wait_until(&busy.try_waiting, 1);
	for (unsigned i = 0; i < count; i++) {
		start_touch(&touchers[i], at[i]);
		if (paged_way == UF_PAGER_THREAD)
			sleeper_wait(&touchers[i].sleeper);
	}
	atomic_store(&busy.try_held, false);
	for (unsigned i = 0; i < count; i++)
		end_touch(&touchers[i]);
	end_touch(&first);
	CHECK_EQ(first.byte, paged_content(0));
	CHECK_EQ(uf_pager_unmap(pager, apart, MIB), 0);
	uf_store_close(store);
}

BOTH_WAYS(touches_across_units,
          "Touches that come together, on both sides of the border of two units, bring both and no more.")
{
	struct uf_store *store = filled_memory(MIB);
	struct uf_pager *pager = paged_open(MIB);
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 64 * KIB);
	const char *both[] = {at + 64 * KIB - PAGE, at + 64 * KIB, at + 192 * KIB - PAGE, at + 192 * KIB};
	struct toucher touchers[4];

	touch_together(pager, touchers, both, 4);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(touchers[i].byte, paged_content((uint64_t)(both[i] - at)));
	CHECK(is_content(at, 0, MIB));
	CHECK_EQ(paged_stats(pager).resident % (64 * KIB), 0);
	CHECK_EQ(uf_pager_unmap(pager, at, MIB), 0);
	while (paged_stats(pager).resident)
		sched_yield();
	uf_pager_close(pager);
	uf_store_close(store);
}

/* Two mappings side by side, the second from another place of its store; NULL when the system has put them apart. */
static char *map_neighbours(struct uf_pager *pager, struct uf_store *a, struct uf_store *b)
{
	/* The second falls into the hole that is left in the first, once there is no other. */
	char *whole = paged_map(pager, a, 0, 64 * PAGE, UF_PAGER_SHARED, 0), *hole = whole + 30 * PAGE, *other, *p;

	CHECK_EQ(uf_pager_unmap(pager, hole, 5 * PAGE), 0);
	for (int i = 0; i < 20000; i++) {
		p = mmap(NULL, 5 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (p == hole)
			break;
	}
	munmap(p, 5 * PAGE);
	other = paged_map(pager, b, 100 * PAGE, 4 * PAGE, UF_PAGER_SHARED, 0);
	return other == hole ? whole : NULL;
}

BOTH_WAYS(touches_across_mappings,
          "Touches that come together, on both sides of a border of two mappings, bring each its own.")
{
	struct uf_store *a = filled_memory(MIB), *b = filled_memory(MIB);
	struct uf_pager *pager = paged_open(MIB);
	struct toucher touchers[4];
	char *at = map_neighbours(pager, a, b);

	/* The user engine maps beside it what it needs itself. */
	if (!at && !strcmp(test_engine, "user"))
		return;
	CHECK(at);
	{
		const char *pages[] = {at + 28 * PAGE, at + 29 * PAGE, at + 30 * PAGE, at + 31 * PAGE};

		touch_together(pager, touchers, pages, 4);
	}
	CHECK_EQ(touchers[0].byte, paged_content(28 * PAGE));
	CHECK_EQ(touchers[1].byte, paged_content(29 * PAGE));
	CHECK_EQ(touchers[2].byte, paged_content(100 * PAGE));
	CHECK_EQ(touchers[3].byte, paged_content(101 * PAGE));
	CHECK(is_content(at, 0, 30 * PAGE) && is_content(at + 30 * PAGE, 100 * PAGE, 4 * PAGE));
	CHECK(is_content(at + 35 * PAGE, 35 * PAGE, 29 * PAGE));
	uf_pager_close(pager);
	uf_store_close(a);
	uf_store_close(b);
}

BOTH_WAYS(bad_neighbour,
          "A page that cannot be read is lost alone, also when its neighbours are touched together with it.")
{
	struct fake fake;
	struct uf_store *store = fake_open(&fake, MIB, 0);
	struct uf_pager *pager = paged_open(MIB);
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0);
	const char *pages[] = {at + 4 * PAGE, at + 5 * PAGE, at + 6 * PAGE, at + 7 * PAGE};
	struct toucher touchers[4];

	fake_script(&fake, 5 * PAGE, PAGE, FAKE_BAD_READ);
	touch_together(pager, touchers, pages, 4);
	for (unsigned i = 0; i < 4; i++) {
		CHECK_EQ(touchers[i].sig, i == 1 ? SIGBUS : 0);
		if (i != 1)
			CHECK_EQ(touchers[i].byte, paged_content((4 + i) * PAGE));
	}
	CHECK_EQ(paged_stats(pager).poisoned, PAGE);
	CHECK_EQ(paged_failures, 1);
	uf_pager_close(pager);
	uf_store_close(store);
}

/*
 * Too little room.
 */

struct hammer {
	pthread_t thread;
	char *at;
	uint64_t len;
	unsigned seed, touches;
	_Atomic bool *end;
};

static void *hammer(void *arg)
{
	struct hammer *hammer = arg;

	for (unsigned i = 0; !hammer->end ? i < hammer->touches : !atomic_load(hammer->end); i++) {
		uint64_t page = (uint64_t)rand_r(&hammer->seed) % (hammer->len / PAGE) * PAGE;

		CHECK_EQ(hammer->at[page + 1], paged_content(page + 1));
		if (rand_r(&hammer->seed) % 2)
			hammer->at[page] = (char)i;
	}
	return NULL;
}

static void start_hammers(struct hammer *hammers, unsigned count, char *at, uint64_t len, unsigned touches,
                          _Atomic bool *end)
{
	for (unsigned i = 0; i < count; i++) {
		hammers[i] = (struct hammer){.at = at, .len = len, .seed = i + 1, .touches = touches, .end = end};
		CHECK_EQ(pthread_create(&hammers[i].thread, NULL, hammer, &hammers[i]), 0);
	}
}

static void end_hammers(struct hammer *hammers, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		pthread_join(hammers[i].thread, NULL);
}

static void few_pages(struct uf_store *store, unsigned flags, size_t unit)
{
	struct uf_pager *pager = paged_open(8 * unit);
	char *at = paged_map(pager, store, 0, 64 * unit, flags, unit);
	struct hammer hammers[32];

	start_hammers(hammers, 32, at, 64 * unit, 40, NULL);
	end_hammers(hammers, 32);
	CHECK(paged_stats(pager).resident <= 8 * unit);
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(few_pages_many_threads, "Eight pages are enough for any number of threads, whatever the store can do.")
{
	static const size_t units[] = {4 * KIB, 64 * KIB};
	const char *path;

	for (unsigned i = 0; i < 2; i++) {
		struct fake fakes[3];

		few_pages(filled_memory(64 * units[i]), UF_PAGER_SHARED, units[i]);
		few_pages(filled_file(64 * units[i], &path), UF_PAGER_PRIVATE, units[i]);
		few_pages(fake_open(&fakes[0], 64 * units[i], 0), UF_PAGER_SHARED, units[i]);
		few_pages(fake_open(&fakes[1], 64 * units[i], FAKE_IN_SIGNAL), UF_PAGER_SHARED, units[i]);
		few_pages(fake_open(&fakes[2], 64 * units[i], FAKE_TRIES), UF_PAGER_PRIVATE, units[i]);
	}
}

BOTH_WAYS(never_above, "At no moment more is resident than the budget, and what is in memory is no more than that.")
{
	struct uf_store *store = filled_memory(4 * MIB);
	struct uf_pager *pager = paged_open(64 * PAGE);
	char *at = paged_map(pager, store, 0, 4 * MIB, UF_PAGER_SHARED, 0);
	_Atomic bool end = false;
	struct hammer hammers[4];

	start_hammers(hammers, 4, at, 4 * MIB, 0, &end);
	for (int i = 0; i < 500; i++) {
		if (i % 50 == 0)
			CHECK_EQ(uf_pager_advise(pager, at, MIB, UF_PAGER_WILLNEED), 0);
		CHECK(paged_stats(pager).resident <= 64 * PAGE);
		sched_yield();
	}
	atomic_store(&end, true);
	end_hammers(hammers, 4);
	uf_pager_close(pager);
	uf_store_close(store);
}

/*
 * Mappings that end while others are busy.
 */

BOTH_WAYS(unmap_during_prefetch, "A mapping can end while its pages are on their way.")
{
	for (int round = 0; round < 20; round++) {
		struct fake fake;
		struct uf_store *store = fake_open(&fake, 4 * MIB, 0), *other = filled_memory(MIB);
		struct uf_pager *pager = paged_open(8 * MIB);
		char *at = paged_map(pager, store, 0, 4 * MIB, UF_PAGER_SHARED, 0), *there;

		there = paged_map(pager, other, 0, MIB, UF_PAGER_SHARED, 0);
		atomic_store(&fake.held, round % 2);
		CHECK_EQ(uf_pager_advise(pager, at, 4 * MIB, UF_PAGER_WILLNEED), 0);
		if (round % 2)
			wait_until(&fake.waiting, 1);
		/* Parts can go at once, for the rest of the mapping is still there. */
		CHECK_EQ(uf_pager_unmap(pager, at, MIB / 2), 0);
		CHECK_EQ(uf_pager_unmap(pager, at + MIB, 3 * MIB), 0);
		CHECK(is_content(there, 0, MIB));
		atomic_store(&fake.held, false);
		CHECK(is_content(at + MIB / 2, MIB / 2, MIB / 2));
		CHECK_EQ(uf_pager_unmap(pager, at + MIB / 2, MIB / 2), 0);
		uf_store_close(store);
		CHECK_EQ(uf_pager_unmap(pager, there, MIB), 0);
		CHECK_EQ(paged_stats(pager).resident, 0);
		uf_pager_close(pager);
		uf_store_close(other);
	}
}

static void *unmap_and_close(void *arg)
{
	struct uf_pager *pager = arg;

	for (int i = 0; i < 20; i++) {
		struct fake fake;
		struct uf_store *store = fake_open(&fake, 64 * PAGE, 0);
		char *at = paged_map(pager, store, 0, 64 * PAGE, UF_PAGER_SHARED, 0);

		at[0] = 'x';
		CHECK_EQ(uf_pager_advise(pager, at, 64 * PAGE, UF_PAGER_WILLNEED), 0);
		CHECK_EQ(uf_pager_unmap(pager, at, 64 * PAGE), 0);
		uf_store_close(store);
		CHECK_EQ(fake.bytes[0], 'x');
		free(fake.bytes);
	}
	return NULL;
}

BOTH_WAYS(unmap_beside_others, "A mapping ends, and its store may be closed, however busy the others are.")
{
	struct fake fake;
	struct uf_store *store = fake_open(&fake, 4 * MIB, 0);
	struct uf_pager *pager = paged_open(64 * PAGE);
	char *at = paged_map(pager, store, 0, 4 * MIB, UF_PAGER_SHARED, 0);
	_Atomic bool end = false;
	struct hammer hammers[6];
	pthread_t threads[2];

	start_hammers(hammers, 6, at, 4 * MIB, 0, &end);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, unmap_and_close, pager), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&end, true);
	end_hammers(hammers, 6);
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(flush_beside_unmap, "A flush of everything does not use a store that was closed when its mapping had ended.")
{
	struct uf_pager *pager = paged_open(256 * PAGE);
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, unmap_and_close, pager), 0);
	for (int i = 0; i < 200; i++)
		CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	uf_pager_close(pager);
}

static bool can_move(void)
{
	struct uf_options opts = {.size = sizeof(opts), .engine = UF_ENGINE_KERNEL, .wanted = UFFD_FEATURE_MOVE};
	struct uf *uf;
	bool can;

	CHECK_EQ(uf_open(&uf, &opts), 0);
	can = uf_features(uf) & UFFD_FEATURE_MOVE;
	uf_close(uf);
	return can;
}

/* Holds a page as a device does that reads into it. */
static void hold_as_device(char *page)
{
	struct io_uring_params params = {0};
	struct iovec iov = {page, PAGE};
	int ring = (int)syscall(SYS_io_uring_setup, 1, &params);

	if (ring < 0)
		SKIP("io_uring: %s", strerror(errno));
	CHECK_EQ(syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &iov, 1), 0);
}

/* Which of the machine's pages it is. */
static uint64_t frame_of(const char *page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	CHECK(fd >= 0);
	CHECK_EQ(pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)page / PAGE * sizeof(entry))), sizeof(entry));
	close(fd);
	return entry & (((uint64_t)1 << 55) - 1);
}

/* The user engine's MOVE copies, and tells of no device. */
BOTH_WAYS_OF("kernel", device_in_a_unit,
             "A unit stays where it is while a device reads into one of its pages, where MOVE tells of that.")
{
	struct uf_store *store = filled_memory(8 * MIB);
	struct uf_pager *pager = paged_open(2 * MIB);
	char *at = paged_map(pager, store, 0, 8 * MIB, UF_PAGER_SHARED, 64 * KIB), *page = at + 192 * KIB + 7 * PAGE;
	char byte;
	uint64_t frame;

	if (!can_move())
		SKIP("no MOVE that tells of devices");
	CHECK_EQ(touch_write(page, 'd'), 0);
	hold_as_device(page);
	frame = frame_of(page);
	if (!frame)
		SKIP("it is a secret which page of the machine it is");
	for (unsigned round = 0; round < 4; round++)
		for (uint64_t i = 256 * KIB; i < 8 * MIB; i += 64 * KIB)
			CHECK_EQ(touch_read(at + i, &byte), 0);
	CHECK(paged_stats(pager).evicted > 16 * MIB);
	CHECK_EQ(touch_read(page, &byte), 0);
	CHECK_EQ(byte, 'd');
	CHECK_EQ(frame_of(page), frame);
	/* Whatever became of its neighbours meanwhile, what is written to them is noticed. */
	write_pages(at + 192 * KIB, 64 * KIB, 'w');
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	uf_pager_close(pager);
	pager = paged_open(2 * MIB);
	at = paged_map(pager, store, 0, 8 * MIB, UF_PAGER_READ_ONLY, 0);
	check_pages(at + 192 * KIB, 192 * KIB, 64 * KIB, 'w');
	uf_pager_close(pager);
	uf_store_close(store);
}

/*
 * Pins, signals, and flushes against evictions.
 */

BOTH_WAYS(pins_against_evictions,
          "A page that was pinned is not taken away, whenever that was: a system call finds it.")
{
	struct uf_store *store = filled_memory(4 * MIB);
	struct uf_pager *pager = paged_open(64 * PAGE);
	char *at = paged_map(pager, store, 0, 4 * MIB, UF_PAGER_SHARED, 0);
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC), zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	_Atomic bool end = false;
	struct hammer hammers[3];
	unsigned seed = 9;
	char name[32];
	int memory;

	snprintf(name, sizeof(name), "pins");
	memory = memfd_create(name, MFD_CLOEXEC);
	start_hammers(hammers, 3, at, 4 * MIB, 0, &end);
	for (int i = 0; i < 400; i++) {
		char *page = at + (uint64_t)rand_r(&seed) % 1000 * PAGE;

		CHECK_EQ(uf_pager_pin(pager, page, 3 * PAGE), 0);
		CHECK_EQ(pwrite(memory, page, 3 * PAGE, 0) < 0 ? -errno : 0, 0);
		/* The first byte of each page is anybody's. */
		for (int k = 0; k < 3; k++)
			CHECK_EQ(read(zero, page + k * PAGE, 1) < 0 ? -errno : 0, 0);
		CHECK_EQ(uf_pager_unpin(pager, page, 3 * PAGE), 0);
	}
	atomic_store(&end, true);
	end_hammers(hammers, 3);
	CHECK_EQ(paged_stats(pager).pinned, 0);
	close(fd);
	close(zero);
	uf_pager_close(pager);
	uf_store_close(store);
}

/*
 * A thread that is signalled at a random moment of each of its steps.
 */

static struct {
	char *at;
	unsigned seed;
	pthread_t self;
	_Atomic unsigned steps, handled;
	_Atomic bool end;
} signalled;

static void touch_in_handler(int sig)
{
	(void)sig;
	for (int i = 0; i < 4; i++) {
		uint64_t page = (uint64_t)rand_r(&signalled.seed) % 1024 * PAGE;

		if (signalled.at[page + 1] != paged_content(page + 1))
			abort();
		signalled.at[page] = 'h';
	}
	atomic_fetch_add(&signalled.handled, 1);
}

static void *send_signals(void *arg)
{
	unsigned seed = 3;

	(void)arg;
	for (unsigned seen = 0; !atomic_load(&signalled.end);) {
		unsigned handled = atomic_load(&signalled.handled);

		if (atomic_load(&signalled.steps) == seen) {
			sched_yield();
			continue;
		}
		seen = atomic_load(&signalled.steps);
		usleep((useconds_t)rand_r(&seed) % 300);
		pthread_kill(signalled.self, SIGUSR1);
		while (atomic_load(&signalled.handled) == handled)
			sched_yield();
	}
	return NULL;
}

static void step(struct uf_pager *pager, char *at, unsigned i)
{
	atomic_fetch_add(&signalled.steps, 1);
	switch (i % 5) {
	case 0:
		for (uint64_t page = 0; page < 48; page++)
			at[page * PAGE] = (char)i;
		break;
	case 1:
		CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
		break;
	case 2:
		CHECK_EQ(uf_pager_advise(pager, at, 4 * MIB, UF_PAGER_DONTNEED), 0);
		break;
	case 3:
		CHECK_EQ(uf_pager_pin(pager, at + PAGE, 2 * PAGE), 0);
		CHECK_EQ(uf_pager_unpin(pager, at + PAGE, 2 * PAGE), 0);
		break;
	default:
		paged_stats(pager);
	}
}

BOTH_WAYS(signal_handlers_touch,
          "Handlers of the program's own signals may touch the memory, whatever the thread was doing.")
{
	struct uf_store *store = filled_memory(4 * MIB);
	struct uf_pager *pager = paged_open(32 * PAGE);
	char *at = paged_map(pager, store, 0, 4 * MIB, UF_PAGER_SHARED, 0);
	pthread_t sender;

	signalled.at = at;
	signalled.self = pthread_self();
	signal(SIGUSR1, touch_in_handler);
	CHECK_EQ(pthread_create(&sender, NULL, send_signals, NULL), 0);
	for (unsigned i = 0; i < 1000; i++)
		step(pager, at, i);
	atomic_store(&signalled.end, true);
	pthread_join(sender, NULL);
	uf_pager_close(pager);
	uf_store_close(store);
}

struct writer {
	pthread_t thread;
	struct uf_pager *pager;
	struct fake *fake;
	char *at;
	unsigned number;
};

/* Its own pages; the store's copy has at least what was written before each flush. */
static void *write_and_flush(void *arg)
{
	struct writer *writer = arg;
	unsigned seed = writer->number + 1;

	for (unsigned version = 1; version <= 60; version++) {
		uint64_t pages[24];

		for (int i = 0; i < 24; i++) {
			pages[i] = ((uint64_t)rand_r(&seed) % 64 * 4 + writer->number) * PAGE;
			*(volatile unsigned *)(void *)(writer->at + pages[i]) = version;
		}
		CHECK_EQ(uf_pager_flush(writer->pager, NULL, 0), 0);
		for (int i = 0; i < 24; i++)
			CHECK_EQ(*(volatile unsigned *)(void *)(writer->fake->bytes + pages[i]), version);
	}
	return NULL;
}

BOTH_WAYS(flush_misses_nothing,
          "What was written before a flush is on the store after it, also what just left or came back.")
{
	/* Large enough for pages to rest. */
	struct uf_pager *pager = paged_open(256 * PAGE);
	struct fake fake, other;
	struct uf_store *store = fake_open(&fake, MIB, FAKE_IN_SIGNAL),
			*rest = fake_open(&other, 4 * MIB, FAKE_IN_SIGNAL);
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0);
	char *busy = paged_map(pager, rest, 0, 4 * MIB, UF_PAGER_SHARED, 0);
	_Atomic bool end = false;
	struct hammer hammers[2];
	struct writer writers[4];

	start_hammers(hammers, 2, busy, 4 * MIB, 0, &end);
	for (unsigned i = 0; i < 4; i++) {
		writers[i] = (struct writer){.pager = pager, .fake = &fake, .at = at, .number = i};
		CHECK_EQ(pthread_create(&writers[i].thread, NULL, write_and_flush, &writers[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(writers[i].thread, NULL);
	atomic_store(&end, true);
	end_hammers(hammers, 2);
	uf_pager_close(pager);
	uf_store_close(store);
	uf_store_close(rest);
}
