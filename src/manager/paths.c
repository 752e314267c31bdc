// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

#include "manager/paths.h"

static int fits(int len, size_t size)
{
	return len >= 0 && (size_t)len < size ? 0 : -ENAMETOOLONG;
}

int path_runtime(char *path, size_t size)
{
	const char *of_user = geteuid() ? getenv("XDG_RUNTIME_DIR") : NULL;

	return fits(snprintf(path, size, "%s/userfault", of_user && of_user[0] == '/' ? of_user : "/run"), size);
}

int path_control(char *path, size_t size)
{
	char folder[sizeof(((struct sockaddr_un *)0)->sun_path)], address[sizeof(folder)];
	int err = path_runtime(folder, sizeof(folder));

	if (!err)
		err = fits(snprintf(address, sizeof(address), "%s/control", folder), sizeof(address));
	return err ? err : fits(snprintf(path, size, "%s", address), size);
}
