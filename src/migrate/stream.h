/* SPDX-License-Identifier: MIT */
/*
 * stream.h - bytes over a connected stream socket, with or without TLS
 *
 * One thread may send and another receive at the same time. A wait ends after `timeout_ms`; when `wake`, an eventfd, becomes readable, every
 * wait from then on is of STREAM_GRACE_MS at most, which is enough to get to the end of a message where the peer is well.
 *
 * Results: 0; -ENOTCONN: the connection is broken, whatever has broken it; -ECANCELED: woken; -EFAULT: the bytes are where nothing can be
 * read, or written, and the connection is of no more use.
 */
#ifndef MIGRATE_STREAM_H
#define MIGRATE_STREAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define STREAM_GRACE_MS 1000

/* What a TLS library makes of a connection. send and receive answer as send(2) and recv(2) with -errno in place of -1: -EAGAIN to wait. */
struct stream_tls {
	ssize_t (*send)(struct stream_tls *tls, const void *bytes, size_t len);
	ssize_t (*receive)(struct stream_tls *tls, void *bytes, size_t len);
	bool (*holds)(struct stream_tls *tls); /* bytes that were received and poll(2) does not tell of */
	void (*close)(struct stream_tls *tls);
};

struct stream {
	int fd; /* -1: none */
	int wake;
	unsigned timeout_ms;
	uint64_t deadline;      /* beyond which nothing is waited for, ns; 0: none */
	struct stream_tls *tls; /* NULL: none */
	_Atomic uint64_t bytes; /* sent and received */
};

/* Takes fd over: it is made non-blocking, and is to send at once what is small. */
void stream_open(struct stream *stream, int fd, int wake, unsigned timeout_ms);

/* So many bytes at most may wait here that have not been sent: what is sent next gets ahead of nothing else. */
void stream_keep_short(struct stream *stream, unsigned bytes);

/* All of it; iov is used up. */
int stream_send(struct stream *stream, struct iovec *iov, int count);
int stream_receive(struct stream *stream, void *bytes, size_t len);

/* Whether something was received that poll(2) does not tell of. */
static inline bool stream_holds(const struct stream *stream)
{
	return stream->tls && stream->tls->holds(stream->tls);
}

/* Whether something can be received now; also its end. Does not wait. */
bool stream_has(const struct stream *stream);
bool stream_is_woken(const struct stream *stream);

/* Waits until it has; -EAGAIN: not within `ms`. */
int stream_wait(const struct stream *stream, unsigned ms);

/* The same for two, of which one may be NULL: which. */
int stream_wait_any(const struct stream *const streams[2], unsigned ms);

/* Every send and receive fails from now on, also those that wait. Any thread. */
void stream_break(const struct stream *stream);
void stream_close(struct stream *stream);

/* Nothing is sent any more; returns when the peer has closed too, or after `ms`. So that what was sent last is not lost with what was not read. */
void stream_finish(struct stream *stream, unsigned ms);

#endif
