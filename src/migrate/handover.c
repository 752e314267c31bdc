// SPDX-License-Identifier: MIT
/*
 * The stop. While the program stands still there is time for nothing that takes longer the more memory there is: the destination has
 * registered its memory before, and thrown away most of what was written to since it was sent.
 *
 *	source                                  destination
 *	ARM                              ->     registers its memory
 *	                                 <-     ARMED
 *	DISCARD, BARRIER                 ->     throws away
 *	                                 <-     REACHED
 *	stop()
 *	DISCARD, STATE, STOPPED          ->     prepare()
 *	                                 <-     PREPARED
 *	COMMIT                           ->     start()
 *	                                 <-     STARTED
 */
#include <errno.h>

#include "base/clock.h"
#include "migrate/source.h"

int source_rejected(struct uf_source *source, struct channel *channel, const struct wire_message *message)
{
	char reason[REASON_SIZE];
	int err;

	if (message->type != WIRE_CANCEL && message->type != WIRE_REFUSE)
		return -EPROTO;
	err = channel_receive_reason(channel, message, reason);
	if (err)
		return err;
	tally_fail(&source->tally, "the destination has ended it: %s", reason);
	return message->count == WIRE_NO_REGIONS ? -EPROTONOSUPPORT : -ECANCELED;
}

int source_expect(struct uf_source *source, enum wire_type type, struct wire_message *message)
{
	int err = channel_receive(&source->channels[0], message);

	if (!err && message->type != type)
		err = source_rejected(source, &source->channels[0], message);
	return err;
}

void source_resume(struct uf_source *source)
{
	if (!source->stopped)
		return;
	source->stopped = false;
	atomic_store(&source->tally.stopped_ns, now_ns() - source->stopped_ns);
	source->options.resume(source->options.arg);
}

struct ranges {
	unsigned char raw[WIRE_RANGES * WIRE_RANGE_SIZE];
	uint32_t count;
};

static int send_ranges(struct uf_source *source, const struct region *region, struct ranges *ranges)
{
	struct wire_message message = {
		.type = WIRE_DISCARD,
		.region = (uint32_t)(region - source->regions.at),
		.count = ranges->count,
		.length = ranges->count * WIRE_RANGE_SIZE,
	};

	ranges->count = 0;
	return message.count ? channel_send(&source->channels[0], &message, ranges->raw) : 0;
}

/* What the destination has, and must be sent again, it shall throw away. */
static int discard(struct uf_source *source, const struct region *region, struct ranges *ranges)
{
	uint64_t end = region->first + region->pages, at = region->first;
	int err = 0;

	while (!err && (at = bitmap_next(source->todo, at, end)) < end) {
		uint64_t last = bitmap_next_clear(source->todo, at, end);

		while (!err && (at = bitmap_next(source->sent, at, last)) < last) {
			uint64_t until = bitmap_next_clear(source->sent, at, last);

			tally_add(&source->tally.discarded, (until - at) * source->regions.page_size);
			bitmap_clear(source->sent, at, until);
			wire_write_range(ranges->raw + ranges->count++ * WIRE_RANGE_SIZE, at - region->first,
			                 until - region->first);
			if (ranges->count == WIRE_RANGES)
				err = send_ranges(source, region, ranges);
			at = until;
		}
	}
	return err ? err : send_ranges(source, region, ranges);
}

static int discard_written(struct uf_source *source)
{
	struct ranges ranges = {.count = 0};
	uint64_t written;
	int err = source_collect(source, &written);

	for (size_t i = 0; i < source->regions.count && !err; i++)
		err = discard(source, &source->regions.at[i], &ranges);
	return err;
}

static int send_state(struct uf_source *source)
{
	struct channel *channel = &source->channels[0];
	int err = 0;

	for (size_t at = 0; at < source->state_len && !err; at += WIRE_RUN) {
		size_t left = source->state_len - at, len = left < WIRE_RUN ? left : WIRE_RUN;

		err = channel_send(channel,
		                   &(struct wire_message){.type = WIRE_STATE, .at = at, .length = (uint32_t)len},
		                   (const char *)source->state + at);
	}
	return err ? err : channel_tell(channel, WIRE_STOPPED, source->state_len);
}

static int stop_program(struct uf_source *source)
{
	int err = 0;

	tally_phase(&source->tally, UF_MIGRATE_STOPPED);
	source->stopped_ns = now_ns();
	source->state = NULL;
	source->state_len = 0;
	if (!source->options.stop)
		return 0;
	err = source->options.stop(source->options.arg, &source->state, &source->state_len);
	source->stopped = !err;
	if (!err && source->state_len > UF_MIGRATE_STATE_SIZE)
		err = -E2BIG;
	return err;
}

int source_commit(struct uf_source *source)
{
	int owns = SOURCE_OWNS, given = SOURCE_COMMITTED;
	struct wire_message message;
	int err;

	/* From here on the destination may begin at any moment, and the program must not run here any more. */
	if (!atomic_compare_exchange_strong(&source->standing, &owns, SOURCE_COMMITTED) && owns != SOURCE_COMMITTED)
		return -ECANCELED;
	for (unsigned i = 0; i < source->connections; i++)
		source->channels[i].stream.wake = source_wake(source);
	err = channel_tell(&source->channels[0], WIRE_COMMIT, 0);
	if (!err)
		err = source_expect(source, WIRE_STARTED, &message);
	if (!err) {
		atomic_compare_exchange_strong(&source->standing, &given, SOURCE_GAVE);
		source->stopped = false;
		atomic_store(&source->tally.stopped_ns, now_ns() - source->stopped_ns);
	} else if (err == -ECANCELED) {
		/* It has said that it did not begin: the program is ours again. */
		atomic_compare_exchange_strong(&source->standing, &given, SOURCE_OWNS);
	}
	return err;
}

int source_handover(struct uf_source *source)
{
	struct wire_message message;
	int err = channel_tell(&source->channels[0], WIRE_ARM, 0);

	if (!err)
		err = source_expect(source, WIRE_ARMED, &message);
	if (!err)
		err = discard_written(source);
	if (!err)
		err = source_barrier(source);
	if (!err && source_standing(source) == SOURCE_CANCELS)
		err = -ECANCELED;
	if (!err)
		err = stop_program(source);
	if (!err)
		err = discard_written(source);
	if (!err)
		err = send_state(source);
	if (!err)
		err = source_expect(source, WIRE_PREPARED, &message);
	return err ? err : source_commit(source);
}
