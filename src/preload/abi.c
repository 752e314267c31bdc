// SPDX-License-Identifier: MIT
/* userfaultfd(2), /dev/userfaultfd, and what else a program does with the descriptor. */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#include <userfault/uffd.h>

#include "base/rawsys.h"
#include "preload/abi.h"
#include "preload/buffers.h"
#include "preload/descriptors.h"
#include "preload/map.h"
#include "preload/next.h"
#include "preload/pagemap.h"
#include "preload/settings.h"
#include "preload/signals.h"
#include "uffd/trycopy.h"
#include "uffd/user/layout.h"
#include "uffd/user/own.h"

/*
 * Making one.
 */

#define OPEN_FLAGS (O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY)

/* 0 or more: the descriptor; else -errno. */
static int open_on_user_engine(int flags)
{
	struct uf *uf;
	int err, fd;

	if (flags & ~OPEN_FLAGS)
		return -EINVAL;
	err = uf_engine_open(&uf, &uf_engine_user, UF_WAY_USER_ENGINE, flags);
	if (err)
		return err;
	fd = uf_fd(uf);
	err = fd < 0 ? fd : descriptors_add(fd, uf);
	if (err) {
		uf_close(uf);
		return err;
	}
	tell("descriptor %d is a userfaultfd of the user engine", fd);
	return fd;
}

int abi_userfaultfd(int flags)
{
	if (settings()->kernel_first) {
		long fd = raw_syscall3(SYS_userfaultfd, flags, 0, 0);

		/* What the caller did wrong is wrong everywhere. */
		if (fd >= 0 || fd == -EINVAL || fd == -EMFILE || fd == -ENFILE)
			return (int)fd;
		tell("userfaultfd(2): %s; the user engine takes its place", strerror((int)-fd));
	}
	return open_on_user_engine(flags);
}

#define DEVICE "/dev/userfaultfd"

static bool is_device(const char *path)
{
	/* Compared by the program's own thread, before anything is held: the path may lie in managed memory. */
	return path && path[0] == '/' && path[1] == 'd' && !strcmp(path, DEVICE);
}

static int open_device(int flags)
{
	int fd, err;

	if (settings()->kernel_first) {
		fd = raw_open(DEVICE, flags);
		if (fd >= 0)
			return fd;
	}
	/* A descriptor that does nothing stands for it. */
	fd = raw_open("/dev/null", (flags & O_CLOEXEC) | O_RDWR);
	err = fd < 0 ? fd : descriptors_add(fd, NULL);
	if (err < 0 && fd >= 0)
		raw_close(fd);
	return err < 0 ? err : fd;
}

static bool creates(int flags)
{
	return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

#define OPEN_WRAPPER(name, first_parameters, first_arguments, dir, path) \
	WRAP(int, name, (first_parameters, int flags, ...))              \
	{                                                                \
		int fd, mode = 0;                                        \
                                                                         \
		if (creates(flags)) {                                    \
			va_list args;                                    \
                                                                         \
			va_start(args, flags);                           \
			mode = va_arg(args, int);                        \
			va_end(args);                                    \
		}                                                        \
		if (is_device(path))                                     \
			return (int)as_libc(open_device(flags));         \
		user_layout_present((uintptr_t)path, 1, false);          \
		if (map_any() && map_open(dir, path, flags, &fd))        \
			return (int)as_libc(fd);                         \
		fd = NEXT(name)(first_arguments, flags, mode);           \
		if (fd >= 0)                                             \
			pagemap_opened(fd, path);                        \
		return fd;                                               \
	}

#define COMMA ,
OPEN_WRAPPER(open, const char *path, path, AT_FDCWD, path)
OPEN_WRAPPER(open64, const char *path, path, AT_FDCWD, path)
OPEN_WRAPPER(openat, int dir COMMA const char *path, dir COMMA path, dir, path)
OPEN_WRAPPER(openat64, int dir COMMA const char *path, dir COMMA path, dir, path)

/* Fortified programs call these where flags are constant and create nothing. */
#define OPEN_2_WRAPPER(name, first_parameters, first_arguments, dir, path) \
	WRAP(int, name, (first_parameters, int flags))                     \
	{                                                                  \
		int fd;                                                    \
                                                                           \
		if (is_device(path))                                       \
			return (int)as_libc(open_device(flags));           \
		if (map_any() && map_open(dir, path, flags, &fd))          \
			return (int)as_libc(fd);                           \
		fd = NEXT(name)(first_arguments, flags);                   \
		if (fd >= 0)                                               \
			pagemap_opened(fd, path);                          \
		return fd;                                                 \
	}

OPEN_2_WRAPPER(__open_2, const char *path, path, AT_FDCWD, path)
OPEN_2_WRAPPER(__open64_2, const char *path, path, AT_FDCWD, path)
OPEN_2_WRAPPER(__openat_2, int dir COMMA const char *path, dir COMMA path, dir, path)
OPEN_2_WRAPPER(__openat64_2, int dir COMMA const char *path, dir COMMA path, dir, path)

WRAP(int, access, (const char *path, int mode))
{
	int result;

	if (is_device(path))
		return 0;
	if (map_any() && map_access(AT_FDCWD, path, mode, 0, &result))
		return (int)as_libc(result);
	return NEXT(access)(path, mode);
}

/*
 * Requests.
 */

/* *ours: whether the descriptor was one of the user engine; if not, nothing has happened. */
static int request_of(int fd, unsigned long request, void *arg, bool *ours)
{
	struct handle *handle;
	int result;

	*ours = false;
	if (_IOC_TYPE(request) != UFFDIO || !(handle = descriptors_get(fd, true)))
		return 0;
	*ours = true;
	if (handle_object(handle))
		result = uf_ioctl(handle_object(handle), request, arg);
	else if (request == USERFAULTFD_IOC_NEW)
		result = open_on_user_engine((int)(intptr_t)arg);
	else
		result = -EINVAL;
	descriptors_put(handle);
	return result;
}

static void look_at_flags(int fd);

WRAP(int, ioctl, (int fd, unsigned long request, ...))
{
	va_list args;
	bool ours;
	void *arg;
	int result;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	result = request_of(fd, request, arg, &ours);
	if (ours)
		return (int)as_libc(result);
	if (pagemap_ioctl(fd, request, arg, &result))
		return (int)as_libc(result);
	result = NEXT(ioctl)(fd, request, arg);
	if (request == FIONBIO)
		look_at_flags(fd);
	return result;
}

/*
 * Messages.
 */

static int flags_of(int fd)
{
	return (int)raw_syscall3(SYS_fcntl, fd, F_GETFL, 0);
}

static int sleep_cancellably(const struct uf *uf, const struct timespec *timeout, bool restart);

/*
 * The object of a child becomes ours while the child is there: once it has gone it can only be told from its name. No harm is done where it
 * cannot be had now.
 */
static void adopt_children(const struct uffd_msg *msgs, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct handle *handle = msgs[i].event == UFFD_EVENT_FORK
		                                ? descriptors_get((int)msgs[i].arg.fork.ufd, true)
		                                : NULL;

		if (handle)
			descriptors_put(handle);
	}
}

/* As many as are there, up to `count`; or -errno. Puts them where the program wants them with nothing held. */
static ssize_t take_messages(struct uf *uf, char *buf, size_t count)
{
	struct uffd_msg msgs[16];
	size_t most = count < 16 ? count : 16;
	ssize_t taken = uf->ops->take(uf, msgs, most);
	size_t len = taken > 0 ? (size_t)taken * sizeof(msgs[0]) : 0;

	if (taken <= 0)
		return taken;
	adopt_children(msgs, (size_t)taken);
	return try_copy(buf, msgs, len) ? -EFAULT : (ssize_t)len;
}

static ssize_t read_object(struct uf *uf, bool blocks, void *buf, size_t size)
{
	size_t count = size / sizeof(struct uffd_msg);
	ssize_t result;

	for (;;) {
		/* No room for one is an error, but only of an object that is enabled and has one to give. */
		result = count ? take_messages(uf, buf, count) : -EINVAL;
		if (result != -EAGAIN || !blocks)
			return result;
		result = sleep_cancellably(uf, NULL, true);
		if (result)
			return result;
	}
}

/* Messages, where fd is ours: true. */
static bool read_ours(int fd, void *buf, size_t size, ssize_t *result)
{
	struct handle *handle = descriptors_any() ? descriptors_get(fd, false) : NULL;

	if (!handle || !handle_object(handle)) {
		if (handle)
			descriptors_put(handle);
		return false;
	}
	*result = read_object(handle_object(handle), handle_blocks(handle), buf, size);
	descriptors_put(handle);
	return true;
}

/*
 * A descriptor that came from elsewhere gives itself away when it is read: a ring is one byte, the end says that its owner has gone, and nobody
 * asks for messages otherwise. The adoption that follows makes the owner ring anew, or the descriptor silent.
 */
static bool was_ring(int fd, const void *buf, size_t size, ssize_t result)
{
	struct handle *handle;

	if (result < 0 || result > 1 || size < sizeof(struct uffd_msg) || (result == 1 && *(const char *)buf != 1))
		return false;
	handle = descriptors_get(fd, true);
	if (handle)
		descriptors_put(handle);
	return handle;
}

WRAP(ssize_t, read, (int fd, void *buf, size_t size))
{
	ssize_t result;

	if (!read_ours(fd, buf, size, &result)) {
		result = buffers_read(fd, buf, size);
		if (!was_ring(fd, buf, size, result) || !read_ours(fd, buf, size, &result))
			return result;
	}
	return as_libc(result);
}

WRAP(ssize_t, __read_chk, (int fd, void *buf, size_t size, size_t room))
{
	if (size > room)
		return NEXT(__read_chk)(fd, buf, size, room);
	return read(fd, buf, size);
}

static void leave(void *uf)
{
	((const struct uf *)uf)->ops->leave(uf);
}

/* A cancellation point, as read(2) and poll(2) are. */
static int sleep_cancellably(const struct uf *uf, const struct timespec *timeout, bool restart)
{
	int type, err;

	pthread_cleanup_push(leave, (void *)uf);
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
	err = uf->ops->wait(uf, timeout, restart);
	pthread_setcanceltype(type, NULL);
	pthread_cleanup_pop(0);
	return err;
}

/*
 * poll(2) and its kin: what the kernel's descriptor says.
 */

/* The kernel's answer that needs no look at messages: an error for one that was not enabled, or that blocks. */
static bool polls_error(int fd)
{
	struct handle *handle = descriptors_get(fd, false);
	struct uf *uf;
	bool error;

	if (!handle)
		return false;
	uf = handle_object(handle);
	error = uf && (!uf->ops->enabled(uf) || handle_blocks(handle));
	descriptors_put(handle);
	return error;
}

static bool is_object(int fd)
{
	struct handle *handle = descriptors_get(fd, false);
	bool object = handle && handle_object(handle);

	if (handle)
		descriptors_put(handle);
	return object;
}

/* How many of the descriptors are in error; their revents are set. */
static int poll_errors(struct pollfd *fds, nfds_t count)
{
	int errors = 0;

	for (nfds_t i = 0; i < count; i++) {
		if (!polls_error(fds[i].fd))
			continue;
		fds[i].revents = POLLERR;
		errors++;
	}
	return errors;
}

/* A socket can be written to, a userfaultfd cannot. */
static int without_writing(struct pollfd *fds, nfds_t count, int ready)
{
	for (nfds_t i = 0; ready > 0 && i < count; i++) {
		if (!(fds[i].revents & (POLLOUT | POLLWRNORM | POLLWRBAND)) || !is_object(fds[i].fd))
			continue;
		fds[i].revents &= (short)~(POLLOUT | POLLWRNORM | POLLWRBAND);
		ready -= !fds[i].revents;
	}
	return ready;
}

static int64_t nanoseconds(const struct timespec *t)
{
	return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

/*
 * poll(2) of one descriptor of ours, the usual loop of a monitor: it looks at the messages themselves, and sleeps where the thread that faults
 * can wake it without the bell. timeout NULL: no limit. As the kernel's answer.
 */
static int poll_object(const struct uf *uf, struct pollfd *fd, const struct timespec *timeout)
{
	struct timespec now, left;
	int64_t end = 0;
	int err = 0;

	if (timeout) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		end = nanoseconds(&now) + nanoseconds(timeout);
		left = *timeout;
	}
	fd->revents = 0;
	while (uf->ops->take(uf, NULL, 0)) {
		if (timeout && nanoseconds(&left) <= 0)
			return 0;
		err = sleep_cancellably(uf, timeout ? &left : NULL, false);
		if (err == -EINTR)
			return err;
		if (!timeout)
			continue;
		clock_gettime(CLOCK_MONOTONIC, &now);
		end = end < nanoseconds(&now) ? nanoseconds(&now) : end;
		left.tv_sec = (end - nanoseconds(&now)) / 1000000000;
		left.tv_nsec = (end - nanoseconds(&now)) % 1000000000;
	}
	fd->revents = fd->events & (POLLIN | POLLRDNORM);
	return 1;
}

/* False: it is not one descriptor of ours alone that is waited for to be read. */
static bool poll_alone(struct pollfd *fds, nfds_t count, const struct timespec *timeout, int *result)
{
	struct handle *handle = count == 1 && (fds->events & (POLLIN | POLLRDNORM)) ? descriptors_get(fds->fd, false)
	                                                                            : NULL;
	bool ours = handle && handle_object(handle);

	if (ours)
		*result = poll_object(handle_object(handle), fds, timeout);
	if (handle)
		descriptors_put(handle);
	return ours;
}

WRAP(int, ppoll, (struct pollfd * fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask))
{
	sigset_t room;

	user_layout_present((uintptr_t)fds, count * sizeof(*fds), true);
	if (descriptors_any()) {
		int errors = poll_errors(fds, count);

		if (errors)
			return errors;
	}
	return without_writing(fds, count, NEXT(ppoll)(fds, count, timeout, signals_open(mask, &room)));
}

WRAP(int, poll, (struct pollfd * fds, nfds_t count, int timeout))
{
	const struct timespec limit = {.tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000};

	user_layout_present((uintptr_t)fds, count * sizeof(*fds), true);
	if (descriptors_any()) {
		int errors = poll_errors(fds, count);

		if (errors)
			return errors;
		if (poll_alone(fds, count, timeout < 0 ? NULL : &limit, &errors))
			return (int)as_libc(errors);
	}
	return without_writing(fds, count, NEXT(poll)(fds, count, timeout));
}

WRAP(int, __poll_chk, (struct pollfd * fds, nfds_t count, int timeout, size_t room))
{
	if (room / sizeof(*fds) < count)
		return NEXT(__poll_chk)(fds, count, timeout, room);
	return poll(fds, count, timeout);
}

WRAP(int, __ppoll_chk,
     (struct pollfd * fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask, size_t room))
{
	if (room / sizeof(*fds) < count)
		return NEXT(__ppoll_chk)(fds, count, timeout, mask, room);
	return ppoll(fds, count, timeout, mask);
}

/* For select(2) an error is something to be read or written. */
static int select_errors(int count, fd_set *reads, fd_set *writes)
{
	int errors = 0;

	for (int fd = descriptors_next(0); fd >= 0 && fd < count; fd = descriptors_next(fd + 1)) {
		bool error = polls_error(fd);

		if (writes && !error && is_object(fd))
			FD_CLR(fd, writes);
		if (error)
			errors += (reads && FD_ISSET(fd, reads)) + (writes && FD_ISSET(fd, writes));
	}
	return errors;
}

static void keep_errors(int count, fd_set *set)
{
	for (int fd = 0; set && fd < count; fd++)
		if (FD_ISSET(fd, set) && !polls_error(fd))
			FD_CLR(fd, set);
}

static bool select_answers(int count, fd_set *reads, fd_set *writes, fd_set *excepts, int *errors)
{
	if (!descriptors_any() || !(*errors = select_errors(count, reads, writes)))
		return false;
	keep_errors(count, reads);
	keep_errors(count, writes);
	for (int fd = 0; excepts && fd < count; fd++)
		FD_CLR(fd, excepts);
	return true;
}

WRAP(int, select, (int count, fd_set *reads, fd_set *writes, fd_set *excepts, struct timeval *timeout))
{
	int errors;

	if (select_answers(count, reads, writes, excepts, &errors))
		return errors;
	return NEXT(select)(count, reads, writes, excepts, timeout);
}

WRAP(int, pselect,
     (int count, fd_set *reads, fd_set *writes, fd_set *excepts, const struct timespec *timeout, const sigset_t *mask))
{
	sigset_t room;
	int errors;

	if (select_answers(count, reads, writes, excepts, &errors))
		return errors;
	return NEXT(pselect)(count, reads, writes, excepts, timeout, signals_open(mask, &room));
}

/*
 * Copies of the descriptor, and its end.
 */

static int duplicated(int from, int to)
{
	if (to >= 0 && descriptors_any())
		descriptors_duplicated(from, to);
	return to;
}

WRAP(int, dup, (int fd))
{
	return duplicated(fd, NEXT(dup)(fd));
}

/* The number that is duplicated to is closed by it, silently. */
static void make_way(int from, int to)
{
	if (from != to && flags_of(from) >= 0) {
		pagemap_closed(to);
		descriptors_close(to);
	}
}

WRAP(int, dup2, (int from, int to))
{
	if (user_own_is(to))
		return (int)as_libc(-EBUSY);
	make_way(from, to);
	to = NEXT(dup2)(from, to);
	return from == to ? to : duplicated(from, to);
}

WRAP(int, dup3, (int from, int to, int flags))
{
	if (user_own_is(to))
		return (int)as_libc(-EBUSY);
	if (!(flags & ~O_CLOEXEC))
		make_way(from, to);
	return duplicated(from, NEXT(dup3)(from, to, flags));
}

/* What a program may have changed by fcntl(2) or ioctl(2). */
static void look_at_flags(int fd)
{
	struct handle *handle = descriptors_any() ? descriptors_get(fd, false) : NULL;

	if (handle) {
		handle_flags_changed(handle, fd);
		descriptors_put(handle);
	}
}

static int after_fcntl(int fd, int command, int result)
{
	if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
		return duplicated(fd, result);
	if (command == F_SETFL)
		look_at_flags(fd);
	return result;
}

#define FCNTL_WRAPPER(name)                                                    \
	WRAP(int, name, (int fd, int command, ...))                            \
	{                                                                      \
		va_list args;                                                  \
		void *arg;                                                     \
		int result;                                                    \
                                                                               \
		va_start(args, command);                                       \
		arg = va_arg(args, void *);                                    \
		va_end(args);                                                  \
		if (map_any() && map_fcntl(fd, command, arg, &result))         \
			return (int)as_libc(result);                           \
		return after_fcntl(fd, command, NEXT(name)(fd, command, arg)); \
	}

FCNTL_WRAPPER(fcntl)
FCNTL_WRAPPER(fcntl64)

WRAP(int, close, (int fd))
{
	pagemap_closed(fd);
	/* The engine's own was never the program's. */
	if (user_own_is(fd))
		return (int)as_libc(-EBADF);
	return descriptors_close(fd) ? 0 : NEXT(close)(fd);
}

/* The engine has descriptors of its own, which a program that closes everything does not mean. */
static int close_all_but_ours(unsigned first, unsigned last, unsigned flags)
{
	unsigned own;
	int err = 0;

	for (; !err && (own = user_own_next(first)) != UINT_MAX && own <= last; first = own + 1)
		err = own > first ? (int)raw_syscall3(SYS_close_range, first, own - 1, flags) : 0;
	return err || first > last ? err : (int)raw_syscall3(SYS_close_range, first, last, flags);
}

int abi_close_range(unsigned first, unsigned last, unsigned flags)
{
	if (flags & CLOSE_RANGE_UNSHARE)
		return (int)raw_syscall3(SYS_close_range, first, last, flags);
	if (!(flags & CLOSE_RANGE_CLOEXEC) && first <= last) {
		unsigned end = last < INT_MAX ? last : INT_MAX - 1;

		for (int fd = descriptors_next((int)first); fd >= 0 && (unsigned)fd <= end;
		     fd = descriptors_next(fd + 1))
			descriptors_close(fd);
	}
	return close_all_but_ours(first, last, flags);
}

WRAP(int, close_range, (unsigned first, unsigned last, int flags))
{
	return (int)as_libc(abi_close_range(first, last, (unsigned)flags));
}

WRAP(void, closefrom, (int first))
{
	abi_close_range((unsigned)(first < 0 ? 0 : first), UINT_MAX, 0);
}
