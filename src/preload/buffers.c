// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "preload/buffers.h"
#include "preload/map.h"
#include "preload/next.h"
#include "preload/pagemap.h"
#include "uffd/user/layout.h"

enum access { FROM, INTO }; /* the kernel reads the program's memory, or writes it */

static size_t present(const void *buf, size_t len, enum access access)
{
	return user_layout_present((uintptr_t)buf, len, access == INTO);
}

static size_t present_vector(const struct iovec *iov, int count, enum access access)
{
	size_t touched = 0;

	if (count <= 0)
		return 0;
	touched = present(iov, (size_t)count * sizeof(*iov), FROM);
	for (int i = 0; i < count; i++)
		touched += present(iov[i].iov_base, iov[i].iov_len, access);
	return touched;
}

static size_t present_message(const struct msghdr *msg, enum access access)
{
	if (!msg)
		return 0;
	return present(msg, sizeof(*msg), access) + present(msg->msg_name, msg->msg_namelen, access) +
	       present_vector(msg->msg_iov, (int)msg->msg_iovlen, access) +
	       present(msg->msg_control, msg->msg_controllen, access);
}

/*
 * Whether a call that has failed on the memory it was given has consumed nothing: files, pipes and streams. A datagram is gone by then, and
 * so is the count of an eventfd, a timer or a signal.
 */
static bool keeps_what_it_had(int fd)
{
	struct stat stat;
	socklen_t len = sizeof(int);
	int type;

	if (fstat(fd, &stat))
		return false;
	if (S_ISSOCK(stat.st_mode))
		return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) && type == SOCK_STREAM;
	return S_ISREG(stat.st_mode) || S_ISFIFO(stat.st_mode) || S_ISDIR(stat.st_mode);
}

/* `touch` makes the buffers present and tells how many pages it had to touch; again, if they have gone before the call saw them. */
#define WITH(fd, touch, call)                                                               \
	({                                                                                  \
		ssize_t result_;                                                            \
                                                                                            \
		(void)(touch);                                                              \
		do                                                                          \
			result_ = (call);                                                   \
		while (result_ < 0 && errno == EFAULT && (touch) && keeps_what_it_had(fd)); \
		result_;                                                                    \
	})

/*
 * Descriptors of served files (map.h), of which the kernel has refused to read or to write.
 */

#define SERVED(call, served)                                                         \
	({                                                                           \
		ssize_t length_ = (call), result;                                    \
                                                                                     \
		if (length_ < 0 && errno == EBADF)                                   \
			length_ = map_any() && (served) ? as_libc(result) : length_; \
		length_;                                                             \
	})

static ssize_t written(int fd, ssize_t len)
{
	int err = len < 0 && errno == EPERM && map_any() ? map_write_error(fd) : 0;

	return err ? as_libc(err) : len;
}

/*
 * One buffer.
 */

NEXT_ONLY(ssize_t, read, (int fd, void *buf, size_t size));

ssize_t buffers_read(int fd, void *buf, size_t size)
{
	ssize_t len = SERVED(WITH(fd, present(buf, size, INTO), NEXT(read)(fd, buf, size)),
	                     map_read(fd, buf, size, &result));

	pagemap_correct_at_position(fd, buf, len);
	return len;
}

WRAP(ssize_t, write, (int fd, const void *buf, size_t size))
{
	return written(fd, WITH(fd, present(buf, size, FROM), NEXT(write)(fd, buf, size)));
}

WRAP(ssize_t, pread, (int fd, void *buf, size_t size, off_t offset))
{
	ssize_t len = SERVED(WITH(fd, present(buf, size, INTO), NEXT(pread)(fd, buf, size, offset)),
	                     map_pread(fd, buf, size, (uint64_t)offset, &result));

	pagemap_correct(fd, buf, len, offset);
	return len;
}

WRAP(ssize_t, pread64, (int fd, void *buf, size_t size, off64_t offset))
{
	ssize_t len = SERVED(WITH(fd, present(buf, size, INTO), NEXT(pread64)(fd, buf, size, offset)),
	                     map_pread(fd, buf, size, (uint64_t)offset, &result));

	pagemap_correct(fd, buf, len, offset);
	return len;
}

WRAP(ssize_t, __pread_chk, (int fd, void *buf, size_t size, off_t offset, size_t room))
{
	if (size > room)
		return NEXT(__pread_chk)(fd, buf, size, offset, room);
	return pread(fd, buf, size, offset);
}

WRAP(ssize_t, __pread64_chk, (int fd, void *buf, size_t size, off64_t offset, size_t room))
{
	if (size > room)
		return NEXT(__pread64_chk)(fd, buf, size, offset, room);
	return pread64(fd, buf, size, offset);
}

WRAP(ssize_t, pwrite, (int fd, const void *buf, size_t size, off_t offset))
{
	return written(fd, WITH(fd, present(buf, size, FROM), NEXT(pwrite)(fd, buf, size, offset)));
}

WRAP(ssize_t, pwrite64, (int fd, const void *buf, size_t size, off64_t offset))
{
	return written(fd, WITH(fd, present(buf, size, FROM), NEXT(pwrite64)(fd, buf, size, offset)));
}

WRAP(ssize_t, recv, (int fd, void *buf, size_t size, int flags))
{
	return WITH(fd, present(buf, size, INTO), NEXT(recv)(fd, buf, size, flags));
}

WRAP(ssize_t, __recv_chk, (int fd, void *buf, size_t size, size_t room, int flags))
{
	if (size > room)
		return NEXT(__recv_chk)(fd, buf, size, room, flags);
	return recv(fd, buf, size, flags);
}

static size_t present_address(const void *address, socklen_t *len, enum access access)
{
	return len ? present(len, sizeof(*len), access) + present(address, *len, access) : 0;
}

WRAP(ssize_t, recvfrom, (int fd, void *buf, size_t size, int flags, struct sockaddr *from, socklen_t *len))
{
	return WITH(fd, present(buf, size, INTO) + present_address(from, len, INTO),
	            NEXT(recvfrom)(fd, buf, size, flags, from, len));
}

WRAP(ssize_t, send, (int fd, const void *buf, size_t size, int flags))
{
	return WITH(fd, present(buf, size, FROM), NEXT(send)(fd, buf, size, flags));
}

WRAP(ssize_t, sendto, (int fd, const void *buf, size_t size, int flags, const struct sockaddr *to, socklen_t len))
{
	return WITH(fd, present(buf, size, FROM) + present(to, len, FROM), NEXT(sendto)(fd, buf, size, flags, to, len));
}

WRAP(ssize_t, getrandom, (void *buf, size_t size, unsigned flags))
{
	present(buf, size, INTO);
	return NEXT(getrandom)(buf, size, flags);
}

WRAP(ssize_t, readlink, (const char *path, char *buf, size_t size))
{
	present(buf, size, INTO);
	return NEXT(readlink)(path, buf, size);
}

WRAP(char *, getcwd, (char *buf, size_t size))
{
	present(buf, buf ? size : 0, INTO);
	return NEXT(getcwd)(buf, size);
}

/*
 * Vectors and messages.
 */

WRAP(ssize_t, readv, (int fd, const struct iovec *iov, int count))
{
	return SERVED(WITH(fd, present_vector(iov, count, INTO), NEXT(readv)(fd, iov, count)),
	              map_readv(fd, iov, count, &result));
}

WRAP(ssize_t, writev, (int fd, const struct iovec *iov, int count))
{
	return written(fd, WITH(fd, present_vector(iov, count, FROM), NEXT(writev)(fd, iov, count)));
}

WRAP(ssize_t, preadv, (int fd, const struct iovec *iov, int count, off_t offset))
{
	return SERVED(WITH(fd, present_vector(iov, count, INTO), NEXT(preadv)(fd, iov, count, offset)),
	              map_preadv(fd, iov, count, (uint64_t)offset, &result));
}

WRAP(ssize_t, preadv64, (int fd, const struct iovec *iov, int count, off64_t offset))
{
	return SERVED(WITH(fd, present_vector(iov, count, INTO), NEXT(preadv64)(fd, iov, count, offset)),
	              map_preadv(fd, iov, count, (uint64_t)offset, &result));
}

WRAP(ssize_t, preadv2, (int fd, const struct iovec *iov, int count, off_t offset, int flags))
{
	return SERVED(WITH(fd, present_vector(iov, count, INTO), NEXT(preadv2)(fd, iov, count, offset, flags)),
	              offset == -1 ? map_readv(fd, iov, count, &result)
	                           : map_preadv(fd, iov, count, (uint64_t)offset, &result));
}

WRAP(ssize_t, preadv64v2, (int fd, const struct iovec *iov, int count, off64_t offset, int flags))
{
	return SERVED(WITH(fd, present_vector(iov, count, INTO), NEXT(preadv64v2)(fd, iov, count, offset, flags)),
	              offset == -1 ? map_readv(fd, iov, count, &result)
	                           : map_preadv(fd, iov, count, (uint64_t)offset, &result));
}

WRAP(ssize_t, pwritev, (int fd, const struct iovec *iov, int count, off_t offset))
{
	return written(fd, WITH(fd, present_vector(iov, count, FROM), NEXT(pwritev)(fd, iov, count, offset)));
}

WRAP(ssize_t, pwritev64, (int fd, const struct iovec *iov, int count, off64_t offset))
{
	return written(fd, WITH(fd, present_vector(iov, count, FROM), NEXT(pwritev64)(fd, iov, count, offset)));
}

WRAP(ssize_t, pwritev2, (int fd, const struct iovec *iov, int count, off_t offset, int flags))
{
	return written(fd, WITH(fd, present_vector(iov, count, FROM), NEXT(pwritev2)(fd, iov, count, offset, flags)));
}

WRAP(ssize_t, pwritev64v2, (int fd, const struct iovec *iov, int count, off64_t offset, int flags))
{
	return written(fd,
	               WITH(fd, present_vector(iov, count, FROM), NEXT(pwritev64v2)(fd, iov, count, offset, flags)));
}

WRAP(ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags))
{
	return WITH(fd, present_message(msg, INTO), NEXT(recvmsg)(fd, msg, flags));
}

WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags))
{
	return WITH(fd, present_message(msg, FROM), NEXT(sendmsg)(fd, msg, flags));
}

WRAP(ssize_t, process_vm_readv,
     (pid_t pid, const struct iovec *local, unsigned long locals, const struct iovec *remote, unsigned long remotes,
      unsigned long flags))
{
	present_vector(local, (int)locals, INTO);
	if (pid == getpid())
		present_vector(remote, (int)remotes, FROM);
	return NEXT(process_vm_readv)(pid, local, locals, remote, remotes, flags);
}

WRAP(ssize_t, process_vm_writev,
     (pid_t pid, const struct iovec *local, unsigned long locals, const struct iovec *remote, unsigned long remotes,
      unsigned long flags))
{
	present_vector(local, (int)locals, FROM);
	if (pid == getpid())
		present_vector(remote, (int)remotes, INTO);
	return NEXT(process_vm_writev)(pid, local, locals, remote, remotes, flags);
}

/*
 * Structures that the kernel fills.
 */

WRAP(int, stat, (const char *path, struct stat *stat))
{
	present(stat, sizeof(*stat), INTO);
	return map_any() ? (int)as_libc(map_fstatat(AT_FDCWD, path, stat, 0)) : NEXT(stat)(path, stat);
}

WRAP(int, fstat, (int fd, struct stat *stat))
{
	present(stat, sizeof(*stat), INTO);
	return map_any() ? (int)as_libc(map_fstat(fd, stat)) : NEXT(fstat)(fd, stat);
}

WRAP(int, lstat, (const char *path, struct stat *stat))
{
	present(stat, sizeof(*stat), INTO);
	return map_any() ? (int)as_libc(map_fstatat(AT_FDCWD, path, stat, AT_SYMLINK_NOFOLLOW))
	                 : NEXT(lstat)(path, stat);
}

WRAP(int, nanosleep, (const struct timespec *want, struct timespec *left))
{
	present(want, sizeof(*want), FROM);
	if (left)
		present(left, sizeof(*left), INTO);
	return NEXT(nanosleep)(want, left);
}

/*
 * stdio reads and writes large blocks past its own buffer.
 */

static size_t bytes(size_t size, size_t count)
{
	size_t len;

	return __builtin_mul_overflow(size, count, &len) ? 0 : len;
}

#undef fread_unlocked
#undef fwrite_unlocked

WRAP(size_t, fread, (void *buf, size_t size, size_t count, FILE *file))
{
	present(buf, bytes(size, count), INTO);
	return NEXT(fread)(buf, size, count, file);
}

WRAP(size_t, fread_unlocked, (void *buf, size_t size, size_t count, FILE *file))
{
	present(buf, bytes(size, count), INTO);
	return NEXT(fread_unlocked)(buf, size, count, file);
}

WRAP(size_t, __fread_chk, (void *buf, size_t room, size_t size, size_t count, FILE *file))
{
	present(buf, bytes(size, count), INTO);
	return NEXT(__fread_chk)(buf, room, size, count, file);
}

WRAP(size_t, fwrite, (const void *buf, size_t size, size_t count, FILE *file))
{
	present(buf, bytes(size, count), FROM);
	return NEXT(fwrite)(buf, size, count, file);
}

WRAP(size_t, fwrite_unlocked, (const void *buf, size_t size, size_t count, FILE *file))
{
	present(buf, bytes(size, count), FROM);
	return NEXT(fwrite_unlocked)(buf, size, count, file);
}
