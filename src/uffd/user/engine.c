// SPDX-License-Identifier: MIT
/* Engine "user": page faults handled wholly in user space. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "base/rawsys.h"
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
	raw_munmap((uint64_t)(uintptr_t)object, sizeof(*object));
}

static int user_open(enum uf_way way, int open_flags, void **state)
{
	struct user_object *object;
	int err;

	(void)way;
	/* Mapped, not allocated: the last to hold it may be a thread in the trap. */
	object = raw_map_own(sizeof(*object));
	if (!object)
		return -ENOMEM;
	object->holders = 1;
	object->blocking = !(open_flags & O_NONBLOCK);
	err = user_pending_create(&object->pending, open_flags & (O_NONBLOCK | O_CLOEXEC));
	if (err) {
		raw_munmap((uint64_t)(uintptr_t)object, sizeof(*object));
		return err;
	}
	err = user_segv_install();
	if (!err)
		err = user_service_start(object);
	if (err) {
		raw_close(object->pending.bell);
		user_object_release(object);
		return err;
	}
	*state = object;
	return object->pending.bell;
}

static int user_ioctl(const struct uf *uf, unsigned long request, void *arg)
{
	struct user_object *object = uf->state;
	struct user_wake wake;
	int err;

	if (!object->uf)
		object->uf = uf;
	err = user_request(object, request, arg, &wake);
	if (wake.end)
		user_pending_wake(&object->pending, wake.start, wake.end);
	return err;
}

ssize_t user_read_messages(struct user_pending *pending, uint64_t features, bool blocking, struct uffd_msg *msgs,
                           size_t count)
{
	for (;;) {
		size_t taken = user_pending_take(pending, msgs, count, features & UFFD_FEATURE_EXACT_ADDRESS);
		struct pollfd bell = {.fd = pending->bell, .events = POLLIN};
		long ready;

		if (taken) {
			for (size_t i = 0; i < taken && !(features & UFFD_FEATURE_THREAD_ID); i++)
				if (msgs[i].event == UFFD_EVENT_PAGEFAULT)
					msgs[i].arg.pagefault.feat.ptid = 0;
			return (ssize_t)taken;
		}
		if (!blocking)
			return -EAGAIN;
		ready = raw_syscall6(SYS_ppoll, (long)&bell, 1, 0, 0, 0, 0);
		if (ready < 0)
			return ready;
	}
}

static ssize_t user_read(const struct uf *uf, struct uffd_msg *msgs, size_t count)
{
	struct user_object *object = uf->state;
	uint64_t features = atomic_load(&object->features);

	if (!(features & USER_ENABLED))
		return -EINVAL;
	return user_read_messages(&object->pending, features, object->blocking, msgs, count);
}

void user_object_end(struct user_object *object)
{
	signal_mask before;

	if (atomic_exchange(&object->ended, true))
		return;
	before = user_space_lock();
	user_space_forget(object);
	user_space_unlock(before);
	user_pending_wake(&object->pending, 0, UINT64_MAX);
}

static void user_close(struct uf *uf)
{
	struct user_object *object = uf->state;
	struct pollfd rope = {.fd = object->pending.rope};
	signal_mask before;

	/* The number may soon mean something else: nobody here takes rings out any more. */
	object->pending.bell = -1;
	/* Under the lock, with which the trap looks at it. Other descriptors may keep the object; its handler goes with this one. */
	before = user_space_lock();
	object->uf = NULL;
	user_space_unlock(before);
	raw_close(uf->fd);
	/* If it was the last, the object ends before this returns; otherwise the service thread sees to it when it is. */
	if (poll(&rope, 1, 0) == 1)
		user_object_end(object);
	user_object_release(object);
}

const struct uf_engine_ops uf_engine_user = {
	.name = "user",
	.touches_arg = true,
	.open = user_open,
	.ioctl = user_ioctl,
	.read = user_read,
	.close = user_close,
};
