// SPDX-License-Identifier: MIT
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"

enum { FIRST_SIZE = 16384, KEPT_SIZE = 1 << 20 };

static bool resize(struct buffer *buffer, size_t needed)
{
	size_t size = buffer->size ? buffer->size : FIRST_SIZE;
	char *data;

	while (size < needed)
		size *= 2;
	if (size == buffer->size)
		return true;
	data = realloc(buffer->data, size);
	if (!data)
		return false;
	buffer->data = data;
	buffer->size = size;
	return true;
}

bool buffer_reserve(struct buffer *buffer, size_t len)
{
	size_t held = buffer_length(buffer);

	if (buffer->failed || (buffer->limit && len > buffer->limit - held)) {
		buffer->failed = true;
		return false;
	}
	if (len <= buffer->size - buffer->end)
		return true;
	/* To the front, which makes room, and is cheap where little is held. */
	if (buffer->start) {
		memmove(buffer->data, buffer_bytes(buffer), held);
		buffer->start = 0;
		buffer->end = held;
	}
	if (!resize(buffer, held + len))
		buffer->failed = true;
	return !buffer->failed;
}

void buffer_add(struct buffer *buffer, const void *bytes, size_t len)
{
	if (!len || !buffer_reserve(buffer, len))
		return;
	memcpy(buffer->data + buffer->end, bytes, len);
	buffer->end += len;
}

void buffer_print(struct buffer *buffer, const char *format, ...)
{
	char text[1024];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (len > 0)
		buffer_add(buffer, text, (size_t)len < sizeof(text) ? (size_t)len : sizeof(text) - 1);
}

void buffer_consume(struct buffer *buffer, size_t len)
{
	buffer->start += len;
	if (buffer->start < buffer->end)
		return;
	buffer->start = buffer->end = 0;
	if (buffer->size > KEPT_SIZE) {
		free(buffer->data);
		buffer->data = NULL;
		buffer->size = 0;
	}
}

void buffer_free(struct buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct buffer){.limit = buffer->limit};
}
