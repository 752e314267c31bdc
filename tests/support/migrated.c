// SPDX-License-Identifier: MIT
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/migrated.h"
#include "support/test.h"

#define STAMP    0x7365656e2d697421u /* what a toucher writes to a page */
#define STAMP_AT 64

static void *map_shared(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

enum uf_engine migrated_engine(void)
{
	return strcmp(test_engine, "user") ? UF_ENGINE_KERNEL : UF_ENGINE_USER;
}

struct migrated *migrated_new(const struct migrated_setup *setup)
{
	struct migrated *migrated = calloc(1, sizeof(*migrated));

	CHECK(migrated);
	migrated->setup = *setup;
	migrated->len = setup->pages * page_size;
	migrated->shared = map_shared(sizeof(*migrated->shared));
	migrated->model = map_shared(2 * migrated->len);
	return migrated;
}

static void map_regions(struct migrated *migrated)
{
	static const char *const names[2] = {"heap", "globals"};

	for (int i = 0; i < 2; i++) {
		int kind = migrated->setup.shared ? MAP_SHARED : MAP_PRIVATE;

		migrated->memory[i] = mmap(NULL, migrated->len, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS, -1, 0);
		CHECK(migrated->memory[i] != MAP_FAILED);
		migrated->regions[i] = (struct uf_migrate_region){
			.name = names[i],
			.addr = migrated->memory[i],
			.len = migrated->len,
			.flags = migrated->setup.shared ? UF_MIGRATE_SHARED : 0,
		};
	}
}

static void fill(struct migrated *migrated)
{
	for (int i = 0; i < 2; i++)
		for (size_t page = 0; page < migrated->setup.pages / 2; page++) {
			uint64_t *words = (uint64_t *)(migrated->memory[i] + page * page_size);

			for (size_t at = 0; at < page_size / 8; at++)
				words[at] = page % 5 == 3 ? 0 : (page + 1) * 0x9e3779b97f4a7c15u + at + (uint64_t)i;
		}
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void *write_all_the_time(void *arg)
{
	struct migrated *migrated = arg;
	uint64_t random = 88172645463325252u, count = 0;

	while (!atomic_load(&migrated->end)) {
		uint64_t value = next_random(&random);
		char *page = migrated->memory[value & 1] + (value >> 8) % migrated->setup.pages * page_size;

		if (atomic_load(&migrated->pause)) {
			atomic_store(&migrated->paused, true);
			sched_yield();
			continue;
		}
		atomic_store(&migrated->paused, false);
		/* Now and then a page becomes one of zeros. */
		if ((value >> 40) % 16 == 0)
			memset(page, 0, page_size);
		else
			*(uint64_t *)(page + (value >> 40) % (page_size / 8) * 8) = ++count;
		if (count % 16 == 0)
			sched_yield();
	}
	return NULL;
}

static int stop(void *arg, const void **state, size_t *len)
{
	struct migrated *migrated = arg;

	atomic_fetch_add(&migrated->shared->stops, 1);
	atomic_store(&migrated->pause, true);
	while (migrated->setup.writes && !atomic_load(&migrated->paused))
		sched_yield();
	for (int i = 0; i < 2; i++)
		memcpy(migrated->model + (size_t)i * migrated->len, migrated->memory[i], migrated->len);
	*state = migrated->state;
	*len = 16 + migrated->setup.state_len;
	return 0;
}

static void resume(void *arg)
{
	struct migrated *migrated = arg;

	atomic_fetch_add(&migrated->shared->resumes, 1);
	atomic_store(&migrated->pause, false);
	while (migrated->setup.writes && atomic_load(&migrated->paused))
		sched_yield();
}

static void failed(void *arg, const char *cause)
{
	struct migrated *migrated = arg;

	atomic_fetch_add(&migrated->shared->failures, 1);
	snprintf(migrated->shared->last_failure, sizeof(migrated->shared->last_failure), "%s", cause);
}

static void fill_state(struct migrated *migrated)
{
	migrated->state = calloc(1, 16 + migrated->setup.state_len);
	CHECK(migrated->state);
	memcpy(migrated->state, "state of program", 16);
	for (size_t i = 0; i < migrated->setup.state_len; i++)
		migrated->state[16 + i] = (char)(i * 7);
}

void source_here(struct migrated *migrated)
{
	const struct migrated_setup *setup = &migrated->setup;
	struct uf_source_options options = {
		.size = sizeof(options),
		.flags = setup->flags,
		.passes = setup->passes,
		.bandwidth = setup->bandwidth,
		.timeout_ms = setup->timeout_ms,
		.engine = setup->source_engine,
		.tls = setup->tls_source,
		.stop = stop,
		.resume = resume,
		.progress = setup->progress,
		.failed = failed,
		.arg = migrated,
	};

	map_regions(migrated);
	fill(migrated);
	fill_state(migrated);
	CHECK_EQ(uf_source_open(&migrated->source, migrated->regions, 2, &options), 0);
	if (setup->writes)
		CHECK_EQ(pthread_create(&migrated->writer, NULL, write_all_the_time, migrated), 0);
}

void source_gone(struct migrated *migrated)
{
	atomic_store(&migrated->end, true);
	if (migrated->setup.writes)
		CHECK_EQ(pthread_join(migrated->writer, NULL), 0);
	uf_source_close(migrated->source);
}

/* ---- the destination ---- */

struct share {
	struct migrated *migrated;
	unsigned number;
};

static void check_page(struct migrated *migrated, int region, size_t page, bool stamped)
{
	const char *model = migrated->model + (size_t)region * migrated->len + page * page_size;
	const char *at = migrated->memory[region] + page * page_size;
	uint64_t stamp;

	memcpy(&stamp, at + STAMP_AT, sizeof(stamp));
	if (stamped && stamp != STAMP + page)
		FAIL("page %zu of region %d has lost what was written to it", page, region);
	if (memcmp(at, model, STAMP_AT) || (!stamped && memcmp(at, model, page_size)) ||
	    memcmp(at + STAMP_AT + 8, model + STAMP_AT + 8, page_size - STAMP_AT - 8))
		FAIL("page %zu of region %d is not what the source had", page, region);
}

static void *touch(void *arg)
{
	struct share *share = arg;
	struct migrated *migrated = share->migrated;
	size_t pages = migrated->setup.pages, step = 7919 % pages | 1;

	while (pages % step == 0 && step > 1)
		step += 2;
	for (size_t i = 0, page = share->number * 31 % pages; i < pages; i++, page = (page + step) % pages)
		for (int region = 0; region < 2; region++) {
			uint64_t stamp = STAMP + page;

			if (page % MIGRATED_TOUCHERS != share->number)
				continue;
			check_page(migrated, region, page, false);
			memcpy(migrated->memory[region] + page * page_size + STAMP_AT, &stamp, sizeof(stamp));
		}
	free(share);
	return NULL;
}

static void start(void *arg, const void *state, size_t len)
{
	struct migrated *migrated = arg;

	CHECK_EQ(atomic_fetch_add(&migrated->shared->starts, 1), 0);
	CHECK_EQ(len, 16 + migrated->setup.state_len);
	CHECK(!memcmp(state, migrated->state, len));
	if (migrated->setup.no_touch)
		return;
	migrated->touching = true;
	for (unsigned i = 0; i < MIGRATED_TOUCHERS; i++) {
		struct share *share = malloc(sizeof(*share));

		CHECK(share);
		*share = (struct share){migrated, i};
		CHECK_EQ(pthread_create(&migrated->touchers[i], NULL, touch, share), 0);
	}
}

void destination_here(struct migrated *migrated, const char *address)
{
	const struct migrated_setup *setup = &migrated->setup;
	struct uf_destination_options options = {
		.size = sizeof(options),
		.flags = setup->flags & UF_MIGRATE_CHECKSUM,
		.engine = setup->engine,
		.timeout_ms = setup->timeout_ms,
		.abandon_ms = setup->abandon_ms,
		.tls = setup->tls_destination,
		.prepare = setup->prepare,
		.start = start,
		.failed = failed,
		.arg = migrated,
	};

	map_regions(migrated);
	fill_state(migrated);
	/* What is there before is nobody's business. */
	memset(migrated->memory[0], 0xee, migrated->len / 2);
	CHECK_EQ(uf_destination_open(&migrated->destination, migrated->regions, 2, &options), 0);
	if (!address)
		return;
	CHECK_EQ(uf_destination_listen(migrated->destination, address), 0);
	CHECK_EQ(uf_destination_address(migrated->destination, migrated->shared->address,
	                                sizeof(migrated->shared->address)),
	         0);
	atomic_store(&migrated->shared->listening, 1);
}

void migrated_wait_listening(struct migrated *migrated)
{
	while (!atomic_load(&migrated->shared->listening))
		sched_yield();
}

void destination_check(struct migrated *migrated)
{
	CHECK_EQ(atomic_load(&migrated->shared->starts), 1);
	for (unsigned i = 0; i < MIGRATED_TOUCHERS && migrated->touching; i++)
		CHECK_EQ(pthread_join(migrated->touchers[i], NULL), 0);
	for (int region = 0; region < 2; region++)
		for (size_t page = 0; page < migrated->setup.pages; page++)
			check_page(migrated, region, page, migrated->touching);
	uf_destination_close(migrated->destination);
}

const char *migrated_fds(const int *fds, unsigned count)
{
	static char text[32];

	snprintf(text, sizeof(text), count == 2 ? "fd:%d,%d" : "fd:%d", fds[0], fds[1]);
	return text;
}
