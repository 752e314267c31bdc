// SPDX-License-Identifier: MIT
/*
 * watched SOCKET [CLIENTS] - answers as a manager does, with numbers that move
 *
 * On the control socket, and over HTTP on a port of 127.0.0.1 that it prints when both are ready. Each time that it is asked, a second has passed for
 * the clients. Ends when its standard input does.
 */
#include <arpa/inet.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "manager/control.h"
#include "manager/http.h"
#include "support/numbers.h"

static _Atomic uint64_t step = 10;
static unsigned clients = 7;

static int collect(void *arg, struct status *status)
{
	(void)arg;
	numbers_fill(status, clients, atomic_fetch_add(&step, 1));
	return 0;
}

static int listen_at(struct sockaddr *address, socklen_t len)
{
	int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(fd, address, len) || listen(fd, 64) || getsockname(fd, address, &len)) {
		perror("watched");
		_exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	struct sockaddr_un path = {.sun_family = AF_UNIX};
	struct sockaddr_in port = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct control *control;
	struct http *http = NULL;
	int control_fd, http_fd;
	char byte;

	if (argc < 2 || strlen(argv[1]) >= sizeof(path.sun_path))
		return 2;
	if (argc > 2)
		clients = (unsigned)atoi(argv[2]);
	strcpy(path.sun_path, argv[1]);
	control_fd = listen_at((struct sockaddr *)&path, sizeof(path));
	http_fd = listen_at((struct sockaddr *)&port, sizeof(port));
	if (control_start(&control, control_fd, collect, NULL))
		return 1;
	/* Where it was built without HTTP there is no port. */
	printf("%d\n", http_start(&http, http_fd, collect, NULL) ? 0 : ntohs(port.sin_port));
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	http_stop(http);
	control_stop(control);
	unlink(argv[1]);
	return 0;
}
