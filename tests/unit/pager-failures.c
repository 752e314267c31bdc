// SPDX-License-Identifier: MIT
/* Pagers over stores that fail: nothing is made up, nothing is lost, and what does not fail goes on. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

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
		CHECK(strstr(paged_stats(pager).last_error, "read at 32768 of a store"));
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
		failed = atomic_load(&fake.failed);
		CHECK_EQ(uf_pager_advise(pager, at, 24 * unit, UF_PAGER_WILLNEED), 0);
		wait_until(&fake.failed, failed + 1);
		CHECK_EQ(touch_read(at + 17 * unit, &byte), SIGBUS);
		/* A touch alone does not read it. */
		fake_script(&fake, 16 * unit, 4 * unit, 0);
		CHECK_EQ(touch_read(at + 17 * unit, &byte), SIGBUS);
		/* One of them stays bad, and keeps no other from being read. */
		fake_script(&fake, 18 * unit, unit, FAKE_BAD_READ);
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
