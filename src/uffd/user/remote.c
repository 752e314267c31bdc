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
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "uffd/user/passing.h"
#include "uffd/user/service.h"

struct remote {
	struct user_pending pending;
	uint64_t features;
	struct lock lock; /* one request at a time: the socket and the staging memory */
	int socket;
	char *staging;
};

static bool is_bell(int fd)
{
	struct sockaddr_un name;
	socklen_t len = sizeof(name);

	memset(&name, 0, sizeof(name));
	return !getpeername(fd, (struct sockaddr *)&name, &len) && name.sun_family == AF_UNIX && !name.sun_path[0] &&
	       !strncmp(name.sun_path + 1, SERVICE_NAME, strlen(SERVICE_NAME));
}

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

/* A stranger that only bears the name may never answer; an owner that is stopped may be given up with it. */
#define ANSWER_SECONDS 30

static int wait_for_answer(int socket)
{
	struct pollfd fd = {.fd = socket, .events = POLLIN};
	int ready;

	do
		ready = poll(&fd, 1, ANSWER_SECONDS * 1000);
	while (ready < 0 && errno == EINTR);
	return ready > 0 ? 0 : -ETIMEDOUT;
}

/* The owner hands out the descriptor of its child. */
static int open_child(struct user_pending *pending, uint32_t number)
{
	struct remote *remote = (struct remote *)((char *)pending - offsetof(struct remote, pending));
	struct service_request request = {.request = SERVICE_CHILD, .arg = {number}};
	struct service_answer answer;
	signal_mask before = block_signals();
	int child = -1, err = -ESRCH;
	size_t count = 1;

	lock_take(&remote->lock);
	if (send(remote->socket, &request, sizeof(request), MSG_NOSIGNAL) == (ssize_t)sizeof(request) &&
	    user_receive(remote->socket, &answer, sizeof(answer), &child, &count) == (ssize_t)sizeof(answer))
		err = answer.err ? answer.err : count ? child : -EPROTO;
	lock_release(&remote->lock);
	restore_signals(before);
	return err;
}

/* Sends the owner a socket and staging memory, and takes its answer. */
static int shake_hands(struct remote *remote, int bell)
{
	_cleanup_fd int mine = -1, theirs = -1, memfd = -1;
	struct service_attached attached;
	const char kind = SERVICE_ATTACH;
	int pair[2], pending = -1, err;
	size_t count = 1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	mine = pair[0];
	theirs = pair[1];
	memfd = make_staging(&remote->staging);
	if (memfd < 0)
		return memfd;
	err = user_pass(bell, &kind, sizeof(kind), (int[]){theirs, memfd}, 2);
	if (err)
		return err == -EPIPE || err == -ECONNRESET ? -ESRCH : err;
	/* Ours is closed, so that the owner's end gone means that the owner is gone. */
	raw_close(take_fd(&theirs));
	err = wait_for_answer(mine);
	if (err)
		return err;
	if (user_receive(mine, &attached, sizeof(attached), &pending, &count) != (ssize_t)sizeof(attached))
		return -ESRCH;
	err = attached.err;
	if (!err)
		err = count == 1 ? user_pending_attach(&remote->pending, pending, bell) : -EPROTO;
	if (err) {
		if (count == 1)
			raw_close(pending);
		return err;
	}
	remote->pending.open_child = open_child;
	remote->features = attached.features;
	remote->socket = take_fd(&mine);
	return 0;
}

static int remote_recognise(int fd, uint64_t *features, void **state)
{
	struct remote *remote;
	int err;

	if (!is_bell(fd))
		return fcntl(fd, F_GETFD) < 0 ? -EBADF : -ENOTTY;
	remote = calloc(1, sizeof(*remote));
	if (!remote)
		return -ENOMEM;
	err = shake_hands(remote, fd);
	if (err) {
		if (remote->staging)
			munmap(remote->staging, STAGING_SIZE);
		free(remote);
		return err;
	}
	*features = remote->features;
	*state = remote;
	return 0;
}

/* One request over the socket. The owner gone is -ESRCH, as with the kernel. */
static int ask(struct remote *remote, uint64_t number, void *arg, size_t len)
{
	struct service_request request = {.request = number};
	struct service_answer answer;

	memcpy(request.arg, arg, len);
	if (send(remote->socket, &request, sizeof(request), MSG_NOSIGNAL) != (ssize_t)sizeof(request) ||
	    recv(remote->socket, &answer, sizeof(answer), 0) != (ssize_t)sizeof(answer))
		return -ESRCH;
	memcpy(arg, answer.arg, len);
	return answer.err;
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
		memcpy(remote->staging, (const char *)(uintptr_t)copy->src + done, part.len);
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

static int remote_ioctl(const struct uf *uf, unsigned long request, void *arg)
{
	struct remote *remote = uf->state;
	signal_mask before;
	int err;

	if (!arg)
		return -EFAULT;
	if (_IOC_SIZE(request) > sizeof(((struct service_request *)0)->arg))
		return -EINVAL;
	before = block_signals();
	lock_take(&remote->lock);
	if (request == UFFDIO_COPY)
		err = copy_by_parts(remote, arg);
	else
		err = ask(remote, request, arg, _IOC_SIZE(request));
	lock_release(&remote->lock);
	restore_signals(before);
	return err;
}

static ssize_t remote_read(const struct uf *uf, struct uffd_msg *msgs, size_t count)
{
	struct remote *remote = uf->state;

	return user_read_messages(&remote->pending, remote->features, !(fcntl(uf->fd, F_GETFL) & O_NONBLOCK), msgs,
	                          count);
}

static void remote_close(struct uf *uf)
{
	struct remote *remote = uf->state;

	raw_close(remote->socket);
	munmap(remote->staging, STAGING_SIZE);
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

	return user_read_messages(&remote->pending, remote->features, false, msgs, count);
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
	.close = remote_close,
	.enabled = remote_enabled,
	.take = remote_take,
	.renumber = remote_renumber,
	.forget = remote_forget,
};
