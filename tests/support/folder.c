// SPDX-License-Identifier: MIT
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "support/folder.h"
#include "support/test.h"

static char folder[] = "/tmp/userfault-test-XXXXXX";
static pid_t owner;

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where)
{
	(void)info;
	(void)type;
	(void)where;
	remove(path);
	return 0;
}

static void remove_folder(void)
{
	if (getpid() == owner)
		nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* In the program's own process, which outlives those of its tests. */
static __attribute__((constructor)) void make_folder(void)
{
	owner = getpid();
	if (!mkdtemp(folder)) {
		perror(folder);
		_exit(1);
	}
	atexit(remove_folder);
}

const char *test_folder(void)
{
	return folder;
}

const char *in_folder(const char *name)
{
	static char paths[8][64];
	static unsigned turn;
	char *path = paths[turn++ % 8];

	CHECK(snprintf(path, sizeof(paths[0]), "%s/%s", folder, name) < (int)sizeof(paths[0]));
	remove(path);
	return path;
}
