// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "support/test.h"

const char *from_env(const char *name)
{
	const char *value = getenv(name);

	if (!value)
		FAIL("%s is not set: run the tests through meson, or set it", name);
	return value;
}

/* Into memory rather than a pipe: it cannot fill up while nobody reads. */
static int capture(void)
{
	int fd = memfd_create("captured", MFD_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

static void take(int fd, char *buf, size_t size)
{
	ssize_t len = pread(fd, buf, size - 1, 0);

	CHECK(len >= 0);
	buf[len] = '\0';
	close(fd);
}

const struct result *run_to(const char *output, const char *const argv[])
{
	static struct result result;
	int out = output ? open(output, O_WRONLY | O_CLOEXEC) : capture(), err = capture(), status;
	pid_t pid;

	CHECK(out >= 0);
	fflush(NULL);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		dup2(out, STDOUT_FILENO);
		dup2(err, STDERR_FILENO);
		execvp(argv[0], (char *const *)argv);
		FAIL("cannot run %s: %s", argv[0], strerror(errno));
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	result.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	result.out[0] = '\0';
	if (output)
		close(out);
	else
		take(out, result.out, sizeof(result.out));
	take(err, result.err, sizeof(result.err));
	return &result;
}
