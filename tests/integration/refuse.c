// SPDX-License-Identifier: MIT
/* refuse-userfaultfd, which other tests build upon. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "conditions.h"
#include "support/test.h"

#define REFUSE        from_env("REFUSE_USERFAULTFD")
#define SHELL(script) RUN(REFUSE, "--", "/bin/sh", "-c", script)

TEST(exit_status, "The exit status is the program's: 128 + N for a signal, 126 or 127 when it cannot be run.")
{
	CHECK_EQ(RUN(REFUSE, "--", "/bin/true")->status, 0);
	CHECK_EQ(SHELL("exit 7")->status, 7);
	CHECK_EQ(SHELL("kill -KILL $$")->status, 128 + SIGKILL);
	CHECK_EQ(SHELL("kill -TERM $$")->status, 128 + SIGTERM);
	CHECK_EQ(RUN(REFUSE, "--", "/nowhere/program")->status, 127);
	CHECK_EQ(RUN(REFUSE, "--", "/proc/self/status")->status, 126);
	CHECK_EQ(RUN(REFUSE, "--allow-device", "--", "/bin/sh", "-c", "exit 7")->status, 7);
}

TEST(usage, "Wrong arguments are an error of its own: 125.")
{
	CHECK_EQ(RUN(REFUSE)->status, 125);
	CHECK_EQ(RUN(REFUSE, "/bin/true")->status, 125);
	CHECK_EQ(RUN(REFUSE, "--")->status, 125);
	CHECK_EQ(RUN(REFUSE, "--errno", "EINVAL", "--", "/bin/true")->status, 125);
	CHECK_EQ(RUN(REFUSE, "--errno")->status, 125);
}

/* Opens `path` in a shell that first runs `before`. */
static void check_open(const char *before, const char *path, const char *error)
{
	char script[256];
	const struct result *result;

	snprintf(script, sizeof(script), "%s; : <>%s", before, path);
	result = SHELL(script);
	if (error ? !result->status || !strstr(result->err, error) : result->status != 0)
		FAIL("%s: status %d, %s", script, result->status, result->err);
}

TEST(device_by_any_name, "The device is refused whatever the path by which it is reached, and nothing else is.")
{
	static const char refused[] = "Operation not permitted";

	private_dev(0);
	make_node(userfaultfd_device(), 0666);
	CHECK_EQ(symlink("/dev/userfaultfd", "/dev/link"), 0);
	CHECK_EQ(symlink("userfaultfd", "/dev/relative"), 0);
	check_open(":", "/dev/userfaultfd", refused);
	check_open(":", "//dev/./userfaultfd", refused);
	check_open("cd /dev", "userfaultfd", refused);
	check_open("cd /dev", "../dev/userfaultfd", refused);
	check_open(":", "/dev/link", refused);
	check_open(":", "/dev/relative", refused);
	check_open(":", "/proc/self/root/dev/userfaultfd", refused);
	check_open(":", "/proc/$$/root/dev/userfaultfd", refused);
	check_open("cd /dev", "/proc/self/cwd/userfaultfd", refused);
	check_open("cd /dev", "null", NULL);
	check_open("cd /dev", "/proc/self/cwd/null", NULL);
	check_open(":", "/dev/absent/file", "nonexistent");
}

TEST(device_allowed, "With --allow-device it can be opened.")
{
	private_dev(0);
	make_node(userfaultfd_device(), 0600);
	CHECK_EQ(RUN(REFUSE, "--allow-device", "--", "/bin/sh", "-c", ": <>/dev/userfaultfd")->status, 0);
}

TEST(threads_and_children, "Every thread and every forked child is under it, by whichever call it opens.")
{
	const struct result *result;

	private_dev(0);
	make_node(userfaultfd_device(), 0600);
	result = RUN(REFUSE, "--", from_env("OPEN_DEVICE"));
	if (result->status)
		FAIL("status %d: %s", result->status, result->err);
}

TEST(unprivileged, "It needs no privileges.")
{
	const char *refuse = copy_for_nobody(REFUSE, "refuse"),
		   *open_device = copy_for_nobody(from_env("OPEN_DEVICE"), "open");
	const struct result *result;

	private_dev(0);
	make_node(userfaultfd_device(), 0666);
	become_nobody();
	result = RUN(refuse, "--", open_device);
	if (result->status)
		FAIL("status %d: %s", result->status, result->err);
}

TEST(lasts_as_long_as_the_tree, "A process that outlives the program can still open files, and is waited for.")
{
	/* The shell in the background waits until its parent is gone, and then opens a file. */
	const struct result *result = SHELL("(while kill -0 $$ 2>/dev/null; do :; done; read -r line </proc/version && "
	                                    "echo outlived) & exit 3");

	CHECK_EQ(result->status, 3);
	CHECK(!strcmp(result->out, "outlived\n"));
}

TEST(signals_reach_the_program,
     "A signal sent to it goes to the program, whose end it then reports; it does not die itself.")
{
	int fds[2], status;
	char byte;
	pid_t pid;

	CHECK_EQ(pipe(fds), 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		close(fds[1]);
		execl(REFUSE, "refuse", "--", "/bin/sh", "-c", "echo ready; exec sleep 1000", NULL);
		FAIL("cannot run it: %s", strerror(errno));
	}
	close(fds[1]);
	CHECK_EQ(read(fds[0], &byte, 1), 1);
	CHECK_EQ(kill(pid, SIGTERM), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 128 + SIGTERM);
}

TEST(only_one_listener, "Where another one supervises already, it says so and fails.")
{
	const struct result *result = RUN(REFUSE, "--", REFUSE, "--", "/bin/true");

	CHECK_EQ(result->status, 125);
	CHECK(strstr(result->err, "user notification"));
}
