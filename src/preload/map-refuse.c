// SPDX-License-Identifier: MIT
/* What would change a served file, or take its bytes by another way. Most of it the kernel refuses by itself; here it gets its name. */
#include <errno.h>
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "preload/map.h"
#include "preload/next.h"

int map_write_error(int fd)
{
	bool writes;

	if (!map_of_fd(fd, &writes))
		return 0;
	return writes ? -EROFS : -EBADF;
}

/*
 * By descriptor. What is sealed is EPERM to the kernel.
 */

static int cut(int fd, int result)
{
	bool writes;

	if (result < 0 && map_any() && map_of_fd(fd, &writes))
		errno = writes ? EROFS : EINVAL;
	return result;
}

WRAP(int, ftruncate, (int fd, off_t size))
{
	return cut(fd, NEXT(ftruncate)(fd, size));
}

WRAP(int, ftruncate64, (int fd, off64_t size))
{
	return cut(fd, NEXT(ftruncate64)(fd, size));
}

/* The kernel would allocate what is within the size. */

WRAP(int, fallocate, (int fd, int mode, off_t offset, off_t len))
{
	int err = map_any() ? map_write_error(fd) : 0;

	return err ? (int)as_libc(err) : NEXT(fallocate)(fd, mode, offset, len);
}

WRAP(int, fallocate64, (int fd, int mode, off64_t offset, off64_t len))
{
	int err = map_any() ? map_write_error(fd) : 0;

	return err ? (int)as_libc(err) : NEXT(fallocate64)(fd, mode, offset, len);
}

WRAP(int, posix_fallocate, (int fd, off_t offset, off_t len))
{
	int err = map_any() ? -map_write_error(fd) : 0;

	return err ? err : NEXT(posix_fallocate)(fd, offset, len);
}

WRAP(int, posix_fallocate64, (int fd, off64_t offset, off64_t len))
{
	int err = map_any() ? -map_write_error(fd) : 0;

	return err ? err : NEXT(posix_fallocate64)(fd, offset, len);
}

/* What a descriptor stands for is in its file's times, and its mode keeps it from being read: neither may change. */

static bool is_ours(int fd)
{
	if (!map_any() || !map_of_fd(fd, NULL))
		return false;
	errno = EROFS;
	return true;
}

WRAP(int, futimens, (int fd, const struct timespec times[2]))
{
	return is_ours(fd) ? -1 : NEXT(futimens)(fd, times);
}

WRAP(int, futimes, (int fd, const struct timeval times[2]))
{
	return is_ours(fd) ? -1 : NEXT(futimes)(fd, times);
}

WRAP(int, fchmod, (int fd, mode_t mode))
{
	return is_ours(fd) ? -1 : NEXT(fchmod)(fd, mode);
}

/* The kernel answers EBADF; programs copy by read(2) after EINVAL. */

static ssize_t copied(int from, ssize_t result)
{
	if (result < 0 && errno == EBADF && map_any() && map_of_fd(from, NULL))
		errno = EINVAL;
	return result;
}

WRAP(ssize_t, sendfile, (int to, int from, off_t *offset, size_t len))
{
	return copied(from, NEXT(sendfile)(to, from, offset, len));
}

WRAP(ssize_t, sendfile64, (int to, int from, off64_t *offset, size_t len))
{
	return copied(from, NEXT(sendfile64)(to, from, offset, len));
}

WRAP(ssize_t, copy_file_range, (int from, off64_t *from_at, int to, off64_t *to_at, size_t len, unsigned flags))
{
	return copied(from, NEXT(copy_file_range)(from, from_at, to, to_at, len, flags));
}

WRAP(ssize_t, splice, (int from, off64_t *from_at, int to, off64_t *to_at, size_t len, unsigned flags))
{
	return copied(from, NEXT(splice)(from, from_at, to, to_at, len, flags));
}

/* To the kernel it is all a hole. */

static bool seeks_data(int fd, off64_t offset, int whence, off64_t *result)
{
	const struct map_file *file;

	if ((whence != SEEK_DATA && whence != SEEK_HOLE) || !(file = map_of_fd(fd, NULL)))
		return false;
	if (offset < 0 || (uint64_t)offset >= file->size)
		*result = as_libc(-ENXIO);
	else
		*result = lseek64(fd, whence == SEEK_DATA ? offset : (off64_t)file->size, SEEK_SET);
	return true;
}

WRAP(off_t, lseek, (int fd, off_t offset, int whence))
{
	off64_t result;

	return seeks_data(fd, offset, whence, &result) ? (off_t)result : NEXT(lseek)(fd, offset, whence);
}

WRAP(off64_t, lseek64, (int fd, off64_t offset, int whence))
{
	off64_t result;

	return seeks_data(fd, offset, whence, &result) ? result : NEXT(lseek64)(fd, offset, whence);
}

/*
 * By path.
 */

static bool is_kept(int dir, const char *path)
{
	if (!map_any() || !map_find(dir, path, AT_SYMLINK_NOFOLLOW))
		return false;
	errno = EROFS;
	return true;
}

/* As is_kept(), of what a link leads to. */
static bool is_kept_behind(int dir, const char *path)
{
	if (!map_any() || !map_find(dir, path, 0))
		return false;
	errno = EROFS;
	return true;
}

WRAP(int, truncate, (const char *path, off_t size))
{
	return is_kept_behind(AT_FDCWD, path) ? -1 : NEXT(truncate)(path, size);
}

WRAP(int, truncate64, (const char *path, off64_t size))
{
	return is_kept_behind(AT_FDCWD, path) ? -1 : NEXT(truncate64)(path, size);
}

WRAP(int, creat, (const char *path, mode_t mode))
{
	return is_kept_behind(AT_FDCWD, path) ? -1 : NEXT(creat)(path, mode);
}

WRAP(int, creat64, (const char *path, mode_t mode))
{
	return is_kept_behind(AT_FDCWD, path) ? -1 : NEXT(creat64)(path, mode);
}

WRAP(int, unlink, (const char *path))
{
	return is_kept(AT_FDCWD, path) ? -1 : NEXT(unlink)(path);
}

WRAP(int, unlinkat, (int dir, const char *path, int flags))
{
	return is_kept(dir, path) ? -1 : NEXT(unlinkat)(dir, path, flags);
}

WRAP(int, remove, (const char *path))
{
	return is_kept(AT_FDCWD, path) ? -1 : NEXT(remove)(path);
}

WRAP(int, rename, (const char *from, const char *to))
{
	return is_kept(AT_FDCWD, from) || is_kept(AT_FDCWD, to) ? -1 : NEXT(rename)(from, to);
}

WRAP(int, renameat, (int from_dir, const char *from, int to_dir, const char *to))
{
	return is_kept(from_dir, from) || is_kept(to_dir, to) ? -1 : NEXT(renameat)(from_dir, from, to_dir, to);
}

WRAP(int, renameat2, (int from_dir, const char *from, int to_dir, const char *to, unsigned flags))
{
	return is_kept(from_dir, from) || is_kept(to_dir, to) ? -1 : NEXT(renameat2)(from_dir, from, to_dir, to, flags);
}

/* A second name would have the bytes that lie at the first one. */
WRAP(int, link, (const char *from, const char *to))
{
	return is_kept(AT_FDCWD, from) || is_kept(AT_FDCWD, to) ? -1 : NEXT(link)(from, to);
}

WRAP(int, linkat, (int from_dir, const char *from, int to_dir, const char *to, int flags))
{
	return is_kept(from_dir, from) || is_kept(to_dir, to) ? -1 : NEXT(linkat)(from_dir, from, to_dir, to, flags);
}
