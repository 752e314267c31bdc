// SPDX-License-Identifier: MIT
/*
 * A program that knows nothing of userfault, under `userfault run --map`: $MAPPED is served from a store whose bytes are those of the file $MODEL,
 * and of $BROKEN, served from the same, nothing can be had from its third page on.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/test.h"

static char path[4096], broken[4096];
static unsigned char *model;
static size_t size, whole; /* of the file; of its pages */

/* By a descriptor of its own, of a file that nobody serves. */
static void load(void)
{
	int fd = open(getenv("MODEL"), O_RDONLY);
	struct stat stat;

	snprintf(path, sizeof(path), "%s", getenv("MAPPED"));
	snprintf(broken, sizeof(broken), "%s", getenv("BROKEN"));
	CHECK(fd >= 0 && !fstat(fd, &stat));
	size = (size_t)stat.st_size;
	whole = (size + page_size - 1) / page_size * page_size;
	model = calloc(1, whole);
	CHECK_EQ(read(fd, model, size), size);
	CHECK_EQ(close(fd), 0);
	CHECK(size % page_size && size > 64 * page_size);
}

static int open_mapped(int flags)
{
	int fd = open(path, flags);

	if (fd < 0)
		FAIL("%s: %s", path, strerror(errno));
	return fd;
}

static void *map_at(void *addr, size_t len, int prot, int flags, size_t offset)
{
	int fd = open_mapped(O_RDONLY);
	void *at = mmap(addr, len, prot, flags, fd, (off_t)offset);

	if (at == MAP_FAILED)
		FAIL("mmap: %s", strerror(errno));
	CHECK_EQ(close(fd), 0);
	return at;
}

/* What a mapping of `len` bytes at `offset` has to hold; in an order that is not the order of addresses. */
static void check_bytes(const unsigned char *at, size_t len, size_t offset)
{
	size_t pages = len / page_size;

	for (size_t i = 0; i < pages; i++) {
		size_t page = (i * 37) % pages * page_size;

		if (pages % 37 == 0)
			page = i * page_size;
		if (memcmp(at + page, model + offset + page, page_size) != 0)
			FAIL("wrong bytes at %zu", offset + page);
	}
}

#define FAILS(call, error)              \
	do {                            \
		errno = 0;              \
		CHECK((call) == -1);    \
		CHECK_EQ(errno, error); \
	} while (0)

/* The exit status of `body`, run in a child. */
static int in_child(int (*body)(void *), void *arg)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(body(arg));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int has_bytes(void *at)
{
	return memcmp(at, model, whole) != 0;
}

/*
 * What it looks like.
 */

TEST(size_is_the_stores, "All calls agree on the size, and on which file it is.")
{
	struct stat a, b;
	struct statx x;
	int fd;

	load();
	fd = open_mapped(O_RDONLY);
	CHECK_EQ(stat(path, &a), 0);
	CHECK_EQ(a.st_size, size);
	CHECK_EQ(a.st_blocks, (size + 511) / 512);
	CHECK(S_ISREG(a.st_mode));
	CHECK_EQ(fstat(fd, &b), 0);
	CHECK(!memcmp(&a, &b, sizeof(a)));
	CHECK_EQ(lstat(path, &b), 0);
	CHECK(!memcmp(&a, &b, sizeof(a)));
	CHECK_EQ(fstatat(AT_FDCWD, path, &b, 0), 0);
	CHECK(!memcmp(&a, &b, sizeof(a)));
	CHECK_EQ(fstatat(fd, "", &b, AT_EMPTY_PATH), 0);
	CHECK(!memcmp(&a, &b, sizeof(a)));
	CHECK_EQ(syscall(SYS_newfstatat, AT_FDCWD, path, &b, 0), 0);
	CHECK(!memcmp(&a, &b, sizeof(a)));
	CHECK_EQ(statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &x), 0);
	CHECK_EQ(x.stx_size, size);
	CHECK_EQ(x.stx_ino, a.st_ino);
	CHECK_EQ(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x), 0);
	CHECK_EQ(x.stx_size, size);
	CHECK_EQ(lseek(fd, 0, SEEK_END), size);
	CHECK_EQ(access(path, R_OK), 0);
	CHECK_EQ(faccessat(AT_FDCWD, path, F_OK, AT_EACCESS), 0);
	FAILS(access(path, W_OK), EROFS);
}

TEST(it_is_data_from_end_to_end, "SEEK_DATA and SEEK_HOLE know of no holes.")
{
	int fd;

	load();
	fd = open_mapped(O_RDONLY);
	CHECK_EQ(lseek(fd, 5, SEEK_DATA), 5);
	CHECK_EQ(lseek(fd, 5, SEEK_HOLE), size);
	FAILS(lseek(fd, (off_t)size, SEEK_DATA), ENXIO);
}

TEST(names_that_lead_to_it,
     "Relative paths, descriptors of folders, links, also to where nothing is, and /proc lead to it.")
{
	char link[] = "/tmp/userfault-mapped-XXXXXX", name[64], *slash;
	unsigned char byte;
	int fd, dir;

	load();
	fd = open_mapped(O_RDONLY);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	CHECK_EQ(pread(open(name, O_RDONLY), &byte, 1, 7), 1);
	CHECK_EQ(byte, model[7]);
	snprintf(name, sizeof(name), "/dev/fd/%d", fd);
	CHECK_EQ(pread(open(name, O_RDONLY), &byte, 1, 8), 1);
	CHECK_EQ(byte, model[8]);
	CHECK(mkdtemp(link));
	snprintf(name, sizeof(name), "%s/link", link);
	CHECK_EQ(symlink(path, name), 0);
	CHECK_EQ(pread(open(name, O_RDONLY), &byte, 1, 9), 1);
	CHECK_EQ(byte, model[9]);
	FAILS(open(name, O_RDONLY | O_NOFOLLOW), ELOOP);
	CHECK_EQ(unlink(name), 0);
	CHECK_EQ(rmdir(link), 0);
	slash = strrchr(path, '/');
	*slash = 0;
	dir = open(path, O_RDONLY | O_DIRECTORY);
	CHECK_EQ(pread(openat(dir, slash + 1, O_RDONLY), &byte, 1, 10), 1);
	CHECK_EQ(byte, model[10]);
	CHECK_EQ(chdir(path), 0);
	CHECK_EQ(pread(open(slash + 1, O_RDONLY), &byte, 1, 11), 1);
	CHECK_EQ(byte, model[11]);
}

TEST(descriptor_has_the_lowest_number, "As open(2) promises.")
{
	load();
	close(0);
	CHECK_EQ(open(path, O_RDONLY), 0);
}

TEST(flags_are_those_it_was_opened_with, "F_GETFL tells what the program asked for, also of duplicates.")
{
	load();
	CHECK_EQ(fcntl(open_mapped(O_RDONLY), F_GETFL) & O_ACCMODE, O_RDONLY);
	CHECK_EQ(fcntl(dup(open_mapped(O_RDWR)), F_GETFL) & O_ACCMODE, O_RDWR);
	CHECK_EQ(fcntl(open_mapped(O_RDONLY | O_CLOEXEC), F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(open_mapped(O_RDONLY), F_GETFD), 0);
}

TEST(read_locks_are_had, "Advisory locks for reading succeed, since nobody writes.")
{
	struct flock lock = {.l_type = F_RDLCK};
	int fd;

	load();
	fd = open_mapped(O_RDONLY);
	CHECK_EQ(flock(fd, LOCK_SH), 0);
	CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
	lock = (struct flock){.l_type = F_RDLCK};
	CHECK_EQ(fcntl(fd, F_OFD_SETLKW, &lock), 0);
	lock = (struct flock){.l_type = F_RDLCK};
	CHECK_EQ(fcntl(fd, F_GETLK, &lock), 0);
	CHECK_EQ(lock.l_type, F_UNLCK);
}

/*
 * Reading.
 */

TEST(read_calls_see_the_stores_bytes, "read, pread, readv and preadv, from any position, up to the end.")
{
	unsigned char *got, half[100], *nowhere = mmap(NULL, page_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec iov[] = {{half, 30}, {half + 30, 0}, {half + 30, 70}};
	size_t used = 0;
	ssize_t len;
	int fd;

	load();
	got = malloc(size);
	fd = open_mapped(O_RDONLY);
	while ((len = read(fd, got + used, 7777)) > 0)
		used += (size_t)len;
	CHECK_EQ(len, 0);
	CHECK_EQ(used, size);
	CHECK(!memcmp(got, model, size));
	CHECK_EQ(pread(fd, got, size, 3), size - 3);
	CHECK(!memcmp(got, model + 3, size - 3));
	CHECK_EQ(lseek(fd, 4000, SEEK_SET), 4000);
	CHECK_EQ(readv(fd, iov, 3), 100);
	CHECK(!memcmp(half, model + 4000, 100));
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 4100);
	CHECK_EQ(preadv(fd, iov, 3, (off_t)size - 50), 50);
	CHECK(!memcmp(half, model + size - 50, 50));
	CHECK_EQ(preadv2(fd, iov, 3, -1, 0), 100);
	CHECK_EQ(syscall(SYS_read, fd, half, 10), 10);
	CHECK_EQ(syscall(SYS_pread64, fd, half, 10, 77), 10);
	CHECK(!memcmp(half, model + 77, 10));
	FAILS(read(fd, nowhere, 10), EFAULT);
	CHECK_EQ(read(fd, half, 0), 0);
	CHECK_EQ(pread(fd, half, 10, (off_t)size), 0);
	FAILS(pread(fd, half, 10, -1), EINVAL);
}

TEST(streams_see_the_stores_bytes, "fopen, fread, fgets, fseek, fdopen, and fileno of them.")
{
	unsigned char got[10000];
	struct stat stat;
	FILE *file;

	load();
	file = fopen(path, "rb");
	CHECK(file);
	CHECK_EQ(fread(got, 1, sizeof(got), file), sizeof(got));
	CHECK(!memcmp(got, model, sizeof(got)));
	CHECK_EQ(ftell(file), sizeof(got));
	CHECK_EQ(fseek(file, -100, SEEK_END), 0);
	CHECK_EQ(fread(got, 1, sizeof(got), file), 100);
	CHECK(!memcmp(got, model + size - 100, 100));
	CHECK(feof(file));
	CHECK_EQ(fstat(fileno(file), &stat), 0);
	CHECK_EQ(stat.st_size, size);
	rewind(file);
	CHECK_EQ(getc(file), model[0]);
	CHECK_EQ(fclose(file), 0);
	file = fdopen(open_mapped(O_RDONLY), "r");
	CHECK_EQ(getc(file), model[0]);
	CHECK_EQ(fclose(file), 0);
	CHECK(!fopen(path, "w") && errno == EROFS);
	CHECK(!fopen(path, "a") && errno == EROFS);
	CHECK(!freopen(path, "r", stdin) && errno == EOPNOTSUPP);
}

TEST(bytes_that_cannot_be_had_are_errors,
     "A read of a lost page is EIO, one that ends in it is short, and a touch is SIGBUS.")
{
	unsigned char *got;
	int fd;

	load();
	got = malloc(size);
	fd = open(broken, O_RDONLY);
	CHECK_EQ(pread(fd, got, size, 0), 2 * page_size);
	CHECK(!memcmp(got, model, 2 * page_size));
	FAILS(pread(fd, got, 1, (off_t)(2 * page_size)), EIO);
	CHECK_EQ(lseek(fd, (off_t)(3 * page_size), SEEK_SET), 3 * page_size);
	FAILS(read(fd, got, 10), EIO);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 3 * page_size);
}

static int touch(void *at)
{
	return *(volatile unsigned char *)at & 0;
}

TEST(touch_of_a_lost_page_is_sigbus,
     "A mapping of a page that cannot be had is SIGBUS, never zeros; the others are there.")
{
	unsigned char *at;

	load();
	at = mmap(NULL, whole, PROT_READ, MAP_PRIVATE, open(broken, O_RDONLY), 0);
	CHECK(at != MAP_FAILED);
	CHECK_EQ(in_child(touch, at + 2 * page_size), -SIGBUS);
	CHECK_EQ(in_child(touch, at), 0);
	CHECK(!memcmp(at, model, 2 * page_size));
	CHECK_EQ(in_child(touch, at + 3 * page_size), -SIGBUS);
}

/*
 * Mapping.
 */

TEST(mappings_have_the_stores_bytes, "Private and shared, the whole and parts; the last page ends in zeros.")
{
	load();
	check_bytes(map_at(NULL, size, PROT_READ, MAP_PRIVATE, 0), whole, 0);
	check_bytes(map_at(NULL, size, PROT_READ, MAP_SHARED, 0), whole, 0);
	check_bytes(map_at(NULL, 5 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, 9 * page_size), 5 * page_size,
	            9 * page_size);
	check_bytes(map_at(NULL, 1, PROT_READ, MAP_SHARED_VALIDATE, whole - page_size), page_size, whole - page_size);
	check_bytes(map_at(NULL, whole, PROT_READ, MAP_PRIVATE | MAP_POPULATE | MAP_NORESERVE, 0), whole, 0);
}

TEST(pages_behind_the_end_are_sigbus,
     "A mapping may be longer than the file; what is behind its last page cannot be touched.")
{
	unsigned char *at;

	load();
	at = map_at(NULL, whole + 3 * page_size, PROT_READ, MAP_PRIVATE, 0);
	CHECK_EQ(in_child(touch, at + whole - 1), 0);
	CHECK_EQ(in_child(touch, at + whole), -SIGBUS);
	CHECK_EQ(in_child(touch, at + whole + 2 * page_size), -SIGBUS);
	check_bytes(at, whole, 0);
	CHECK_EQ(in_child(touch, map_at(NULL, page_size, PROT_READ, MAP_PRIVATE, whole + page_size)), -SIGBUS);
	CHECK_EQ(munmap(at, whole + 3 * page_size), 0);
}

TEST(place_and_protection_are_as_asked,
     "MAP_FIXED replaces what was there, MAP_FIXED_NOREPLACE does not, and protection holds.")
{
	unsigned char *place = mmap(NULL, 16 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		      *at;
	int fd;

	load();
	memset(place, 1, 16 * page_size);
	at = map_at(place + 4 * page_size, 4 * page_size, PROT_READ, MAP_PRIVATE | MAP_FIXED, 8 * page_size);
	CHECK(at == place + 4 * page_size);
	check_bytes(at, 4 * page_size, 8 * page_size);
	CHECK(place[4 * page_size - 1] == 1 && place[8 * page_size] == 1);
	fd = open_mapped(O_RDONLY);
	CHECK(mmap(place, page_size, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, fd, 0) == MAP_FAILED &&
	      errno == EEXIST);
	at = map_at(NULL, page_size, PROT_NONE, MAP_PRIVATE, 0);
	CHECK_EQ(in_child(touch, at), -SIGSEGV);
	CHECK_EQ(mprotect(at, page_size, PROT_READ), 0);
	check_bytes(at, page_size, 0);
	/* Something else takes its place. */
	at = map_at(NULL, 4 * page_size, PROT_READ, MAP_PRIVATE, 0);
	CHECK(mmap(at, 2 * page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
	CHECK(!at[0] && !at[page_size]);
	CHECK(!memcmp(at + 2 * page_size, model + 2 * page_size, 2 * page_size));
	FAILS((long)mmap(NULL, page_size, PROT_READ, MAP_PRIVATE, fd, 1), EINVAL);
	FAILS((long)mmap(NULL, 0, PROT_READ, MAP_PRIVATE, fd, 0), EINVAL);
}

TEST(private_writes_stay_private,
     "What is written to a private mapping is in it, and nowhere else, until it is given back.")
{
	unsigned char *at, *other;

	load();
	at = map_at(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	for (size_t page = 0; page < whole; page += 2 * page_size)
		at[page] = (unsigned char)~model[page];
	other = map_at(NULL, size, PROT_READ, MAP_PRIVATE, 0);
	check_bytes(other, whole, 0);
	for (size_t page = 0; page < whole; page += 2 * page_size) {
		CHECK_EQ(at[page], (unsigned char)~model[page]);
		CHECK(!memcmp(at + page + 1, model + page + 1, page_size - 1));
	}
	CHECK_EQ(madvise(at, whole, MADV_DONTNEED), 0);
	check_bytes(at, whole, 0);
}

TEST(shared_mappings_do_not_become_writable, "Nor can they be made so at once, whatever the descriptor was opened for.")
{
	unsigned char *at;

	load();
	at = map_at(NULL, size, PROT_READ, MAP_SHARED, 0);
	FAILS(mprotect(at, whole, PROT_READ | PROT_WRITE), EACCES);
	FAILS(mprotect(at + page_size, page_size, PROT_WRITE), EACCES);
	CHECK_EQ(mprotect(at, page_size, PROT_NONE), 0);
	CHECK_EQ(mprotect(at, page_size, PROT_READ), 0);
	check_bytes(at, whole, 0);
	FAILS((long)mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_SHARED, open_mapped(O_RDWR), 0), EROFS);
	FAILS((long)mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_SHARED, open_mapped(O_RDONLY), 0), EACCES);
}

TEST(parts_can_be_unmapped_and_moved,
     "munmap and mremap of parts: what is left, and what has moved, holds what it should.")
{
	unsigned char *at, *to;

	load();
	at = map_at(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	CHECK_EQ(munmap(at + 10 * page_size, 5 * page_size), 0);
	CHECK_EQ(in_child(touch, at + 10 * page_size), -SIGSEGV);
	at[16 * page_size] = 77;
	to = mremap(at + 15 * page_size, 8 * page_size, 4 * page_size, MREMAP_MAYMOVE);
	CHECK(to != MAP_FAILED && to[page_size] == 77);
	to = mremap(to, 4 * page_size, 4 * page_size, MREMAP_MAYMOVE | MREMAP_FIXED,
	            mmap(NULL, 4 * page_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	CHECK(to != MAP_FAILED && to[page_size] == 77);
	CHECK(!memcmp(to + 2 * page_size, model + 17 * page_size, 2 * page_size));
	check_bytes(at, 10 * page_size, 0);
	check_bytes(at + 23 * page_size, whole - 23 * page_size, 23 * page_size);
}

TEST(mapping_can_grow, "mremap to more shows more of the file, keeps what was written, and ends where the file does.")
{
	unsigned char *at, *to;

	load();
	at = map_at(NULL, 4 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, page_size);
	at[page_size] = 99;
	to = mremap(at, 4 * page_size, whole, MREMAP_MAYMOVE);
	CHECK(to != MAP_FAILED);
	CHECK(to[page_size] == 99);
	check_bytes(to + 2 * page_size, whole - 3 * page_size, 3 * page_size);
	CHECK_EQ(in_child(touch, to + whole - page_size), -SIGBUS);
	at = map_at(NULL, 2 * page_size, PROT_READ, MAP_PRIVATE, 0);
	FAILS((long)mremap(at, 2 * page_size, 200 * page_size, 0), ENOMEM);
	FAILS((long)mremap(at, 0, page_size, MREMAP_MAYMOVE), EINVAL);
	check_bytes(at, 2 * page_size, 0);
}

TEST(locked_memory_is_no_zeros, "Where all memory is to be locked the kernel fills what is mapped: but not with zeros.")
{
	load();
	/* What the limit for locked memory is too small for is there before. */
	check_bytes(map_at(NULL, page_size, PROT_READ, MAP_PRIVATE, 0), page_size, 0);
	CHECK_EQ(mlockall(MCL_FUTURE), 0);
	check_bytes(map_at(NULL, 8 * page_size, PROT_READ, MAP_PRIVATE, 0), 8 * page_size, 0);
	check_bytes(map_at(NULL, 8 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_LOCKED, 0), 8 * page_size, 0);
	CHECK_EQ(munlockall(), 0);
}

/*
 * What would change it, or get around us.
 */

TEST(writes_are_refused, "It cannot be written, cut, removed, renamed or linked.")
{
	char other[4200], got[1] = "x";
	int fd, reader;
	FILE *file;

	load();
	snprintf(other, sizeof(other), "%s.other", path);
	fd = open_mapped(O_RDWR | O_CREAT);
	reader = open_mapped(O_RDONLY);
	FAILS(write(fd, "x", 1), EROFS);
	FAILS(pwrite(fd, "x", 1, 0), EROFS);
	FAILS(writev(fd, &(struct iovec){got, 1}, 1), EROFS);
	FAILS(write(reader, "x", 1), EBADF);
	FAILS(ftruncate(fd, 0), EROFS);
	FAILS(ftruncate(reader, 0), EINVAL);
	FAILS(truncate(path, 0), EROFS);
	FAILS(fallocate(fd, 0, 0, 10), EROFS);
	FAILS(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), EROFS);
	CHECK_EQ(posix_fallocate(fd, 0, 10), EROFS);
	FAILS(open(path, O_WRONLY), EROFS);
	FAILS(open(path, O_RDWR | O_TRUNC), EROFS);
	FAILS(open(path, O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
	FAILS(open(path, O_RDONLY | O_DIRECTORY), ENOTDIR);
	FAILS(creat(path, 0600), EROFS);
	FAILS(unlink(path), EROFS);
	FAILS(unlinkat(AT_FDCWD, path, 0), EROFS);
	FAILS(remove(path), EROFS);
	FAILS(rename(path, other), EROFS);
	FAILS(rename(getenv("MODEL"), path), EROFS);
	FAILS(link(path, other), EROFS);
	file = fopen(path, "r+");
	CHECK(file && fputs("text", file) >= 0 && fflush(file) == EOF && errno == EROFS);
	CHECK_EQ(pread(fd, other, 100, 0), 100);
	CHECK(!memcmp(other, model, 100));
}

TEST(other_ways_to_its_bytes_are_errors,
     "What nobody stands before is refused by the kernel, and returns nothing at all.")
{
	unsigned char got[100];
	int fd, pipes[2], file;

	load();
	fd = open_mapped(O_RDWR);
	file = memfd_create("test", 0);
	CHECK_EQ(pipe(pipes), 0);
	FAILS(sendfile(pipes[1], fd, NULL, 10), EINVAL);
	FAILS(splice(fd, NULL, pipes[1], NULL, 10, 0), EINVAL);
	FAILS(copy_file_range(fd, NULL, file, NULL, 10, 0), EINVAL);
	FAILS(syscall(SYS_sendfile, pipes[1], fd, NULL, 10), EBADF);
	FAILS(syscall(SYS_readahead, fd, 0, 10), EBADF);
	FAILS(syscall(SYS_preadv, fd, &(struct iovec){got, 10}, 1, 0, 0), EBADF);
}

/*
 * Descriptors that travel.
 */

TEST(descriptors_travel, "A duplicate, and one that came over a socket, read the same file from the same position.")
{
	char control[CMSG_SPACE(sizeof(int))] = "", byte = 0;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int pair[2], fd, got;

	load();
	fd = open_mapped(O_RDONLY);
	CHECK_EQ(read(dup2(fd, 50), &byte, 1), 1);
	CHECK_EQ((unsigned char)byte, model[0]);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	*c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	CHECK_EQ(sendmsg(pair[0], &msg, 0), 1);
	CHECK_EQ(recvmsg(pair[1], &msg, 0), 1);
	memcpy(&got, CMSG_DATA(c), sizeof(int));
	CHECK(got != fd);
	CHECK_EQ(read(got, &byte, 1), 1);
	CHECK_EQ((unsigned char)byte, model[1]);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 2);
}

TEST(descriptors_outlive_exec,
     "A program that is executed reads what it inherits, also with an environment of its own.")
{
	char *const none[] = {NULL};
	char command[200], shell[] = "sh", option[] = "-c";
	int fd, out[2];
	unsigned char got[64];
	pid_t pid;

	load();
	fd = open_mapped(O_RDONLY);
	CHECK_EQ(pipe(out), 0);
	snprintf(command, sizeof(command), "exec dd bs=64 count=1 skip=3 status=none <&%d", fd);
	pid = fork();
	if (!pid) {
		dup2(out[1], 1);
		execve("/bin/sh", (char *const[]){shell, option, command, NULL}, none);
		_exit(1);
	}
	CHECK_EQ(read(out[0], got, sizeof(got)), sizeof(got));
	CHECK(!memcmp(got, model + 3 * 64, sizeof(got)));
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

TEST(closing_everything_leaves_mappings,
     "A program that closes all descriptors keeps what it has mapped, and can map more.")
{
	unsigned char *at;

	load();
	at = map_at(NULL, size, PROT_READ, MAP_PRIVATE, 0);
	check_bytes(at, page_size, 0);
	closefrom(3);
	for (int fd = 3; fd < 2000; fd++)
		close(fd);
	check_bytes(at, whole, 0);
	check_bytes(map_at(NULL, size, PROT_READ, MAP_PRIVATE, 0), whole, 0);
}

/*
 * Children.
 */

static int grandchild(void *at)
{
	return in_child(has_bytes, at) || has_bytes(at);
}

TEST(children_are_served,
     "A child, and its child, get the pages that nobody has touched, whichever process comes first.")
{
	unsigned char *at;

	load();
	at = map_at(NULL, size, PROT_READ, MAP_PRIVATE, 0);
	CHECK_EQ(in_child(has_bytes, at), 0);
	CHECK_EQ(in_child(grandchild, at), 0);
	check_bytes(at, whole, 0);
	CHECK_EQ(in_child(grandchild, at), 0);
}

static int sees_parents_write(void *arg)
{
	unsigned char *at = arg;

	if (at[0] != 55 || memcmp(at + 1, model + 1, whole - 1) != 0)
		return 1;
	at[page_size] = 66;
	return 0;
}

TEST(childs_memory_is_its_own,
     "What the parent wrote before the fork is in the child; what the child writes is not in the parent.")
{
	unsigned char *at;

	load();
	at = map_at(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
	at[0] = 55;
	CHECK_EQ(in_child(sees_parents_write, at), 0);
	CHECK_EQ(at[page_size], model[page_size]);
}

static int reads_all(void *unused)
{
	unsigned char *got = malloc(size);
	int fd = open(path, O_RDONLY);

	(void)unused;
	return read(fd, got, size) != (ssize_t)size || memcmp(got, model, size) != 0;
}

TEST(children_read, "A child reads, from descriptors of its own, whatever the parent has read.")
{
	load();
	CHECK_EQ(in_child(reads_all, NULL), 0);
	CHECK_EQ(reads_all(NULL), 0);
	CHECK_EQ(in_child(reads_all, NULL), 0);
}

static int started(void *at)
{
	_exit(has_bytes(at));
}

TEST(children_by_other_names_are_served, "_Fork, clone with a stack, and the bare system call.")
{
	static char stack[65536] __attribute__((aligned(16)));
	unsigned char *at;
	int status;
	pid_t pid;

	load();
	at = map_at(NULL, size, PROT_READ, MAP_PRIVATE, 0);
	pid = _Fork();
	if (!pid)
		_exit(has_bytes(at));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (!pid)
		_exit(has_bytes(at));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	pid = clone(started, stack + sizeof(stack), SIGCHLD, at);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	pid = vfork();
	if (!pid)
		_exit(0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	check_bytes(at, whole, 0);
}

TEST(memory_that_is_not_for_children, "MADV_DONTFORK of a part: the child does not have it, and has the rest.")
{
	unsigned char *at;

	load();
	at = map_at(NULL, 16 * page_size, PROT_READ, MAP_PRIVATE, 0);
	CHECK_EQ(madvise(at + 4 * page_size, 4 * page_size, MADV_DONTFORK), 0);
	CHECK_EQ(in_child(touch, at + 4 * page_size), -SIGSEGV);
	CHECK_EQ(in_child(touch, at + 8 * page_size), 0);
	CHECK_EQ(madvise(at + 4 * page_size, 4 * page_size, MADV_DOFORK), 0);
	CHECK_EQ(in_child(touch, at + 4 * page_size), 0);
	FAILS(madvise(at, page_size, MADV_WIPEONFORK), EINVAL);
	check_bytes(at, 16 * page_size, 0);
}

/*
 * Threads.
 */

static unsigned char *common;
static _Atomic bool stop;

static void *touch_all(void *seed)
{
	size_t pages = whole / page_size, at = (size_t)seed;

	for (size_t i = 0; i < pages; i++) {
		at = (at * 5 + 3) % pages;
		if (memcmp(common + at * page_size, model + at * page_size, page_size) != 0)
			return (void *)1;
	}
	return NULL;
}

static void *map_and_unmap(void *unused)
{
	int fd = open_mapped(O_RDONLY);

	(void)unused;
	for (size_t i = 0; !atomic_load(&stop); i++) {
		size_t offset = i * 7 % 50 * page_size;
		unsigned char *at = mmap(NULL, 3 * page_size, PROT_READ, MAP_PRIVATE, fd, (off_t)offset);

		if (at == MAP_FAILED || memcmp(at + page_size, model + offset + page_size, page_size) != 0 ||
		    munmap(at, 3 * page_size))
			return (void *)1;
	}
	return NULL;
}

TEST(threads_share_mappings, "Threads that touch, map, unmap and read at the same time get what they should.")
{
	pthread_t threads[4], mapper;
	void *result;

	load();
	common = map_at(NULL, size, PROT_READ, MAP_PRIVATE, 0);
	CHECK_EQ(pthread_create(&mapper, NULL, map_and_unmap, NULL), 0);
	for (size_t i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, touch_all, (void *)i), 0);
	CHECK_EQ(reads_all(NULL), 0);
	for (size_t i = 0; i < 4; i++) {
		pthread_join(threads[i], &result);
		CHECK(!result);
	}
	atomic_store(&stop, true);
	pthread_join(mapper, &result);
	CHECK(!result);
}

TEST(forks_amid_threads, "Forks while other threads map, unmap, read and touch: each child has all there was.")
{
	pthread_t mapper, toucher;
	void *result;

	load();
	common = map_at(NULL, size, PROT_READ, MAP_PRIVATE, 0);
	CHECK_EQ(pthread_create(&mapper, NULL, map_and_unmap, NULL), 0);
	CHECK_EQ(pthread_create(&toucher, NULL, touch_all, NULL), 0);
	for (int i = 0; i < 20; i++)
		CHECK_EQ(in_child(has_bytes, common), 0);
	atomic_store(&stop, true);
	pthread_join(mapper, &result);
	CHECK(!result);
	pthread_join(toucher, &result);
	CHECK(!result);
}

/* Of all threads, each byte once. */
static void *take_bytes(void *fd)
{
	static _Atomic size_t taken;
	unsigned char got[4096];
	ssize_t len;

	while ((len = read((int)(intptr_t)fd, got, sizeof(got))) > 0)
		atomic_fetch_add(&taken, (size_t)len);
	return len ? (void *)-1 : (void *)atomic_load(&taken);
}

TEST(threads_share_a_position, "Threads that read from one descriptor get each byte once.")
{
	pthread_t threads[3];
	void *result, *last = NULL;
	int fd;

	load();
	fd = open_mapped(O_RDONLY);
	for (size_t i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, take_bytes, (void *)(intptr_t)fd), 0);
	for (size_t i = 0; i < 3; i++) {
		pthread_join(threads[i], &result);
		CHECK(result != (void *)-1);
		last = result > last ? result : last;
	}
	CHECK_EQ((size_t)last, size);
}
