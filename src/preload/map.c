// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/rawsys.h"
#include "preload/map.h"
#include "preload/settings.h"

/* Written once, when the library is loaded. */
static struct {
	struct map_file files[MAP_FILES_MAX];
	size_t count;
	const char *socket;
	char *setting; /* NAME=VALUE */
	uint64_t number;
	int64_t started;
} maps;

bool map_any(void)
{
	return maps.count;
}

const char *map_socket(void)
{
	return maps.socket;
}

const char *map_setting(void)
{
	return maps.setting;
}

int64_t map_started(void)
{
	return maps.started;
}

size_t map_index(const struct map_file *file)
{
	return (size_t)(file - maps.files);
}

/*
 * The setting.
 */

/* The next line, which is ended where it is. NULL: there is none. */
static char *next_line(char **at)
{
	char *line = *at, *end = line ? strchr(line, '\n') : NULL;

	if (!end)
		return NULL;
	*end = 0;
	*at = end + 1;
	return line;
}

/* "FOLDER/NAME" as two strings. */
static bool split_path(struct map_file *file)
{
	const char *slash = strrchr(file->path, '/');

	if (!slash || !slash[1])
		return false;
	file->folder = slash == file->path ? strdup("/") : strndup(file->path, (size_t)(slash - file->path));
	file->name = slash + 1;
	return file->folder;
}

static long stat_at(int dir, const char *path, struct stat *stat, int flags)
{
	return raw_syscall6(SYS_newfstatat, dir, (long)path, (long)stat, flags, 0, 0);
}

static bool take_file(char **at, struct map_file *file)
{
	const char *offset, *size;
	struct stat stat;

	file->path = next_line(at);
	file->store = next_line(at);
	offset = next_line(at);
	size = next_line(at);
	if (!size || !split_path(file))
		return false;
	file->offset = strtoull(offset, NULL, 10);
	file->size = strtoull(size, NULL, 10);
	if (!stat_at(AT_FDCWD, file->path, &stat, 0)) {
		file->dev = stat.st_dev;
		file->ino = stat.st_ino;
	}
	return true;
}

/*
 * What `run` has written (settings.h). Anything else is a mistake of whoever sets it by hand: then there are no files. Before others, which
 * look whether there are any.
 */
__attribute__((constructor(200))) static void read_maps(void)
{
	const char *value = getenv(SETTING_MAP);
	char *at, *number, *started;

	if (!value || !*value)
		return;
	maps.setting = malloc(sizeof(SETTING_MAP "=") + strlen(value));
	at = strdup(value);
	if (!maps.setting || !at)
		abort();
	strcpy(stpcpy(maps.setting, SETTING_MAP "="), value);
	number = next_line(&at);
	started = next_line(&at);
	maps.socket = next_line(&at);
	if (!maps.socket)
		return;
	maps.number = strtoull(number, NULL, 10);
	maps.started = strtoll(started, NULL, 10);
	while (maps.count < MAP_FILES_MAX && take_file(&at, &maps.files[maps.count]))
		maps.count++;
}

/*
 * Descriptors.
 */

struct timespec map_mark(const struct map_file *file, bool writes)
{
	return (struct timespec){.tv_sec = (time_t)maps.number, .tv_nsec = (long)(2 * map_index(file) + writes)};
}

const struct map_file *map_of_stat(const struct stat *stat, bool *writes)
{
	size_t index = (size_t)stat->st_atim.tv_nsec / 2;

	if ((uint64_t)stat->st_atim.tv_sec != maps.number || index >= maps.count)
		return NULL;
	if (writes)
		*writes = stat->st_atim.tv_nsec & 1;
	return &maps.files[index];
}

const struct map_file *map_of_fd(int fd, bool *writes)
{
	struct stat stat;

	if (!map_any() || fd < 0 || raw_syscall3(SYS_fstat, fd, (long)&stat, 0))
		return NULL;
	return map_of_stat(&stat, writes);
}

/*
 * Paths.
 */

/* What was there when the process started may have been replaced, and its number given to another. */
static const struct map_file *find_inode(const struct stat *found)
{
	for (size_t i = 0; i < maps.count; i++) {
		const struct map_file *file = &maps.files[i];
		struct stat stat;

		if (file->ino == found->st_ino && file->dev == found->st_dev &&
		    !stat_at(AT_FDCWD, file->path, &stat, 0) && stat.st_ino == found->st_ino &&
		    stat.st_dev == found->st_dev)
			return file;
	}
	return NULL;
}

static bool is_same_folder(const struct map_file *file, int dir, const char *path, size_t len)
{
	struct stat left, right;
	char folder[PATH_MAX];

	if (len >= sizeof(folder))
		return false;
	memcpy(folder, path, len);
	folder[len] = 0;
	if (!len)
		strcpy(folder, path[0] == '/' ? "/" : ".");
	return !stat_at(dir, folder, &left, 0) && !stat_at(AT_FDCWD, file->folder, &right, 0) &&
	       left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

static const struct map_file *find_name(int dir, const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	for (size_t i = 0; i < maps.count; i++)
		if (!strcmp(maps.files[i].name, name) &&
		    is_same_folder(&maps.files[i], dir, path, slash ? (size_t)(slash - path) : 0))
			return &maps.files[i];
	return NULL;
}

/* Nothing is there: it may be a link to where nothing is but for us. */
static const struct map_file *find_link(int dir, const char *path)
{
	char from[PATH_MAX], to[PATH_MAX];
	const struct map_file *file = NULL;

	for (int links = 0; !file && links < 8; links++) {
		const char *slash = strrchr(path, '/');
		size_t folder = slash ? (size_t)(slash - path) + 1 : 0;
		long len = raw_syscall6(SYS_readlinkat, dir, (long)path, (long)to, sizeof(to) - 1, 0, 0);

		if (len <= 0)
			return NULL;
		to[len] = 0;
		if (to[0] == '/')
			folder = 0;
		if (folder + (size_t)len >= sizeof(from))
			return NULL;
		memmove(from, path, folder);
		memcpy(from + folder, to, (size_t)len + 1);
		path = from;
		file = find_name(dir, path);
	}
	return file;
}

static bool is_all_there(void)
{
	for (size_t i = 0; i < maps.count; i++)
		if (!maps.files[i].ino)
			return false;
	return true;
}

const struct map_file *map_find_stat(int dir, const char *path, int flags, struct stat *stat, long *answer)
{
	const struct map_file *file = NULL;
	struct stat found;
	long err;

	if (!map_any() || !path)
		return NULL;
	err = stat_at(dir, path, &found, flags);
	if (stat)
		*stat = found;
	if (answer)
		*answer = err;
	if (err == -EFAULT)
		return NULL;
	if (!err)
		file = map_of_stat(&found, NULL);
	if (!err && !file)
		file = find_inode(&found);
	if (!file)
		file = find_name(dir, path);
	if (!file && err == -ENOENT && !(flags & AT_SYMLINK_NOFOLLOW) && !is_all_there())
		file = find_link(dir, path);
	return file;
}

const struct map_file *map_find(int dir, const char *path, int flags)
{
	return map_find_stat(dir, path, flags, NULL, NULL);
}
