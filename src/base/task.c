// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/rawsys.h"
#include "base/task.h"

/* "/proc/TID/stat"; snprintf() may not be called in a signal handler. */
static void stat_path(char path[32], uint32_t tid)
{
	static const char before[] = "/proc/", after[] = "/stat";
	char digits[10];
	size_t count = 0, len = sizeof(before) - 1;

	memcpy(path, before, len);
	do
		digits[count++] = (char)('0' + tid % 10);
	while (tid /= 10);
	while (count)
		path[len++] = digits[--count];
	memcpy(path + len, after, sizeof(after));
}

/* The letter behind the name, which is in parentheses and may contain any character. 0: there is no telling. */
static char state_of(uint32_t tid)
{
	char path[32], text[128];
	ssize_t len;
	int fd;

	stat_path(path, tid);
	fd = raw_open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	len = raw_read(fd, text, sizeof(text));
	raw_close(fd);
	while (len > 0 && text[len - 1] != ')')
		len--;
	return len > 0 && len + 1 < (ssize_t)sizeof(text) ? text[len + 1] : 0;
}

bool task_is_gone(uint32_t tid)
{
	char state;

	if (raw_syscall3(SYS_tkill, tid, 0, 0) == -ESRCH)
		return true;
	state = state_of(tid);
	/* Nobody has waited for it yet, or its parent is just doing so. */
	return state == 'Z' || state == 'X';
}
