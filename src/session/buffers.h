/* SPDX-License-Identifier: MIT */
/*
 * buffers.h - where pages are between store and memory
 *
 * Two sizes, of a fixed number each, so that what is in flight is bounded. The one given back last is taken first: it is in the processor's
 * cache. No lock; all functions may be called in signal handlers.
 */
#ifndef SESSION_BUFFERS_H
#define SESSION_BUFFERS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define BUFFER_SMALL  ((size_t)64 << 10)
#define BUFFER_LARGE  ((size_t)2 << 20)
#define BUFFERS_SMALL 32u
#define BUFFERS_LARGE 8u
/* Of the large ones, what is brought ahead takes at most so many. */
#define BUFFERS_AHEAD 6u

struct session_buffers {
	char *memory;                    /* the large ones, then the small ones */
	_Atomic uint64_t taken[2];       /* a bit for each: small, large */
	_Atomic uint32_t waiting, given; /* futex: `given` counts those given back */
};

int buffers_init(struct session_buffers *buffers);
void buffers_end(struct session_buffers *buffers);

/* One of at least `len` bytes, at most BUFFER_LARGE; NULL: none is free. `limit`: of the large ones at most so many are in use then. */
char *buffers_try(struct session_buffers *buffers, size_t len, unsigned limit);

/* Waits for one. */
char *buffers_take(struct session_buffers *buffers, size_t len, unsigned limit);

/* Waits until there may be one of `len` bytes: try again. */
void buffers_wait(struct session_buffers *buffers, size_t len);

void buffers_give(struct session_buffers *buffers, char *buffer);

#endif
