// SPDX-License-Identifier: MIT
/*
 * Streams. libc reads behind a stream by calls of its own, which nobody stands before; so a stream of a served file is one of
 * fopencookie(3), which reads through us.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/lock.h"
#include "preload/map.h"
#include "preload/next.h"

struct stream {
	struct stream *next;
	FILE *file;
	int fd;
};

/* All of them, for fileno(3). A lock that a thread of the parent held at a fork is taken over in the child. */
static struct lock lock;
static struct stream *streams;

static ssize_t stream_read(void *cookie, char *buf, size_t size)
{
	const struct stream *stream = cookie;
	ssize_t result;

	if (!map_read(stream->fd, buf, size, &result))
		result = -EBADF;
	return as_libc(result);
}

static ssize_t stream_write(void *cookie, const char *buf, size_t size)
{
	const struct stream *stream = cookie;
	int err = map_write_error(stream->fd);

	(void)buf;
	(void)size;
	errno = err ? -err : EBADF;
	/* What fopencookie(3) wants: an error is 0. */
	return 0;
}

static int stream_seek(void *cookie, off64_t *offset, int whence)
{
	const struct stream *stream = cookie;
	off64_t at = lseek64(stream->fd, *offset, whence);

	if (at < 0)
		return -1;
	*offset = at;
	return 0;
}

static int stream_close(void *cookie)
{
	struct stream *stream = cookie, **at = &streams;
	signal_mask before = block_signals();
	int result;

	lock_take(&lock);
	while (*at != stream)
		at = &(*at)->next;
	*at = stream->next;
	lock_release(&lock);
	restore_signals(before);
	result = close(stream->fd);
	free(stream);
	return result;
}

/* The stream closes fd from then on. */
static FILE *make_stream(int fd, const char *mode)
{
	static const cookie_io_functions_t functions = {stream_read, stream_write, stream_seek, stream_close};
	struct stream *stream = malloc(sizeof(*stream));
	FILE *file = stream ? fopencookie(stream, mode, functions) : NULL;
	signal_mask before;

	if (!file) {
		free(stream);
		return NULL;
	}
	stream->fd = fd;
	stream->file = file;
	before = block_signals();
	lock_take(&lock);
	stream->next = streams;
	streams = stream;
	lock_release(&lock);
	restore_signals(before);
	return file;
}

/* -1: what libc will refuse. */
static int flags_of(const char *mode)
{
	int flags;

	switch (mode[0]) {
	case 'r':
		flags = O_RDONLY;
		break;
	case 'w':
		flags = O_WRONLY | O_CREAT | O_TRUNC;
		break;
	case 'a':
		flags = O_WRONLY | O_CREAT | O_APPEND;
		break;
	default:
		return -1;
	}
	for (mode++; *mode && *mode != ','; mode++) {
		if (*mode == '+')
			flags = (flags & ~O_ACCMODE) | O_RDWR;
		if (*mode == 'x')
			flags |= O_EXCL;
		if (*mode == 'e')
			flags |= O_CLOEXEC;
	}
	return flags;
}

/* False: the path is none of ours. */
static bool open_stream(const char *path, const char *mode, FILE **file)
{
	int flags = map_any() ? flags_of(mode) : -1, fd;

	*file = NULL;
	if (flags < 0 || !map_open(AT_FDCWD, path, flags, &fd))
		return false;
	if (fd < 0) {
		errno = -fd;
		return true;
	}
	*file = make_stream(fd, mode);
	if (!*file)
		close(fd);
	return true;
}

WRAP(FILE *, fopen, (const char *path, const char *mode))
{
	FILE *file;

	return open_stream(path, mode, &file) ? file : NEXT(fopen)(path, mode);
}

WRAP(FILE *, fopen64, (const char *path, const char *mode))
{
	FILE *file;

	return open_stream(path, mode, &file) ? file : NEXT(fopen64)(path, mode);
}

WRAP(FILE *, fdopen, (int fd, const char *mode))
{
	bool writes;

	if (!map_any() || !map_of_fd(fd, &writes))
		return NEXT(fdopen)(fd, mode);
	if (flags_of(mode) < 0 || (!writes && (flags_of(mode) & O_ACCMODE) != O_RDONLY)) {
		errno = EINVAL;
		return NULL;
	}
	return make_stream(fd, mode);
}

/* A program that is executed with such a file for its standard input: libc has made the stream already. */
__attribute__((constructor)) static void replace_stdin(void)
{
	FILE *file = map_of_fd(STDIN_FILENO, NULL) ? make_stream(STDIN_FILENO, "r") : NULL;

	if (file)
		stdin = file;
}

/* The stream stays the same one, and so cannot become one of ours. */
static bool refuses(const char *path)
{
	if (!map_any() || !path || !map_find(AT_FDCWD, path, 0))
		return false;
	errno = EOPNOTSUPP;
	return true;
}

WRAP(FILE *, freopen, (const char *path, const char *mode, FILE *file))
{
	return refuses(path) ? NULL : NEXT(freopen)(path, mode, file);
}

WRAP(FILE *, freopen64, (const char *path, const char *mode, FILE *file))
{
	return refuses(path) ? NULL : NEXT(freopen64)(path, mode, file);
}

static int number_of(const FILE *file)
{
	const struct stream *stream;
	signal_mask before;
	int fd;

	if (!map_any())
		return -1;
	before = block_signals();
	lock_take(&lock);
	for (stream = streams; stream && stream->file != file; stream = stream->next)
		;
	fd = stream ? stream->fd : -1;
	lock_release(&lock);
	restore_signals(before);
	return fd;
}

WRAP(int, fileno, (FILE * file))
{
	int fd = number_of(file);

	return fd >= 0 ? fd : NEXT(fileno)(file);
}

#undef fileno_unlocked
WRAP(int, fileno_unlocked, (FILE * file))
{
	int fd = number_of(file);

	return fd >= 0 ? fd : NEXT(fileno_unlocked)(file);
}
