// SPDX-License-Identifier: MIT
/*
 * Working sets. The file: a header, the offsets of pages in the order of their first touches, and a sum over all before it; numbers are
 * little-endian, as those of every machine that the library runs on.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "pager/pager.h"

#define MAGIC   0x535746550a0d1a01u /* with bytes that a text file would not keep */
#define VERSION 1

struct header {
	uint64_t magic;
	uint32_t version, reserved;
	uint64_t unit;  /* bytes to a page */
	uint64_t count; /* of offsets that follow, 8 bytes each */
};

/* FNV-1a, by words: against damage, not against malice. */
static uint64_t sum_of(const void *bytes, size_t len, uint64_t sum)
{
	const uint64_t *words = bytes;

	for (size_t i = 0; i < len / 8; i++)
		sum = (sum ^ words[i]) * 0x100000001b3u;
	return sum;
}

#define SUM_START 0xcbf29ce484222325u

/*
 * Recording.
 */

void record_touched(void *arg, struct session_source *source, uint64_t offset)
{
	struct mapping *mapping = (struct mapping *)source;
	struct record *record = &mapping->record;
	uint64_t page = (offset - mapping->offset) / mapping->unit, bit = (uint64_t)1 << page % 64, at;

	(void)arg;
	if (atomic_fetch_or_explicit(&record->touched[page / 64], bit, memory_order_relaxed) & bit)
		return;
	at = atomic_fetch_add_explicit(&record->count, 1, memory_order_relaxed);
	/* Numbered from 1: 0 is one that is just being written down. */
	atomic_store_explicit(&record->pages[at], (uint32_t)page + 1, memory_order_release);
}

static size_t bits_len(const struct record *record)
{
	return (record->room + 63) / 64 * 8;
}

void record_free(struct record *record)
{
	if (record->pages)
		raw_munmap((uint64_t)(uintptr_t)record->pages, record->room * sizeof(*record->pages));
	if (record->touched)
		raw_munmap((uint64_t)(uintptr_t)record->touched, bits_len(record));
	*record = (struct record){0};
}

static int begin(struct mapping *mapping)
{
	struct record *record = &mapping->record;

	record_free(record);
	record->room = mapping->len / mapping->unit;
	if (record->room > UINT32_MAX - 1)
		return -EINVAL;
	record->pages = raw_map_own(record->room * sizeof(*record->pages));
	record->touched = raw_map_own(bits_len(record));
	if (record->pages && record->touched)
		return 0;
	record_free(record);
	return -ENOMEM;
}

int uf_pager_record(struct uf_pager *pager, void *addr, int on)
{
	struct mapping *mapping = pager ? pager_mapping(pager, (uint64_t)(uintptr_t)addr) : NULL;
	signal_mask before;
	int err = 0;

	if (!mapping)
		return -EINVAL;
	/* With the gate closed nobody is just writing something down. */
	before = session_change_begin(&pager->session);
	if (on)
		err = begin(mapping);
	atomic_store(&mapping->source.recording, on && !err);
	session_change_end(&pager->session, before);
	return err;
}

static int write_all(int fd, const void *bytes, size_t len)
{
	while (len) {
		ssize_t n = write(fd, bytes, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		bytes = (const char *)bytes + n;
		len -= (size_t)n;
	}
	return 0;
}

/* Beside the file, durable, and then in its place. */
static int replace_file(const char *path, const void *bytes, size_t len)
{
	size_t room = strlen(path) + 8;
	char *temporary = malloc(room);
	_cleanup_fd int fd = -1;
	int err;

	if (!temporary)
		return -ENOMEM;
	snprintf(temporary, room, "%s.XXXXXX", path);
	fd = mkostemp(temporary, O_CLOEXEC);
	err = fd < 0 ? -errno : write_all(fd, bytes, len);
	if (!err && (fchmod(fd, 0644) || fsync(fd) || rename(temporary, path)))
		err = -errno;
	if (err && fd >= 0)
		unlink(temporary);
	free(temporary);
	return err;
}

int uf_pager_save(struct uf_pager *pager, void *addr, const char *path)
{
	struct mapping *mapping = pager ? pager_mapping(pager, (uint64_t)(uintptr_t)addr) : NULL;
	uint64_t count, *offsets;
	struct header *header;
	size_t len;
	int err;

	if (!mapping || !path)
		return -EINVAL;
	count = atomic_load(&mapping->record.count);
	if (!count)
		return -ENODATA;
	len = sizeof(*header) + count * 8;
	header = malloc(len + 8);
	if (!header)
		return -ENOMEM;
	*header = (struct header){.magic = MAGIC, .version = VERSION, .unit = mapping->unit};
	offsets = (uint64_t *)(header + 1);
	for (uint64_t i = 0; i < count; i++) {
		uint32_t page = atomic_load_explicit(&mapping->record.pages[i], memory_order_acquire);

		if (page)
			offsets[header->count++] = mapping->offset + (uint64_t)(page - 1) * mapping->unit;
	}
	len = sizeof(*header) + header->count * 8;
	offsets[header->count] = sum_of(header, len, SUM_START);
	err = replace_file(path, header, len + 8);
	free(header);
	return err;
}

/*
 * Replay.
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

static bool is_sound(const struct header *header, size_t len)
{
	const uint64_t *offsets = (const uint64_t *)(header + 1);

	if (len < sizeof(*header) + 8 || header->magic != MAGIC || header->version != VERSION || header->reserved ||
	    header->unit < 4096 || (header->unit & (header->unit - 1)))
		return false;
	if (header->count != (len - sizeof(*header) - 8) / 8 || len % 8)
		return false;
	for (uint64_t i = 0; i < header->count; i++)
		if (offsets[i] % header->unit || offsets[i] > UINT64_MAX - header->unit)
			return false;
	return offsets[header->count] == sum_of(header, len - 8, SUM_START);
}

static int load(const char *path, struct header **out)
{
	_cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct header *header;
	struct stat info;
	int err;

	if (fd < 0 || fstat(fd, &info))
		return -errno;
	if (!S_ISREG(info.st_mode) || info.st_size < (off_t)sizeof(*header) || info.st_size > (off_t)1 << 36)
		return -EBADMSG;
	header = malloc((size_t)info.st_size);
	if (!header)
		return -ENOMEM;
	err = read_all(fd, header, (size_t)info.st_size);
	if (!err && !is_sound(header, (size_t)info.st_size))
		err = -EBADMSG;
	if (err)
		free(header);
	else
		*out = header;
	return err;
}

struct replay {
	struct job job;                   /* first */
	uint64_t addr, len, offset, unit; /* of the mapping */
	struct header *set;
};

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Those that the mapping has, the first `most` of them, in the order of their places and each once. How many. */
static uint64_t choose(const struct replay *replay, uint64_t *offsets, uint64_t most)
{
	uint64_t count = 0, kept = 0;

	for (uint64_t i = 0; i < replay->set->count && count < most; i++)
		if (offsets[i] + replay->set->unit > replay->offset && offsets[i] < replay->offset + replay->len)
			offsets[count++] = offsets[i];
	qsort(offsets, count, sizeof(*offsets), by_number);
	for (uint64_t i = 0; i < count; i++)
		if (!i || offsets[i] != offsets[i - 1])
			offsets[kept++] = offsets[i];
	return kept;
}

/* At once not more than this, so that the end of the pager is noticed. */
#define AT_ONCE 4096u

/* The pages are units of the mapping. */
static int bring_units(struct uf_pager *pager, const struct replay *replay, uint64_t *offsets, uint64_t count)
{
	int err = 0;

	for (uint64_t i = 0; i < count; i++)
		offsets[i] += replay->addr - replay->offset;
	for (uint64_t i = 0; !err && i < count; i += AT_ONCE) {
		if (atomic_load(&pager->ending))
			err = -ECANCELED;
		else
			err = session_bring_set(&pager->session, offsets + i, count - i < AT_ONCE ? count - i : AT_ONCE,
			                        replay->set->unit);
	}
	return err;
}

/* They were recorded in other units, or with a beginning between two of them. */
static int bring_bytes(struct uf_pager *pager, const struct replay *replay, const uint64_t *offsets, uint64_t count)
{
	uint64_t limit = replay->offset + replay->len;
	int err = 0;

	for (uint64_t i = 0, next; !err && i < count; i = next) {
		uint64_t start = offsets[i], end = start + replay->set->unit;

		for (next = i + 1; next < count && offsets[next] <= end; next++)
			end = offsets[next] + replay->set->unit;
		start = start < replay->offset ? replay->offset : start;
		end = end > limit ? limit : end;
		if (atomic_load(&pager->ending))
			err = -ECANCELED;
		else
			err = session_bring(&pager->session, replay->addr + (start - replay->offset), end - start,
			                    false);
	}
	return err;
}

/* Of the first that were touched as many as there is room for. */
static int replay(struct uf_pager *pager, struct job *job)
{
	struct replay *replay = (struct replay *)job;
	uint64_t *offsets = (uint64_t *)(replay->set + 1), unit = replay->set->unit;
	uint64_t resident = atomic_load(&pager->resident);
	uint64_t room = resident < pager->evict_above ? (pager->evict_above - resident) / unit : 0;
	uint64_t count = choose(replay, offsets, room);
	int err;

	/* Offsets of units are multiples of them, and so is where the mapping begins. */
	if (unit == replay->unit)
		err = bring_units(pager, replay, offsets, count);
	else
		err = bring_bytes(pager, replay, offsets, count);
	free(replay->set);
	/* What there is no room for comes when it is touched. */
	return err == -ENOMEM ? 0 : err;
}

int uf_pager_replay(struct uf_pager *pager, void *addr, const char *path, int wait)
{
	struct mapping *mapping = pager ? pager_mapping(pager, (uint64_t)(uintptr_t)addr) : NULL;
	struct replay *job;
	int err;

	if (!mapping || !path)
		return -EINVAL;
	job = calloc(1, sizeof(*job));
	if (!job)
		return -ENOMEM;
	err = load(path, &job->set);
	if (err) {
		free(job);
		return err;
	}
	job->job.run = replay;
	job->addr = mapping->addr;
	job->len = mapping->len;
	job->offset = mapping->offset;
	job->unit = mapping->unit;
	err = worker_do(pager, &job->job, wait);
	if (wait)
		session_settle(&pager->session);
	return err;
}
