// SPDX-License-Identifier: MIT
/* Working sets: the record of first touches, the file, and what is to be brought. */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <userfault/store.h>

#include "support/folder.h"
#include "support/test.h"
#include "workingset/workingset.h"

#define KIB  ((uint64_t)1024)
#define MIB  (1024 * KIB)
#define UNIT (4 * KIB)

static struct workingset *make(uint64_t unit, const uint64_t *offsets, uint64_t count)
{
	struct workingset *set = calloc(1, sizeof(*set) + count * sizeof(*offsets));

	set->unit = unit;
	set->count = count;
	memcpy(set->offsets, offsets, count * sizeof(*offsets));
	return set;
}

#define MAKE(unit, ...) \
	make(unit, (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static void check_offsets(const struct workingset *set, const uint64_t *offsets, uint64_t count)
{
	CHECK_EQ(set->count, count);
	for (uint64_t i = 0; i < count; i++)
		CHECK_EQ(set->offsets[i], offsets[i]);
}

#define CHECK_OFFSETS(set, ...) \
	check_offsets(set, (const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

/*
 * The record.
 */

TEST(first_touches, "A page counts when it is touched first, and the order is kept.")
{
	struct workingset_order order;
	struct workingset *set;

	CHECK_EQ(workingset_order_init(&order, 10, WORKINGSET_MOST), 0);
	CHECK_EQ(workingset_from_order(&set, &order, UNIT, 0), -ENODATA);
	for (unsigned i = 0; i < 3; i++) {
		workingset_order_add(&order, 9);
		workingset_order_add(&order, 0);
		workingset_order_add(&order, 4 + i);
		workingset_order_add(&order, 10);
		workingset_order_add(&order, UINT64_MAX);
	}
	CHECK_EQ(workingset_from_order(&set, &order, UNIT, 8 * UNIT), 0);
	CHECK_EQ(set->unit, UNIT);
	CHECK_EQ(set->size + set->print, 0);
	CHECK_OFFSETS(set, 17 * UNIT, 8 * UNIT, 12 * UNIT, 13 * UNIT, 14 * UNIT);
	free(set);
	workingset_order_end(&order);
	workingset_order_end(&order);
}

TEST(first_touches_are_bounded, "Of more touches than there is room for the first are kept.")
{
	struct workingset_order order;
	struct workingset *set;

	CHECK_EQ(workingset_order_init(&order, 0, 1), -EINVAL);
	CHECK_EQ(workingset_order_init(&order, 1, 0), -EINVAL);
	CHECK_EQ(workingset_order_init(&order, UINT32_MAX, 1), -EINVAL);
	CHECK_EQ(workingset_order_init(&order, UINT32_MAX - 1, 3), 0);
	for (uint64_t page = UINT32_MAX - 2; page > 0; page >>= 1)
		workingset_order_add(&order, page);
	CHECK_EQ(workingset_from_order(&set, &order, UNIT, 0), 0);
	CHECK_OFFSETS(set, (UINT32_MAX - 2) * UNIT, (UINT32_MAX - 2) / 2 * UNIT, (UINT32_MAX - 2) / 4 * UNIT);
	free(set);
	workingset_order_end(&order);
}

enum { THREADS = 8, PAGES = 50000 };

struct toucher {
	pthread_t thread;
	struct workingset_order *order;
	unsigned seed;
};

static void *touch_all(void *arg)
{
	struct toucher *toucher = arg;
	uint64_t step = 2 * ((uint64_t)rand_r(&toucher->seed) % PAGES) + 1;

	/* Odd, and no multiple of 5: so each page once. */
	step += step % 5 ? 0 : 2;
	for (uint64_t i = 0, page = (uint64_t)rand_r(&toucher->seed) % PAGES; i < PAGES; i++, page += step)
		workingset_order_add(toucher->order, page % PAGES);
	return NULL;
}

TEST(touches_on_threads, "What many threads touch at the same time is recorded once each, and nothing is lost.")
{
	static bool seen[PAGES];
	struct workingset_order order;
	struct toucher touchers[THREADS];
	struct workingset *set;

	CHECK_EQ(workingset_order_init(&order, PAGES, WORKINGSET_MOST), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		touchers[i] = (struct toucher){.order = &order, .seed = i + 1};
		CHECK_EQ(pthread_create(&touchers[i].thread, NULL, touch_all, &touchers[i]), 0);
	}
	/* A look in between finds each page once as well. */
	while (workingset_from_order(&set, &order, UNIT, 0) == -ENODATA)
		;
	for (uint64_t i = 0; i < set->count; i++) {
		CHECK(!seen[set->offsets[i] / UNIT]);
		seen[set->offsets[i] / UNIT] = true;
	}
	free(set);
	for (unsigned i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(touchers[i].thread, NULL), 0);
	memset(seen, 0, sizeof(seen));
	CHECK_EQ(workingset_from_order(&set, &order, UNIT, 0), 0);
	CHECK_EQ(set->count, PAGES);
	for (uint64_t i = 0; i < PAGES; i++) {
		CHECK(!seen[set->offsets[i] / UNIT]);
		seen[set->offsets[i] / UNIT] = true;
	}
	free(set);
	workingset_order_end(&order);
}

/*
 * The file.
 */

/* An empty one. */
static int folder_fd(void)
{
	char path[80];
	int fd;

	snprintf(path, sizeof(path), "%s/XXXXXX", test_folder());
	CHECK(mkdtemp(path));
	fd = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

static unsigned count_files(int dir)
{
	DIR *stream = fdopendir(dup(dir));
	unsigned count = 0;
	struct dirent *entry;

	CHECK(stream);
	rewinddir(stream);
	while ((entry = readdir(stream)))
		count += entry->d_name[0] != '.';
	closedir(stream);
	return count;
}

TEST(written_and_read, "What is written is read again, and replaces what was there, leaving nothing beside it.")
{
	struct workingset *set = MAKE(UNIT, 5 * UNIT, 3 * UNIT, 4 * UNIT), *other = MAKE(2 * MIB, 0), *got;
	int dir = folder_fd();
	struct stat info;

	set->size = 6 * UNIT - 1;
	set->print = 0x123456789abcdef;
	CHECK_EQ(workingset_read(&got, dir, "set"), -ENOENT);
	CHECK_EQ(workingset_write(other, dir, "set"), 0);
	CHECK_EQ(workingset_write(set, dir, "set"), 0);
	CHECK_EQ(count_files(dir), 1);
	CHECK_EQ(fstatat(dir, "set", &info, 0), 0);
	CHECK_EQ(info.st_mode, S_IFREG | 0644);
	CHECK_EQ(info.st_size, 7 * 8 + 3 * 8);
	CHECK_EQ(workingset_read(&got, dir, "set"), 0);
	CHECK_EQ(got->unit, UNIT);
	CHECK_EQ(got->size, set->size);
	CHECK_EQ(got->print, set->print);
	CHECK_OFFSETS(got, 5 * UNIT, 3 * UNIT, 4 * UNIT);
	free(got);
	free(set);
	free(other);
	close(dir);
}

TEST(files_that_cannot_be, "A set that is not sound is not written, one that cannot be put in place leaves nothing.")
{
	struct workingset *set = MAKE(UNIT, UNIT), *got;
	int dir = folder_fd();

	CHECK_EQ(mkdirat(dir, "folder", 0700), 0);
	CHECK_EQ(workingset_write(set, dir, "folder"), -EISDIR);
	CHECK_EQ(workingset_write(set, dir, "none/set"), -ENOENT);
	CHECK_EQ(workingset_read(&got, dir, "folder"), -EBADMSG);
	CHECK_EQ(mkfifoat(dir, "pipe", 0600), 0);
	CHECK_EQ(workingset_read(&got, dir, "pipe"), -EBADMSG);
	set->offsets[0]++;
	CHECK_EQ(workingset_write(set, dir, "set"), -EINVAL);
	set->offsets[0] = UNIT;
	set->size = UNIT;
	CHECK_EQ(workingset_write(set, dir, "set"), -EINVAL);
	CHECK_EQ(count_files(dir), 2);
	free(set);
	close(dir);
}

/* In the order of the manual page, with a sum that fits. */
static void seal(uint64_t *words, size_t count)
{
	uint64_t sum = 0xcbf29ce484222325u;

	for (size_t i = 0; i < count; i++)
		sum = (sum ^ le64toh(words[i])) * 0x100000001b3u;
	words[count] = htole64(sum);
}

static int parse_sealed(const uint64_t words[8])
{
	uint64_t sealed[9];
	struct workingset *set;
	int err;

	memcpy(sealed, words, 64);
	seal(sealed, 8);
	err = workingset_parse(&set, sealed, sizeof(sealed));
	if (!err)
		free(set);
	return err;
}

TEST(format, "Each field is where the manual page says, and is checked also where the sum fits.")
{
	static const uint64_t good[8] = {0x535746550a0d1a01u, 2, UNIT, 2, 10 * UNIT, 77, 9 * UNIT, 0};
	static const struct {
		unsigned word;
		uint64_t value;
	} bad[] = {
		{0, 0x535746550a0d1a02u},
		{1, 1},
		{1, 3},
		{1, 2 | (uint64_t)1 << 32},
		{2, 0},
		{2, 2048},
		{2, 3 * UNIT},
		{2, 2 * UNIT},
		{2, (uint64_t)1 << 31},
		{3, 1},
		{3, 3},
		{3, UINT64_MAX},
		{4, 9 * UNIT},
		{4, (uint64_t)1 << 63},
		{6, 10 * UNIT},
		{6, UNIT + 1},
		{7, -UNIT},
	};
	struct workingset *set;
	uint64_t words[8];

	CHECK_EQ(parse_sealed(good), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		memcpy(words, good, sizeof(words));
		words[bad[i].word] = bad[i].value;
		if (parse_sealed(words) != -EBADMSG)
			FAIL("word %u: %llu", bad[i].word, (unsigned long long)bad[i].value);
	}
	/* A word fewer is another version's, whatever the sum says. */
	CHECK_EQ(workingset_parse(&set, good, sizeof(good)), -EBADMSG);
	/* Without a size only what cannot be an offset at all is refused. */
	memcpy(words, good, sizeof(words));
	words[4] = 0;
	words[6] = (uint64_t)INT64_MAX + 1 - 2 * UNIT;
	CHECK_EQ(parse_sealed(words), 0);
	words[6] += UNIT;
	CHECK_EQ(parse_sealed(words), -EBADMSG);
}

TEST(version_1, "A file of version 1, which says nothing of its store, is still read.")
{
	uint64_t words[7] = {htole64(0x535746550a0d1a01u), htole64(1), htole64(UNIT), htole64(2), htole64(9 * UNIT), 0};
	struct workingset *set;

	seal(words, 6);
	CHECK_EQ(workingset_parse(&set, words, sizeof(words)), 0);
	CHECK_EQ(set->unit, UNIT);
	CHECK_EQ(set->size + set->print, 0);
	CHECK_OFFSETS(set, 9 * UNIT, 0);
	free(set);
	words[3] = htole64(3);
	seal(words, 6);
	CHECK_EQ(workingset_parse(&set, words, sizeof(words)), -EBADMSG);
}

TEST(damage,
     "Whatever bit is another, and wherever the bytes end, they are no working set; nor does it matter where they lie.")
{
	struct workingset *set = MAKE(UNIT, 5 * UNIT, 0, 7 * UNIT), *got;
	char *copy;
	void *bytes;
	size_t len;

	CHECK_EQ(workingset_format(set, &bytes, &len), 0);
	copy = malloc(len + 16);
	for (size_t i = 0; i < 8 * len; i++) {
		memcpy(copy, bytes, len);
		copy[i / 8] ^= (char)(1 << i % 8);
		CHECK_EQ(workingset_parse(&got, copy, len), -EBADMSG);
	}
	memset(copy, 0, len + 16);
	for (size_t at = 0; at < 8; at++) {
		memcpy(copy + at, bytes, len);
		CHECK_EQ(workingset_parse(&got, copy + at, len), 0);
		check_offsets(got, set->offsets, 3);
		free(got);
	}
	memcpy(copy, bytes, len);
	for (size_t end = 0; end < len + 16; end++)
		if (end != len)
			CHECK_EQ(workingset_parse(&got, copy, end), -EBADMSG);
	free(copy);
	free(bytes);
	free(set);
}

TEST(names, "A stranger's name leads to a file in the folder, or is refused.")
{
	static const char *const good[] = {"a", "guest-1.set", "A_b", "0", "a..b"};
	static const char *const bad[] = {"", ".", "..", ".hidden", "a/b", "/a", "a b", "a\n", "caf\xc3\xa9"};
	char name[200];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		CHECK(workingset_is_name(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK(!workingset_is_name(bad[i]));
	memset(name, 'x', sizeof(name));
	name[128] = '\0';
	CHECK(workingset_is_name(name));
	name[128] = 'x';
	name[129] = '\0';
	CHECK(!workingset_is_name(name));
}

/*
 * What is done with them.
 */

TEST(fits_its_store, "A set fits the store that it was recorded from, by size and content, as far as these are known.")
{
	struct workingset *set = MAKE(UNIT, 0);
	uint64_t print, other;
	struct uf_store *store;
	char bytes[5000];

	memset(bytes, 'x', sizeof(bytes));
	CHECK_EQ(uf_store_open(&store, "memory:1M", NULL, NULL, 0), 0);
	CHECK_EQ(workingset_print(store, &print), 0);
	CHECK(print);
	CHECK_EQ(workingset_print(store, &other), 0);
	CHECK_EQ(print, other);
	set->size = MIB;
	set->print = print;
	CHECK(workingset_fits(set, MIB, print));
	CHECK(workingset_fits(set, 0, 0));
	CHECK(!workingset_fits(set, MIB + 1, print));
	CHECK_EQ(uf_store_write(store, bytes, sizeof(bytes), 0), 0);
	CHECK_EQ(workingset_print(store, &other), 0);
	CHECK(!workingset_fits(set, MIB, other));
	set->size = set->print = 0;
	CHECK(workingset_fits(set, MIB, other));
	uf_store_close(store);
	/* One that is shorter than a sample. */
	CHECK_EQ(uf_store_open(&store, "memory:1", NULL, NULL, 0), 0);
	CHECK_EQ(workingset_print(store, &other), 0);
	CHECK(other != print);
	uf_store_close(store);
	free(set);
}

static void check_addrs(const struct workingset *set, struct workingset_place place, uint64_t most,
                        const uint64_t *expected, uint64_t count)
{
	uint64_t *addrs;

	CHECK_EQ(workingset_addrs(set, &place, most, &addrs), count);
	for (uint64_t i = 0; i < count; i++)
		CHECK_EQ(addrs[i], expected[i]);
	free(addrs);
}

#define CHECK_ADDRS(set, place, most, ...)                             \
	check_addrs(set, place, most, (const uint64_t[]){__VA_ARGS__}, \
	            sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

TEST(pages_of_a_place,
     "Of a place the pages are handed out that the set names, the first ones, in rising order, each once.")
{
	const uint64_t at = 0x7f0000000000;
	struct workingset *set = MAKE(UNIT, 9 * UNIT, 2 * UNIT, 9 * UNIT, 30 * UNIT, 4 * UNIT, 3 * UNIT);
	struct workingset_place place = {.addr = at, .offset = 2 * UNIT, .len = 8 * UNIT, .unit = UNIT};

	CHECK_ADDRS(set, place, 100, at, at + UNIT, at + 2 * UNIT, at + 7 * UNIT);
	CHECK_ADDRS(set, place, 2, at, at + 7 * UNIT);
	check_addrs(set, place, 0, NULL, 0);
	place.offset = 10 * UNIT;
	check_addrs(set, place, 100, NULL, 0);
	free(set);
}

TEST(pages_of_other_units,
     "A place may have other units than the set: all that it names are handed out, and no others.")
{
	const uint64_t at = 0x7f0000000000;
	struct workingset *small = MAKE(UNIT, 9 * UNIT, 15 * UNIT, 3 * UNIT, 8 * UNIT);
	struct workingset *large = MAKE(4 * UNIT, 8 * UNIT, 0, 8 * UNIT, 0);
	struct workingset_place place = {.addr = at, .offset = 0, .len = 16 * UNIT, .unit = 4 * UNIT};

	CHECK_ADDRS(small, place, 100, at, at + 8 * UNIT, at + 12 * UNIT);
	CHECK_ADDRS(small, place, 2, at + 8 * UNIT, at + 12 * UNIT);
	place = (struct workingset_place){.addr = at, .offset = 3 * UNIT, .len = 7 * UNIT, .unit = UNIT};
	CHECK_ADDRS(large, place, 100, at, at + 5 * UNIT, at + 6 * UNIT);
	CHECK_ADDRS(large, place, 2, at + 5 * UNIT, at + 6 * UNIT);
	free(small);
	free(large);
}
