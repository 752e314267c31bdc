// SPDX-License-Identifier: MIT
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "migrate/address.h"

#define BACKLOG 16

static const char *after(const char *address, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(address, prefix, len) ? NULL : address + len;
}

static int parse_number(const char *text, char **end)
{
	long value;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	value = strtol(text, end, 10);
	return errno || value > 0x7fffffff ? -EINVAL : (int)value;
}

int address_descriptors(const char *address, int fds[ADDRESS_CONNECTIONS])
{
	const char *text = after(address, "fd:");
	int count = 0;
	char *end;

	if (!text)
		return -EINVAL;
	for (;; text = end + 1) {
		if (count == ADDRESS_CONNECTIONS)
			return -EINVAL;
		fds[count] = parse_number(text, &end);
		if (fds[count++] < 0)
			return -EINVAL;
		if (*end != ',')
			break;
	}
	/* One that is there twice would be closed twice. */
	return *end || (count == 2 && fds[0] == fds[1]) ? -EINVAL : count;
}

void address_discard(const char *address)
{
	int fds[ADDRESS_CONNECTIONS], count = address_descriptors(address, fds);

	for (int i = 0; i < count; i++)
		close(fds[i]);
}

static int unix_address(struct sockaddr_un *to, const char *path)
{
	*to = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (!*path || strlen(path) >= sizeof(to->sun_path))
		return -EINVAL;
	strcpy(to->sun_path, path);
	return 0;
}

/* HOST:PORT, and HOST in brackets where it has colons itself. */
static int tcp_addresses(struct addrinfo **found, const char *text, bool passive)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0)};
	const char *colon = strrchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : 0;
	char host[256], *end;
	int port = colon ? parse_number(colon + 1, &end) : -1;

	if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	} else if (memchr(text, ':', len)) {
		return -EINVAL;
	}
	if (!len || len >= sizeof(host) || port < 0 || port > 65535 || *end)
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = '\0';
	return getaddrinfo(host, colon + 1, &hints, found) ? -EADDRNOTAVAIL : 0;
}

/* Waits for a connect(2) that was begun. */
static int connected(int fd, unsigned timeout_ms, int wake)
{
	struct pollfd fds[2] = {{.fd = fd, .events = POLLOUT}, {.fd = wake, .events = POLLIN}};
	uint64_t until = deadline_in(timeout_ms);
	int error = 0, count;
	socklen_t size = sizeof(error);

	do
		count = poll(fds, 2, deadline_left(until));
	while (count < 0 && errno == EINTR);
	if (count > 0 && fds[1].revents)
		return -ECANCELED;
	if (count <= 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) || error)
		return -ENOTCONN;
	return 0;
}

static int connect_to(const struct sockaddr *to, socklen_t len, unsigned timeout_ms, int wake)
{
	_cleanup_fd int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, to, len))
		err = errno == EINPROGRESS ? connected(fd, timeout_ms, wake) : -ENOTCONN;
	return err ? err : take_fd(&fd);
}

static int connect_one(const char *address, unsigned timeout_ms, int wake)
{
	const char *path = after(address, "unix:"), *tcp = after(address, "tcp://");
	struct addrinfo *found;
	struct sockaddr_un un;
	int fd = -ENOTCONN, err;

	if (path) {
		err = unix_address(&un, path);
		return err ? err : connect_to((struct sockaddr *)&un, sizeof(un), timeout_ms, wake);
	}
	if (!tcp)
		return -EINVAL;
	err = tcp_addresses(&found, tcp, false);
	if (err)
		return err == -EINVAL ? err : -ENOTCONN;
	for (const struct addrinfo *at = found; at && fd < 0 && fd != -ECANCELED; at = at->ai_next)
		fd = connect_to(at->ai_addr, at->ai_addrlen, timeout_ms, wake);
	freeaddrinfo(found);
	return fd;
}

int address_connect(const char *address, int fds[ADDRESS_CONNECTIONS], unsigned count, unsigned timeout_ms, int wake)
{
	if (after(address, "fd:"))
		return address_descriptors(address, fds);
	for (unsigned i = 0; i < count; i++) {
		fds[i] = connect_one(address, timeout_ms, wake);
		if (fds[i] < 0) {
			int err = fds[i];

			while (i--)
				close(fds[i]);
			return err;
		}
	}
	return (int)count;
}

static int listen_on(const struct sockaddr *at, socklen_t len)
{
	_cleanup_fd int fd = socket(at->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1;

	if (fd < 0)
		return -errno;
	if (at->sa_family != AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, at, len) || listen(fd, BACKLOG))
		return -errno;
	return take_fd(&fd);
}

/* A socket that its owner left behind: nobody answers there. */
static bool is_left_over(const struct sockaddr_un *un)
{
	_cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat status;

	return fd >= 0 && !lstat(un->sun_path, &status) && S_ISSOCK(status.st_mode) &&
	       connect(fd, (const struct sockaddr *)un, sizeof(*un)) && errno == ECONNREFUSED;
}

static int listen_unix(const char *path)
{
	struct sockaddr_un un;
	int fd = unix_address(&un, path);

	if (fd)
		return fd;
	fd = listen_on((struct sockaddr *)&un, sizeof(un));
	if (fd == -EADDRINUSE && is_left_over(&un) && !unlink(path))
		fd = listen_on((struct sockaddr *)&un, sizeof(un));
	return fd;
}

static int listen_tcp(const char *text, char *actual, size_t size)
{
	char host[NI_MAXHOST], port[NI_MAXSERV];
	struct sockaddr_storage bound;
	socklen_t len = sizeof(bound);
	struct addrinfo *found;
	int fd = tcp_addresses(&found, text, true);

	if (fd)
		return fd;
	fd = listen_on(found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	if (fd < 0)
		return fd;
	if (getsockname(fd, (struct sockaddr *)&bound, &len) ||
	    getnameinfo((struct sockaddr *)&bound, len, host, sizeof(host), port, sizeof(port),
	                NI_NUMERICHOST | NI_NUMERICSERV)) {
		close(fd);
		return -EADDRNOTAVAIL;
	}
	snprintf(actual, size, strchr(host, ':') ? "tcp://[%s]:%s" : "tcp://%s:%s", host, port);
	return fd;
}

int address_listen(const char *address, char **actual)
{
	const char *path = after(address, "unix:"), *tcp = after(address, "tcp://");
	char text[NI_MAXHOST + NI_MAXSERV + 16];
	int fd = -EINVAL;

	if (path) {
		fd = listen_unix(path);
	} else if (tcp) {
		fd = listen_tcp(tcp, text, sizeof(text));
		address = text;
	}
	if (fd < 0)
		return fd;
	*actual = strdup(address);
	if (*actual)
		return fd;
	close(fd);
	return -ENOMEM;
}

void address_forget(const char *actual)
{
	const char *path = after(actual, "unix:");

	if (path)
		unlink(path);
}
