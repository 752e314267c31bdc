// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/huge.h"

static const char key[] = "\nHugepagesize:";

size_t huge_page_bytes(void)
{
	_cleanup_fd int fd = raw_open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	char meminfo[8192], *line;
	ssize_t len = fd < 0 ? -1 : raw_read(fd, meminfo, sizeof(meminfo) - 1);

	meminfo[len > 0 ? len : 0] = '\0';
	line = strstr(meminfo, key);
	return line ? strtoul(line + strlen(key), NULL, 10) * 1024 : 0;
}
