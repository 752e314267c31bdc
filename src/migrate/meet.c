// SPDX-License-Identifier: MIT
/* Contracts: migrate/destination.h. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "migrate/destination.h"

/* Who connects must have said who he is within so long, or the next one has his turn. */
#define GREETING 5000u

/* Sources that are waited for, and those that came. */
struct meeting {
	struct uf_destination *destination;
	uint64_t deadline;              /* ns; 0: none */
	struct wire_preface preface[2]; /* of the connections that are here */
	bool here[2];
	int next; /* of the descriptors that were given */
};

/* -EAGAIN: of two connections the one that is here has ended, or the other does not come. */
static int accept_one(struct meeting *meeting)
{
	struct uf_destination *destination = meeting->destination;
	bool half = meeting->here[0] || meeting->here[1];
	uint64_t until = half ? deadline_in(GREETING) : meeting->deadline;
	struct pollfd fds[3] = {
		{.fd = destination->listener, .events = POLLIN},
		{.fd = destination->wake, .events = POLLIN},
		/* A source says nothing more before it is answered. */
		{.fd = half ? destination->channels[meeting->here[1]].stream.fd : -1, .events = POLLIN},
	};

	for (;;) {
		int count = poll(fds, 3, until ? deadline_left(until) : -1), fd;

		if (count < 0 && errno == EINTR)
			continue;
		if (count > 0 && fds[1].revents)
			return -ECANCELED;
		if (!count)
			return half ? -EAGAIN : -ETIMEDOUT;
		if (fds[2].revents)
			return -EAGAIN;
		fd = accept4(destination->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			return fd;
		/* Of connections that are gone already there is no end of errors; without descriptors it is no use. */
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
			return -errno;
	}
}

static int next_connection(struct meeting *meeting)
{
	struct uf_destination *destination = meeting->destination;

	if (!destination->fds_count)
		return accept_one(meeting);
	return meeting->next < destination->fds_count ? destination->fds[meeting->next++] : -EPROTO;
}

static bool is_ours(const struct uf_destination *destination, const struct wire_preface *preface)
{
	return destination->stage != STAGE_EMPTY && !memcmp(destination->id, preface->id, sizeof(preface->id));
}

static bool was_canceled(const struct uf_destination *destination, const uint8_t id[16])
{
	for (unsigned i = 0; i < destination->canceled && i < CANCELED; i++)
		if (!memcmp(destination->canceled_ids[i], id, sizeof(destination->id)))
			return true;
	return false;
}

/* Whether this source may come, as far as where the two stand is concerned; and what we answer. */
static enum wire_refusal judge_standing(const struct uf_destination *destination, const struct wire_preface *preface,
                                        enum wire_standing *answer)
{
	bool ours = is_ours(destination, preface);
	int standing = destination_standing(destination);

	switch (preface->standing) {
	case WIRE_COMMITTED:
		/* What has come again since then is as good as what was never cancelled. */
		if (!ours && was_canceled(destination, preface->id)) {
			*answer = WIRE_CANCELED;
			return WIRE_ACCEPTED;
		}
		*answer = WIRE_READY;
		if (uf_destination_owner(destination) == UF_OWNER_DESTINATION)
			*answer = standing == DESTINATION_DONE ? WIRE_COMPLETE : WIRE_COMMITTED;
		return ours && (*answer != WIRE_READY || destination->stage == STAGE_READY) ? WIRE_ACCEPTED
		                                                                            : WIRE_UNKNOWN;
	case WIRE_FRESH:
	case WIRE_PRECOPY:
		/* Another may have committed already. */
		if (standing != DESTINATION_WAITS || (destination->stage == STAGE_READY && !ours))
			return WIRE_BUSY;
		*answer = ours && preface->standing == WIRE_PRECOPY ? WIRE_PRECOPY : WIRE_FRESH;
		return WIRE_ACCEPTED;
	default:
		return WIRE_UNKNOWN;
	}
}

static enum wire_refusal judge(const struct uf_destination *destination, const struct wire_preface *preface,
                               enum wire_standing *answer)
{
	if (preface->lowest > WIRE_VERSION || preface->highest < WIRE_VERSION)
		return WIRE_NO_VERSION;
	if (preface->page_size != destination->regions.page_size)
		return WIRE_NO_REGIONS;
	if ((preface->required & ~WIRE_FEATURES) ||
	    ((destination->options.flags & UF_MIGRATE_CHECKSUM) && !(preface->features & WIRE_CHECKSUM)))
		return WIRE_NO_FEATURE;
	return judge_standing(destination, preface, answer);
}

static int answer_preface(struct uf_destination *destination, struct stream *stream, const struct wire_preface *to,
                          enum wire_standing standing, enum wire_refusal refusal)
{
	struct wire_preface preface = {
		.lowest = WIRE_VERSION,
		.highest = WIRE_VERSION,
		.role = WIRE_DESTINATION,
		.channel = to->channel,
		.channels = to->channels ? to->channels : 1,
		.standing = standing,
		.refusal = refusal,
		.features = WIRE_FEATURES,
		.required = destination->options.flags & UF_MIGRATE_CHECKSUM ? WIRE_CHECKSUM : 0,
		.page_size = (uint32_t)destination->regions.page_size,
		.timeout_ms = destination->options.timeout_ms,
	};

	memcpy(preface.id, to->id, sizeof(preface.id));
	return channel_greet(stream, &preface);
}

static const char *word_of(enum wire_refusal refusal)
{
	switch (refusal) {
	case WIRE_NO_VERSION:
		return "no version in common";
	case WIRE_NO_REGIONS:
		return "another page size";
	case WIRE_NO_FEATURE:
		return "no agreement on features";
	case WIRE_BUSY:
		return "there is, or may be, another source";
	default:
		return "a program that was not given to us";
	}
}

/* Takes the preface of one connection; refuses it, or has it in its place in `here`. */
static int greet(struct meeting *meeting, struct stream *stream)
{
	struct uf_destination *destination = meeting->destination;
	unsigned char raw[WIRE_PREFACE_SIZE];
	enum wire_standing answer = WIRE_FRESH;
	enum wire_refusal refusal;
	struct wire_preface preface;
	char cause[TLS_CAUSE];
	unsigned other;
	int err = tls_greet(destination->tls, stream, cause);

	if (err == -EACCES)
		tally_fail(&destination->tally, "TLS: %s", cause);
	if (!err)
		err = stream_receive(stream, raw, sizeof(raw));
	if (!err)
		err = wire_read_preface(&preface, raw);
	if (!err && preface.role != WIRE_SOURCE)
		err = -EPROTO;
	if (err)
		return err;
	refusal = judge(destination, &preface, &answer);
	if (refusal) {
		tally_fail(&destination->tally, "a source is refused: %s", word_of(refusal));
		answer_preface(destination, stream, &preface, answer, refusal);
		return refusal == WIRE_BUSY || refusal == WIRE_UNKNOWN ? -EBUSY : -EPROTONOSUPPORT;
	}
	/* The latest counts: it is the source's new try. */
	other = !preface.channel;
	if (meeting->here[other] && (preface.channels != meeting->preface[other].channels ||
	                             preface.standing != meeting->preface[other].standing ||
	                             memcmp(preface.id, meeting->preface[other].id, sizeof(preface.id)))) {
		stream_close(&destination->channels[other].stream);
		meeting->here[other] = false;
	}
	stream_close(&destination->channels[preface.channel].stream);
	destination->channels[preface.channel].stream.fd = stream->fd;
	destination->channels[preface.channel].stream.tls = stream->tls;
	destination->channels[preface.channel].stream.wake = stream->wake;
	destination->channels[preface.channel].stream.timeout_ms = destination->options.timeout_ms;
	tally_add(&destination->tally.wire, stream->bytes);
	meeting->preface[preface.channel] = preface;
	meeting->here[preface.channel] = true;
	stream->fd = -1;
	return 0;
}

static bool all_here(const struct meeting *meeting)
{
	return meeting->here[0] && (meeting->preface[0].channels == 1 || meeting->here[1]);
}

static int gather(struct meeting *meeting)
{
	struct uf_destination *destination = meeting->destination;
	bool given = destination->fds_count;

	while (!all_here(meeting)) {
		unsigned timeout = destination->options.timeout_ms;
		struct stream stream;
		int err = next_connection(meeting);

		if (err == -EAGAIN) {
			/* The other half does not come. */
			destination_part(destination);
			meeting->here[0] = meeting->here[1] = false;
			continue;
		}
		if (err < 0)
			return err;
		stream = (struct stream){.fd = -1};
		stream_open(&stream, err, destination->wake, timeout);
		if (!given)
			stream.deadline = deadline_in(timeout > GREETING ? GREETING : timeout);
		err = greet(meeting, &stream);
		stream_close(&stream);
		if (err && given)
			return err;
		if (err == -EPROTO)
			tally_fail(&destination->tally, "somebody connected who is no source");
	}
	return 0;
}

/*
 * Where they agree.
 */

static int take_regions(struct uf_destination *destination)
{
	struct channel *channel = &destination->channels[0];
	struct wire_message message;
	bool agree;
	int err = channel_receive(channel, &message);

	if (!err && message.type != WIRE_REGIONS)
		err = -EPROTO;
	if (!err)
		err = channel_receive_body(channel, &message, destination->buffer);
	if (err)
		return err;
	agree = message.count == destination->regions.count;
	for (uint32_t i = 0; i < message.count && agree; i++)
		agree = wire_region_agrees((unsigned char *)destination->buffer + i * WIRE_REGION_SIZE,
		                           &destination->regions.at[i]);
	if (agree)
		return 0;
	tally_fail(&destination->tally, "a source is refused: other regions");
	channel_reason(channel, WIRE_REFUSE, WIRE_NO_REGIONS, "other regions");
	stream_finish(&channel->stream, STREAM_GRACE_MS);
	return -EPROTONOSUPPORT;
}

static int send_bitmap(struct uf_destination *destination, const struct region *region)
{
	int err = 0;

	for (uint64_t at = 0; at < region->pages && !err; at += WIRE_BITMAP_BITS) {
		uint64_t left = region->pages - at, count = left < WIRE_BITMAP_BITS ? left : WIRE_BITMAP_BITS;
		struct wire_message message = {
			.type = WIRE_BITMAP,
			.region = (uint32_t)(region - destination->regions.at),
			.at = at,
			.count = (uint32_t)count,
			.length = (uint32_t)((count + 63) / 64 * 8),
		};

		for (uint64_t word = 0; word < (count + 63) / 64; word++)
			wire_write_u64((unsigned char *)destination->buffer + word * 8,
			               bitmap_word(destination->have, (region->first + at) / 64 + word));
		err = channel_send(&destination->channels[0], &message, destination->buffer);
	}
	return err;
}

/* Back to where pages are received straight into memory, which nothing may watch then. */
static int step_back(struct uf_destination *destination, const struct wire_preface *preface, bool keep)
{
	faults_end(destination);
	if (destination->stage >= STAGE_ARMED)
		place_disarm(destination);
	destination->state_len = 0;
	destination->stage = STAGE_PRECOPY;
	memcpy(destination->id, preface->id, sizeof(destination->id));
	return keep ? 0 : place_empty_all(destination);
}

/* Whether a source that came back after all was here has heard so. */
static int hear_bye(struct uf_destination *destination)
{
	struct wire_message message;
	int err = channel_receive(&destination->channels[0], &message);

	if (!err)
		err = message.type == WIRE_BYE ? -ECONNABORTED : -EPROTO;
	return err;
}

static int agree(struct meeting *meeting)
{
	struct uf_destination *destination = meeting->destination;
	const struct wire_preface *preface = &meeting->preface[0];
	enum wire_standing standing = WIRE_FRESH;
	int err = 0;

	judge_standing(destination, preface, &standing);
	for (unsigned i = 0; i < destination->connections && !err; i++)
		err = answer_preface(destination, &destination->channels[i].stream, &meeting->preface[i], standing,
		                     WIRE_ACCEPTED);
	if (err)
		return err;
	if (standing == WIRE_COMPLETE)
		return hear_bye(destination);
	if (standing == WIRE_CANCELED) {
		stream_finish(&destination->channels[0].stream, STREAM_GRACE_MS);
		return -ECONNABORTED;
	}
	err = take_regions(destination);
	/* Not before: a connection that was late, and that the source has given up, gets as far as that. */
	if (!err && (standing == WIRE_FRESH || standing == WIRE_PRECOPY))
		err = step_back(destination, preface, standing == WIRE_PRECOPY);
	if (!err)
		err = channel_tell(&destination->channels[0], WIRE_ACCEPT, 0);
	for (size_t i = 0; i < destination->regions.count && !err && standing != WIRE_FRESH; i++)
		err = send_bitmap(destination, &destination->regions.at[i]);
	return err;
}

/* A source that is let in. */
static int welcome(struct meeting *meeting)
{
	struct uf_destination *destination = meeting->destination;
	const struct wire_preface *preface = &meeting->preface[0];
	int err;

	destination->connections = preface->channels;
	destination->beat_ms = preface->timeout_ms / 4 + 1;
	for (unsigned i = 0; i < destination->connections; i++)
		destination->channels[i].checksum = (preface->features & WIRE_CHECKSUM) &&
		                                    ((preface->required & WIRE_CHECKSUM) ||
		                                     (destination->options.flags & UF_MIGRATE_CHECKSUM));
	err = agree(meeting);
	if (err)
		return err;
	tally_connected(&destination->tally, 1);
	if (destination_standing(destination) == DESTINATION_WAITS)
		atomic_store(&destination->tally.phase,
		             destination->stage == STAGE_READY ? UF_MIGRATE_STOPPED : UF_MIGRATE_PRECOPY);
	return 0;
}

/* Descriptors that nobody has asked for, as the second one of a source that has one connection. */
static void drop_rest(struct meeting *meeting)
{
	struct uf_destination *destination = meeting->destination;

	while (meeting->next < destination->fds_count)
		close(destination->fds[meeting->next++]);
}

int destination_meet(struct uf_destination *destination, unsigned ms)
{
	struct meeting meeting = {.destination = destination, .deadline = ms ? deadline_in(ms) : 0};
	bool given = destination->fds_count;
	int err;

	for (;;) {
		meeting.here[0] = meeting.here[1] = false;
		err = gather(&meeting);
		drop_rest(&meeting);
		if (!err)
			err = welcome(&meeting);
		else
			destination->connections = 0;
		if (!err)
			return 0;
		destination_part(destination);
		/* A source that was told that it is over: nothing more is to come, or it may be the turn of the one that is here. */
		if (err == -ECONNABORTED && (given || ms))
			return destination->stage == STAGE_EMPTY ? -ECANCELED : -ENOTCONN;
		if (given || err == -ECANCELED || err == -ETIMEDOUT || err == -EMFILE || err == -ENFILE ||
		    err == -ENOMEM)
			return err;
	}
}

void destination_part(struct uf_destination *destination)
{
	for (unsigned i = 0; i < 2; i++) {
		struct channel *channel = &destination->channels[i];

		tally_add(&destination->tally.wire, atomic_exchange(&channel->stream.bytes, 0));
		stream_close(&channel->stream);
		channel->checksum = false;
	}
	destination->connections = 0;
	tally_connected(&destination->tally, 0);
}
