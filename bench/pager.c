// SPDX-License-Identifier: MIT
/* pager.*: a file larger than memory, against mmap and against the barest pager. */
#include <stdio.h>
#include <unistd.h>

#include <userfault/pager.h>

#include "base/clock.h"
#include "bench.h"

#define MIB ((size_t)1 << 20)

/*
 * Where memory is limited, both sides are in a group with the same limit. The pager's buffers and tables, and the page cache through which
 * it reads, have to fit in there too: so much of it.
 */
#define BESIDE (32 * MIB)

/* The unit that sorts fastest of 4, 64 and 256 KiB: docs/performance.md. */
#define SORT_UNIT ((size_t)64 << 10)

struct paged {
	struct uf_store *store;
	struct uf_pager *pager;
	char *memory;
};

static struct paged map_file(const char *path, size_t len, size_t budget, enum uf_pager_way way, unsigned flags,
                             size_t unit)
{
	struct uf_store_options store = {
		.size = sizeof(store),
		.flags = flags & UF_PAGER_READ_ONLY ? UF_STORE_READ_ONLY : 0,
	};
	struct uf_pager_options options = {.size = sizeof(options), .budget = budget, .way = way};
	struct paged paged;
	void *memory;
	char uri[400];

	snprintf(uri, sizeof(uri), "file:%s", path);
	must(uf_store_open(&paged.store, uri, &store, NULL, 0), "uf_store_open");
	must(uf_pager_open(&paged.pager, &options), "uf_pager_open");
	must(uf_pager_map(paged.pager, &memory, paged.store, 0, len, flags, unit), "uf_pager_map");
	paged.memory = memory;
	return paged;
}

static struct paged map_numbered(size_t len, size_t budget, enum uf_pager_way way)
{
	return map_file(bench_path(NUMBERED), len, budget, way, UF_PAGER_READ_ONLY, 0);
}

static void advise(const struct paged *paged, enum uf_pager_advice advice)
{
	must(uf_pager_advise(paged->pager, paged->memory, 1, advice), "uf_pager_advise");
}

/*
 * In the page cache.
 */

static struct paged map_warm(const struct bench *bench, size_t pages, enum uf_pager_way way)
{
	size_t len = pages * bench->page;
	struct paged paged;

	bench_warm_cache(bench_path(NUMBERED), len);
	paged = map_numbered(len, 2 * len, way);
	advise(&paged, UF_PAGER_RANDOM);
	return paged;
}

void pager_warm_inline(struct bench *bench)
{
	struct paged paged = map_warm(bench, FAULT_PAGES, UF_PAGER_INLINE);

	bench_read_numbered(bench, paged.memory, FAULT_PAGES);
}

void pager_warm_thread(struct bench *bench)
{
	struct paged paged = map_warm(bench, FAULT_PAGES, UF_PAGER_THREAD);

	bench_read_numbered(bench, paged.memory, FAULT_PAGES);
}

static void scale(struct bench *bench, unsigned threads)
{
	struct paged paged = map_warm(bench, SCALE_PAGES, UF_PAGER_INLINE);

	bench_sample(bench, bench_random(bench, paged.memory, SCALE_PAGES, SCALE_PAGES, threads));
}

void pager_scale_1(struct bench *bench)
{
	scale(bench, 1);
}

void pager_scale_2(struct bench *bench)
{
	scale(bench, 2);
}

void pager_scale_4(struct bench *bench)
{
	scale(bench, 4);
}

void pager_scale_8(struct bench *bench)
{
	scale(bench, 8);
}

/*
 * Not in the page cache, and more than there is memory for.
 */

static struct paged map_cold(struct bench *bench)
{
	bench_drop_cache(bench, bench_path(NUMBERED));
	bench_limit_memory(MEMORY_MIB * MIB);
	return map_numbered(FILE_MIB * MIB, MEMORY_MIB * MIB - BESIDE, UF_PAGER_INLINE);
}

static void cold(struct bench *bench, unsigned threads)
{
	struct paged paged = map_cold(bench);
	size_t pages = FILE_MIB * MIB / bench->page, fill = FILL_UP_MIB * MIB / bench->page;

	/* Until pages have to leave. */
	advise(&paged, UF_PAGER_SEQUENTIAL);
	bench_sequential(bench, paged.memory, pages - fill, fill);
	advise(&paged, UF_PAGER_RANDOM);
	bench_sample(bench, bench_random(bench, paged.memory, pages - fill, pages - fill, threads));
}

void pager_cold(struct bench *bench)
{
	cold(bench, 1);
}

void pager_cold_8(struct bench *bench)
{
	cold(bench, 8);
}

void pager_sequential(struct bench *bench)
{
	struct paged paged = map_cold(bench);

	advise(&paged, UF_PAGER_SEQUENTIAL);
	bench_sample(bench, bench_sequential(bench, paged.memory, 0, SEQUENCE_MIB * MIB / bench->page));
}

void pager_sort(struct bench *bench)
{
	char path[400];
	struct paged paged;
	uint64_t sum, start;

	snprintf(path, sizeof(path), "%s", bench_path("keys"));
	sum = bench_make_keys(bench, path);
	bench_limit_memory(SORT_MIB * MIB);
	paged = map_file(path, KEYS_MIB * MIB, SORT_MIB * MIB - BESIDE, UF_PAGER_INLINE, UF_PAGER_SHARED, SORT_UNIT);
	start = now_ns();
	bench_sort((uint64_t *)paged.memory, KEYS_MIB * MIB / sizeof(uint64_t));
	must(uf_pager_flush(paged.pager, NULL, 0), "uf_pager_flush");
	bench_sample(bench, (double)(now_ns() - start) / 1e9);
	bench_check_keys(path, sum);
}

/*
 * A working set, scattered over the file.
 */

static struct paged map_set(void)
{
	return map_numbered(FILE_MIB * MIB, SET_MIB * MIB, UF_PAGER_INLINE);
}

/* By a run of its own, before what is measured. */
static void record_set(const struct bench *bench, const uint32_t *pages, const char *path)
{
	struct paged paged = map_set();

	must(uf_pager_record(paged.pager, paged.memory, 1), "uf_pager_record");
	bench_touch(bench, paged.memory, pages, SET_PAGES);
	must(uf_pager_save(paged.pager, paged.memory, path), "uf_pager_save");
	uf_pager_close(paged.pager);
	uf_store_close(paged.store);
}

static void touch_set(struct bench *bench, bool replay)
{
	uint32_t *pages = bench_set_pages(bench);
	struct paged paged;
	char path[400];
	uint64_t start;

	snprintf(path, sizeof(path), "%s", bench_path("set"));
	if (replay && access(path, F_OK))
		record_set(bench, pages, path);
	bench_drop_cache(bench, bench_path(NUMBERED));
	paged = map_set();
	start = now_ns();
	if (replay)
		must(uf_pager_replay(paged.pager, paged.memory, path, 1), "uf_pager_replay");
	bench_touch(bench, paged.memory, pages, SET_PAGES);
	bench_sample(bench, (double)(now_ns() - start) / 1e6);
}

void pager_replay(struct bench *bench)
{
	touch_set(bench, true);
}

void pager_on_demand(struct bench *bench)
{
	touch_set(bench, false);
}
