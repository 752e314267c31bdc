// SPDX-License-Identifier: MIT
/* The file: userfault-workingset(5). */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/whole.h"
#include "workingset/workingset.h"

#define MAGIC 0x535746550a0d1a01u /* with bytes that a text file would not keep */

/* Words of the file. The offsets begin at OFFSETS, and the sum comes after them. Version 1 had neither size nor print. */
enum { AT_MAGIC, AT_VERSION, AT_UNIT, AT_COUNT, AT_SIZE, AT_PRINT, OFFSETS, OFFSETS_1 = AT_SIZE };

#define LEN_MIN ((OFFSETS_1 + 1) * sizeof(uint64_t))
#define LEN_MAX ((OFFSETS + WORKINGSET_MOST + 1) * sizeof(uint64_t))

/* FNV-1a, by words: against damage, not against malice. */
static uint64_t sum_of(const uint64_t *words, size_t count)
{
	uint64_t sum = 0xcbf29ce484222325u;

	for (size_t i = 0; i < count; i++)
		sum = (sum ^ le64toh(words[i])) * 0x100000001b3u;
	return sum;
}

/*
 * From and to bytes.
 */

static bool is_sound(const struct workingset *set)
{
	if (set->unit < WORKINGSET_UNIT_MIN || set->unit > WORKINGSET_UNIT_MAX || (set->unit & (set->unit - 1)) ||
	    set->size > INT64_MAX)
		return false;
	for (uint64_t i = 0; i < set->count; i++)
		if (set->offsets[i] % set->unit || set->offsets[i] > INT64_MAX - set->unit ||
		    (set->size && set->offsets[i] >= set->size))
			return false;
	return true;
}

/* Where the offsets begin, and how many they are. False: not a working set of this length, or damaged. */
static bool find_offsets(const uint64_t *words, size_t len, size_t *first, uint64_t *count)
{
	/* The version is the lower half of its word; nothing is in the upper one. */
	uint64_t version = le64toh(words[AT_VERSION]);

	if (le64toh(words[AT_MAGIC]) != MAGIC || (version != 1 && version != 2))
		return false;
	*first = version == 1 ? OFFSETS_1 : OFFSETS;
	*count = le64toh(words[AT_COUNT]);
	return *count <= WORKINGSET_MOST && len == *first + *count + 1 &&
	       le64toh(words[len - 1]) == sum_of(words, len - 1);
}

/* Of aligned words. */
static int parse_words(struct workingset **out, const uint64_t *words, size_t len)
{
	struct workingset *set;
	uint64_t count;
	size_t first;

	if (!find_offsets(words, len, &first, &count))
		return -EBADMSG;
	set = malloc(sizeof(*set) + count * sizeof(set->offsets[0]));
	if (!set)
		return -ENOMEM;
	*set = (struct workingset){.unit = le64toh(words[AT_UNIT]), .count = count};
	if (first == OFFSETS) {
		set->size = le64toh(words[AT_SIZE]);
		set->print = le64toh(words[AT_PRINT]);
	}
	for (uint64_t i = 0; i < count; i++)
		set->offsets[i] = le64toh(words[first + i]);
	if (!is_sound(set)) {
		free(set);
		return -EBADMSG;
	}
	*out = set;
	return 0;
}

int workingset_parse(struct workingset **out, const void *bytes, size_t len)
{
	uint64_t *words;
	int err;

	if (len < LEN_MIN || len > LEN_MAX || len % sizeof(*words))
		return -EBADMSG;
	if (!((uintptr_t)bytes % _Alignof(uint64_t)))
		return parse_words(out, bytes, len / sizeof(*words));
	words = malloc(len);
	if (!words)
		return -ENOMEM;
	memcpy(words, bytes, len);
	err = parse_words(out, words, len / sizeof(*words));
	free(words);
	return err;
}

int workingset_format(const struct workingset *set, void **bytes, size_t *len)
{
	uint64_t *words;

	if (set->count > WORKINGSET_MOST || !is_sound(set))
		return -EINVAL;
	*len = (OFFSETS + set->count + 1) * sizeof(*words);
	words = malloc(*len);
	if (!words)
		return -ENOMEM;
	words[AT_MAGIC] = htole64(MAGIC);
	words[AT_VERSION] = htole64(2);
	words[AT_UNIT] = htole64(set->unit);
	words[AT_COUNT] = htole64(set->count);
	words[AT_SIZE] = htole64(set->size);
	words[AT_PRINT] = htole64(set->print);
	for (uint64_t i = 0; i < set->count; i++)
		words[OFFSETS + i] = htole64(set->offsets[i]);
	words[OFFSETS + set->count] = htole64(sum_of(words, OFFSETS + set->count));
	*bytes = words;
	return 0;
}

/*
 * Files.
 */

static int read_all(int fd, void *bytes, size_t len)
{
	while (len) {
		ssize_t n = read(fd, bytes, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EBADMSG;
		bytes = (char *)bytes + n;
		len -= (size_t)n;
	}
	return 0;
}

int workingset_read(struct workingset **out, int dir, const char *path)
{
	/* What is no file might never open. */
	_cleanup_fd int fd = openat(dir, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat info;
	void *bytes;
	int err;

	if (fd < 0 || fstat(fd, &info))
		return -errno;
	if (!S_ISREG(info.st_mode) || info.st_size < (off_t)LEN_MIN || info.st_size > (off_t)LEN_MAX)
		return -EBADMSG;
	bytes = malloc((size_t)info.st_size);
	if (!bytes)
		return -ENOMEM;
	err = read_all(fd, bytes, (size_t)info.st_size);
	if (!err)
		err = workingset_parse(out, bytes, (size_t)info.st_size);
	free(bytes);
	return err;
}

/* A name beside `path` that nobody has: the descriptor, or -errno. */
static int create_beside(int dir, const char *path, char *name, size_t room)
{
	uint64_t number;
	int fd;

	do {
		if (getrandom(&number, sizeof(number), 0) != sizeof(number))
			return -EIO;
		snprintf(name, room, "%s.%016llx", path, (unsigned long long)number);
		fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	} while (fd < 0 && errno == EEXIST);
	return fd < 0 ? -errno : fd;
}

static int replace_file(int dir, const char *path, const void *bytes, size_t len)
{
	size_t room = strlen(path) + 18;
	char *name = malloc(room);
	_cleanup_fd int fd = -1;
	int err;

	if (!name)
		return -ENOMEM;
	fd = create_beside(dir, path, name, room);
	err = fd < 0 ? fd : write_whole(fd, bytes, len);
	if (!err && (fchmod(fd, 0644) || fsync(fd) || renameat(dir, name, dir, path)))
		err = -errno;
	if (err && fd >= 0)
		unlinkat(dir, name, 0);
	free(name);
	return err;
}

int workingset_write(const struct workingset *set, int dir, const char *path)
{
	void *bytes;
	size_t len;
	int err = workingset_format(set, &bytes, &len);

	if (err)
		return err;
	err = replace_file(dir, path, bytes, len);
	free(bytes);
	return err;
}

bool workingset_is_name(const char *name)
{
	size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	return len >= 1 && len <= 128 && !name[len] && name[0] != '.';
}
