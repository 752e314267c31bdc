// SPDX-License-Identifier: MIT
/*
 * Connecting. The two tell each other where they stand, and the destination what it has: that settles what a broken connection has
 * left open, whatever it was.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "migrate/address.h"
#include "migrate/source.h"

static enum wire_standing our_standing(const struct uf_source *source)
{
	int standing = source_standing(source);

	if (standing == SOURCE_COMMITTED || standing == SOURCE_GAVE)
		return WIRE_COMMITTED;
	return source->fresh ? WIRE_FRESH : WIRE_PRECOPY;
}

static int send_preface(struct uf_source *source, unsigned channel)
{
	struct wire_preface preface = {
		.lowest = WIRE_VERSION,
		.highest = WIRE_VERSION,
		.role = WIRE_SOURCE,
		.channel = channel,
		.channels = source->connections,
		.standing = our_standing(source),
		.features = WIRE_FEATURES,
		.required = source->options.flags & UF_MIGRATE_CHECKSUM ? WIRE_CHECKSUM : 0,
		.page_size = (uint32_t)source->regions.page_size,
		.timeout_ms = source->options.timeout_ms,
	};

	memcpy(preface.id, source->id, sizeof(preface.id));
	return channel_greet(&source->channels[channel].stream, &preface);
}

static int refused(struct uf_source *source, enum wire_refusal refusal)
{
	switch (refusal) {
	case WIRE_NO_VERSION:
	case WIRE_NO_FEATURE:
	case WIRE_NO_REGIONS:
		tally_fail(&source->tally, "the destination does not agree about %s",
		           refusal == WIRE_NO_VERSION   ? "the version"
		           : refusal == WIRE_NO_FEATURE ? "a feature"
		                                        : "page size or regions");
		return -EPROTONOSUPPORT;
	case WIRE_BUSY:
		tally_fail(&source->tally, "the destination has another source");
		return -EBUSY;
	case WIRE_UNKNOWN:
		tally_fail(&source->tally, "this is not the destination that the program was given to");
		return -EBUSY;
	default:
		tally_fail(&source->tally, "the destination refuses");
		return -ECANCELED;
	}
}

static int take_preface(struct uf_source *source, unsigned channel, bool *met)
{
	unsigned char raw[WIRE_PREFACE_SIZE];
	struct wire_preface preface;
	int err = stream_receive(&source->channels[channel].stream, raw, sizeof(raw));

	if (!err)
		err = wire_read_preface(&preface, raw);
	if (err)
		return err;
	if (preface.role != WIRE_DESTINATION)
		return -EPROTO;
	if (preface.lowest != WIRE_VERSION || preface.highest != WIRE_VERSION)
		return refused(source, WIRE_NO_VERSION);
	if (preface.refusal)
		return refused(source, preface.refusal);
	if (preface.channel != channel || preface.channels != source->connections ||
	    memcmp(preface.id, source->id, sizeof(preface.id)))
		return -EPROTO;
	if (preface.page_size != source->regions.page_size)
		return refused(source, WIRE_NO_REGIONS);
	if ((preface.required & ~WIRE_FEATURES) ||
	    ((source->options.flags & UF_MIGRATE_CHECKSUM) && !(preface.features & WIRE_CHECKSUM)))
		return refused(source, WIRE_NO_FEATURE);
	source->channels[channel].checksum = (preface.features & WIRE_CHECKSUM) &&
	                                     ((preface.required & WIRE_CHECKSUM) ||
	                                      (source->options.flags & UF_MIGRATE_CHECKSUM));
	/* It stands in one place on all connections, and whoever is fresh is met by one who is. */
	if ((*met && preface.standing != source->peer_standing) || (source->fresh && preface.standing != WIRE_FRESH))
		return -EPROTO;
	*met = true;
	source->peer_standing = preface.standing;
	source->beat_ms = preface.timeout_ms / 4 + 1;
	return 0;
}

/* In the order in which they come: the destination answers when it has all connections, and one that is broken already must be noticed. */
static int take_prefaces(struct uf_source *source)
{
	unsigned missing = (1u << source->connections) - 1;
	bool met = false;
	int err = 0;

	while (missing && !err) {
		const struct stream *streams[2] = {missing & 1 ? &source->channels[0].stream : NULL,
		                                   missing & 2 ? &source->channels[1].stream : NULL};
		int at = stream_wait_any(streams, source->options.timeout_ms);

		if (at == -EAGAIN)
			err = -ENOTCONN;
		else
			err = at < 0 ? at : take_preface(source, (unsigned)at, &met);
		if (at >= 0)
			missing &= ~(1u << at);
	}
	return err;
}

static int agree_on_regions(struct uf_source *source)
{
	unsigned char raw[UF_MIGRATE_REGIONS * WIRE_REGION_SIZE];
	uint32_t count = (uint32_t)source->regions.count;
	struct wire_message message = {.type = WIRE_REGIONS, .count = count, .length = count * WIRE_REGION_SIZE};
	int err;

	for (uint32_t i = 0; i < count; i++)
		wire_write_region(raw + i * WIRE_REGION_SIZE, &source->regions.at[i]);
	err = channel_send(&source->channels[0], &message, raw);
	return err ? err : source_expect(source, WIRE_ACCEPT, &message);
}

/* Pages of which nothing has come over there, from `at` on, as a word. */
static void take_word(struct uf_source *source, uint64_t at, uint64_t have, uint64_t mask)
{
	uint64_t sure = have;

	if (our_standing(source) != WIRE_COMMITTED) {
		/* Some version of it is there; perhaps an old one. */
		sure &= ~atomic_load(&source->unsure[at]);
		atomic_store(&source->unsure[at], 0);
		atomic_fetch_or(&source->todo[at], ~sure & mask);
		atomic_store(&source->sent[at], have & mask);
		return;
	}
	tally_add(&source->tally.repeated,
	          (uint64_t)__builtin_popcountll(~have & mask & ~atomic_load(&source->todo[at])) *
	                  source->regions.page_size);
	atomic_store(&source->todo[at], ~have & mask);
}

static int take_bitmap(struct uf_source *source, const struct region *region, uint64_t at, unsigned char *raw)
{
	struct wire_message message;
	int err = source_expect(source, WIRE_BITMAP, &message);

	if (!err && (message.region != (size_t)(region - source->regions.at) || message.at != at ||
	             message.count != (region->pages - at < WIRE_BITMAP_BITS ? region->pages - at : WIRE_BITMAP_BITS)))
		err = -EPROTO;
	if (!err)
		err = channel_receive_body(&source->channels[0], &message, raw);
	for (uint64_t bit = 0; !err && bit < message.count; bit += 64) {
		uint64_t left = message.count - bit;

		take_word(source, (region->first + at + bit) / 64, wire_read_u64(raw + bit / 8),
		          left < 64 ? ((uint64_t)1 << left) - 1 : ~(uint64_t)0);
	}
	return err;
}

static int take_bitmaps(struct uf_source *source)
{
	unsigned char *raw = malloc(WIRE_BITMAP_BITS / 8);
	int err = raw ? 0 : -ENOMEM;

	for (size_t i = 0; i < source->regions.count && !err; i++) {
		const struct region *region = &source->regions.at[i];

		for (uint64_t at = 0; at < region->pages && !err; at += WIRE_BITMAP_BITS)
			err = take_bitmap(source, region, at, raw);
	}
	free(raw);
	return err;
}

void source_begin_anew(struct uf_source *source)
{
	source->passes = 0;
	source->in_pass = false;
	bitmap_clear(source->sent, 0, source->regions.numbers);
	bitmap_clear(source->unsure, 0, source->regions.numbers);
	for (size_t i = 0; i < source->regions.count; i++) {
		const struct region *region = &source->regions.at[i];

		bitmap_set(source->todo, region->first, region->first + region->pages);
	}
}

/*
 * It has nothing: perhaps another one has, which may be ready for a commit under this identity, or have cancelled it. Whom the program is given
 * to must be the only one that knows the identity, and so this one has to learn another, on another connection.
 */
static int meet_another(struct uf_source *source)
{
	if (our_standing(source) == WIRE_COMMITTED)
		return -EPROTO;
	tally_fail(&source->tally, "the destination has nothing of what was sent: it is all to be sent again");
	source->fresh = true;
	return -ENOTCONN;
}

static int agree(struct uf_source *source)
{
	int err = take_prefaces(source);

	/* It will not take anything. */
	if (!err && (source->peer_standing == WIRE_CANCELED || source->peer_standing == WIRE_COMPLETE))
		return 0;
	if (!err && source->peer_standing == WIRE_FRESH && !source->fresh)
		err = meet_another(source);
	if (!err)
		err = agree_on_regions(source);
	if (err)
		return err;
	if (source->peer_standing != WIRE_FRESH)
		return take_bitmaps(source);
	source_begin_anew(source);
	return 0;
}

static int open_streams(struct uf_source *source, const int fds[ADDRESS_CONNECTIONS])
{
	char cause[TLS_CAUSE];
	int err = 0;

	/* All are ours before the first may fail. */
	for (unsigned i = 0; i < source->connections; i++)
		stream_open(&source->channels[i].stream, fds[i], source_wake(source), source->options.timeout_ms);
	stream_keep_short(&source->channels[0].stream, SOURCE_SHORT);
	for (unsigned i = 0; i < source->connections && !err; i++) {
		err = tls_greet(source->tls, &source->channels[i].stream, cause);
		if (err == -EACCES)
			tally_fail(&source->tally, "TLS: %s", cause);
		/* The destination takes one connection after the other as far as this. */
		if (!err)
			err = send_preface(source, i);
	}
	return err;
}

int source_connect(struct uf_source *source, const char *address)
{
	unsigned wanted = source->options.flags & UF_MIGRATE_ONE_CONNECTION ? 1 : 2;
	int fds[ADDRESS_CONNECTIONS], err;

	err = address_connect(address, fds, wanted, source->options.timeout_ms, source_wake(source));
	if (err < 0)
		return err;
	source->connections = (unsigned)err;
	if (source->fresh && getrandom(source->id, sizeof(source->id), 0) != sizeof(source->id))
		err = -EAGAIN;
	else
		err = open_streams(source, fds);
	if (!err)
		err = agree(source);
	if (err) {
		source_disconnect(source);
		return err;
	}
	source->fresh = false;
	tally_connected(&source->tally, 1);
	tally_tick(&source->tally);
	return 0;
}

void source_disconnect(struct uf_source *source)
{
	for (unsigned i = 0; i < source->connections; i++) {
		tally_add(&source->tally.wire, atomic_exchange(&source->channels[i].stream.bytes, 0));
		stream_close(&source->channels[i].stream);
		source->channels[i].checksum = false;
	}
	/* What is held back belongs to what was, not to the next connection: the pages may be written to until then. */
	source->sender.zeros_from = source->sender.zeros_end = 0;
	source->connections = 0;
	tally_connected(&source->tally, 0);
}
