// SPDX-License-Identifier: MIT
/* Engine "user": page faults handled wholly in user space. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>

#include "base/rawsys.h"
#include "uffd/user/object.h"

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
	long at;
	int err;

	(void)way;
	/* Mapped, not allocated: the last to hold it may be a thread in the trap. */
	at = raw_mmap(0, sizeof(*object), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at < 0 && at > -4096)
		return -ENOMEM;
	object = (struct user_object *)at;
	object->holders = 1;
	object->blocking = !(open_flags & O_NONBLOCK);
	err = user_pending_create(&object->pending, open_flags & (O_NONBLOCK | O_CLOEXEC));
	if (!err)
		err = user_segv_install();
	if (err) {
		raw_munmap((uint64_t)at, sizeof(*object));
		return err;
	}
	*state = object;
	return object->pending.bell;
}

static int user_recognise(int fd, uint64_t *features)
{
	(void)fd;
	(void)features;
	return -ENOTTY;
}

static int user_ioctl(const struct uf *uf, unsigned long request, void *arg)
{
	struct user_object *object = uf->state;

	if (!object->uf)
		object->uf = uf;
	return user_request(uf, request, arg);
}

static ssize_t user_read(const struct uf *uf, struct uffd_msg *msgs, size_t count)
{
	struct user_object *object = uf->state;
	uint64_t features = atomic_load(&object->features);

	if (!(features & USER_ENABLED))
		return -EINVAL;
	for (;;) {
		size_t taken = user_pending_take(&object->pending, msgs, count, features & UFFD_FEATURE_EXACT_ADDRESS);
		struct pollfd bell = {.fd = uf->fd, .events = POLLIN};
		long ready;

		if (taken) {
			for (size_t i = 0; i < taken && !(features & UFFD_FEATURE_THREAD_ID); i++)
				if (msgs[i].event == UFFD_EVENT_PAGEFAULT)
					msgs[i].arg.pagefault.feat.ptid = 0;
			return (ssize_t)taken;
		}
		if (!object->blocking)
			return -EAGAIN;
		ready = raw_syscall6(SYS_ppoll, (long)&bell, 1, 0, 0, 0, 0);
		if (ready < 0)
			return ready;
	}
}

static void user_close(struct uf *uf)
{
	struct user_object *object = uf->state;
	signal_mask before = user_space_lock();

	user_space_forget(object);
	user_space_unlock(before);
	user_pending_wake(&object->pending, 0, UINT64_MAX);
	raw_close(uf->fd);
	user_object_release(object);
}

const struct uf_engine_ops uf_engine_user = {
	.name = "user",
	.touches_arg = true,
	.open = user_open,
	.recognise = user_recognise,
	.ioctl = user_ioctl,
	.read = user_read,
	.close = user_close,
};
