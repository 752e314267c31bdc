// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#include "base/cleanup.h"
#include "preload/map.h"

/* 0, or why it cannot be opened in this way. */
static int check_flags(int flags)
{
	if ((flags & O_CREAT) && (flags & O_EXCL))
		return -EEXIST;
	if (flags & O_DIRECTORY)
		return -ENOTDIR;
	if (flags & O_PATH)
		return 0;
	return (flags & O_TRUNC) || ((flags & O_ACCMODE) != O_RDONLY && (flags & O_ACCMODE) != O_RDWR) ? -EROFS : 0;
}

static int make_file(int fd, const struct map_file *file, bool writes)
{
	const struct timespec times[2] = {map_mark(file, writes), map_mark(file, writes)};
	long err = raw_syscall3(SYS_ftruncate, fd, (long)file->size, 0);

	if (!err)
		err = raw_syscall6(SYS_utimensat, fd, 0, (long)times, 0, 0, 0);
	/* Nor can others open it to be read, through /proc. */
	if (!err)
		err = raw_syscall3(SYS_fchmod, fd, 0222, 0);
	if (!err)
		err = raw_syscall3(SYS_fcntl, fd, F_ADD_SEALS,
		                   F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
	return (int)err;
}

static int open_file(const struct map_file *file, int flags)
{
	const int kept = flags & (O_NONBLOCK | O_APPEND | O_PATH | O_CLOEXEC);
	_cleanup_fd int memory = -1, refused = -1;
	char name[32];
	int err = check_flags(flags);

	if (err)
		return err;
	memory = (int)raw_syscall3(SYS_memfd_create, (long)"userfault-map", MFD_CLOEXEC | MFD_ALLOW_SEALING, 0);
	if (memory < 0)
		return take_fd(&memory);
	err = make_file(memory, file, (flags & O_ACCMODE) == O_RDWR);
	if (err)
		return err;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", memory);
	refused = raw_open(name, O_WRONLY | kept);
	if (refused < 0)
		return take_fd(&refused);
	/* The program gets the lowest number that was free, as it expects. */
	err = (int)raw_syscall3(SYS_dup3, refused, memory, flags & O_CLOEXEC);
	return err < 0 ? err : take_fd(&memory);
}

bool map_open(int dir, const char *path, int flags, int *result)
{
	const struct map_file *file = map_find(dir, path, flags & O_NOFOLLOW ? AT_SYMLINK_NOFOLLOW : 0);

	if (!file)
		return false;
	*result = open_file(file, flags);
	return true;
}

/*
 * Locks that others could take only to write are free: nobody can. What the kernel says of the descriptor's own is true, but that it would
 * refuse to lock for reading what is not open for that.
 */
static bool lock_file(int command, struct flock *lock, int *result)
{
	if (lock->l_type != F_RDLCK)
		return false;
	if (command == F_GETLK || command == F_OFD_GETLK)
		lock->l_type = F_UNLCK;
	*result = 0;
	return true;
}

bool map_fcntl(int fd, int command, void *arg, int *result)
{
	bool writes;
	long flags;

	switch (command) {
	case F_GETFL:
		flags = raw_syscall3(SYS_fcntl, fd, F_GETFL, 0);
		if (flags < 0 || (flags & O_ACCMODE) != O_WRONLY || !map_of_fd(fd, &writes))
			return false;
		*result = (int)(flags & ~(long)O_ACCMODE) | (writes ? O_RDWR : O_RDONLY);
		return true;
	case F_GETLK:
	case F_SETLK:
	case F_SETLKW:
	case F_OFD_GETLK:
	case F_OFD_SETLK:
	case F_OFD_SETLKW:
		return arg && map_of_fd(fd, NULL) && lock_file(command, arg, result);
	default:
		return false;
	}
}
