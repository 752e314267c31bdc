// SPDX-License-Identifier: MIT
/* Engine "user": page faults handled wholly in user space. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>

#include "base/rawsys.h"
#include "uffd/user/object.h"
#include "uffd/user/pagemap.h"
#include "uffd/user/service.h"

void user_object_hold(struct user_object *object)
{
	atomic_fetch_add(&object->holders, 1);
}

void user_object_release(struct user_object *object)
{
	if (atomic_fetch_sub(&object->holders, 1) != 1)
		return;
	user_pending_dispose(&object->pending);
	raw_unmap(object, sizeof(*object));
}

/* A reader in this process: the descriptor of a child is here already. */
static int open_child(struct user_pending *pending, uint32_t number)
{
	(void)pending;
	return (int)raw_syscall3(SYS_fcntl, (long)(number & ~CHILD_INHERIT),
	                         number & CHILD_INHERIT ? F_DUPFD : F_DUPFD_CLOEXEC, 0);
}

static int carry_out(struct user_pending *pending, uint64_t page, const void *tray, uint64_t mode)
{
	struct user_object *object = (struct user_object *)((char *)pending - offsetof(struct user_object, pending));
	struct uffdio_copy copy = {.dst = page, .src = (uintptr_t)tray, .len = USER_TRAY, .mode = mode};
	struct user_wake wake;
	int err = user_request_errand(object, &copy, &wake);

	if (wake.end)
		user_pending_wake(pending, wake.start, wake.end);
	return err;
}

/* Every object of this process, with the space's lock. */
static struct user_object *objects;

struct user_object *user_object_first(void)
{
	return objects;
}

void user_object_list_only(struct user_object *first)
{
	objects = first;
}

static void list(struct user_object *object)
{
	signal_mask before = user_space_lock();

	object->next = objects;
	objects = object;
	user_space_unlock(before);
}

static void unlist(struct user_object *object)
{
	signal_mask before = user_space_lock();
	struct user_object **at = &objects;

	while (*at && *at != object)
		at = &(*at)->next;
	if (*at)
		*at = object->next;
	user_space_unlock(before);
}

int user_object_create(int open_flags, uint64_t features, struct user_object **out)
{
	struct user_object *object;
	int err;

	/* Mapped, not allocated: the last to hold it may be a thread in the trap. */
	object = raw_map_own(sizeof(*object));
	if (!object)
		return -ENOMEM;
	object->holders = 1;
	object->blocking = !(open_flags & O_NONBLOCK);
	object->inheritable = !(open_flags & O_CLOEXEC);
	object->user_mode_only = open_flags & UFFD_USER_MODE_ONLY;
	err = user_pending_create(&object->pending, open_flags & (O_NONBLOCK | O_CLOEXEC));
	if (err) {
		raw_unmap(object, sizeof(*object));
		return err;
	}
	object->pending.open_child = open_child;
	object->pending.carry_out = carry_out;
	atomic_store(&object->features, features);
	err = user_service_name(object->pending.bell, features & ~USER_ENABLED);
	if (!err)
		err = user_service_mark(object->pending.bell);
	if (err) {
		raw_close(object->pending.bell);
		user_object_release(object);
		return err;
	}
	*out = object;
	return 0;
}

static int user_open(enum uf_way way, int open_flags, void **state)
{
	struct user_object *object;
	int err;

	(void)way;
	err = user_object_create(open_flags, 0, &object);
	if (err)
		return err;
	err = user_segv_install();
	if (err) {
		raw_close(object->pending.bell);
		user_object_release(object);
		return err;
	}
	list(object);
	*state = object;
	return object->pending.bell;
}

/* An object that a fork has left here is the parent's: it is reached as any other process reaches it. */
static int reach_parent(const struct uf *uf, struct uf **out)
{
	struct user_object *object = uf->state;
	struct uf *proxy = atomic_load(&object->proxy), *none = NULL;
	int err;

	if (!proxy) {
		err = uf_engine_adopt(&proxy, &uf_engine_remote, uf->fd);
		if (err)
			return err;
		if (!atomic_compare_exchange_strong(&object->proxy, &none, proxy)) {
			proxy->ops->renumber(proxy, -1);
			uf_close(proxy);
			proxy = none;
		}
	}
	*out = proxy;
	return 0;
}

static int user_ioctl(const struct uf *uf, unsigned long request, void *arg)
{
	struct user_object *object = uf->state;
	struct user_wake wake;
	struct uf *proxy;
	int err;

	if (object->inherited) {
		err = reach_parent(uf, &proxy);
		return err ? err : proxy->ops->ioctl(proxy, request, arg);
	}
	if (!object->uf)
		object->uf = uf;
	err = user_request(object, request, arg, &wake);
	if (wake.end)
		user_pending_wake(&object->pending, wake.start, wake.end);
	return err;
}

static bool may_wait(int bell)
{
	return !(raw_syscall3(SYS_fcntl, bell, F_GETFL, 0) & O_NONBLOCK);
}

ssize_t user_read_messages(struct user_pending *pending, uint64_t features, enum user_waits waits,
                           struct uffd_msg *msgs, uint64_t *ids, size_t count)
{
	bool exact = features & UFFD_FEATURE_EXACT_ADDRESS;
	ssize_t taken;
	int err = 0;

	while (!(taken = ids ? user_pending_peek(pending, msgs, ids, count, exact)
	                     : user_pending_take(pending, msgs, count, exact)) &&
	       !err)
		err = waits == USER_WAITS_AS_SET && may_wait(pending->bell) ? user_pending_sleep(pending, NULL, true)
		                                                            : -EAGAIN;
	for (ssize_t i = 0; i < taken && !(features & UFFD_FEATURE_THREAD_ID); i++)
		if (msgs[i].event == UFFD_EVENT_PAGEFAULT)
			msgs[i].arg.pagefault.feat.ptid = 0;
	return taken ? taken : err;
}

/* ids: NULL to read. */
static ssize_t read_or_peek(const struct uf *uf, struct uffd_msg *msgs, uint64_t *ids, size_t count)
{
	struct user_object *object = uf->state;
	uint64_t features = atomic_load(&object->features);
	struct uf *proxy;
	int err;

	if (!(features & USER_ENABLED))
		return -EINVAL;
	if (object->inherited) {
		err = reach_parent(uf, &proxy);
		if (err)
			return err;
		return ids ? proxy->ops->peek(proxy, msgs, ids, count) : proxy->ops->read(proxy, msgs, count);
	}
	return user_read_messages(&object->pending, features, USER_WAITS_AS_SET, msgs, ids, count);
}

static ssize_t user_read(const struct uf *uf, struct uffd_msg *msgs, size_t count)
{
	return read_or_peek(uf, msgs, NULL, count);
}

static ssize_t user_peek(const struct uf *uf, struct uffd_msg *msgs, uint64_t *ids, size_t count)
{
	return read_or_peek(uf, msgs, ids, count);
}

static int user_accept(const struct uf *uf, const uint64_t *ids, size_t count)
{
	struct user_object *object = uf->state;
	struct uf *proxy;
	int err;

	if (!object->inherited)
		return user_pending_accept(&object->pending, ids, count);
	err = reach_parent(uf, &proxy);
	return err ? err : proxy->ops->accept(proxy, ids, count);
}

void user_object_end(struct user_object *object)
{
	signal_mask before;

	if (atomic_exchange(&object->ended, true))
		return;
	unlist(object);
	before = user_space_lock();
	user_space_forget(object);
	user_space_unlock(before);
	user_pending_end(&object->pending);
}

static void user_close(struct uf *uf)
{
	struct user_object *object = uf->state;
	struct pollfd rope = {.fd = object->pending.rope};
	signal_mask before;

	if (object->inherited) {
		if (object->proxy)
			uf_close(object->proxy);
		else
			raw_close(uf->fd);
		raw_unmap(object, sizeof(*object));
		return;
	}
	/*
	 * Under the lock, with which the trap looks at the handler. Other descriptors may keep the object; its handler goes with this one. And its
	 * number may soon mean something else: nobody here takes rings out any more, or marks it.
	 */
	before = user_space_lock();
	object->pending.bell = -1;
	object->uf = NULL;
	user_space_unlock(before);
	raw_close(uf->fd);
	/* If it was the last, the object ends before this returns; otherwise the service thread sees to it when it is. */
	if (poll(&rope, 1, 0) == 1 || user_service_ensure(object))
		user_object_end(object);
	user_object_release(object);
}

static int user_share(const struct uf *uf)
{
	struct user_object *object = uf->state;

	return object->inherited ? 0 : user_service_ensure(object);
}

static bool user_enabled(const struct uf *uf)
{
	const struct user_object *object = uf->state;

	return atomic_load(&object->features) & USER_ENABLED;
}

static ssize_t user_take(const struct uf *uf, struct uffd_msg *msgs, size_t count)
{
	struct user_object *object = uf->state;
	uint64_t features = atomic_load(&object->features);

	if (!(features & USER_ENABLED))
		return -EINVAL;
	if (!count)
		return user_pending_unread(&object->pending) ? 0 : -EAGAIN;
	return user_read_messages(&object->pending, features, USER_WAITS_NEVER, msgs, NULL, count);
}

static int user_wait(const struct uf *uf, const struct timespec *timeout, bool restart)
{
	struct user_object *object = uf->state;

	return user_pending_sleep(&object->pending, timeout, restart);
}

static void user_leave(const struct uf *uf)
{
	struct user_object *object = uf->state;

	user_pending_leave(&object->pending);
}

static void user_renumber(struct uf *uf, int fd)
{
	struct user_object *object = uf->state;

	object->pending.bell = fd;
	uf->fd = fd;
}

static void user_forget(struct uf *uf)
{
	free(uf);
}

const struct uf_engine_ops uf_engine_user = {
	.address_end = USER_ADDRESS_END,
	.name = "user",
	.touches_arg = true,
	.open = user_open,
	.ioctl = user_ioctl,
	.read = user_read,
	.peek = user_peek,
	.accept = user_accept,
	.close = user_close,
	.scan = user_pagemap_scan,
	.enabled = user_enabled,
	.share = user_share,
	.take = user_take,
	.wait = user_wait,
	.leave = user_leave,
	.renumber = user_renumber,
	.forget = user_forget,
};
