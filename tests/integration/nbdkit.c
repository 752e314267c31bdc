// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "nbdkit.h"
#include "support/folder.h"
#include "support/test.h"

enum { MOST_ARGUMENTS = 40 };

static void breathe(void)
{
	struct timespec step = {.tv_nsec = 1000000};

	nanosleep(&step, NULL);
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	strcpy(address.sun_path, path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

/* The third descriptor, as systemd passes sockets on: then nobody can take the port in between. */
static void pass_listener(const struct nbdkit *server)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", getpid());
	CHECK_EQ(dup2(server->listener, 3), 3);
	CHECK_EQ(fcntl(3, F_SETFD, 0), 0);
	setenv("LISTEN_FDS", "1", 1);
	setenv("LISTEN_PID", pid, 1);
}

static _Noreturn void be_server(const struct nbdkit *server, const char *const argv[])
{
	char log[80], control[80];
	const char *all[MOST_ARGUMENTS] = {"nbdkit",   "--foreground", "--threads", "64",
	                                   "--filter", "log",          "--filter",  "pause"};
	unsigned count = 8;

	if (server->listener > 0) {
		pass_listener(server);
	} else {
		all[count++] = "--unix";
		all[count++] = server->socket;
	}
	while (*argv && count < MOST_ARGUMENTS - 3)
		all[count++] = *argv++;
	snprintf(log, sizeof(log), "logfile=%s", server->log);
	snprintf(control, sizeof(control), "pause-control=%s", server->control);
	all[count++] = log;
	all[count++] = control;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execvp(all[0], (char **)all);
	FAIL("nbdkit: %s", strerror(errno));
}

static void launch(struct nbdkit *server, const char *const argv[])
{
	snprintf(server->control, sizeof(server->control), "%s", in_folder("control"));
	snprintf(server->log, sizeof(server->log), "%s", in_folder("log"));
	server->pid = fork();
	CHECK(server->pid >= 0);
	if (server->pid == 0)
		be_server(server, argv);
}

void nbdkit_start(struct nbdkit *server, const char *const argv[])
{
	int fd, status;

	snprintf(server->socket, sizeof(server->socket), "%s", in_folder("socket"));
	snprintf(server->uri, sizeof(server->uri), "nbd+unix:///?socket=%s", server->socket);
	launch(server, argv);
	while ((fd = connect_to(server->socket)) < 0) {
		CHECK_EQ(waitpid(server->pid, &status, WNOHANG), 0);
		breathe();
	}
	close(fd);
}

void nbdkit_start_tcp(struct nbdkit *server, const char *const argv[])
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);

	server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_EQ(bind(server->listener, (struct sockaddr *)&address, len), 0);
	CHECK_EQ(getsockname(server->listener, (struct sockaddr *)&address, &len), 0);
	CHECK_EQ(listen(server->listener, 64), 0);
	snprintf(server->uri, sizeof(server->uri), "nbd://127.0.0.1:%d/", ntohs(address.sin_port));
	launch(server, argv);
	/* Or clients would wait for a server that is gone. */
	close(server->listener);
	server->listener = 0;
}

void nbdkit_kill(struct nbdkit *server)
{
	int status;

	CHECK_EQ(kill(server->pid, SIGKILL), 0);
	CHECK_EQ(waitpid(server->pid, &status, 0), server->pid);
}

static void control(const struct nbdkit *server, char command, char answer)
{
	int fd = connect_to(server->control);
	char got;

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, &command, 1), 1);
	CHECK_EQ(read(fd, &got, 1), 1);
	CHECK_EQ(got, answer);
	close(fd);
}

void nbdkit_pause(const struct nbdkit *server)
{
	control(server, 'p', 'P');
}

void nbdkit_resume(const struct nbdkit *server)
{
	control(server, 'r', 'R');
}

unsigned nbdkit_logged(const struct nbdkit *server, const char *text, const char *also)
{
	FILE *file = fopen(server->log, "re");
	char line[512];
	unsigned count = 0;

	while (file && fgets(line, sizeof(line), file))
		count += strstr(line, text) && (!also || strstr(line, also));
	if (file)
		fclose(file);
	return count;
}

void nbdkit_wait(const struct nbdkit *server, const char *text, unsigned count)
{
	while (nbdkit_logged(server, text, NULL) < count)
		breathe();
}
