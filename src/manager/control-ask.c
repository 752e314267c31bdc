// SPDX-License-Identifier: MIT
/* The side of the control socket that asks. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/unixname.h"
#include "manager/control.h"

#define ANSWER_MAX ((size_t)64 << 20)

static int remaining_ms(uint64_t deadline)
{
	uint64_t now = now_ns();

	return now >= deadline ? 0 : (int)((deadline - now) / 1000000 + 1);
}

/* With a time limit: there may be more who wait to be accepted than the system has room for. */
static int connect_to(const char *path, int timeout_ms)
{
	struct sockaddr_un address;
	int len = unix_address(&address, path);
	struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
	_cleanup_fd int fd = -1;

	if (len < 0)
		return len;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)))
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, (socklen_t)len))
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	return take_fd(&fd);
}

/* A request fits into an empty socket. */
static int send_request(int fd, const char *command)
{
	json_t *request = json_pack("{ss}", "command", command);
	char *line = json_dumps(request, JSON_COMPACT);
	size_t len = line ? strlen(line) : 0;
	int err = line ? 0 : -EINVAL;

	if (!err && len >= CONTROL_LINE)
		err = -EMSGSIZE;
	if (!err) {
		line[len] = '\n';
		if (send(fd, line, len + 1, MSG_NOSIGNAL) != (ssize_t)(len + 1))
			err = errno == EAGAIN ? -ETIMEDOUT : -errno;
	}
	free(line);
	json_decref(request);
	return err;
}

/* More of the answer, before the deadline: the count of bytes, or -errno. */
static ssize_t receive(int fd, char *buffer, size_t room, uint64_t deadline)
{
	for (;;) {
		struct pollfd wait = {.fd = fd, .events = POLLIN};
		int ready = poll(&wait, 1, remaining_ms(deadline));
		ssize_t n = ready > 0 ? recv(fd, buffer, room, MSG_DONTWAIT) : -1;

		if (!ready)
			return -ETIMEDOUT;
		if (n > 0)
			return n;
		if (!n || errno == ECONNRESET)
			return -EPROTO;
		if (errno != EINTR && errno != EAGAIN)
			return -errno;
	}
}

/* 0, and the line without its end; what comes behind it was not asked for. */
static int receive_line(int fd, uint64_t deadline, char **line)
{
	size_t room = 65536, filled = 0;
	char *buffer = malloc(room), *end = NULL, *larger;
	ssize_t n = buffer ? 0 : -ENOMEM;

	while (n >= 0 && !end) {
		if (filled == room && room < ANSWER_MAX) {
			larger = realloc(buffer, 2 * room);
			buffer = larger ? larger : buffer;
			room *= larger ? 2 : 1;
		}
		n = filled == room ? (room < ANSWER_MAX ? -ENOMEM : -EMSGSIZE)
		                   : receive(fd, buffer + filled, room - filled, deadline);
		if (n > 0) {
			end = memchr(buffer + filled, '\n', (size_t)n);
			filled += (size_t)n;
		}
	}
	if (!end) {
		free(buffer);
		return (int)n;
	}
	*end = '\0';
	*line = buffer;
	return 0;
}

int control_ask(const char *path, const char *command, int timeout_ms, char **answer)
{
	uint64_t deadline = now_ns() + (uint64_t)timeout_ms * 1000000;
	_cleanup_fd int fd = connect_to(path, timeout_ms);
	int err = fd < 0 ? fd : send_request(fd, command);

	return err ? err : receive_line(fd, deadline, answer);
}
