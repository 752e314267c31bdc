// SPDX-License-Identifier: MIT
/* Pagers over stores that fail: nothing is made up, nothing is lost, and what does not fail goes on. */
#include <errno.h>
#include <sched.h>
#include <signal.h>

#include "support/paged.h"

#define PAGE 4096u
#define KIB  ((uint64_t)1 << 10)
#define MIB  ((uint64_t)1 << 20)

static const unsigned kinds[] = {0, FAKE_IN_SIGNAL, FAKE_TRIES};

BOTH_WAYS(poison, "A page that cannot be read is SIGBUS for all who touch it, with its cause; others are right.")
{
	for (unsigned kind = 0; kind < 3; kind++) {
		struct fake fake;
		struct uf_store *store = fake_open(&fake, MIB, kinds[kind]);
		struct uf_pager *pager = paged_open(2 * MIB);
		char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0), byte;

		atomic_store(&paged_failures, 0);
		fake_script(&fake, 7 * PAGE, 2 * PAGE, FAKE_BAD_READ);
		for (uint64_t page = 0; page < 256; page++) {
			int expected = page == 7 || page == 8 ? SIGBUS : 0;

			CHECK_EQ(touch_read(at + page * PAGE + 3, &byte), expected);
			CHECK_EQ(touch_write(at + page * PAGE, 'w'), expected);
		}
		CHECK(is_content(at + 9 * PAGE + 1, 9 * PAGE + 1, PAGE - 1));
		/* A moment later it is the same. */
		CHECK_EQ(touch_read(at + 7 * PAGE, &byte), SIGBUS);
		CHECK_EQ(touch_read(at + 8 * PAGE, &byte), SIGBUS);
		CHECK_EQ(paged_stats(pager).poisoned, 2 * PAGE);
		CHECK(paged_stats(pager).errors >= 2);
		CHECK_EQ(paged_failures, paged_stats(pager).errors);
		CHECK(strstr(paged_stats(pager).last_error, "read at 32768 given up"));
		CHECK(!strcmp(paged_stats(pager).last_error, paged_failure));
		uf_pager_close(pager);
		CHECK_EQ(fake.writes, 0);
		uf_store_close(store);
	}
}

/* Asks for these pages until each can be read. */
static void heal(struct uf_pager *pager, char *at, uint64_t len, uint64_t unit)
{
	char byte;

	for (uint64_t page = 0; page < len; page += unit)
		while (touch_read(at + page, &byte)) {
			CHECK_EQ(uf_pager_advise(pager, at, len, UF_PAGER_WILLNEED), 0);
			sched_yield();
		}
}

BOTH_WAYS(healed, "Once the store is well again, WILLNEED reads what was poisoned, and it is right; not before.")
{
	static const size_t units[] = {4 * KIB, 64 * KIB};

	for (unsigned i = 0; i < 6; i++) {
		size_t unit = units[i % 2];
		struct fake fake;
		struct uf_store *store = fake_open(&fake, 8 * MIB, kinds[i / 2]);
		struct uf_pager *pager = paged_open(16 * MIB);
		char *at = paged_map(pager, store, 0, 8 * MIB, UF_PAGER_SHARED, unit), byte;
		unsigned failed;

		fake_script(&fake, 16 * unit, 4 * unit, FAKE_BAD_READ);
		for (uint64_t page = 16; page < 20; page++)
			CHECK_EQ(touch_read(at + page * unit, &byte), SIGBUS);
		while (paged_stats(pager).poisoned < 4 * unit)
			sched_yield();
		/* All at once fails, and so does each of them. */
		failed = atomic_load(&fake.failed);
		CHECK_EQ(uf_pager_advise(pager, at, 24 * unit, UF_PAGER_WILLNEED), 0);
		wait_until(&fake.failed, failed + 5);
		CHECK_EQ(touch_read(at + 17 * unit, &byte), SIGBUS);
		/* A touch alone does not read it, and one that stays bad keeps no other from being read. */
		fake_script(&fake, 16 * unit, 2 * unit, 0);
		fake_script(&fake, 19 * unit, unit, 0);
		CHECK_EQ(touch_read(at + 17 * unit, &byte), SIGBUS);
		heal(pager, at + 16 * unit, 2 * unit, unit);
		heal(pager, at + 19 * unit, unit, unit);
		CHECK(is_content(at, 0, 18 * unit));
		CHECK(is_content(at + 19 * unit, 19 * unit, 8 * MIB - 19 * unit));
		CHECK_EQ(touch_read(at + 18 * unit, &byte), SIGBUS);
		CHECK_EQ(uf_pager_pin(pager, at + 17 * unit, 2 * unit), -EIO);
		CHECK_EQ(paged_stats(pager).pinned, 0);
		fake_script(&fake, 18 * unit, unit, 0);
		heal(pager, at + 18 * unit, unit, unit);
		CHECK(is_content(at, 0, 8 * MIB));
		uf_pager_close(pager);
		uf_store_close(store);
	}
}

BOTH_WAYS(wait_for_the_store,
          "With UF_PAGER_WAIT a touch waits for the store to be well again, and then has the right page.")
{
	struct uf_pager_options options = paged_options(MIB);

	options.policy = UF_PAGER_WAIT;
	for (unsigned kind = 0; kind < 2; kind++) {
		struct fake fake;
		struct uf_store *store = fake_open(&fake, MIB, kinds[kind]);
		struct uf_pager *pager = paged_open_with(&options);
		char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0);
		struct toucher touchers[4];

		fake_script(&fake, 0, MIB, FAKE_BAD_READ);
		for (unsigned i = 0; i < 4; i++)
			start_touch(&touchers[i], at + i / 2 * PAGE + 5);
		wait_until(&fake.failed, 4);
		/* The store fails before the pager knows. */
		while (!paged_stats(pager).last_error[0])
			sched_yield();
		CHECK_EQ(paged_stats(pager).poisoned, 0);
		CHECK(strstr(paged_stats(pager).last_error, "read at"));
		fake_script(&fake, 0, MIB, 0);
		for (unsigned i = 0; i < 4; i++) {
			end_touch(&touchers[i]);
			CHECK_EQ(touchers[i].sig, 0);
			CHECK_EQ(touchers[i].byte, paged_content(i / 2 * PAGE + 5));
		}
		CHECK(is_content(at, 0, MIB));
		uf_pager_close(pager);
		uf_store_close(store);
	}
}

BOTH_WAYS(flush_fails,
          "What could not be written is dirty still, and the flush an error; the next flush writes it all.")
{
	for (unsigned i = 0; i < 2; i++) {
		struct fake fake;
		struct uf_store *store = fake_open(&fake, MIB, FAKE_IN_SIGNAL);
		/* All in memory; and some of it at rest. */
		struct uf_pager *pager = paged_open(i ? MIB : 2 * MIB);
		char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0);

		fake_script(&fake, 10 * PAGE, 5 * PAGE, FAKE_BAD_WRITE);
		write_pages(at, MIB, 'f');
		CHECK_EQ(uf_pager_flush(pager, NULL, 0), -EIO);
		CHECK(paged_stats(pager).dirty >= 5 * PAGE);
		CHECK(strstr(paged_stats(pager).last_error, "write at"));
		CHECK_EQ(uf_pager_flush(pager, at + 12 * PAGE, 1), -EIO);
		CHECK_EQ(uf_pager_flush(pager, at + 20 * PAGE, PAGE), 0);
		CHECK_EQ(uf_pager_unmap(pager, at, MIB), -EIO);
		check_pages(at, 0, MIB, 'f');
		/* The store itself. */
		fake_script(&fake, 0, MIB, 0);
		atomic_store(&fake.flush_fails, true);
		CHECK_EQ(uf_pager_flush(pager, NULL, 0), -EIO);
		CHECK(strstr(paged_stats(pager).last_error, "flush"));
		atomic_store(&fake.flush_fails, false);
		write_pages(at + 3 * PAGE, 2 * PAGE, 'g');
		CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
		CHECK_EQ(paged_stats(pager).dirty, 0);
		check_pages(fake.bytes, 0, 3 * PAGE, 'f');
		check_pages(fake.bytes + 3 * PAGE, 3 * PAGE, 2 * PAGE, 'g');
		check_pages(fake.bytes + 5 * PAGE, 5 * PAGE, MIB - 5 * PAGE, 'f');
		CHECK_EQ(uf_pager_unmap(pager, at, MIB), 0);
		uf_pager_close(pager);
		uf_store_close(store);
	}
}

/* One of two mappings cannot be written: nothing of it is lost, and the other one goes on, through many times the budget. */
static void bad_writes(uint64_t budget, unsigned flags, size_t unit)
{
	struct fake bad, good;
	struct uf_store *bad_store = fake_open(&bad, 8 * MIB, FAKE_IN_SIGNAL);
	struct uf_store *good_store = fake_open(&good, 16 * MIB, FAKE_IN_SIGNAL);
	struct uf_pager *pager = paged_open(budget);
	char *stuck = paged_map(pager, bad_store, 0, 8 * MIB, UF_PAGER_SHARED, unit);
	char *busy = paged_map(pager, good_store, 0, 16 * MIB, flags, unit);
	uint64_t some = budget / unit / 4 * unit;

	fake_script(&bad, 0, 8 * MIB, FAKE_BAD_WRITE);
	write_pages(stuck, some, 'b');
	for (int round = 0; round < 2; round++) {
		if (!(flags & UF_PAGER_READ_ONLY))
			write_pages(busy, 16 * MIB, 'g');
		for (uint64_t page = 0; page < 16 * MIB; page += PAGE)
			CHECK_EQ(busy[page + 1], paged_content(page + 1));
	}
	/* Sooner or later what cannot be written is tried. */
	while (!atomic_load(&bad.failed))
		for (uint64_t page = 0; page < 16 * MIB; page += PAGE)
			CHECK_EQ(busy[page + 1], paged_content(page + 1));
	check_pages(stuck, 0, some, 'b');
	CHECK(paged_stats(pager).resident <= budget);
	CHECK_EQ(uf_pager_flush(pager, stuck, 8 * MIB), -EIO);
	CHECK_EQ(uf_pager_flush(pager, busy, 16 * MIB), 0);
	fake_script(&bad, 0, 8 * MIB, 0);
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	check_pages(bad.bytes, 0, some, 'b');
	if (flags & UF_PAGER_SHARED)
		check_pages(good.bytes, 0, 16 * MIB, 'g');
	CHECK_EQ(paged_stats(pager).dirty, 0);
	uf_pager_close(pager);
	uf_store_close(bad_store);
	uf_store_close(good_store);
	free(bad.bytes);
	free(good.bytes);
}

BOTH_WAYS(bad_writes_few_pages,
          "With a budget of a few pages, a page that cannot be written does not keep others from leaving.")
{
	bad_writes(8 * PAGE, UF_PAGER_SHARED, PAGE);
}

BOTH_WAYS(bad_writes_small, "With a small budget, pages that cannot be written do not keep others from leaving.")
{
	bad_writes(64 * PAGE, UF_PAGER_READ_ONLY, PAGE);
}

BOTH_WAYS(bad_writes_rest, "With pages at rest, those that cannot be written do not keep others from leaving.")
{
	bad_writes(2 * MIB, UF_PAGER_SHARED, PAGE);
	bad_writes(2 * MIB, UF_PAGER_PRIVATE, 64 * KIB);
}

BOTH_WAYS(all_bad_writes,
          "When everything is dirty and cannot be written, touches wait, and go on when the store is well.")
{
	struct fake fake;
	struct uf_store *store = fake_open(&fake, MIB, FAKE_IN_SIGNAL);
	struct uf_pager *pager = paged_open(8 * PAGE);
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0);
	struct toucher touchers[8];

	fake_script(&fake, 0, MIB, FAKE_BAD_WRITE);
	for (unsigned i = 0; i < 8; i++)
		start_write(&touchers[i], at + i * PAGE);
	wait_until(&fake.failed, 20);
	fake_script(&fake, 0, MIB, 0);
	for (unsigned i = 0; i < 8; i++)
		end_touch(&touchers[i]);
	write_pages(at, MIB, 'w');
	check_pages(at, 0, MIB, 'w');
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	check_pages(fake.bytes, 0, MIB, 'w');
	uf_pager_close(pager);
	uf_store_close(store);
}
