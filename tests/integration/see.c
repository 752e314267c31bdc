// SPDX-License-Identifier: MIT
/* What people see of a manager: `stat`, `top` and the metrics, of one whose numbers are made up (tests/support/watched.c). */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "command.h"
#include "support/folder.h"
#include "support/test.h"

#define USERFAULT from_env("USERFAULT")

static const char *control;
static int port;

/* Until the test ends, and with it the pipe. */
static void watch(const char *clients)
{
	const char *program = from_env("WATCHED");
	int in[2], out[2];
	char line[16] = "";
	pid_t pid;

	control = in_folder("control");
	CHECK_EQ(pipe2(in, O_CLOEXEC), 0);
	CHECK_EQ(pipe2(out, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		execl(program, "watched", control, clients, NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	CHECK(read(out[0], line, sizeof(line) - 1) > 0);
	port = atoi(line);
}

static const char *line_with(const char *text, const char *part)
{
	static char line[512];
	const char *at = strstr(text, part), *start = at, *end;

	if (!at)
		FAIL("'%.1500s' has no '%s'", text, part);
	while (start > text && start[-1] != '\n')
		start--;
	end = strchrnul(at, '\n');
	snprintf(line, sizeof(line), "%.*s", (int)(end - start), start);
	return line;
}

static void check_has(const char *text, const char *part)
{
	line_with(text, part);
}

/* Words of the line, whatever the blanks between them. */
static void check_line(const char *text, const char *part, const char *expected)
{
	char line[512], *from, *to;

	snprintf(line, sizeof(line), "%s", line_with(text, part));
	for (from = to = line; *from; from++)
		if (*from != ' ' || (to > line && to[-1] != ' '))
			*to++ = *from;
	*to = '\0';
	if (strcmp(line, expected) != 0)
		FAIL("the line is '%s', expected '%s'", line, expected);
}

/*
 * stat.
 */

TEST(stat_tells_all, "stat prints what the manager says: itself, its stores, its clients.")
{
	const struct result *result;

	watch("3");
	result = RUN(USERFAULT, "stat", "--control", control);
	CHECK_EQ(result->status, 0);
	CHECK(!result->err[0]);
	check_has(result->out, "userfault " UF_VERSION ", for 10.0 s\n");
	check_has(result->out, "8 accepted, 3 refused");
	check_has(result->out, "70 % of 10,000 pages");
	check_line(result->out, "table ", "table 5.00 GiB 2,501 160 MiB 2");
	check_line(result->out, "batch-2",
	           "2 4002 batch-2 user table 176 MiB 1.00 GiB 20,002 71.7 \xc2\xb5s 269 \xc2\xb5s 269 \xc2\xb5s "
	           "4.00 KiB 815 2");
}

TEST(stat_json_as_it_came, "stat --json prints the manager's answer as it came: one line, one object.")
{
	const struct result *result;
	json_t *root;

	watch("3");
	result = RUN(USERFAULT, "stat", "--json", "--control", control);
	CHECK_EQ(result->status, 0);
	CHECK_EQ(strchr(result->out, '\n') - result->out, strlen(result->out) - 1);
	root = json_loads(result->out, JSON_REJECT_DUPLICATES, NULL);
	CHECK_EQ(json_array_size(json_object_get(root, "clients")), 3);
	CHECK_EQ(json_integer_value(json_object_get(json_array_get(json_object_get(root, "clients"), 1), "faults")),
	         20002);
	json_decref(root);
}

TEST(a_manager_without_clients, "A manager that serves nobody is shown as well.")
{
	watch("0");
	check_has(RUN(USERFAULT, "stat", "--control", control)->out, "\nno clients\n");
	check_has(RUN(USERFAULT, "top", "--once", "--control", control)->out, "0 clients, 0 faults/s");
}

/*
 * top.
 */

TEST(top_once, "top --once prints one table, the most faults first, without a terminal.")
{
	const struct result *result;

	watch("5");
	result = RUN(USERFAULT, "top", "--once", "--control", control);
	CHECK_EQ(result->status, 0);
	CHECK(!strchr(result->out, '\033'));
	check_line(result->out, "batch-2",
	           "2 4002 batch-2 user 176 MiB 1.00 GiB 2.00 k 71.7 \xc2\xb5s 269 \xc2\xb5s 12 % 50 % 6 % 31 % 82 2");
	CHECK(strstr(result->out, "billing \"eu\"-5") < strstr(result->out, "web-frontend-4"));
	/* A pipe is no terminal either. */
	result = RUN(USERFAULT, "top", "--control", control);
	CHECK_EQ(result->status, 0);
	check_has(result->out, "FAULTS/S");
}

TEST(top_sorts, "--sort orders by any column: names from a on, numbers from the highest.")
{
	const struct result *result;

	watch("5");
	result = RUN(USERFAULT, "top", "--once", "--control", control, "--sort", "name");
	CHECK(strstr(result->out, "batch-2") < strstr(result->out, "billing \"eu\"-1"));
	CHECK(strstr(result->out, "billing \"eu\"-5") < strstr(result->out, "web-frontend-4"));
	result = RUN(USERFAULT, "top", "--once", "--control", control, "--sort", "wait");
	CHECK(strstr(result->out, "web-frontend-4") < strstr(result->out, "billing \"eu\"-1"));
}

/* A terminal, and what `top` has written to it. */
static int terminal;
static pid_t shown;
static char screen[1 << 20];
static size_t screen_len;

static void show_top(void)
{
	struct winsize size = {.ws_row = 24, .ws_col = 130};
	const char *program = USERFAULT;

	shown = forkpty(&terminal, NULL, NULL, &size);
	CHECK(shown >= 0);
	if (shown == 0) {
		setenv("TERM", "xterm", 1);
		setenv("LC_ALL", "C.UTF-8", 1);
		execl(program, "userfault", "top", "--control", control, "--interval", "0.1", NULL);
		_exit(127);
	}
}

/* Waits until this has been written since the last time; it ends when `top` does. */
static bool saw(const char *part)
{
	for (;;) {
		ssize_t n;

		screen[screen_len] = '\0';
		if (strstr(screen, part)) {
			screen_len = 0;
			return true;
		}
		n = read(terminal, screen + screen_len, sizeof(screen) - 1 - screen_len);
		if (n <= 0)
			return false;
		screen_len += (size_t)n;
	}
}

static void type(const char *keys)
{
	CHECK_EQ(write(terminal, keys, strlen(keys)), strlen(keys));
}

static int end_of_top(void)
{
	int status;

	while (saw("\001 never"))
		;
	CHECK_EQ(waitpid(shown, &status, 0), shown);
	CHECK(WIFEXITED(status));
	return WEXITSTATUS(status);
}

TEST(top_on_a_terminal, "On a terminal top shows the table, renews it, and q quits.")
{
	watch("5");
	show_top();
	CHECK(saw("billing \"eu\"-5"));
	/* Only what is new is written: from here on, of the time that it is up the seconds. */
	CHECK(saw("2.0"));
	type("q");
	CHECK_EQ(end_of_top(), 0);
}

TEST(top_takes_keys, "Keys sort, reverse and scroll; a key that means nothing changes nothing.")
{
	watch("60");
	show_top();
	/* The most faults first: those of the last client. */
	CHECK(saw("web-frontend-60"));
	type("xr");
	CHECK(saw("billing \"eu\"-1"));
	type("r");
	CHECK(saw("web-frontend-60"));
	type("\033[6~\033[6~\033[6~\033[6~\033[6~");
	CHECK(saw("batch-2"));
	type("<>q");
	CHECK_EQ(end_of_top(), 0);
}

TEST(top_is_resized, "The table follows the size of the terminal.")
{
	struct winsize size = {.ws_row = 40, .ws_col = 130};

	watch("30");
	show_top();
	CHECK(saw("billing \"eu\"-29"));
	CHECK_EQ(ioctl(terminal, TIOCSWINSZ, &size), 0);
	/* There was no room for it. */
	CHECK(saw("billing \"eu\"-1"));
	size.ws_row = 2;
	size.ws_col = 10;
	CHECK_EQ(ioctl(terminal, TIOCSWINSZ, &size), 0);
	type("q");
	CHECK_EQ(end_of_top(), 0);
}

TEST(names_do_not_reach_the_terminal, "Control characters in a client's name are not written, to a terminal or a pipe.")
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	static const char answer[] = "{\"clients\":[{\"id\":1,\"name\":\"a\\u001b[2Jb\\u009b2Jc\\nd\"}]}\n";
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const struct result *result;

	control = in_folder("control");
	strcpy(address.sun_path, control);
	CHECK_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	CHECK_EQ(listen(fd, 4), 0);
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) {
			int peer = accept(fd, NULL, NULL);
			char request[64];

			CHECK(recv(peer, request, sizeof(request), 0) > 0);
			CHECK_EQ(send(peer, answer, sizeof(answer) - 1, MSG_NOSIGNAL), sizeof(answer) - 1);
			close(peer);
		}
	}
	result = RUN(USERFAULT, "stat", "--control", control);
	check_has(result->out, "a?[2Jb?2Jc?d");
	CHECK(!strchr(result->out, '\033'));
	show_top();
	CHECK(saw("a?[2Jb?2Jc?d"));
	type("q");
	CHECK_EQ(end_of_top(), 0);
}

/*
 * Metrics.
 */

TEST(metrics_are_there, "The same manager answers a scrape.")
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	static const char request[] = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	static char answer[1 << 20];
	size_t len = 0;
	ssize_t n;
	int fd;

	watch("3");
	if (!port)
		SKIP("built without libmicrohttpd");
	address.sin_port = htons((uint16_t)port);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	CHECK_EQ(send(fd, request, sizeof(request) - 1, 0), sizeof(request) - 1);
	while ((n = recv(fd, answer + len, sizeof(answer) - 1 - len, 0)) > 0)
		len += (size_t)n;
	check_has(answer, "\nuserfault_client_faults_total{client=\"2\",name=\"batch-2\"} 20002\n");
	close(fd);
}

/*
 * What goes wrong.
 */

static void check_failure(const struct result *result, int status, const char *part)
{
	CHECK_EQ(result->status, status);
	CHECK(!result->out[0]);
	CHECK_EQ(strchr(result->err, '\n') - result->err, strlen(result->err) - 1);
	check_has(result->err, part);
}

TEST(nobody_listens, "Where no manager listens, or another server, that is said in one line with the socket's name.")
{
	const char *nothing = in_folder("nothing");

	check_failure(RUN(USERFAULT, "stat", "--control", nothing), 1, nothing);
	check_failure(RUN(USERFAULT, "top", "--once", "--control", nothing), 1, "no manager listens there");
	check_failure(RUN(USERFAULT, "stat", "--control", "/dev/null"), 1, "/dev/null");
}

TEST(default_socket, "Without --control a user's manager is asked where it listens by itself.")
{
	const struct result *result;
	const char *program = in_folder("program");
	char path[128];

	watch("3");
	CHECK_EQ(RUN("/bin/cp", USERFAULT, program)->status, 0);
	CHECK(snprintf(path, sizeof(path), "%s/userfault", test_folder()) > 0);
	CHECK(!mkdir(path, 0700) || errno == EEXIST);
	CHECK(snprintf(path, sizeof(path), "%s/userfault/control", test_folder()) > 0);
	CHECK_EQ(rename(control, path), 0);
	setenv("XDG_RUNTIME_DIR", test_folder(), 1);
	if (geteuid() == 0) {
		/* It must be reached by somebody else, whom nothing else depends on; and so must the program, which may lie in root's home. */
		CHECK_EQ(chmod(test_folder(), 0755) | chmod(program, 0755) | chmod(path, 0666), 0);
		*strrchr(path, '/') = '\0';
		CHECK_EQ(chmod(path, 0755), 0);
		CHECK_EQ(setuid(65534), 0);
	}
	result = RUN(program, "stat");
	if (result->status)
		FAIL("%s", result->err);
	check_has(result->out, "batch-2");
}

TEST(wrong_arguments, "Wrong arguments are named in one line, and the exit status is 2.")
{
	check_failure(RUN(USERFAULT, "stat", "--jsn"), 2, "unknown option '--jsn'");
	check_failure(RUN(USERFAULT, "stat", "now"), 2, "unexpected argument 'now'");
	check_failure(RUN(USERFAULT, "stat", "--control"), 2, "'--control' needs a value");
	check_failure(RUN(USERFAULT, "top", "--interval", "0"), 2, "not '0'");
	check_failure(RUN(USERFAULT, "top", "--interval", "1s"), 2, "not '1s'");
	check_failure(RUN(USERFAULT, "top", "--sort", "color"), 2, "no column 'color'");
	check_failure(RUN(USERFAULT, "top", "--twice"), 2, "unknown option '--twice'");
	CHECK_EQ(RUN(USERFAULT, "top", "--help")->status, 0);
	CHECK_EQ(RUN(USERFAULT, "stat", "--help")->status, 0);
}

TEST(output_that_does_not_arrive, "A failed write to the standard output is an error.")
{
	watch("3");
	CHECK_EQ(RUN_TO("/dev/full", USERFAULT, "stat", "--control", control)->status, 1);
	CHECK_EQ(RUN_TO("/dev/full", USERFAULT, "stat", "--json", "--control", control)->status, 1);
	CHECK_EQ(RUN_TO("/dev/full", USERFAULT, "top", "--once", "--control", control)->status, 1);
}
