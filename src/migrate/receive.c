// SPDX-License-Identifier: MIT
/* The receiver. Contracts: migrate/destination.h; which message may come when: userfault-migrate(5). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "migrate/destination.h"

/* How long a source that does not say goodbye may take to come back and ask, ms. */
#define LINGER 5000u

static uint64_t first_page(const struct uf_destination *destination, const struct wire_message *message)
{
	return destination->regions.at[message->region].first + message->at;
}

/* ---- before the program begins ---- */

static int take_discard(struct uf_destination *destination, struct channel *channel, const struct wire_message *message)
{
	const struct region *region = &destination->regions.at[message->region];
	int err = channel_receive_body(channel, message, destination->buffer);

	for (uint32_t i = 0; i < message->count && !err; i++) {
		uint64_t from, end;

		err = wire_read_range((unsigned char *)destination->buffer + i * WIRE_RANGE_SIZE, region, &from, &end);
		if (err)
			break;
		from += region->first;
		end += region->first;
		atomic_fetch_sub(&destination->present, bitmap_clear(destination->have, from, end));
		tally_add(&destination->tally.discarded, (end - from) * destination->regions.page_size);
		err = place_empty(destination, from, end);
	}
	return err;
}

static int take_state(struct uf_destination *destination, struct channel *channel, const struct wire_message *message)
{
	size_t end = message->at + message->length;
	char *larger;

	if (message->at != destination->state_len)
		return -EPROTO;
	if (end > destination->state_room) {
		/* Only as much as has come: a length alone costs the peer nothing. */
		larger = realloc(destination->state, end * 2);
		if (!larger)
			return -ENOMEM;
		destination->state = larger;
		destination->state_room = end * 2;
	}
	destination->state_len = end;
	return channel_receive_body(channel, message, destination->state + message->at);
}

static int arm(struct uf_destination *destination, struct channel *channel)
{
	int err = place_arm(destination);

	if (err) {
		tally_fail(&destination->tally, "the memory cannot be registered: %s", tally_word(err));
		channel_reason(channel, WIRE_REFUSE, WIRE_FAILED, "the memory cannot be registered");
		return err;
	}
	destination->stage = STAGE_ARMED;
	err = faults_start(destination);
	return err ? err : channel_tell(channel, WIRE_ARMED, 0);
}

static int take_stop(struct uf_destination *destination, struct channel *channel, const struct wire_message *message)
{
	int err = 0;

	if (message->at != destination->state_len)
		return -EPROTO;
	atomic_store(&destination->tally.phase, UF_MIGRATE_STOPPED);
	if (destination->options.prepare)
		err = destination->options.prepare(destination->options.arg, destination->state,
		                                   destination->state_len);
	if (err) {
		tally_fail(&destination->tally, "the state is refused: %s", tally_word(err));
		channel_reason(channel, WIRE_REFUSE, WIRE_NO_STATE, "the program refuses the state");
		return -ECANCELED;
	}
	/* Before it is said: the answer may be the last that the source hears. */
	destination->stage = STAGE_READY;
	return channel_tell(channel, WIRE_PREPARED, 0);
}

static int begin(struct uf_destination *destination, struct channel *channel)
{
	int waits = DESTINATION_WAITS, err;

	if (!atomic_compare_exchange_strong(&destination->standing, &waits, DESTINATION_BEGUN))
		return -ECANCELED;
	err = channel_tell(channel, WIRE_STARTED, 0);
	pthread_mutex_lock(&destination->lock);
	destination->start_due = true;
	atomic_store(&destination->tally.phase, UF_MIGRATE_POSTCOPY);
	pthread_cond_broadcast(&destination->changed);
	pthread_mutex_unlock(&destination->lock);
	faults_link(destination);
	return err;
}

/* The source would come back, and again, if it did not know. */
static int refuse_memory(struct uf_destination *destination, struct channel *channel, int err)
{
	tally_fail(&destination->tally, "the memory cannot be written to");
	channel_reason(channel, WIRE_REFUSE, WIRE_FAILED, "the memory cannot be written to");
	stream_finish(&channel->stream, STREAM_GRACE_MS);
	return err;
}

static int receive_pages(struct uf_destination *destination, struct channel *channel,
                         const struct wire_message *message)
{
	int err;

	tally_add(&destination->tally.precopy, message->length);
	err = place_receive(destination, channel, message);
	return err == -EFAULT ? refuse_memory(destination, channel, err) : err;
}

static int take_precopy(struct uf_destination *destination, struct channel *channel, const struct wire_message *message)
{
	uint64_t first;

	switch (message->type) {
	case WIRE_PAGES:
		return receive_pages(destination, channel, message);
	case WIRE_ZEROS:
		first = first_page(destination, message);
		tally_add(&destination->tally.zero, message->count * (uint64_t)destination->regions.page_size);
		return place_nothing(destination, first, first + message->count);
	case WIRE_DISCARD:
		return take_discard(destination, channel, message);
	case WIRE_BARRIER:
		return channel_tell(channel, WIRE_REACHED, message->at);
	case WIRE_ARM:
		return arm(destination, channel);
	default:
		return -EPROTO;
	}
}

static int take_armed(struct uf_destination *destination, struct channel *channel, const struct wire_message *message)
{
	switch (message->type) {
	case WIRE_DISCARD:
		return take_discard(destination, channel, message);
	case WIRE_BARRIER:
		return channel_tell(channel, WIRE_REACHED, message->at);
	case WIRE_STATE:
		return take_state(destination, channel, message);
	case WIRE_STOPPED:
		return take_stop(destination, channel, message);
	default:
		return -EPROTO;
	}
}

static int take_cancel(struct uf_destination *destination, struct channel *channel, const struct wire_message *message)
{
	char reason[REASON_SIZE];
	int err = channel_receive_reason(channel, message, reason);

	if (err)
		return err;
	tally_fail(&destination->tally, "the source has ended it: %s", reason);
	return -ECANCELED;
}

static int take_early(struct uf_destination *destination, struct channel *channel, const struct wire_message *message)
{
	if (message->type == WIRE_CANCEL)
		return take_cancel(destination, channel, message);
	switch (destination->stage) {
	case STAGE_PRECOPY:
		return take_precopy(destination, channel, message);
	case STAGE_ARMED:
		return take_armed(destination, channel, message);
	default:
		return message->type == WIRE_COMMIT ? begin(destination, channel) : -EPROTO;
	}
}

/* ---- after it has begun ---- */

/* Over the one connection what was asked for comes among all the rest. */
static uint64_t asked_bytes(const struct uf_destination *destination, uint64_t from, uint64_t end)
{
	return destination->connections == 1
	               ? bitmap_count(destination->asked, from, end) * destination->regions.page_size
	               : 0;
}

int destination_take_pages(struct uf_destination *destination, struct channel *channel,
                           const struct wire_message *message, char *buffer)
{
	uint64_t from, end;
	int err;

	if (message->type != WIRE_PAGES && message->type != WIRE_ZEROS)
		return -EPROTO;
	from = first_page(destination, message);
	end = from + message->count;
	if (message->type == WIRE_ZEROS) {
		tally_add(&destination->tally.zero, (end - from) * destination->regions.page_size);
		return place_zeros(destination, from, end);
	}
	tally_add(&destination->tally.postcopy, message->length);
	tally_add(&destination->tally.requested,
	          buffer == destination->faults_buffer ? message->length : asked_bytes(destination, from, end));
	err = channel_receive_body(channel, message, buffer);
	return err ? err : place_copy(destination, from, end, buffer);
}

/* All has been sent; what was asked for may still be on its way over the other connection. */
static int wait_for_rest(struct uf_destination *destination)
{
	struct timespec until;
	int err = 0;

	if (destination->connections == 1)
		return place_is_complete(destination) ? 0 : -EPROTO;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += destination->options.timeout_ms / 1000 + 1;
	pthread_mutex_lock(&destination->lock);
	while (!place_is_complete(destination) && !err) {
		if (pthread_cond_timedwait(&destination->changed, &destination->lock, &until) ||
		    destination->link_failed || destination_standing(destination) != DESTINATION_BEGUN)
			err = -ENOTCONN;
	}
	pthread_mutex_unlock(&destination->lock);
	return err;
}

static int finish(struct uf_destination *destination)
{
	int err = wait_for_rest(destination), begun = DESTINATION_BEGUN;
	struct wire_message message;

	if (err)
		return err;
	if (!atomic_compare_exchange_strong(&destination->standing, &begun, DESTINATION_DONE))
		return -ENOTCONN;
	place_disarm(destination);
	faults_end(destination);
	uf_close(destination->uf);
	destination->uf = NULL;
	destination->channels[0].stream.timeout_ms = LINGER;
	err = channel_tell(destination_requests(destination), WIRE_DONE, 0);
	do
		err = err ? err : channel_receive(&destination->channels[0], &message);
	while (!err && message.type != WIRE_BYE);
	return err;
}

static int take_late(struct uf_destination *destination, struct channel *channel, const struct wire_message *message)
{
	if (message->type == WIRE_ALL_SENT)
		return finish(destination);
	return destination_take_pages(destination, channel, message, destination->buffer);
}

/* ---- one connection after the other ---- */

static int take_all(struct uf_destination *destination)
{
	struct channel *channel = &destination->channels[0];
	struct wire_message message;
	int err = 0;

	while (!err && destination_standing(destination) != DESTINATION_DONE) {
		if (destination_standing(destination) == DESTINATION_CANCELS)
			return -ECANCELED;
		err = channel_receive(channel, &message);
		if (!err)
			err = destination_standing(destination) == DESTINATION_BEGUN
			              ? take_late(destination, channel, &message)
			              : take_early(destination, channel, &message);
	}
	return err;
}

/* Nothing has come of it: the memory is as it was at first. */
static void forget(struct uf_destination *destination)
{
	faults_end(destination);
	if (destination->stage >= STAGE_ARMED)
		place_disarm(destination);
	place_empty_all(destination);
	destination->stage = STAGE_EMPTY;
	destination->state_len = 0;
	atomic_store(&destination->tally.phase, UF_MIGRATE_CANCELED);
}

/* Our program does not want it. A source that may have committed is told when it asks. */
static int cancel(struct uf_destination *destination)
{
	if (destination->connections) {
		channel_reason(&destination->channels[0], WIRE_CANCEL, WIRE_ACCEPTED, "cancelled at the destination");
		stream_finish(&destination->channels[0].stream, STREAM_GRACE_MS);
	}
	if (destination->stage == STAGE_READY)
		memcpy(destination->canceled_ids[destination->canceled++ % CANCELED], destination->id,
		       sizeof(destination->id));
	return -ECANCELED;
}

int destination_decline(struct uf_destination *destination)
{
	int err = cancel(destination);

	forget(destination);
	tally_tick(&destination->tally);
	return err;
}

/* Whether another connection may do better. */
static bool may_pass(int err)
{
	return err == -ENOTCONN || err == -EPROTO || err == -EBADMSG || err == -EPROTONOSUPPORT || err == -EACCES ||
	       err == -EBUSY;
}

/* What a connection has come to. `err` is what the receiver ends with, if it does. */
static bool is_over(struct uf_destination *destination, int *err)
{
	switch (destination_standing(destination)) {
	case DESTINATION_DONE:
		/* It may not have heard that all is here. Descriptors that were given are closed already. */
		if (*err && destination->listener >= 0) {
			destination_part(destination);
			destination->fds_count = 0;
			destination_meet(destination, LINGER);
		}
		*err = 0;
		return true;
	case DESTINATION_LOST:
		*err = uf_features(destination->uf) & UFFD_FEATURE_POISON ? -EHOSTDOWN : -EOPNOTSUPP;
		return true;
	case DESTINATION_CANCELS:
		*err = cancel(destination);
		return true;
	default:
		if (*err != -ENOTCONN && *err != -ECANCELED)
			tally_fail(&destination->tally, "the connection is given up: %s", tally_word(*err));
		return destination->fds_count || !may_pass(*err);
	}
}

void *destination_receive(void *arg)
{
	struct uf_destination *destination = arg;
	bool over;
	int err;

	do {
		err = destination_meet(destination, 0);
		if (!err && destination_standing(destination) == DESTINATION_BEGUN)
			faults_link(destination);
		if (!err)
			err = take_all(destination);
		/* A source that shall be told of a cancellation is still to be talked to. */
		if (destination_standing(destination) != DESTINATION_CANCELS)
			faults_unlink(destination);
		over = is_over(destination, &err);
		destination_part(destination);
	} while (!over);
	if (err == -ECANCELED)
		forget(destination);
	pthread_mutex_lock(&destination->lock);
	destination->result = err;
	destination->running = false;
	pthread_cond_broadcast(&destination->changed);
	pthread_mutex_unlock(&destination->lock);
	return NULL;
}
