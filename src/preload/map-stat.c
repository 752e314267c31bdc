// SPDX-License-Identifier: MIT
/* What a served file looks like: as what is at its path, if there is something, with the store's size. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "preload/map.h"
#include "preload/next.h"
#include "uffd/user/layout.h"

static long kernel_fstatat(int dir, const char *path, struct stat *stat, int flags)
{
	return raw_syscall6(SYS_newfstatat, dir, (long)path, (long)stat, flags, 0, 0);
}

static void describe(const struct map_file *file, struct stat *stat)
{
	struct stat folder = {0};

	if (kernel_fstatat(AT_FDCWD, file->path, stat, 0)) {
		kernel_fstatat(AT_FDCWD, file->folder, &folder, 0);
		memset(stat, 0, sizeof(*stat));
		stat->st_dev = folder.st_dev;
		/* A number that a file system hardly gives. */
		stat->st_ino = ~(ino_t)map_index(file) - 1;
		stat->st_mode = S_IFREG | 0444;
		stat->st_nlink = 1;
		stat->st_uid = folder.st_uid;
		stat->st_gid = folder.st_gid;
		stat->st_blksize = 4096;
		stat->st_atim.tv_sec = stat->st_mtim.tv_sec = stat->st_ctim.tv_sec = (time_t)map_started();
	}
	stat->st_size = (off_t)file->size;
	stat->st_blocks = (blkcnt_t)((file->size + 511) / 512);
}

long map_fstatat(int dir, const char *path, struct stat *stat, int flags)
{
	const struct map_file *file;
	struct stat found;
	long answer = -EFAULT;

	if (!path || ((flags & AT_EMPTY_PATH) && !path[0])) {
		answer = kernel_fstatat(dir, path, stat, flags);
		file = answer ? NULL : map_of_stat(stat, NULL);
	} else {
		file = map_find_stat(dir, path, flags, &found, &answer);
		/* What is there is not the file, but a link to it. */
		if (file && !answer && S_ISLNK(found.st_mode))
			file = NULL;
		if (!file && !answer)
			*stat = found;
	}
	if (!file)
		return answer;
	describe(file, stat);
	return 0;
}

long map_fstat(int fd, struct stat *stat)
{
	const struct map_file *file;
	long err = raw_syscall3(SYS_fstat, fd, (long)stat, 0);

	if (err)
		return err;
	file = map_of_stat(stat, NULL);
	if (file)
		describe(file, stat);
	return 0;
}

bool map_access(int dir, const char *path, int mode, int flags, int *result)
{
	const struct map_file *file = map_find(dir, path, flags & AT_SYMLINK_NOFOLLOW);

	if (!file)
		return false;
	*result = mode & W_OK ? -EROFS : mode & X_OK ? -EACCES : 0;
	return true;
}

/*
 * The calls, by all their names; stat(2), fstat(2) and lstat(2) are in buffers.c.
 */

#define PRESENT(stat) user_layout_present((uintptr_t)(stat), sizeof(*(stat)), true)

#define PATH_WRAPPER(name, type, flags)                                                               \
	WRAP(int, name, (const char *path, struct type *stat))                                        \
	{                                                                                             \
		PRESENT(stat);                                                                        \
		if (map_any())                                                                        \
			return (int)as_libc(map_fstatat(AT_FDCWD, path, (struct stat *)stat, flags)); \
		return NEXT(name)(path, stat);                                                        \
	}

PATH_WRAPPER(stat64, stat64, 0)
PATH_WRAPPER(lstat64, stat64, AT_SYMLINK_NOFOLLOW)

WRAP(int, fstat64, (int fd, struct stat64 *stat))
{
	PRESENT(stat);
	return map_any() ? (int)as_libc(map_fstat(fd, (struct stat *)stat)) : NEXT(fstat64)(fd, stat);
}

#define AT_WRAPPER(name, type)                                                                   \
	WRAP(int, name, (int dir, const char *path, struct type *stat, int flags))               \
	{                                                                                        \
		PRESENT(stat);                                                                   \
		if (map_any())                                                                   \
			return (int)as_libc(map_fstatat(dir, path, (struct stat *)stat, flags)); \
		return NEXT(name)(dir, path, stat, flags);                                       \
	}

AT_WRAPPER(fstatat, stat)
AT_WRAPPER(fstatat64, stat64)

/* The names that programs linked with glibc before 2.33 have them by. Where there is a version to tell, there is only one. */
#define OLD_PATH_WRAPPER(name, type, flags)                                                           \
	WRAP(int, name, (int version, const char *path, struct type *stat))                           \
	{                                                                                             \
		PRESENT(stat);                                                                        \
		if (map_any())                                                                        \
			return (int)as_libc(map_fstatat(AT_FDCWD, path, (struct stat *)stat, flags)); \
		return NEXT(name)(version, path, stat);                                               \
	}

#define OLD_FD_WRAPPER(name, type)                                               \
	WRAP(int, name, (int version, int fd, struct type *stat))                \
	{                                                                        \
		PRESENT(stat);                                                   \
		if (map_any())                                                   \
			return (int)as_libc(map_fstat(fd, (struct stat *)stat)); \
		return NEXT(name)(version, fd, stat);                            \
	}

#define OLD_AT_WRAPPER(name, type)                                                               \
	WRAP(int, name, (int version, int dir, const char *path, struct type *stat, int flags))  \
	{                                                                                        \
		PRESENT(stat);                                                                   \
		if (map_any())                                                                   \
			return (int)as_libc(map_fstatat(dir, path, (struct stat *)stat, flags)); \
		return NEXT(name)(version, dir, path, stat, flags);                              \
	}

OLD_PATH_WRAPPER(__xstat, stat, 0)
OLD_PATH_WRAPPER(__xstat64, stat64, 0)
OLD_PATH_WRAPPER(__lxstat, stat, AT_SYMLINK_NOFOLLOW)
OLD_PATH_WRAPPER(__lxstat64, stat64, AT_SYMLINK_NOFOLLOW)
OLD_FD_WRAPPER(__fxstat, stat)
OLD_FD_WRAPPER(__fxstat64, stat64)
OLD_AT_WRAPPER(__fxstatat, stat)
OLD_AT_WRAPPER(__fxstatat64, stat64)

static void convert(const struct stat *from, struct statx *to)
{
	to->stx_blksize = (uint32_t)from->st_blksize;
	to->stx_nlink = (uint32_t)from->st_nlink;
	to->stx_uid = from->st_uid;
	to->stx_gid = from->st_gid;
	to->stx_mode = (uint16_t)from->st_mode;
	to->stx_ino = from->st_ino;
	to->stx_size = (uint64_t)from->st_size;
	to->stx_blocks = (uint64_t)from->st_blocks;
	to->stx_atime = (struct statx_timestamp){.tv_sec = from->st_atim.tv_sec,
	                                         .tv_nsec = (uint32_t)from->st_atim.tv_nsec};
	to->stx_mtime = (struct statx_timestamp){.tv_sec = from->st_mtim.tv_sec,
	                                         .tv_nsec = (uint32_t)from->st_mtim.tv_nsec};
	to->stx_ctime = (struct statx_timestamp){.tv_sec = from->st_ctim.tv_sec,
	                                         .tv_nsec = (uint32_t)from->st_ctim.tv_nsec};
	to->stx_dev_major = major(from->st_dev);
	to->stx_dev_minor = minor(from->st_dev);
	to->stx_mask = STATX_BASIC_STATS;
}

WRAP(int, statx, (int dir, const char *restrict path, int flags, unsigned mask, struct statx *restrict statx))
{
	struct stat stat;
	long err;

	PRESENT(statx);
	err = NEXT(statx)(dir, path, flags, mask, statx);
	if (!map_any() || (err && errno != ENOENT))
		return (int)err;
	/* The older call knows which files are ours; what it says of others is the same, and less. */
	if (map_fstatat(dir, path, &stat, flags & (AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))) {
		errno = err ? ENOENT : errno;
		return (int)err;
	}
	if (err)
		memset(statx, 0, sizeof(*statx));
	convert(&stat, statx);
	return 0;
}

WRAP(int, faccessat, (int dir, const char *path, int mode, int flags))
{
	int result;

	return map_any() && map_access(dir, path, mode, flags, &result) ? (int)as_libc(result)
	                                                                : NEXT(faccessat)(dir, path, mode, flags);
}

#define EFFECTIVE_WRAPPER(name)                                                                            \
	WRAP(int, name, (const char *path, int mode))                                                      \
	{                                                                                                  \
		int result;                                                                                \
                                                                                                           \
		return map_any() && map_access(AT_FDCWD, path, mode, 0, &result) ? (int)as_libc(result)    \
		                                                                 : NEXT(name)(path, mode); \
	}

EFFECTIVE_WRAPPER(eaccess)
EFFECTIVE_WRAPPER(euidaccess)
