// SPDX-License-Identifier: MIT
/* Recordings. The structures are the file's: numbers are little-endian, as those of every machine that this runs on. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/whole.h"
#include "report/recording.h"

#define MAGIC   0x434552550a0d1a01u /* with bytes that a text file would not keep */
#define VERSION 1

struct header {
	uint64_t magic;
	uint32_t version;
	uint32_t header_size; /* bytes: where the regions are */
	uint32_t record_size; /* bytes of a record; the records follow the regions */
	uint32_t region_count;
	uint32_t page_size;
	int32_t pid;
	uint64_t client, started, store_size;
	char name[RECORDING_NAME], store[RECORDING_NAME];
};

_Static_assert(sizeof(struct header) == 184 && sizeof(struct recording_region) == 24, "as userfault-recording(5) says");
_Static_assert(sizeof(struct recording_event) == 48, "as userfault-recording(5) says");

#define BUFFERED 1365 /* events: 64 KiB, but for 16 bytes */

struct recording {
	int fd;
	int err; /* the first of writing; from then on nothing is written */
	unsigned filled;
	struct recording_event events[BUFFERED];
};

/*
 * Writing.
 */

static int write_start(struct recording *recording, const struct recording_about *about)
{
	struct header header = {
		.magic = MAGIC,
		.version = VERSION,
		.header_size = sizeof(header),
		.record_size = sizeof(struct recording_event),
		.region_count = (uint32_t)about->region_count,
		.page_size = about->page_size,
		.pid = about->pid,
		.client = about->client,
		.started = about->started,
		.store_size = about->store_size,
	};
	int err;

	snprintf(header.name, sizeof(header.name), "%s", about->name);
	snprintf(header.store, sizeof(header.store), "%s", about->store);
	err = write_whole(recording->fd, &header, sizeof(header));
	if (!err)
		err = write_whole(recording->fd, about->regions, about->region_count * sizeof(*about->regions));
	return err;
}

/* A page is a power of two, and of 16 KiB and more on some machines. */
static bool is_page_size(uint32_t size)
{
	return size >= 512 && !(size & (size - 1));
}

/* Another's link, device or pipe of that name is not to be written to. */
static int create(int dirfd, const char *name)
{
	int fd;

	if (unlinkat(dirfd, name, 0) && errno != ENOENT)
		return -errno;
	fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

int recording_open(struct recording **out, int dirfd, const char *name, const struct recording_about *about)
{
	struct recording *recording;
	int err;

	if (!is_page_size(about->page_size) || about->region_count > RECORDING_REGIONS)
		return -EINVAL;
	recording = malloc(sizeof(*recording));
	if (!recording)
		return -ENOMEM;
	recording->err = 0;
	recording->filled = 0;
	recording->fd = create(dirfd, name);
	err = recording->fd < 0 ? recording->fd : write_start(recording, about);
	if (!err) {
		*out = recording;
		return 0;
	}
	if (recording->fd >= 0) {
		close(recording->fd);
		unlinkat(dirfd, name, 0);
	}
	free(recording);
	return err;
}

int recording_flush(struct recording *recording)
{
	size_t len = recording->filled * sizeof(recording->events[0]);

	/* A failed write may leave a part of a record behind, which readers pass over: nothing may follow it. */
	if (!recording->err && len)
		recording->err = write_whole(recording->fd, recording->events, len);
	recording->filled = 0;
	return recording->err;
}

void recording_add(struct recording *recording, const struct recording_event *event)
{
	if (!recording)
		return;
	recording->events[recording->filled++] = *event;
	if (recording->filled == BUFFERED)
		recording_flush(recording);
}

int recording_close(struct recording *recording)
{
	static const struct recording_event end = {.kind = RECORDING_END, .offset = RECORDING_NOWHERE};
	int err;

	if (!recording)
		return 0;
	recording_add(recording, &end);
	err = recording_flush(recording);
	if (close(recording->fd) && !err)
		err = -errno;
	free(recording);
	return err;
}

/*
 * Reading.
 */

/* Grows while it is read when somebody still writes to it: what was there at the start counts. */
static int read_file(int fd, char **memory, size_t *size)
{
	struct stat info;
	size_t filled = 0;

	if (fstat(fd, &info))
		return -errno;
	if (!S_ISREG(info.st_mode))
		return -EBADMSG;
	*memory = malloc(info.st_size ? (size_t)info.st_size : 1);
	if (!*memory)
		return -ENOMEM;
	while (filled < (size_t)info.st_size) {
		ssize_t n = read(fd, *memory + filled, (size_t)info.st_size - filled);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		filled += (size_t)n;
	}
	*size = filled;
	return 0;
}

static int check_header(const struct header *header, size_t size)
{
	if (size < sizeof(*header) || header->magic != MAGIC)
		return -EBADMSG;
	if (header->version != VERSION)
		return -EPROTONOSUPPORT;
	if (header->header_size != sizeof(*header) || header->record_size != sizeof(struct recording_event) ||
	    !is_page_size(header->page_size) || header->region_count > RECORDING_REGIONS ||
	    (size - sizeof(*header)) / sizeof(struct recording_region) < header->region_count)
		return -EBADMSG;
	return 0;
}

static void take_header(struct recording_data *data, const struct header *header)
{
	struct recording_about *about = &data->about;

	about->page_size = header->page_size;
	about->pid = header->pid;
	about->client = header->client;
	about->started = header->started;
	about->store_size = header->store_size;
	memcpy(about->name, header->name, sizeof(about->name) - 1);
	memcpy(about->store, header->store, sizeof(about->store) - 1);
	about->region_count = header->region_count;
	about->regions = (struct recording_region *)(header + 1);
}

static void take_events(struct recording_data *data, char *start, size_t size)
{
	data->events = (struct recording_event *)(void *)start;
	data->count = size / sizeof(data->events[0]);
	data->complete = data->count && data->events[data->count - 1].kind == RECORDING_END;
	data->count -= data->complete;
}

int recording_read(struct recording_data *data, const char *path)
{
	_cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t size = 0, start;
	int err;

	*data = (struct recording_data){0};
	if (fd < 0)
		return -errno;
	err = read_file(fd, &data->memory, &size);
	if (!err)
		err = check_header((void *)data->memory, size);
	if (err) {
		recording_free(data);
		return err;
	}
	take_header(data, (void *)data->memory);
	start = sizeof(struct header) + data->about.region_count * sizeof(struct recording_region);
	take_events(data, data->memory + start, size - start);
	return 0;
}

void recording_free(struct recording_data *data)
{
	free(data->memory);
	*data = (struct recording_data){0};
}
