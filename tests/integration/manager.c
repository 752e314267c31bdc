// SPDX-License-Identifier: MIT
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "command.h"
#include "content.h"
#include "manager.h"
#include "manager/control.h"
#include "support/folder.h"
#include "support/test.h"

enum { MOST_OPTIONS = 40 };

void breathe(void)
{
	struct timespec step = {.tv_nsec = 1000000};

	nanosleep(&step, NULL);
}

/*
 * The manager.
 */

/* Where it tells that it is ready. */
static int bind_notify(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	CHECK_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static _Noreturn void be_manager(const struct manager *manager, const char *notify, const char *const options[])
{
	const char *argv[MOST_OPTIONS] = {from_env("USERFAULT"), "serve",     "--listen",
	                                  manager->socket,       "--control", manager->control};
	int log = open(manager->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), n = 6;

	while (*options && n < MOST_OPTIONS - 1)
		argv[n++] = *options++;
	CHECK_EQ(dup2(log, STDERR_FILENO), STDERR_FILENO);
	setenv("NOTIFY_SOCKET", notify, 1);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	execv(argv[0], (char **)argv);
	FAIL("%s: %s", argv[0], strerror(errno));
}

void manager_start(struct manager *manager, const char *const options[])
{
	static unsigned count;
	char notify[64], text[64], name[32];
	int fd;

	snprintf(name, sizeof(name), "manager%u", count++);
	if (!manager->socket[0])
		snprintf(manager->socket, sizeof(manager->socket), "%s", in_folder(name));
	strcat(name, ".control");
	if (!manager->control[0])
		snprintf(manager->control, sizeof(manager->control), "%s", in_folder(name));
	strcpy(name + strlen(name) - 7, "log");
	snprintf(manager->log, sizeof(manager->log), "%s", in_folder(name));
	snprintf(notify, sizeof(notify), "%s", in_folder("notify"));
	fd = bind_notify(notify);
	manager->pid = fork();
	CHECK(manager->pid >= 0);
	if (!manager->pid)
		be_manager(manager, notify, options);
	for (;;) {
		ssize_t n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);

		if (n > 0 && !memcmp(text, "READY=1", 7))
			break;
		if (waitpid(manager->pid, NULL, WNOHANG))
			FAIL("the manager ended");
		breathe();
	}
	close(fd);
}

int manager_stop(struct manager *manager)
{
	int status;

	CHECK_EQ(kill(manager->pid, SIGTERM), 0);
	CHECK_EQ(waitpid(manager->pid, &status, 0), manager->pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

pid_t manager_worker(const struct manager *manager)
{
	pid_t worker = 0;

	while (worker <= 0) {
		char path[64], text[64] = {0};
		int fd;

		snprintf(path, sizeof(path), "/proc/%d/task/%d/children", manager->pid, manager->pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		CHECK(fd >= 0 && read(fd, text, sizeof(text) - 1) >= 0);
		close(fd);
		worker = (pid_t)atol(text);
		if (worker <= 0)
			breathe();
	}
	return worker;
}

static bool all_have_stopped(pid_t pid)
{
	struct dirent *entry;
	char path[300], text[512];
	bool stopped = true;
	FILE *file;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	CHECK(dir);
	while (stopped && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/stat", pid, entry->d_name);
		file = fopen(path, "re");
		/* One that has ended meanwhile does nothing any more. */
		if (!file)
			continue;
		stopped = !fgets(text, sizeof(text), file) || strstr(text, ") T ");
		fclose(file);
	}
	closedir(dir);
	return stopped;
}

void stop_process(pid_t pid)
{
	CHECK_EQ(kill(pid, SIGSTOP), 0);
	UNTIL(all_have_stopped(pid));
}

unsigned manager_logged(const struct manager *manager, const char *text, const char *also)
{
	FILE *file = fopen(manager->log, "re");
	char line[1024];
	unsigned count = 0;

	while (file && fgets(line, sizeof(line), file))
		count += strstr(line, text) && (!also || strstr(line, also));
	if (file)
		fclose(file);
	return count;
}

void manager_wait(const struct manager *manager, const char *text, unsigned count)
{
	UNTIL(manager_logged(manager, text, NULL) >= count);
}

unsigned manager_descriptors(const struct manager *manager)
{
	char path[64];
	unsigned count = 0;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%d/fd", manager->pid);
	folder = opendir(path);
	CHECK(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count - 2;
}

long long manager_number(const struct manager *manager, const char *name)
{
	char *answer = NULL;
	json_t *status, *value;
	long long number;

	CHECK_EQ(control_ask(manager->control, "status", 30000, &answer), 0);
	status = json_loads(answer, 0, NULL);
	value = json_object_get(status, name);
	if (!value)
		FAIL("no %s in %s", name, answer);
	number = json_is_array(value) ? (long long)json_array_size(value) : (long long)json_integer_value(value);
	json_decref(status);
	free(answer);
	return number;
}

void manager_settled(const struct manager *manager, unsigned descriptors, unsigned clients)
{
	UNTIL(manager_number(manager, "clients") <= clients && manager_descriptors(manager) <= descriptors);
}

const char *write_store(const char *name, unsigned seed, size_t pages)
{
	const char *path = in_folder(name);
	FILE *file = fopen(path, "we");

	CHECK(file);
	for (size_t page = 0; page < pages; page++) {
		uint64_t words[CONTENT_WORDS];

		for (unsigned i = 0; i < CONTENT_WORDS; i++)
			words[i] = content(seed, page, i);
		CHECK_EQ(fwrite(words, sizeof(words), 1, file), 1);
	}
	CHECK_EQ(fclose(file), 0);
	return path;
}

/*
 * Clients.
 */

static _Noreturn void be_peer(int in, int out)
{
	const char *const kernel[] = {from_env("HANDING"), NULL};
	const char *const user[] = {from_env("REFUSE_USERFAULTFD"),
	                            "--",
	                            from_env("USERFAULT"),
	                            "run",
	                            "--engine",
	                            "user",
	                            "--",
	                            from_env("HANDING"),
	                            NULL};
	const char *const *argv = strcmp(test_engine, "user") ? kernel : user;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CHECK_EQ(dup2(in, STDIN_FILENO), STDIN_FILENO);
	CHECK_EQ(dup2(out, STDOUT_FILENO), STDOUT_FILENO);
	execv(argv[0], (char *const *)argv);
	FAIL("%s: %s", argv[0], strerror(errno));
}

void peer_start(struct peer *peer)
{
	int in[2], out[2];

	CHECK_EQ(pipe2(in, O_CLOEXEC), 0);
	CHECK_EQ(pipe2(out, O_CLOEXEC), 0);
	peer->started = fork();
	CHECK(peer->started >= 0);
	if (!peer->started)
		be_peer(in[0], out[1]);
	close(in[0]);
	close(out[1]);
	peer->to = fdopen(in[1], "w");
	peer->from = fdopen(out[0], "r");
	peer->pid = (pid_t)atol(peer_say(peer, "pid"));
	CHECK(peer->pid > 0);
}

__attribute__((format(printf, 2, 0))) static void tell(struct peer *peer, const char *format, va_list args)
{
	vfprintf(peer->to, format, args);
	fputc('\n', peer->to);
	CHECK_EQ(fflush(peer->to), 0);
}

void peer_tell(struct peer *peer, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	tell(peer, format, args);
	va_end(args);
}

const char *peer_hear(struct peer *peer)
{
	if (!fgets(peer->answer, sizeof(peer->answer), peer->from))
		FAIL("the client is gone");
	peer->answer[strcspn(peer->answer, "\n")] = '\0';
	return peer->answer;
}

const char *peer_say(struct peer *peer, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	tell(peer, format, args);
	va_end(args);
	return peer_hear(peer);
}

void peer_expect(const char *file, int line, struct peer *peer, const char *answer, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	tell(peer, format, args);
	va_end(args);
	peer_hear(peer);
	if (strcmp(peer->answer, answer) != 0)
		test_fail(file, line, "'%s' is answered '%s', expected '%s'", format, peer->answer, answer);
}

void peer_give(struct peer *peer, const struct manager *manager, unsigned pages, unsigned from)
{
	EXPECT(peer, "0", "map private %u", pages);
	EXPECT(peer, "done", "connect %s", manager->socket);
	EXPECT(peer, "done",
	       "give {\"name\":\"peer\",\"regions\":[{\"base_host_virt_addr\":@0,\"size\":%lu,\"offset\":%lu}]}",
	       pages * 4096ul, from * 4096ul);
	EXPECT(peer, "ok", "answer");
}

void peer_give_again(struct peer *peer, const struct manager *manager, unsigned pages)
{
	EXPECT(peer, "0", "map private %u", pages);
	do {
		EXPECT(peer, "done", "connect %s", manager->socket);
		peer_say(peer,
		         "give "
		         "{\"regions\":[{\"base_host_virt_addr\":@0,\"size\":%lu,\"offset\":0,\"removed\":\"store\"}]}",
		         pages * 4096ul);
		peer_say(peer, "answer");
	} while (!strcmp(peer->answer, "error it took too long to hand over"));
	if (strcmp(peer->answer, "ok") != 0)
		FAIL("the handover is answered '%s'", peer->answer);
}

void peer_kill(struct peer *peer)
{
	kill(peer->pid, SIGKILL);
	CHECK_EQ(waitpid(peer->started, NULL, 0), peer->started);
	fclose(peer->to);
	fclose(peer->from);
}
