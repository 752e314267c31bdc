// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "call.h"
#include "resp.h"

enum { PIECE = 4096 };

static int send_all(int fd, struct buffer *request)
{
	while (buffer_length(request)) {
		ssize_t sent = send(fd, buffer_bytes(request), buffer_length(request), MSG_NOSIGNAL);

		if (sent < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		buffer_consume(request, (size_t)sent);
	}
	return 0;
}

/* Receives until there are len bytes, or, with len 0, until a line ends. Its length with its end, or -errno. */
static ssize_t receive(int fd, struct buffer *reply, size_t len)
{
	for (;;) {
		size_t held = buffer_length(reply);
		const char *end = held ? memchr(buffer_bytes(reply), '\n', held) : NULL;
		ssize_t got;

		if (len ? held >= len : !!end)
			return (ssize_t)(len ? len : (size_t)(end - buffer_bytes(reply)) + 1);
		if (!buffer_reserve(reply, PIECE))
			return -ENOMEM;
		got = recv(fd, reply->data + reply->end, PIECE, 0);
		if (got <= 0)
			return !got ? -ECONNRESET : errno == EAGAIN ? -ETIMEDOUT : -errno;
		reply->end += (size_t)got;
	}
}

static int read_reply(int fd, struct buffer *reply)
{
	ssize_t len = receive(fd, reply, 0);
	char kind;

	if (len < 0)
		return (int)len;
	kind = *buffer_bytes(reply);
	if (!kind || !strchr("+-:$", kind) || len < 3)
		return -EPROTO;
	if (kind == '$') {
		long bulk = strtol(buffer_bytes(reply) + 1, NULL, 10);

		buffer_consume(reply, (size_t)len);
		len = bulk < 0 ? -EPROTO : receive(fd, reply, (size_t)bulk + 2);
		if (len < 0)
			return (int)len;
	} else {
		reply->start++;
		len--;
	}
	reply->end = reply->start + (size_t)len - 2;
	reply->data[reply->end] = 0;
	return kind == '-';
}

int call(const struct address *server, int seconds, size_t count, const char *const *args, struct buffer *reply)
{
	int fd = address_connect(server, true, seconds), result;
	struct buffer request = {0};

	if (fd < 0)
		return fd;
	reply_array(&request, count);
	for (size_t i = 0; i < count; i++)
		reply_text(&request, args[i]);
	result = request.failed ? -ENOMEM : send_all(fd, &request);
	if (!result)
		result = read_reply(fd, reply);
	buffer_free(&request);
	close(fd);
	return result;
}
