/* SPDX-License-Identifier: MIT */
/*
 * channel.h - messages over one connection
 *
 * Any number of threads may send; one receives. Errors: as of stream.h; -EPROTO, -EBADMSG: what the peer has sent.
 */
#ifndef MIGRATE_CHANNEL_H
#define MIGRATE_CHANNEL_H

#include <pthread.h>

#include "migrate/stream.h"
#include "migrate/wire.h"

/* What was seen of the peer, or said to it, and is for people. */
#define REASON_SIZE (WIRE_TEXT + 1)

struct channel {
	struct stream stream;
	pthread_mutex_t sending; /* the last of all locks */
	enum wire_role peer;
	const struct regions *regions;
	bool checksum;
};

void channel_init(struct channel *channel, enum wire_role peer, const struct regions *regions);
void channel_destroy(struct channel *channel);

/*
 * `body` are message->length bytes, or NULL. Bytes that others may write to at the same time must not be sent with a checksum: it would be
 * of others than those that are sent.
 */
int channel_send(struct channel *channel, const struct wire_message *message, const void *body);

/* Before there are messages: the preface of this side. */
int channel_greet(struct stream *stream, const struct wire_preface *preface);

/* A message without anything in it but `at`. */
int channel_tell(struct channel *channel, enum wire_type type, uint64_t at);

/* A refusal or cancellation. */
int channel_reason(struct channel *channel, enum wire_type type, enum wire_refusal refusal, const char *text);

/*
 * The next message; channel_receive() passes over WIRE_ALIVE, and so may wait for another one. What follows it is to be received next, all
 * of it.
 */
int channel_next(struct channel *channel, struct wire_message *message);
int channel_receive(struct channel *channel, struct wire_message *message);
int channel_receive_body(struct channel *channel, const struct wire_message *message, void *body);
int channel_receive_reason(struct channel *channel, const struct wire_message *message, char reason[REASON_SIZE]);

#endif
