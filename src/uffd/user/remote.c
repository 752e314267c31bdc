// SPDX-License-Identifier: MIT
/* The other side: a descriptor of the user engine, adopted by a process that does not own it (or by its owner, once more). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "uffd/durable.h"
#include "uffd/user/object.h"
#include "uffd/user/own.h"
#include "uffd/user/passing.h"
#include "uffd/user/service.h"

struct remote {
	struct user_pending pending;
	uint64_t features;
	struct lock lock; /* one request at a time: the socket and the staging memory */
	int socket; /* -1: the owner was gone already. The number stays the same: uf_hang_up() uses it without the lock */
	_Atomic bool hung_up;
	int rope; /* the owner's end of the bell, or -1 */
	char *staging;
	void *life; /* mapped for as long as this process lives, and by no other */
	int life_of;
	uint32_t tray;           /* in the pending table, for errands */
	struct user_ticket busy; /* the errand that was given up */
};

#define MAX_ERRNO 4095

static int make_staging(char **staging)
{
	_cleanup_fd int memfd = memfd_create("userfault-staging", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *p;

	if (memfd < 0 || ftruncate(memfd, STAGING_SIZE) || fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
		return -errno;
	p = mmap(NULL, STAGING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (p == MAP_FAILED)
		return -errno;
	*staging = p;
	return take_fd(&memfd);
}

/* Memory that only this process has: as long as it can be written to, the owner cannot seal it, and knows that we live. */
static int make_life(struct remote *remote, size_t len)
{
	_cleanup_fd int memfd = memfd_create("userfault-life", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *p;

	if (memfd < 0 || ftruncate(memfd, (off_t)len))
		return -errno;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (p == MAP_FAILED)
		return -errno;
	if (raw_madvise((uint64_t)(uintptr_t)p, len, MADV_DONTFORK)) {
		raw_unmap(p, len);
		return -ENOMEM;
	}
	remote->life = p;
	remote->life_of = raw_getpid();
	return take_fd(&memfd);
}

/* In the child of a fork something else may lie there. */
static void end_life(struct remote *remote)
{
	if (remote->life && remote->life_of == raw_getpid())
		raw_unmap(remote->life, (size_t)sysconf(_SC_PAGESIZE));
	remote->life = NULL;
}

/* A stranger that only bears the name may never answer; an owner that is stopped may be given up with it. */
#define ANSWER_MS 30000

/* Until it is looked again whether there is an owner still, ms: another monitor may hold his end of the bell. */
#define LOOK 100

static int wait_for_answer(int socket, int bell)
{
	struct pollfd fd = {.fd = socket, .events = POLLIN};
	uint64_t deadline = deadline_in(ANSWER_MS);

	do {
		int ready = poll(&fd, 1, LOOK);

		if (ready > 0)
			return 0;
		if (ready < 0 && errno != EINTR)
			break;
		/* Also where signals end each wait. What he said before he went counts. */
		if (user_service_is_gone(bell))
			return poll(&fd, 1, 0) > 0 ? 0 : -ESRCH;
	} while (deadline_left(deadline));
	return -ETIMEDOUT;
}

static void start_anew(struct remote *remote, int bell);

/* The owner hands out the descriptor of its child. */
static int open_child(struct user_pending *pending, uint32_t number)
{
	struct remote *remote = (struct remote *)((char *)pending - offsetof(struct remote, pending));
	struct service_request request = {.request = SERVICE_CHILD, .arg = {number}};
	struct service_answer answer;
	signal_mask before = block_signals();
	int child = -1, err = -ESRCH;
	size_t count = 1;

	if (lock_take(&remote->lock))
		start_anew(remote, pending->bell);
	if (send(remote->socket, &request, sizeof(request), MSG_NOSIGNAL) == (ssize_t)sizeof(request) &&
	    user_receive(remote->socket, &answer, sizeof(answer), &child, &count) == (ssize_t)sizeof(answer))
		err = answer.err ? answer.err : count ? child : -EPROTO;
	/* The owner may say anything. */
	if (err != child && child >= 0)
		raw_close(child);
	if (err != child && (err >= 0 || err < -MAX_ERRNO))
		err = -EPROTO;
	if (err >= 0 && (number & CHILD_INHERIT))
		fcntl(child, F_SETFD, 0);
	lock_release(&remote->lock);
	restore_signals(before);
	return err;
}

/* Sends the owner what makes us its monitor, and takes its answer. *mine: the socket. 0 or -errno. */
static int introduce(struct remote *remote, int bell, int *mine, struct service_attached *attached, int passed[2],
                     size_t *count)
{
	_cleanup_fd int theirs = -1, memfd = -1, life = -1;
	const char kind = SERVICE_ATTACH;
	int pair[2], err;

	if (user_service_is_gone(bell))
		return -ESRCH;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	*mine = pair[0];
	theirs = pair[1];
	memfd = make_staging(&remote->staging);
	if (memfd < 0)
		return memfd;
	life = make_life(remote, (size_t)sysconf(_SC_PAGESIZE));
	if (life < 0)
		return life;
	err = user_pass(bell, &kind, sizeof(kind), (int[]){theirs, memfd, life}, 3);
	if (err)
		return err == -EPIPE || err == -ECONNRESET ? -ESRCH : err;
	/* Ours is closed, so that the owner's end gone means that the owner is gone. */
	raw_close(take_fd(&theirs));
	err = wait_for_answer(*mine, bell);
	if (err)
		return err;
	return user_receive(*mine, attached, sizeof(*attached), passed, count) == (ssize_t)sizeof(*attached) ? 0
	                                                                                                     : -ESRCH;
}

static int check_attached(const struct service_attached *attached, size_t count)
{
	if (attached->err)
		return attached->err < 0 && attached->err >= -MAX_ERRNO ? attached->err : -EPROTO;
	return count == 2 && attached->reader && attached->reader < USER_READERS ? 0 : -EPROTO;
}

static int shake_hands(struct remote *remote, int bell)
{
	struct service_attached attached;
	_cleanup_fd int mine = -1;
	int passed[2] = {-1, -1}, err;
	size_t count = 2;

	err = introduce(remote, bell, &mine, &attached, passed, &count);
	if (!err)
		err = check_attached(&attached, count);
	if (!err)
		err = user_pending_attach(&remote->pending, passed[0], bell);
	if (err) {
		for (size_t i = 0; i < 2; i++)
			if (passed[i] >= 0)
				raw_close(passed[i]);
		return err;
	}
	remote->rope = user_own(passed[1]);
	remote->pending.open_child = open_child;
	remote->pending.reader = attached.reader;
	remote->features = attached.features;
	remote->tray = attached.tray % USER_TRAYS;
	remote->socket = user_own(take_fd(&mine));
	return 0;
}

static void unmap_own(struct remote *remote)
{
	raw_unmap(remote->staging, STAGING_SIZE);
	end_life(remote);
}

/*
 * The owner had gone before it could be asked for its end of the bell, and without that the descriptor polls as hung up for ever, where the
 * kernel's is silent. So a bell of the same name but its number takes its place, whose other end we have; asking it says that nobody is there.
 * Where that cannot be made it stays as it is.
 */
static void silence(struct remote *remote, int fd)
{
	int flags = fcntl(fd, F_GETFL), kept = fcntl(fd, F_GETFD), pair[2];
	_cleanup_fd int bell = -1, rope = -1;

	if (flags < 0 || kept < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (flags & O_NONBLOCK ? SOCK_NONBLOCK : 0), 0, pair))
		return;
	bell = pair[0];
	rope = pair[1];
	if (user_service_name(bell, remote->features) || shutdown(rope, SHUT_RD) ||
	    dup3(bell, fd, kept & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
		return;
	remote->rope = user_own(take_fd(&rope));
}

static int remote_recognise(int fd, uint64_t *features, void **state)
{
	char name[SERVICE_NAME_LEN + 1];
	struct remote *remote;
	int err;

	if (!user_service_name_of(fd, name))
		return fcntl(fd, F_GETFD) < 0 ? -EBADF : -ENOTTY;
	remote = calloc(1, sizeof(*remote));
	if (!remote)
		return -ENOMEM;
	remote->socket = remote->rope = -1;
	err = shake_hands(remote, fd);
	if (err == -ESRCH) {
		/* What the name tells is all that can be known. */
		remote->features = strtoull(name + SERVICE_NAME_LEN - 16, NULL, 16);
		silence(remote, fd);
		err = 0;
	}
	if (err) {
		unmap_own(remote);
		free(remote);
		return err;
	}
	*features = remote->features;
	*state = remote;
	return 0;
}

/* What the kernel says of a process that is gone. */
static int answer_of_the_dead(uint64_t request)
{
	switch (request) {
	case UFFDIO_API:
		return -EINVAL;
	case UFFDIO_REGISTER:
	case UFFDIO_UNREGISTER:
		return -ENOMEM;
	case UFFDIO_WAKE:
		return 0;
	default:
		return -ESRCH;
	}
}

/* Where a request has its result, in words of its structure; -1: it has none. */
static int result_of(uint64_t number)
{
	switch (number) {
	case UFFDIO_REGISTER:
		return offsetof(struct uffdio_register, ioctls) / 8;
	case UFFDIO_COPY:
		return offsetof(struct uffdio_copy, copy) / 8;
	case UFFDIO_ZEROPAGE:
		return offsetof(struct uffdio_zeropage, zeropage) / 8;
	case UFFDIO_CONTINUE:
		return offsetof(struct uffdio_continue, mapped) / 8;
	case UFFDIO_POISON:
		return offsetof(struct uffdio_poison, updated) / 8;
	default:
		return -1;
	}
}

/*
 * The owner may say anything, and whoever asked goes by it: so it may say what can be true. A count of bytes is one of pages, and less than what
 * was asked for unless all has been done.
 */
static bool is_sound(const struct service_request *request, const struct service_answer *answer)
{
	uint64_t page_mask = (uint64_t)sysconf(_SC_PAGESIZE) - 1;
	bool is_copy = request->request == UFFDIO_COPY;
	uint64_t len = request->arg[is_copy ? 2 : 1], done;
	int at = result_of(request->request);

	if (answer->err > 0 || answer->err < -MAX_ERRNO)
		return false;
	if (at < 0 || request->request == UFFDIO_REGISTER)
		return true;
	done = answer->arg[at];
	if (!answer->err)
		return done == len;
	return (int64_t)done <= 0 ? (int64_t)done >= -MAX_ERRNO : done < len && !(done & page_mask);
}

/* One request over the socket. */
static int ask(struct remote *remote, uint64_t number, void *arg, size_t len)
{
	struct service_request request = {.request = number};
	struct service_answer answer;
	int at = result_of(number);

	memcpy(request.arg, arg, len);
	if (send(remote->socket, &request, sizeof(request), MSG_NOSIGNAL) != (ssize_t)sizeof(request) ||
	    recv(remote->socket, &answer, sizeof(answer), 0) != (ssize_t)sizeof(answer) || !is_sound(&request, &answer))
		return answer_of_the_dead(number);
	if (number == UFFDIO_API)
		memcpy(arg, answer.arg, len);
	else if (at >= 0)
		((uint64_t *)arg)[at] = answer.arg[at];
	return answer.err;
}

/* As much of the source as can be read, in whole pages; by the kernel, since it may be anything. 0 or -EFAULT. */
static int stage(struct remote *remote, uint64_t src, __u64 *len)
{
	uint64_t page_mask = (uint64_t)sysconf(_SC_PAGESIZE) - 1;
	ssize_t read = raw_process_vm_read(raw_getpid(), remote->staging, src, *len);

	if (read == (ssize_t)*len)
		return 0;
	*len = read > 0 ? (uint64_t)read & ~page_mask : 0;
	return *len ? 0 : -EFAULT;
}

/* The bytes go through the staging memory, a part at a time. */
static int copy_by_parts(struct remote *remote, struct uffdio_copy *copy)
{
	uint64_t done = 0;
	int err = 0;

	do {
		struct uffdio_copy part = *copy;

		part.dst += done;
		part.len = copy->len - done < STAGING_SIZE ? copy->len - done : STAGING_SIZE;
		part.src = 0;
		part.copy = 0;
		part.copy = err = stage(remote, copy->src + done, &part.len);
		if (!err)
			err = ask(remote, UFFDIO_COPY, &part, sizeof(part));
		if (err && done + (part.copy > 0 ? (uint64_t)part.copy : 0) == 0)
			copy->copy = part.copy;
		if (part.copy > 0)
			done += (uint64_t)part.copy;
	} while (!err && done < copy->len);
	if (done)
		copy->copy = (int64_t)done;
	return err && done ? -EAGAIN : err;
}

/*
 * A holder of the lock was killed, perhaps between a request and its answer: what comes from that socket now is anybody's. Where there is no
 * other to be had, the owner is as good as gone.
 */
static void start_anew(struct remote *remote, int bell)
{
	struct remote fresh = {.socket = -1, .rope = -1};

	if (remote->socket < 0)
		return;
	shutdown(remote->socket, SHUT_RDWR);
	if (shake_hands(&fresh, bell)) {
		unmap_own(&fresh);
		return;
	}
	/* The view of what is pending is in use without the lock, and as good as the new one. */
	user_pending_dispose(&fresh.pending);
	user_own_close(fresh.rope);
	unmap_own(remote);
	dup3(fresh.socket, remote->socket, O_CLOEXEC);
	user_own_close(fresh.socket);
	remote->staging = fresh.staging;
	remote->life = fresh.life;
	remote->life_of = fresh.life_of;
	remote->tray = fresh.tray;
	remote->busy.slot = NULL;
	/* What the dead one held is handed out again. */
	remote->pending.reader = fresh.pending.reader;
	if (atomic_load(&remote->hung_up))
		shutdown(remote->socket, SHUT_RDWR);
}

/* A page for which a thread waits that can put it in place itself. */
static bool send_errand(struct remote *remote, struct uffdio_copy *copy, int *err)
{
	if (copy->len != USER_TRAY || copy->dst % USER_TRAY || (copy->mode & ~UFFDIO_COPY_MODE_WP) ||
	    sysconf(_SC_PAGESIZE) != USER_TRAY ||
	    !user_pending_send(&remote->pending, remote->tray, copy->dst, (const void *)(uintptr_t)copy->src,
	                       copy->mode, &remote->busy, err))
		return false;
	if (*err > 0 || *err < -MAX_ERRNO)
		*err = -ESRCH;
	copy->copy = *err ? *err : USER_TRAY;
	return true;
}

static int send_copy(struct remote *remote, struct uffdio_copy *copy)
{
	int err;

	if (send_errand(remote, copy, &err))
		return err;
	err = copy_by_parts(remote, copy);
	/* It may have been this request's own errand, late. */
	if (err == -EEXIST && user_pending_has_sent(&remote->pending, &remote->busy, copy->dst)) {
		copy->copy = USER_TRAY;
		err = 0;
	}
	return err;
}

static int remote_ioctl(const struct uf *uf, unsigned long request, void *arg)
{
	struct remote *remote = uf->state;
	signal_mask before;
	int err;

	if (!arg)
		return -EFAULT;
	/* The kernel moves pages of the caller's own memory only. */
	if (request == UFFDIO_MOVE || _IOC_SIZE(request) > sizeof(((struct service_request *)0)->arg))
		return -EINVAL;
	before = block_signals();
	if (lock_take(&remote->lock))
		start_anew(remote, uf->fd);
	if (remote->socket < 0 || atomic_load(&remote->hung_up))
		err = answer_of_the_dead(request);
	else if (request != UFFDIO_COPY)
		err = ask(remote, request, arg, _IOC_SIZE(request));
	else
		err = send_copy(remote, arg);
	lock_release(&remote->lock);
	restore_signals(before);
	return err;
}

static ssize_t remote_read(const struct uf *uf, struct uffd_msg *msgs, size_t count)
{
	struct remote *remote = uf->state;

	if (!remote->pending.shared)
		return -EAGAIN;
	return user_read_messages(&remote->pending, remote->features, USER_WAITS_AS_SET, msgs, NULL, count);
}

static ssize_t remote_peek(const struct uf *uf, struct uffd_msg *msgs, uint64_t *ids, size_t count)
{
	struct remote *remote = uf->state;

	if (!remote->pending.shared)
		return -EAGAIN;
	return user_read_messages(&remote->pending, remote->features, USER_WAITS_AS_SET, msgs, ids, count);
}

static int remote_accept(const struct uf *uf, const uint64_t *ids, size_t count)
{
	struct remote *remote = uf->state;

	return remote->pending.shared ? user_pending_accept(&remote->pending, ids, count) : -ENOENT;
}

/* The owner drops us then, which is as good as having closed. */
static void remote_hang_up(const struct uf *uf)
{
	struct remote *remote = uf->state;

	/* Before: a socket that takes the place of this one is shut down by whoever puts it there. */
	atomic_store(&remote->hung_up, true);
	shutdown(remote->socket, SHUT_RDWR);
}

static bool remote_lives(const struct uf *uf)
{
	struct remote *remote = uf->state;
	struct pollfd fd = {.fd = remote->socket, .events = POLLRDHUP};
	struct timespec now = {0};

	return !atomic_load(&remote->hung_up) && remote->socket >= 0 &&
	       raw_syscall6(SYS_ppoll, (long)&fd, 1, (long)&now, 0, 0, 0) == 0;
}

bool uf_is_user_engine(int fd)
{
	char name[SERVICE_NAME_LEN + 1];

	return user_service_name_of(fd, name);
}

static void remote_close(struct uf *uf)
{
	struct remote *remote = uf->state;

	user_own_close(remote->socket);
	user_own_close(remote->rope);
	unmap_own(remote);
	if (remote->pending.shared)
		user_pending_dispose(&remote->pending);
	raw_close(uf->fd);
	free(remote);
}

static bool remote_enabled(const struct uf *uf)
{
	(void)uf;
	return true;
}

static ssize_t remote_take(const struct uf *uf, struct uffd_msg *msgs, size_t count)
{
	struct remote *remote = uf->state;

	if (!remote->pending.shared)
		return -EAGAIN;
	if (!count)
		return user_pending_unread(&remote->pending) ? 0 : -EAGAIN;
	return user_read_messages(&remote->pending, remote->features, USER_WAITS_NEVER, msgs, NULL, count);
}

static int remote_wait(const struct uf *uf, const struct timespec *timeout, bool restart)
{
	struct remote *remote = uf->state;
	long err;

	if (remote->pending.shared)
		return user_pending_sleep(&remote->pending, timeout, restart);
	/* Of a process that is gone nothing comes. */
	err = raw_syscall6(SYS_ppoll, 0, 0, (long)timeout, 0, 0, 0);
	return err ? (int)err : -ETIMEDOUT;
}

static void remote_leave(const struct uf *uf)
{
	struct remote *remote = uf->state;

	if (remote->pending.shared)
		user_pending_leave(&remote->pending);
}

static void remote_renumber(struct uf *uf, int fd)
{
	struct remote *remote = uf->state;

	remote->pending.bell = fd;
	uf->fd = fd;
}

/* The connection is the parent's; only its copy here is closed. */
static void remote_forget(struct uf *uf)
{
	remote_renumber(uf, -1);
	uf_close(uf);
}

const struct uf_engine_ops uf_engine_remote = {
	.name = "user",
	.touches_arg = true,
	.recognise = remote_recognise,
	.ioctl = remote_ioctl,
	.read = remote_read,
	.peek = remote_peek,
	.accept = remote_accept,
	.hang_up = remote_hang_up,
	.lives = remote_lives,
	.address_end = USER_ADDRESS_END,
	.close = remote_close,
	.enabled = remote_enabled,
	.take = remote_take,
	.wait = remote_wait,
	.leave = remote_leave,
	.renumber = remote_renumber,
	.forget = remote_forget,
};
