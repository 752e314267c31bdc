// SPDX-License-Identifier: MIT
/* Contracts: migrate/source.h. */
#include <errno.h>
#include <poll.h>

#include "migrate/source.h"

#define RANGES 256

static uint64_t run_pages(const struct uf_source *source)
{
	return ((size_t)128 << 10) / source->regions.page_size;
}

/* Has the program, or the destination, had enough? */
static int look_up(struct uf_source *source)
{
	struct wire_message message;
	int err;

	tally_tick(&source->tally);
	if (source_standing(source) == SOURCE_CANCELS)
		return -ECANCELED;
	if (!stream_has(&source->channels[0].stream))
		return 0;
	err = channel_next(&source->channels[0], &message);
	return err || message.type == WIRE_ALIVE ? err : source_rejected(source, &source->channels[0], &message);
}

/* For the bandwidth. Cut short when woken: who has woken us is found out at the next look. */
static void pause_for(struct uf_source *source, uint64_t ns)
{
	struct pollfd wake = {.fd = source->wake, .events = POLLIN};

	if (ns)
		poll(&wake, 1, (int)((ns + 999999) / 1000000));
}

/* Accounts for pages that are about to be sent. */
static void note_sent(struct uf_source *source, uint64_t from, uint64_t end)
{
	uint64_t fresh;

	for (uint64_t at = from; at < end;) {
		uint64_t again = bitmap_next(source->sent, at, end), last = bitmap_next_clear(source->sent, again, end);

		if (again < last)
			bitmap_set(source->unsure, again, last);
		at = last;
	}
	fresh = bitmap_set(source->sent, from, end);
	tally_add(&source->tally.repeated, (end - from - fresh) * source->regions.page_size);
}

/* Everything that is to be sent, once. */
static int sweep(struct uf_source *source, const struct region *region)
{
	uint64_t end = region->first + region->pages, at = region->first;
	int err = 0;

	while (!err && (at = bitmap_next(source->todo, at, end)) < end) {
		uint64_t most = end - at < run_pages(source) ? end : at + run_pages(source);
		uint64_t count = bitmap_claim(source->todo, at, most);

		note_sent(source, at, at + count);
		err = send_pages(source, &source->sender, &source->channels[0], at, at + count, true);
		pause_for(source, limit_pass(&source->limit, sender_bytes(&source->sender)));
		at += count;
		if (!err)
			err = look_up(source);
	}
	return err;
}

int source_barrier(struct uf_source *source)
{
	struct wire_message message;
	uint64_t number = ++source->barriers;
	int err = channel_tell(&source->channels[0], WIRE_BARRIER, number);

	if (!err)
		err = source_expect(source, WIRE_REACHED, &message);
	if (!err && message.at != number)
		err = -EPROTO;
	if (!err)
		bitmap_clear(source->unsure, 0, source->regions.numbers);
	return err;
}

static int track(struct uf_source *source)
{
	struct uf_dirty_options options = {.size = sizeof(options), .engine = source->options.engine};
	int err;

	if (source->tracker)
		return 0;
	err = uf_dirty_open(&source->tracker, &options);
	for (size_t i = 0; i < source->regions.count && !err; i++)
		err = uf_dirty_track(source->tracker, (void *)(uintptr_t)source->regions.at[i].addr,
		                     source->regions.at[i].len, 0);
	if (err) {
		uf_dirty_close(source->tracker);
		source->tracker = NULL;
		tally_fail(&source->tally, "the memory cannot be tracked: %s", tally_word(err));
	}
	return err;
}

static int collect_region(struct uf_source *source, const struct region *region, uint64_t *pages)
{
	struct uf_dirty_range ranges[RANGES];
	uint64_t at = region->addr, end = region->addr + region->len;

	while (at < end) {
		ssize_t count = uf_dirty_collect(source->tracker, at, end, ranges, RANGES, 0, &at);

		if (count < 0)
			return (int)count;
		for (ssize_t i = 0; i < count; i++)
			*pages += bitmap_set(
				source->todo,
				region->first + (ranges[i].start - region->addr) / source->regions.page_size,
				region->first + (ranges[i].end - region->addr) / source->regions.page_size);
	}
	return 0;
}

int source_collect(struct uf_source *source, uint64_t *pages)
{
	int err = 0;

	*pages = 0;
	for (size_t i = 0; source->tracker && i < source->regions.count && !err; i++)
		err = collect_region(source, &source->regions.at[i], pages);
	return err;
}

static int pass(struct uf_source *source)
{
	int err = 0;

	if (!source->in_pass)
		atomic_fetch_add(&source->tally.passes, 1);
	source->in_pass = true;
	for (size_t i = 0; i < source->regions.count && !err; i++)
		err = sweep(source, &source->regions.at[i]);
	if (!err)
		err = send_zeros(source, &source->sender, &source->channels[0]);
	if (!err)
		err = source_barrier(source);
	if (err)
		return err;
	source->in_pass = false;
	source->passes++;
	return 0;
}

/* Whether another pass would get further than this one. */
static bool converges(const struct uf_source *source, uint64_t written, uint64_t before)
{
	return written * source->regions.page_size > source->options.enough && written <= before / 4 * 3;
}

int source_precopy(struct uf_source *source)
{
	uint64_t written, before = UINT64_MAX;
	int err;

	if (!source->options.passes)
		return 0;
	tally_phase(&source->tally, UF_MIGRATE_PRECOPY);
	err = track(source);
	/* What was written before is to be sent in any case; what is written from here on counts. */
	if (!err)
		err = source_collect(source, &written);
	while (!err && source->passes < source->options.passes) {
		err = pass(source);
		if (!err)
			err = source_collect(source, &written);
		if (!err && !converges(source, written, before))
			break;
		before = written;
	}
	return err;
}
