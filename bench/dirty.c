// SPDX-License-Identifier: MIT
/* dirty.*: what tracking costs the writer, and what the question costs. */
#include <stdlib.h>
#include <string.h>

#include <userfault/dirty.h>

#include "base/clock.h"
#include "bench.h"

static struct uf_dirty *tracker_of(enum uf_dirty_method method)
{
	struct uf_dirty_options opts = {.size = sizeof(opts), .method = method};
	struct uf_dirty *tracker;

	must(uf_dirty_open(&tracker, &opts), "uf_dirty_open");
	return tracker;
}

static size_t collect(struct uf_dirty *tracker, const char *memory, size_t len, struct uf_dirty_range *found,
                      size_t room)
{
	uint64_t at = (uintptr_t)memory, end = at + len;
	size_t bytes = 0;

	while (at < end) {
		ssize_t count = uf_dirty_collect(tracker, at, end, found, room, 0, &at);

		must(count, "uf_dirty_collect");
		for (ssize_t i = 0; i < count; i++)
			bytes += found[i].end - found[i].start;
	}
	return bytes;
}

void dirty_scan(struct bench *bench)
{
	size_t len = (size_t)SCAN_MIB << 20, page = bench->page, pages = len / page, room = 65536;
	struct uf_dirty_range *found = malloc(room * sizeof(*found));
	struct uf_dirty *tracker = tracker_of(UF_DIRTY_ASYNC);
	uint32_t *order = bench_order(bench, pages);
	char *memory = bench_memory(len);

	bench_populate(memory, len, page);
	memset(found, 0, room * sizeof(*found));
	must(uf_dirty_track(tracker, memory, len, 0), "uf_dirty_track");

	for (unsigned pass = 0; pass < SCAN_PASSES; pass++) {
		const uint32_t *dirty = order + pass * (pages / SCAN_DIRTY);
		uint64_t start;
		size_t count;

		for (size_t i = 0; i < pages / SCAN_DIRTY; i++)
			memory[dirty[i] * page]++;
		start = now_ns();
		count = collect(tracker, memory, len, found, room) / page;
		if (pass)
			bench_sample(bench, (double)(now_ns() - start) / 1e6 * 1024 / SCAN_MIB);
		if (count != pages / SCAN_DIRTY)
			bench_refuse("%zu dirty pages found, not %zu", count, pages / SCAN_DIRTY);
	}
}

static void first_writes(struct bench *bench, enum uf_dirty_method method)
{
	size_t len = FAULT_PAGES * bench->page;
	struct uf_dirty *tracker = tracker_of(method);
	char *memory = bench_memory(len);

	bench_populate(memory, len, bench->page);
	must(uf_dirty_track(tracker, memory, len, 0), "uf_dirty_track");
	bench_write_pages(bench, memory, FAULT_PAGES);
}

void dirty_write_async(struct bench *bench)
{
	first_writes(bench, UF_DIRTY_ASYNC);
}

void dirty_write_sync(struct bench *bench)
{
	first_writes(bench, UF_DIRTY_SYNC);
}
