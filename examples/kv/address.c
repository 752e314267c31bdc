// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "address.h"

static int parse_unix(struct address *address, const char *path)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&address->socket;
	size_t len = strlen(path);

	if (!len || len >= sizeof(un->sun_path))
		return -EINVAL;
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, len + 1);
	address->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	return 0;
}

static int parse_tcp(struct address *address, const char *text)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
	char host[256];
	const char *colon = strrchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : 0;

	if (!len || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return -EINVAL;
	if (len > 2 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	if (len >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = 0;
	if (getaddrinfo(host, colon + 1, &hints, &found))
		return -ENOENT;
	memcpy(&address->socket, found->ai_addr, found->ai_addrlen);
	address->len = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}

int address_parse(struct address *address, const char *text)
{
	memset(address, 0, sizeof(*address));
	if (!strncmp(text, "unix:", 5))
		return parse_unix(address, text + 5);
	if (!strncmp(text, "tcp://", 6))
		return parse_tcp(address, text + 6);
	return -EINVAL;
}

static int new_socket(const struct address *address, int flags)
{
	int fd = socket(address->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), on = 1;

	if (fd < 0)
		return -errno;
	/* Requests and replies are short, and each waits for the other. */
	if (address->socket.ss_family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

static bool is_stale(const struct address *address)
{
	int fd = address->socket.ss_family == AF_UNIX ? address_connect(address, true, 1) : -EADDRINUSE;

	if (fd >= 0)
		close(fd);
	return fd == -ECONNREFUSED;
}

int address_listen(const struct address *address)
{
	int fd = new_socket(address, SOCK_NONBLOCK), on = 1, err = 0;

	if (fd < 0)
		return fd;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (const struct sockaddr *)&address->socket, address->len))
		err = -errno;
	if (err == -EADDRINUSE && is_stale(address)) {
		address_remove(address);
		err = bind(fd, (const struct sockaddr *)&address->socket, address->len) ? -errno : 0;
	}
	if (!err && listen(fd, SOMAXCONN))
		err = -errno;
	if (!err)
		return fd;
	close(fd);
	return err;
}

int address_connect(const struct address *address, bool wait, int seconds)
{
	/* To a unix socket one is connected at once, or its queue is full, and that is worth waiting for. */
	bool blocking = wait || address->socket.ss_family == AF_UNIX;
	int fd = new_socket(address, blocking ? 0 : SOCK_NONBLOCK), err = 0;
	struct timeval limit = {.tv_sec = seconds};

	if (fd < 0)
		return fd;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(fd, (const struct sockaddr *)&address->socket, address->len) && errno != EINPROGRESS)
		err = -errno;
	if (!err && !wait && fcntl(fd, F_SETFL, O_NONBLOCK))
		err = -errno;
	if (!err)
		return fd;
	close(fd);
	return err;
}

void address_name(int listener, char *text, size_t size)
{
	struct sockaddr_storage name = {0};
	socklen_t len = sizeof(name);
	char host[NI_MAXHOST], port[NI_MAXSERV];
	bool v6;

	*text = 0;
	if (getsockname(listener, (struct sockaddr *)&name, &len))
		return;
	v6 = name.ss_family == AF_INET6;
	if (name.ss_family == AF_UNIX)
		snprintf(text, size, "unix:%s", ((struct sockaddr_un *)&name)->sun_path);
	else if (!getnameinfo((struct sockaddr *)&name, len, host, sizeof(host), port, sizeof(port),
	                      NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(text, size, v6 ? "tcp://[%s]:%s" : "tcp://%s:%s", host, port);
}

void address_remove(const struct address *address)
{
	if (address->socket.ss_family == AF_UNIX)
		unlink(((const struct sockaddr_un *)&address->socket)->sun_path);
}
