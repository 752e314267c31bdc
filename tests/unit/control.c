// SPDX-License-Identifier: MIT
/* The control socket, from both sides. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "manager/control.h"
#include "support/folder.h"
#include "support/numbers.h"
#include "support/test.h"

static struct control *control;
static const char *path;
static int listen_fd, collect_error;
static unsigned clients = 3;
static _Atomic uint64_t step;

static int collect(void *arg, struct status *status)
{
	CHECK(arg == &step);
	numbers_fill(status, clients, atomic_fetch_add(&step, 1));
	return collect_error;
}

static struct sockaddr_un address(void)
{
	struct sockaddr_un named = {.sun_family = AF_UNIX};

	strcpy(named.sun_path, path);
	return named;
}

static void begin_with(int backlog)
{
	struct sockaddr_un named;

	path = in_folder("control");
	named = address();
	listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(listen_fd >= 0);
	CHECK_EQ(bind(listen_fd, (struct sockaddr *)&named, sizeof(named)), 0);
	CHECK_EQ(listen(listen_fd, backlog), 0);
}

static void begin(void)
{
	begin_with(64);
	CHECK_EQ(control_start(&control, listen_fd, collect, &step), 0);
}

static int connected(void)
{
	struct sockaddr_un named = address();
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK_EQ(connect(fd, (struct sockaddr *)&named, sizeof(named)), 0);
	return fd;
}

static void say(int fd, const char *text)
{
	CHECK_EQ(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* The next line, without its end; NULL: the connection has ended. */
static const char *hear(int fd)
{
	static char line[1 << 20];
	size_t len = 0;

	while (len < sizeof(line)) {
		ssize_t n = recv(fd, line + len, 1, 0);

		if (n <= 0)
			return NULL;
		if (line[len] == '\n') {
			line[len] = '\0';
			return line;
		}
		len++;
	}
	FAIL("an endless line");
}

static void expect(int fd, const char *part)
{
	const char *line = hear(fd);

	if (!line || !strstr(line, part))
		FAIL("the answer is %.200s, expected %s", line ? line : "missing", part);
}

TEST(a_status_is_answered, "The command \"status\" is answered with the status, each time it is asked for.")
{
	struct status status;
	char *answer;

	begin();
	for (uint64_t i = 0; i < 3; i++) {
		CHECK_EQ(control_ask(path, "status", 60000, &answer), 0);
		CHECK_EQ(status_from_json(&status, answer), 0);
		CHECK_EQ(status.client_count, 3);
		CHECK_EQ(status.now - status.started, i * 1000000000);
		status_free(&status);
		free(answer);
	}
	control_stop(control);
}

TEST(one_connection_asks_often, "A connection may ask again, also before it has read the answer, and in any pieces.")
{
	int fd;

	begin();
	fd = connected();
	say(fd, "{\"command\":\"status\"}\n{\"command\":\"status\"}\n{\"comm");
	expect(fd, "\"now_ns\":77000000000,");
	expect(fd, "\"now_ns\":78000000000,");
	say(fd, "and\":\"status\"}");
	say(fd, "\n");
	expect(fd, "\"now_ns\":79000000000,");
	close(fd);
	control_stop(control);
}

TEST(unknown_commands_are_answered, "What is no command is answered with an error, and the connection goes on.")
{
	int fd;
	char *answer;

	begin();
	fd = connected();
	say(fd, "{\"command\":\"dance\"}\n");
	expect(fd, "{\"error\":\"unknown command\"}");
	say(fd, "{}\n");
	expect(fd, "{\"error\":");
	say(fd, "{\"command\":7}\n");
	expect(fd, "{\"error\":");
	say(fd, "{\"command\":\"status\"}\n");
	expect(fd, "\"clients\":[");
	close(fd);
	CHECK_EQ(control_ask(path, "dance", 60000, &answer), 0);
	CHECK(!strcmp(answer, "{\"error\":\"unknown command\"}"));
	free(answer);
	control_stop(control);
}

TEST(what_is_no_json_ends_the_connection, "After a line that is no JSON object there is an error, and then an end.")
{
	static const char *const lines[] = {"hello\n",
	                                    "\n",
	                                    "[\"status\"]\n",
	                                    "\"status\"\n",
	                                    "{\"command\":\"status\"} {}\n",
	                                    "{\"a\":\"\xff\"}\n",
	                                    "GET /metrics HTTP/1.1\r\n"};
	int fd;

	begin();
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		fd = connected();
		say(fd, lines[i]);
		expect(fd, "{\"error\":");
		CHECK(!hear(fd));
		close(fd);
	}
	control_stop(control);
}

TEST(requests_are_bounded, "A line that does not end within CONTROL_LINE bytes is refused.")
{
	char line[CONTROL_LINE + 1];
	int fd;

	begin();
	/* As long as may be: blanks count too. */
	memset(line, ' ', sizeof(line));
	memcpy(line, "{\"command\":\"status\"}", 20);
	line[CONTROL_LINE - 1] = '\n';
	line[CONTROL_LINE] = '\0';
	fd = connected();
	say(fd, line);
	expect(fd, "\"clients\":[");
	line[CONTROL_LINE - 1] = ' ';
	say(fd, line);
	expect(fd, "too long");
	CHECK(!hear(fd));
	close(fd);
	control_stop(control);
}

TEST(a_failed_collection_is_told,
     "When the numbers cannot be had, the answer is the error, and nothing is lost in memory.")
{
	char *answer;

	collect_error = -ENOMEM;
	begin();
	CHECK_EQ(control_ask(path, "status", 60000, &answer), 0);
	CHECK(!strcmp(answer, "{\"error\":\"ENOMEM\"}"));
	free(answer);
	control_stop(control);
}

TEST(long_answers_arrive_whole, "An answer that no socket holds at once arrives, however slowly it is read.")
{
	struct status status;
	char *answer;

	clients = 2000;
	step = 1000;
	begin();
	CHECK_EQ(control_ask(path, "status", 60000, &answer), 0);
	CHECK(strlen(answer) > 1 << 20);
	CHECK_EQ(status_from_json(&status, answer), 0);
	CHECK_EQ(status.client_count, 2000);
	CHECK_EQ(status.clients[1999].faults, UINT64_C(2000) * 1000 * 1000);
	free(answer);
	status_free(&status);
	control_stop(control);
}

TEST(silence_and_slowness_hold_up_nobody,
     "Peers that say nothing, or do not take their answer, are dropped; who comes next is served.")
{
	int silent[CONTROL_PEERS - 1], slow;
	char *answer;

	clients = 2000;
	step = 1000;
	begin();
	for (int i = 0; i < CONTROL_PEERS - 1; i++)
		silent[i] = connected();
	slow = connected();
	say(slow, "{\"command\":\"status\"}\n");
	/* All places are taken: this waits until they are dropped. */
	CHECK_EQ(control_ask(path, "status", 60000, &answer), 0);
	free(answer);
	for (int i = 0; i < CONTROL_PEERS - 1; i++)
		CHECK(!hear(silent[i]));
	/* Some of it is in the socket; the end is missing. */
	CHECK(!hear(slow) || !hear(slow));
	control_stop(control);
}

TEST(many_at_once,
     "Peers that come, ask and leave in the middle at the same time are served or forgotten, each by itself.")
{
	begin();
	for (int round = 0; round < 200; round++) {
		int fds[8];

		for (int i = 0; i < 8; i++) {
			fds[i] = connected();
			say(fds[i], i % 4 == 3 ? "{\"comma" : "{\"command\":\"status\"}\n");
		}
		for (int i = 0; i < 8; i++) {
			if (i % 4 == 0)
				expect(fds[i], "\"clients\":[");
			close(fds[i]);
		}
	}
	control_stop(control);
}

TEST(it_stops_at_once, "control_stop() ends connections, and the listening descriptor stays open.")
{
	int fd;

	begin();
	fd = connected();
	say(fd, "{\"command\":\"status\"}\n");
	expect(fd, "\"clients\":[");
	control_stop(control);
	CHECK(!hear(fd));
	CHECK_EQ(control_start(&control, listen_fd, collect, &step), 0);
	close(fd);
	fd = connected();
	say(fd, "{\"command\":\"status\"}\n");
	expect(fd, "\"clients\":[");
	control_stop(control);
	control_stop(NULL);
	close(fd);
	CHECK_EQ(close(listen_fd), 0);
}

TEST(who_asks_in_vain_is_told, "A path that is none, nobody there, no answer and half an answer are different errors.")
{
	char longest[200], *answer;
	int fd, pair;

	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	CHECK_EQ(control_ask(longest, "status", 1000, &answer), -ENAMETOOLONG);
	CHECK_EQ(control_ask(in_folder("nothing"), "status", 1000, &answer), -ENOENT);
	begin_with(64);
	CHECK_EQ(control_ask(path, "status", 20, &answer), -ETIMEDOUT);
	pair = accept(listen_fd, NULL, NULL);
	CHECK(pair >= 0);
	close(pair);
	if (fork() == 0) {
		char request[64];

		fd = accept(listen_fd, NULL, NULL);
		CHECK(recv(fd, request, sizeof(request), 0) > 0);
		say(fd, "{\"clients\":");
		_exit(0);
	}
	CHECK_EQ(control_ask(path, "status", 60000, &answer), -EPROTO);
	close(listen_fd);
	CHECK_EQ(control_ask(path, "status", 1000, &answer), -ECONNREFUSED);
}
