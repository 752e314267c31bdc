// SPDX-License-Identifier: MIT
/* Sockets that a service manager hands over, by systemd's own tool, and what becomes of socket files. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "manager.h"
#include "support/folder.h"
#include "support/test.h"

static char store[128], given[64], own[64], log_[64];
static pid_t pid;

/* systemd-socket-activate listens on `given`, and starts the manager once somebody connects. */
static void activate(const char *name, const char *const options[])
{
	char fdname[64];
	const char *argv[32] = {from_env("SOCKET_ACTIVATE"), "-l",    given,     fdname,
	                        from_env("USERFAULT"),       "serve", "--store", store};
	int n = 8;

	snprintf(store, sizeof(store), "default=file:%s", write_store("store", 1, 256));
	snprintf(given, sizeof(given), "%s", in_folder("given"));
	snprintf(own, sizeof(own), "%s", in_folder("own"));
	snprintf(log_, sizeof(log_), "%s", in_folder("log"));
	snprintf(fdname, sizeof(fdname), "--fdname=%s", name);
	while (*options && n < 31)
		argv[n++] = *options++;
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		CHECK_EQ(dup2(open(log_, O_WRONLY | O_CREAT | O_APPEND, 0600), STDERR_FILENO), STDERR_FILENO);
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		execv(argv[0], (char **)argv);
		FAIL("%s: %s", argv[0], strerror(errno));
	}
	UNTIL(!access(given, F_OK));
}

#define ACTIVATE(name, ...) activate(name, (const char *const[]){__VA_ARGS__, NULL})

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	/* The file is there a moment before anybody listens. */
	while (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		CHECK_EQ(errno, ECONNREFUSED);
		breathe();
	}
	return fd;
}

static void asks(const char *path, const char *question, const char *answer)
{
	char line[4096] = {0};
	int fd = connect_to(path);

	CHECK_EQ(send(fd, question, strlen(question), 0), strlen(question));
	CHECK(recv(fd, line, sizeof(line) - 1, 0) > 0);
	if (!strstr(line, answer))
		FAIL("the answer is %s", line);
	close(fd);
}

static int stop(void)
{
	int status;

	CHECK_EQ(kill(pid, SIGTERM), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

TEST(a_socket_that_is_handed_over_is_served,
     "A socket by socket activation is served, one client after the other, although it came blocking; its file stays.")
{
	ACTIVATE("anything", "--control", "none");
	for (unsigned i = 0; i < 3; i++)
		asks(given, "{\"size\":\"default\"}", "ok 1048576");
	CHECK_EQ(stop(), 0);
	CHECK_EQ(access(given, F_OK), 0);
}

TEST(what_is_handed_over_counts,
     "With --listen too, the socket that was handed over is served, and the path is neither made nor removed.")
{
	FILE *file;

	snprintf(own, sizeof(own), "%s", in_folder("own"));
	ACTIVATE("handover", "--control", "none", "--listen", own);
	file = fopen(own, "we");
	CHECK(file);
	fclose(file);
	asks(given, "{\"size\":\"default\"}", "ok 1048576");
	CHECK_EQ(stop(), 0);
	CHECK_EQ(access(own, F_OK), 0);
	CHECK_EQ(access(given, F_OK), 0);
}

TEST(sockets_are_known_by_their_names, "One that is named control answers for people, beside --listen.")
{
	snprintf(own, sizeof(own), "%s", in_folder("own"));
	ACTIVATE("control", "--listen", own);
	asks(given, "{\"command\":\"status\"}\n", "\"worker_pid\"");
	asks(own, "{\"size\":\"default\"}", "ok 1048576");
	CHECK_EQ(stop(), 0);
	CHECK_EQ(access(given, F_OK), 0);
	CHECK(access(own, F_OK) && errno == ENOENT);
}

TEST(a_stale_socket_file_is_replaced,
     "A socket file that nobody listens on is replaced; one that somebody listens on, or a file, is not.")
{
	struct manager manager = {.pid = 0}, next;
	struct pollfd worker = {.events = POLLIN};
	const struct result *result;

	snprintf(store, sizeof(store), "default=file:%s", write_store("store", 1, 256));
	MANAGER(&manager, "--store", store);
	result = RUN(from_env("USERFAULT"), "serve", "--listen", manager.socket, "--control", "none", "--store", store);
	CHECK_EQ(result->status, 1);
	CHECK(strstr(result->err, "somebody listens there already"));
	stop_process(manager.pid);
	worker.fd = (int)syscall(SYS_pidfd_open, manager_worker(&manager), 0);
	CHECK(worker.fd >= 0);
	CHECK_EQ(kill(manager_worker(&manager), SIGKILL), 0);
	CHECK_EQ(kill(manager.pid, SIGKILL), 0);
	CHECK_EQ(waitpid(manager.pid, NULL, 0), manager.pid);
	/* Until then it listens too. */
	CHECK_EQ(poll(&worker, 1, -1), 1);
	CHECK_EQ(access(manager.socket, F_OK), 0);
	next = manager;
	MANAGER(&next, "--store", store);
	asks(next.socket, "{\"size\":\"default\"}", "ok 1048576");
	CHECK_EQ(manager_stop(&next), 0);
	CHECK(access(next.socket, F_OK) && errno == ENOENT);
	result = RUN(from_env("USERFAULT"), "serve", "--listen", store + strlen("default=file:"), "--control", "none",
	             "--store", store);
	CHECK_EQ(result->status, 1);
	CHECK_EQ(access(store + strlen("default=file:"), F_OK), 0);
}

TEST(a_manager_without_its_stores_does_not_start, "A store that cannot be opened is said, and nobody is let in.")
{
	const struct result *result = RUN(from_env("USERFAULT"), "serve", "--listen", in_folder("own"), "--control",
	                                  "none", "--store", "default=file:/nonexistent");

	CHECK_EQ(result->status, 1);
	CHECK(strstr(result->err, "store default: "));
	result = RUN(from_env("USERFAULT"), "serve", "--control", "none", "--store", "default=memory:4096");
	CHECK_EQ(result->status, 1);
	CHECK(strstr(result->err, "nothing to listen on"));
}
