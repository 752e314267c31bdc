// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "migrate/channel.h"

void channel_init(struct channel *channel, enum wire_role peer, const struct regions *regions)
{
	*channel = (struct channel){.stream = {.fd = -1}, .peer = peer, .regions = regions};
	pthread_mutex_init(&channel->sending, NULL);
}

void channel_destroy(struct channel *channel)
{
	stream_close(&channel->stream);
	pthread_mutex_destroy(&channel->sending);
}

int channel_send(struct channel *channel, const struct wire_message *message, const void *body)
{
	unsigned char raw[WIRE_HEADER_SIZE];
	struct wire_message sent = *message;
	struct iovec iov[2] = {{raw, sizeof(raw)}, {(void *)body, message->length}};
	int err;

	if (channel->checksum && message->length)
		sent.crc = crc32c(0, body, message->length);
	wire_write_header(raw, &sent);
	pthread_mutex_lock(&channel->sending);
	err = stream_send(&channel->stream, iov, 2);
	pthread_mutex_unlock(&channel->sending);
	return err;
}

int channel_greet(struct stream *stream, const struct wire_preface *preface)
{
	unsigned char raw[WIRE_PREFACE_SIZE];
	struct iovec iov = {raw, sizeof(raw)};

	wire_write_preface(raw, preface);
	return stream_send(stream, &iov, 1);
}

int channel_tell(struct channel *channel, enum wire_type type, uint64_t at)
{
	return channel_send(channel, &(struct wire_message){.type = type, .at = at}, NULL);
}

int channel_reason(struct channel *channel, enum wire_type type, enum wire_refusal refusal, const char *text)
{
	size_t length = strnlen(text, WIRE_TEXT);

	return channel_send(channel, &(struct wire_message){.type = type, .count = refusal, .length = (uint32_t)length},
	                    text);
}

int channel_next(struct channel *channel, struct wire_message *message)
{
	unsigned char raw[WIRE_HEADER_SIZE];
	int err = stream_receive(&channel->stream, raw, sizeof(raw));

	return err ? err : wire_read_header(message, raw, channel->peer, channel->regions);
}

int channel_receive(struct channel *channel, struct wire_message *message)
{
	int err;

	/* A peer that says nothing else all the time never makes us wait, and it is while we wait that we are woken. */
	while (!(err = channel_next(channel, message)) && message->type == WIRE_ALIVE)
		if (stream_is_woken(&channel->stream))
			return -ECANCELED;
	return err;
}

int channel_receive_body(struct channel *channel, const struct wire_message *message, void *body)
{
	int err = stream_receive(&channel->stream, body, message->length);

	if (!err && channel->checksum && crc32c(0, body, message->length) != message->crc)
		err = -EBADMSG;
	return err;
}

int channel_receive_reason(struct channel *channel, const struct wire_message *message, char reason[REASON_SIZE])
{
	int err = channel_receive_body(channel, message, reason);

	reason[err ? 0 : message->length] = '\0';
	/* It is shown to people: nothing that a terminal might obey. */
	for (char *c = reason; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	return err;
}
