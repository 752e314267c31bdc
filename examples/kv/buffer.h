/* SPDX-License-Identifier: MIT */
/*
 * buffer.h - bytes on their way in or out
 *
 * A buffer lies outside the heap that migrates. System calls are given buffers and never the heap: where the heap is served by the user engine, or
 * by a userfaultfd without full rights, a system call that meets a missing page fails with EFAULT, while the program's own touch just waits.
 *
 * What cannot be added, because memory or the buffer's limit is at its end, makes the buffer fail; it then takes nothing more, and one check
 * at the end is enough.
 */
#ifndef KV_BUFFER_H
#define KV_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

struct buffer {
	char *data;
	size_t start, end, size; /* [start, end) of data is held */
	size_t limit;            /* bytes held at most; 0: no limit */
	bool failed;
};

static inline size_t buffer_length(const struct buffer *buffer)
{
	return buffer->end - buffer->start;
}

static inline char *buffer_bytes(const struct buffer *buffer)
{
	return buffer->data + buffer->start;
}

/* Makes room for len bytes at buffer->data + buffer->end; whoever writes there adds to `end`. False: there is none, and it has failed. */
bool buffer_reserve(struct buffer *buffer, size_t len);

void buffer_add(struct buffer *buffer, const void *bytes, size_t len);
void buffer_print(struct buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Drops len bytes from the start. A large buffer that is empty gives its memory back. */
void buffer_consume(struct buffer *buffer, size_t len);

void buffer_free(struct buffer *buffer);

#endif
