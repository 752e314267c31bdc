/* SPDX-License-Identifier: MIT */
/*
 * map.h - files whose content a manager serves: `userfault run --map PATH=STORE`
 *
 * A program that opens PATH gets a descriptor which the kernel refuses to read, to map and to write: an empty memfd of the store's size,
 * sealed, opened for writing only. So a call that nobody here stands before fails, and never returns zeros for what is in the store; what
 * the kernel can answer by itself (position, size, duplicates, inheritance) it answers. The wrappers make each call as it is, and only one
 * that was refused looks whether the descriptor is such a one: others cost nothing.
 *
 * What a descriptor stands for is written in its file, so it stays known through dup(2), fork, exec, and over sockets: the time of the last
 * access has the number of this `run` for its seconds, and which file, and whether it was opened for writing too, for its nanoseconds. (The
 * kernel changes it when a file is read, which this one never is; the time of modification changes even when a write is refused.)
 *
 *	map.c         which files there are, and whether a path or a descriptor is one of them
 *	map-open.c    descriptors
 *	map-stat.c    what they look like
 *	map-memory.c  mappings of them, and what becomes of these
 *	map-ranges.c  where they lie
 *	map-link.c    the object, and the connection to the manager
 *	map-end.c     what becomes of them when the manager has ended
 *	map-read.c    reading
 *	map-stdio.c   streams
 *	map-refuse.c  what would change them
 *
 * Functions return the kernel's answers: a result, or a negated errno value. Nothing here may be called in a signal handler that has
 * interrupted libc's malloc, but that is so only for map-stdio.c, and for the first mapping of a process, which starts a thread.
 */
#ifndef PRELOAD_MAP_H
#define PRELOAD_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct map_file {
	const char *path;   /* absolute, without links */
	const char *folder; /* what it lies in */
	const char *name;   /* and is called there */
	const char *store;
	uint64_t offset; /* of the file's beginning in the store, whole pages */
	uint64_t size;   /* bytes */
	dev_t dev;       /* of what was at `path` when this process started */
	ino_t ino;       /* 0: nothing */
};

/* Whether there are any: the only thing that wrappers look at in programs that have none. */
bool map_any(void);

const char *map_socket(void);

/* When `run` started, seconds: the times of files that are nowhere else. And the place of a file in the list. */
int64_t map_started(void);
size_t map_index(const struct map_file *file);

/* For whoever executes a program: the setting as NAME=VALUE, or NULL. */
const char *map_setting(void);

/* The file that a descriptor stands for, or NULL. *writes, which may be NULL: it was opened for writing too. */
const struct map_file *map_of_fd(int fd, bool *writes);

/* The same by what fstat(2) said of it. */
const struct map_file *map_of_stat(const struct stat *stat, bool *writes);

/*
 * The file that a path leads to, or NULL, also where nothing is there; as openat(2) would resolve it. flags: AT_SYMLINK_NOFOLLOW. What
 * the kernel says of the path is left in *stat, and its answer in *answer, unless they are NULL.
 */
const struct map_file *map_find(int dir, const char *path, int flags);
const struct map_file *map_find_stat(int dir, const char *path, int flags, struct stat *stat, long *answer);

/*
 * map-open.c
 */

/* What marks a descriptor as one of a file; for map_of_stat(). */
struct timespec map_mark(const struct map_file *file, bool writes);

/* openat(2). False: it is not for us, and nothing has happened. */
bool map_open(int dir, const char *path, int flags, int *result);

/* fcntl(2) of a descriptor of ours that the kernel would answer otherwise. False: as above. */
bool map_fcntl(int fd, int command, void *arg, int *result);

/*
 * map-stat.c
 */

/* fstatat(2) and fstat(2). Of any file, while there are files of ours. */
long map_fstatat(int dir, const char *path, struct stat *stat, int flags);
long map_fstat(int fd, struct stat *stat);

/* faccessat2(2). False: it is not for us. */
bool map_access(int dir, const char *path, int mode, int flags, int *result);

/*
 * map-read.c: after a read that failed with EBADF. False: it is not for us, and nothing has happened.
 */
bool map_read(int fd, void *buf, size_t size, ssize_t *result);
bool map_pread(int fd, void *buf, size_t size, uint64_t offset, ssize_t *result);

struct iovec;

bool map_readv(int fd, const struct iovec *iov, int count, ssize_t *result);
bool map_preadv(int fd, const struct iovec *iov, int count, uint64_t offset, ssize_t *result);

/* The child of a fork has only one thread. */
void map_read_forked(void);

/*
 * map-refuse.c
 */

/* What a failed write (ftruncate, ...) of this descriptor has failed with, as a negated errno value; 0: it is not ours. */
int map_write_error(int fd);

#endif
