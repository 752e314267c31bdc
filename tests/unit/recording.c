// SPDX-License-Identifier: MIT
/* Recordings: what was written down is read again, whatever ended the writing. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "report/recording.h"
#include "support/folder.h"
#include "support/test.h"

#define HEADER 184
#define RECORD 48

static struct recording_region regions[] = {{0x7f0000000000, 1 << 20, 4096}, {0x7f0000200000, 1 << 30, 1 << 22}};
static const struct recording_about about = {
	.page_size = 4096,
	.pid = 1234,
	.client = 7,
	.started = 1790000000123456789,
	.store_size = 5u << 30,
	.name = "web \"1\"",
	.store = "base-image",
	.regions = regions,
	.region_count = 2,
};

static struct recording *recording;
static struct recording_data data;

/* The i-th event; no two are alike. */
static struct recording_event event(uint64_t i)
{
	return (struct recording_event){
		.time = i * 1000,
		.address = 0x7f0000000000 + i * 4096,
		.offset = i % 7 ? i * 4096 + 4096 : RECORDING_NOWHERE,
		.length = 4096 << i % 3,
		.latency = 5000 + i * 13 % 10000,
		.kind = (uint8_t)(RECORDING_READ + i % 9),
		.source = (uint8_t)(i % 5),
		.thread = (uint32_t)(i % 11),
	};
}

static void add(uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++) {
		struct recording_event one = event(i);

		recording_add(recording, &one);
	}
}

static const char *begin(void)
{
	const char *path = in_folder("recording");

	CHECK_EQ(recording_open(&recording, AT_FDCWD, path, &about), 0);
	return path;
}

static off_t size_of(const char *path)
{
	struct stat info;

	CHECK_EQ(stat(path, &info), 0);
	return info.st_size;
}

static void check_events(uint64_t count)
{
	CHECK_EQ(data.count, count);
	for (uint64_t i = 0; i < count; i++) {
		struct recording_event expected = event(i);

		CHECK(!memcmp(&data.events[i], &expected, sizeof(expected)));
	}
}

static void check_about(void)
{
	CHECK_EQ(data.about.page_size, about.page_size);
	CHECK_EQ(data.about.pid, about.pid);
	CHECK_EQ(data.about.client, about.client);
	CHECK_EQ(data.about.started, about.started);
	CHECK_EQ(data.about.store_size, about.store_size);
	CHECK(!strcmp(data.about.name, about.name));
	CHECK(!strcmp(data.about.store, about.store));
	CHECK_EQ(data.about.region_count, 2);
	CHECK(!memcmp(data.about.regions, regions, sizeof(regions)));
}

TEST(written_and_read, "All that was written down is read again, in its order, and that it is complete.")
{
	static const uint64_t counts[] = {0, 1, 1364, 1365, 1366, 100000};

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		const char *path = begin();

		add(0, counts[i]);
		CHECK_EQ(recording_close(recording), 0);
		CHECK_EQ(size_of(path), HEADER + 48 + RECORD * (counts[i] + 1));
		CHECK_EQ(recording_read(&data, path), 0);
		check_about();
		check_events(counts[i]);
		CHECK(data.complete);
		recording_free(&data);
	}
}

TEST(cut_anywhere, "A file that ends anywhere can be read up to its last whole record, and is not complete.")
{
	const char *path = begin();

	add(0, 3);
	CHECK_EQ(recording_close(recording), 0);
	for (off_t size = size_of(path) - 1; size >= 0; size--) {
		off_t events = (size - HEADER - 48) / RECORD;

		CHECK_EQ(truncate(path, size), 0);
		if (size < HEADER + 48) {
			CHECK_EQ(recording_read(&data, path), -EBADMSG);
			CHECK(!data.memory);
			continue;
		}
		CHECK_EQ(recording_read(&data, path), 0);
		check_events((uint64_t)events);
		CHECK(!data.complete);
		recording_free(&data);
	}
}

TEST(killed_writer, "What was written before the writer was killed is there, and a whole number of records.")
{
	const char *path = in_folder("recording");
	int pipes[2], status;
	char byte;
	pid_t pid;

	CHECK_EQ(pipe(pipes), 0);
	pid = fork();
	if (pid == 0) {
		CHECK_EQ(recording_open(&recording, AT_FDCWD, path, &about), 0);
		add(0, 3000);
		CHECK_EQ(write(pipes[1], "x", 1), 1);
		for (uint64_t i = 3000;; i++)
			add(i, i + 1);
	}
	CHECK_EQ(read(pipes[0], &byte, 1), 1);
	kill(pid, SIGKILL);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(recording_read(&data, path), 0);
	check_about();
	CHECK(data.count >= 2 * 1365);
	check_events(data.count);
	CHECK(!data.complete);
}

TEST(read_while_it_is_written, "A recording that goes on can be read, up to what was written out.")
{
	const char *path = begin();

	CHECK_EQ(recording_read(&data, path), 0);
	check_events(0);
	recording_free(&data);
	add(0, 10);
	CHECK_EQ(recording_flush(recording), 0);
	CHECK_EQ(recording_read(&data, path), 0);
	check_events(10);
	recording_free(&data);
	add(10, 20);
	CHECK_EQ(recording_close(recording), 0);
	CHECK_EQ(recording_read(&data, path), 0);
	check_events(20);
}

TEST(no_system_call_but_for_a_full_buffer, "Nothing is written between one full buffer and the next.")
{
	const char *path = begin();
	off_t start = size_of(path);

	for (uint64_t i = 0; i < 5000; i++) {
		add(i, i + 1);
		CHECK_EQ(size_of(path), start + (off_t)((i + 1) / 1365 * 1365 * RECORD));
	}
}

TEST(a_full_disk_ends_it,
     "When the file cannot grow any more, writing ends there, closing tells it, and what is there can be read.")
{
	/* In the middle of a record. */
	struct rlimit limit = {HEADER + 48 + 2000 * RECORD + 17, RLIM_INFINITY};
	const char *path;

	signal(SIGXFSZ, SIG_IGN);
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	path = begin();
	add(0, 10000);
	CHECK_EQ(recording_flush(recording), -EFBIG);
	/* There is room again, but a gap must not come into being. */
	limit.rlim_cur = RLIM_INFINITY;
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	add(10000, 20000);
	CHECK_EQ(recording_close(recording), -EFBIG);
	CHECK_EQ(recording_read(&data, path), 0);
	check_events(2000);
	CHECK(!data.complete);
}

TEST(what_is_no_recording, "Other files, damaged headers and other versions are told apart from recordings.")
{
	const char *path = begin();
	unsigned char head[HEADER + 48], changed[sizeof(head)];
	/* Of the header's fields, what is impossible: magic, header_size, record_size, region_count, page_size. */
	static const size_t at[] = {0, 12, 16, 23, 24};
	int fd;

	CHECK_EQ(recording_close(recording), 0);
	fd = open(path, O_RDWR);
	CHECK_EQ(pread(fd, head, sizeof(head), 0), sizeof(head));
	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		memcpy(changed, head, sizeof(head));
		changed[at[i]] ^= 1;
		CHECK_EQ(pwrite(fd, changed, sizeof(head), 0), sizeof(head));
		CHECK_EQ(recording_read(&data, path), -EBADMSG);
	}
	memcpy(changed, head, sizeof(head));
	changed[8] = 2;
	CHECK_EQ(pwrite(fd, changed, sizeof(head), 0), sizeof(head));
	CHECK_EQ(recording_read(&data, path), -EPROTONOSUPPORT);
	CHECK_EQ(recording_read(&data, "/dev/null"), -EBADMSG);
	CHECK_EQ(recording_read(&data, test_folder()), -EBADMSG);
	CHECK_EQ(recording_read(&data, in_folder("nothing")), -ENOENT);
}

TEST(names_are_ended, "Names in a file that do not end are cut.")
{
	const char *path = begin();
	char name[2 * RECORDING_NAME];
	int fd;

	CHECK_EQ(recording_close(recording), 0);
	fd = open(path, O_RDWR);
	memset(name, 'x', sizeof(name));
	CHECK_EQ(pwrite(fd, name, sizeof(name), HEADER - sizeof(name)), sizeof(name));
	CHECK_EQ(recording_read(&data, path), 0);
	CHECK_EQ(strlen(data.about.name), RECORDING_NAME - 1);
	CHECK_EQ(strlen(data.about.store), RECORDING_NAME - 1);
}

TEST(nothing_is_written_through_a_link, "What is there under the file's name is replaced, and a link is not followed.")
{
	const char *other = in_folder("other"), *path = in_folder("recording");

	CHECK_EQ(symlink(other, path), 0);
	CHECK_EQ(recording_open(&recording, AT_FDCWD, path, &about), 0);
	CHECK_EQ(recording_close(recording), 0);
	CHECK_EQ(access(other, F_OK), -1);
	CHECK_EQ(recording_read(&data, path), 0);
}

TEST(impossible_headers, "Nothing is begun that could not be read; a folder that is not there is an error.")
{
	struct recording_about wrong = about;
	const char *path = in_folder("recording");

	wrong.page_size = 0;
	CHECK_EQ(recording_open(&recording, AT_FDCWD, path, &wrong), -EINVAL);
	wrong.page_size = 4097;
	CHECK_EQ(recording_open(&recording, AT_FDCWD, path, &wrong), -EINVAL);
	wrong = about;
	wrong.region_count = RECORDING_REGIONS + 1;
	CHECK_EQ(recording_open(&recording, AT_FDCWD, path, &wrong), -EINVAL);
	CHECK_EQ(access(path, F_OK), -1);
	CHECK_EQ(recording_open(&recording, AT_FDCWD, "/nowhere/at/all", &about), -ENOENT);
	CHECK_EQ(recording_close(NULL), 0);
}
