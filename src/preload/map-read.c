// SPDX-License-Identifier: MIT
/*
 * Reading is copying out of mappings of our own, which are served as the program's are. A page that cannot be had is poisoned, and would
 * be SIGBUS to a touch: so the kernel copies, which then tells.
 */
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "preload/map-link.h"
#include "preload/map-memory.h"
#include "preload/map-ranges.h"
#include "preload/map.h"
#include "uffd/trycopy.h"
#include "uffd/user/layout.h"

#define WINDOW  ((uint64_t)1 << 30) /* bytes of a file in one mapping */
#define WINDOWS 16
#define PIECE   ((size_t)1 << 20)  /* copied at once */
#define KEPT    ((size_t)64 << 20) /* of a window in memory, when no more can be known than what was copied out of it */

struct window {
	const struct map_file *file; /* NULL: free */
	uint64_t number;             /* of the window in its file */
	uint64_t addr;
	size_t len;
	unsigned users;
	uint64_t used; /* when, for which is to go */
	_Atomic size_t copied;
};

/* With map_lock(), but for `copied`. */
static struct window windows[WINDOWS];
static uint64_t clock_;

static void close_window(struct window *window)
{
	if (window->file)
		map_unview(window->addr, window->len);
	window->file = NULL;
}

static long open_window(struct window *window, const struct map_file *file, uint64_t number)
{
	uint64_t start = number * WINDOW, left = file->size - start;
	long at;

	close_window(window);
	window->len = left < WINDOW ? left : WINDOW;
	at = map_view(file, start, window->len);
	if (raw_failed(at))
		return at;
	window->file = file;
	window->number = number;
	window->addr = (uint64_t)at;
	window->copied = 0;
	return 0;
}

/* The window itself, or the one that is to become it; NULL: all are in use. */
static struct window *choose_window(const struct map_file *file, uint64_t number)
{
	struct window *oldest = NULL;

	for (size_t i = 0; i < WINDOWS; i++) {
		struct window *window = &windows[i];

		if (window->file == file && window->number == number)
			return window;
		if (!window->users && (!oldest || !window->file || (oldest->file && window->used < oldest->used)))
			oldest = window;
	}
	return oldest;
}

static long take_window(const struct map_file *file, uint64_t number, struct window **out)
{
	for (;;) {
		signal_mask before = map_lock();
		struct window *window = choose_window(file, number);
		long err = 0;

		if (window && !(window->file == file && window->number == number))
			err = open_window(window, file, number);
		if (window && !err) {
			window->users++;
			window->used = ++clock_;
		}
		map_unlock(before);
		*out = window;
		if (window)
			return err;
		sched_yield();
	}
}

static void put_window(struct window *window, size_t copied)
{
	signal_mask before;

	/* Given back, it comes from the store again when it is needed again. */
	if (atomic_fetch_add(&window->copied, copied) + copied > KEPT) {
		atomic_store(&window->copied, 0);
		user_layout_madvise(window->addr, window->len, MADV_DONTNEED);
	}
	before = map_lock();
	window->users--;
	map_unlock(before);
}

void map_read_forked(void)
{
	for (size_t i = 0; i < WINDOWS; i++)
		windows[i].users = 0;
}

/* On the user engine the kernel cannot wait for pages: this thread does. Returns up to where they are there; what follows is lost. */
static uint64_t bring(uint64_t from, size_t len)
{
	uint64_t page_size = (uint64_t)sysconf(_SC_PAGESIZE), at = from;
	char byte;

	while (at < from + len && !try_copy(&byte, (const void *)(uintptr_t)at, 1))
		at = (at & ~(page_size - 1)) + page_size;
	return at < from + len ? at : from + len;
}

/* How many bytes were copied, or -EIO: the page cannot be had; or -EFAULT. */
static ssize_t copy(void *to, uint64_t from, size_t len)
{
	ssize_t copied;
	char byte;

	do {
		if (map_link_hides())
			len = bring(from, len) - from;
		user_layout_present((uintptr_t)to, len, true);
		copied = len ? raw_process_vm_read(raw_getpid(), to, from, len) : -EIO;
		/* Another thread may have given the page back (put_window()). */
	} while (copied == -EFAULT && map_link_hides() && raw_process_vm_read(raw_getpid(), &byte, from, 1) != 1);
	if (copied == -ENOSYS || copied == -EPERM) {
		/* Refused by a filter: without the kernel's help a page that cannot be had is SIGBUS. */
		memcpy(to, (const void *)(uintptr_t)from, len);
		return (ssize_t)len;
	}
	if (copied == -EFAULT && raw_process_vm_read(raw_getpid(), &byte, from, 1) != 1)
		return -EIO;
	return copied;
}

/* Within one window and one piece. */
static ssize_t copy_piece(const struct map_file *file, void *buf, size_t size, uint64_t offset)
{
	struct window *window;
	ssize_t copied;
	long err = take_window(file, offset / WINDOW, &window);

	if (err)
		return -EIO;
	copied = copy(buf, window->addr + offset % WINDOW, size);
	put_window(window, copied > 0 ? (size_t)copied : 0);
	return copied;
}

static size_t within(const struct map_file *file, size_t size, uint64_t offset)
{
	if (offset >= file->size)
		return 0;
	return size < file->size - offset ? size : (size_t)(file->size - offset);
}

static ssize_t read_at(const struct map_file *file, char *buf, size_t size, uint64_t offset)
{
	size_t done = 0;

	size = within(file, size, offset);
	while (done < size) {
		size_t room = WINDOW - (offset + done) % WINDOW, piece = size - done;
		ssize_t copied;

		piece = piece < room ? piece : room;
		piece = piece < PIECE ? piece : PIECE;
		copied = copy_piece(file, buf + done, piece, offset + done);
		if (copied <= 0)
			return done ? (ssize_t)done : copied;
		done += (size_t)copied;
		if ((size_t)copied < piece)
			break;
	}
	return (ssize_t)done;
}

static ssize_t read_vector_at(const struct map_file *file, const struct iovec *iov, int count, uint64_t offset)
{
	size_t done = 0;

	for (int i = 0; i < count; i++) {
		ssize_t got = read_at(file, iov[i].iov_base, iov[i].iov_len, offset + done);

		if (got < 0)
			return done ? (ssize_t)done : got;
		done += (size_t)got;
		if ((size_t)got < iov[i].iov_len)
			break;
	}
	return (ssize_t)done;
}

/* Their sum, or -EINVAL. */
static ssize_t vector_size(const struct iovec *iov, int count)
{
	ssize_t size = 0;

	if (count < 0 || count > IOV_MAX)
		return -EINVAL;
	for (int i = 0; i < count; i++)
		if (iov[i].iov_len > SSIZE_MAX || __builtin_add_overflow(size, (ssize_t)iov[i].iov_len, &size))
			return -EINVAL;
	return size;
}

/*
 * The position is the kernel's. It moves before the bytes are copied, so that two threads do not get the same ones, and back by what could
 * not be had.
 */
static struct lock position;

static uint64_t advance(int fd, const struct map_file *file, size_t size)
{
	signal_mask before = block_signals();
	uint64_t at;

	lock_take(&position);
	at = (uint64_t)raw_syscall3(SYS_lseek, fd, 0, SEEK_CUR);
	raw_syscall3(SYS_lseek, fd, (long)(at + within(file, size, at)), SEEK_SET);
	lock_release(&position);
	restore_signals(before);
	return at;
}

static void step_back(int fd, const struct map_file *file, size_t size, uint64_t at, ssize_t got)
{
	size_t expected = within(file, size, at), done = got > 0 ? (size_t)got : 0;

	if (done < expected)
		raw_syscall3(SYS_lseek, fd, -(long)(expected - done), SEEK_CUR);
}

bool map_readv(int fd, const struct iovec *iov, int count, ssize_t *result)
{
	const struct map_file *file = map_of_fd(fd, NULL);
	ssize_t size;
	uint64_t at;

	if (!file)
		return false;
	size = vector_size(iov, count);
	if (size <= 0) {
		*result = size;
		return true;
	}
	at = advance(fd, file, (size_t)size);
	*result = read_vector_at(file, iov, count, at);
	step_back(fd, file, (size_t)size, at, *result);
	return true;
}

bool map_preadv(int fd, const struct iovec *iov, int count, uint64_t offset, ssize_t *result)
{
	const struct map_file *file = map_of_fd(fd, NULL);

	if (!file)
		return false;
	*result = vector_size(iov, count);
	if (*result > 0)
		*result = read_vector_at(file, iov, count, offset);
	return true;
}

/* The most that the kernel reads at once. */
#define READ_MAX ((size_t)0x7ffff000)

bool map_read(int fd, void *buf, size_t size, ssize_t *result)
{
	const struct iovec one = {buf, size < READ_MAX ? size : READ_MAX};

	return map_readv(fd, &one, 1, result);
}

bool map_pread(int fd, void *buf, size_t size, uint64_t offset, ssize_t *result)
{
	const struct iovec one = {buf, size < READ_MAX ? size : READ_MAX};

	return map_preadv(fd, &one, 1, offset, result);
}
