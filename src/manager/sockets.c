// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#ifdef UF_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include "base/cleanup.h"
#include "base/size.h"
#include "base/unixname.h"
#include "manager/log.h"
#include "manager/sockets.h"

#define BACKLOG 128

static bool is_taken(const struct sockaddr_un *address, socklen_t len)
{
	_cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd >= 0 && (!connect(fd, (const struct sockaddr *)address, len) || errno == EAGAIN);
}

/* What lies there is a socket that nobody listens on, or nothing. */
static bool may_replace(const char *path)
{
	struct stat stat_;

	return lstat(path, &stat_) ? errno == ENOENT : S_ISSOCK(stat_.st_mode);
}

/* The file comes to its place when it is listened on: whoever sees it can connect. */
static int listen_on_file(int fd, const char *path)
{
	struct sockaddr_un address;
	char beside[sizeof(address.sun_path)];
	int err = 0, len;

	if (snprintf(beside, sizeof(beside), "%s~", path) >= (int)sizeof(beside))
		return -ENAMETOOLONG;
	len = unix_address(&address, beside);
	if (!may_replace(beside) || !may_replace(path))
		return -EEXIST;
	unlink(beside);
	if (bind(fd, (struct sockaddr *)&address, (socklen_t)len) || listen(fd, BACKLOG) || rename(beside, path))
		err = -errno;
	if (err)
		unlink(beside);
	return err;
}

static int listen_unix(const char *path)
{
	_cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address;
	int err = fd < 0 ? -errno : 0, len = unix_address(&address, path);

	if (!err && len < 0)
		err = len;
	if (!err && is_taken(&address, (socklen_t)len))
		err = -EADDRINUSE;
	if (!err && path[0] != '@')
		err = listen_on_file(fd, path);
	else if (!err && (bind(fd, (struct sockaddr *)&address, (socklen_t)len) || listen(fd, BACKLOG)))
		err = -errno;
	if (err)
		say(LOG_ERROR, "cannot listen on %s: %s", path,
		    err == -EADDRINUSE ? "somebody listens there already" : strerror(-err));
	return err ? err : take_fd(&fd);
}

/* [ADDRESS:]PORT; without an address that of this machine for itself. */
static int listen_tcp(const char *where)
{
	const struct addrinfo hints = {
		.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST};
	const char *port = strrchr(where, ':');
	struct addrinfo *info = NULL;
	_cleanup_fd int fd = -1;
	char host[128];
	int one = 1, err;
	uint64_t number;

	snprintf(host, sizeof(host), "%.*s", port ? (int)(port - where) : 9, port ? where : "127.0.0.1");
	port = port ? port + 1 : where;
	if (!number_parse(port, 0, 65535, &number)) {
		say(LOG_ERROR, "--metrics %s: a port is a number from 0 to 65535", where);
		return -EINVAL;
	}
	if (host[0] == '[' && host[strlen(host) - 1] == ']') {
		host[strlen(host) - 1] = '\0';
		memmove(host, host + 1, strlen(host));
	}
	err = getaddrinfo(host, port, &hints, &info);
	if (err) {
		say(LOG_ERROR, "--metrics %s: %s", where, gai_strerror(err));
		return -EINVAL;
	}
	fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, info->ai_addr, info->ai_addrlen) || listen(fd, BACKLOG))
		err = -errno;
	freeaddrinfo(info);
	if (err)
		say(LOG_ERROR, "cannot listen on %s: %s", where, strerror(-err));
	return err ? err : take_fd(&fd);
}

#ifdef UF_SYSTEMD
/* Who gave it need not have made it non-blocking; and whoever has connected may be gone when he is accepted. */
static int take_one(struct sockets *sockets, int fd, const char *name)
{
	bool is_metrics = !strcmp(name, "metrics");
	int *slot = is_metrics ? &sockets->metrics : !strcmp(name, "control") ? &sockets->control : &sockets->handover;
	int flags = fcntl(fd, F_GETFL);

	if (sd_is_socket(fd, is_metrics ? AF_UNSPEC : AF_UNIX, SOCK_STREAM, 1) <= 0) {
		say(LOG_ERROR, "the descriptor '%s' that was handed over is not a listening %sstream socket", name,
		    is_metrics ? "" : "unix ");
		return -ENOTSOCK;
	}
	if (*slot >= 0) {
		say(LOG_ERROR,
		    "of the sockets that were handed over two are for the same: name them handover, control, "
		    "metrics");
		return -EINVAL;
	}
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return -errno;
	*slot = fd;
	return 0;
}

static int take_given(struct sockets *sockets)
{
	char **names = NULL;
	int count = sd_listen_fds_with_names(1, &names), err = count < 0 ? count : 0;

	for (int i = 0; i < count; i++) {
		if (!err)
			err = take_one(sockets, SD_LISTEN_FDS_START + i, names[i]);
		free(names[i]);
	}
	free(names);
	return err;
}
#else
static int take_given(struct sockets *sockets)
{
	(void)sockets;
	return 0;
}
#endif

/* In *fd, unless it was given; *made: the file is ours. */
static int make(int *fd, bool *made, const char *path)
{
	if (*fd >= 0) {
		say(LOG_INFO, "%s: not listened on, as a socket was handed over", path);
		return 0;
	}
	*fd = listen_unix(path);
	*made = *fd >= 0 && path[0] != '@';
	return *fd < 0 ? *fd : 0;
}

int sockets_open(struct sockets *sockets, const struct serve_options *options)
{
	int err;

	*sockets = (struct sockets){.handover = -1, .control = -1, .metrics = -1};
	err = take_given(sockets);
	if (!err && options->listen) {
		err = make(&sockets->handover, &sockets->made_handover, options->listen);
	} else if (!err && sockets->handover < 0) {
		say(LOG_ERROR, "there is nothing to listen on: no --listen, and no socket was handed over");
		err = -EINVAL;
	}
	if (!err && options->control)
		err = make(&sockets->control, &sockets->made_control, options->control);
	if (!err && options->metrics && sockets->metrics < 0) {
		sockets->metrics = listen_tcp(options->metrics);
		err = sockets->metrics < 0 ? sockets->metrics : 0;
	}
	if (err)
		sockets_close(sockets, options);
	return err;
}

static void end(int *fd, bool *made, const char *path)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	if (*made && path)
		unlink(path);
	*made = false;
}

void sockets_close_handover(struct sockets *sockets, const struct serve_options *options)
{
	end(&sockets->handover, &sockets->made_handover, options->listen);
}

void sockets_close(struct sockets *sockets, const struct serve_options *options)
{
	bool none = false;

	sockets_close_handover(sockets, options);
	end(&sockets->control, &sockets->made_control, options->control);
	end(&sockets->metrics, &none, NULL);
}
