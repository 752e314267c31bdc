// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/rawsys.h"
#include "preload/descriptors.h"
#include "uffd/user/service.h"

/*
 * One for each object. Users are the entries of the table and the calls that are under way; the last one closes the object. Handles lie here
 * for good, so a count may be looked at by whoever has read a stale entry: he takes part only if it is not 0 and the entry still is
 * what it was.
 */
struct handle {
	_Atomic uint32_t users; /* 0: free; CLAIMED: being made or closed */
	struct uf *uf;
	_Atomic bool blocks;
	char name[SERVICE_NAME_LEN + 1]; /* what an object is known by; empty: /dev/userfaultfd */
};

#define CLAIMED ((uint32_t)1 << 31)
#define HANDLES 4096

static struct handle handles[HANDLES];

/* The handle of each descriptor, and whether it is in doubt. */
#define DOUBT ((uintptr_t)1)
static _Atomic uintptr_t known[DESCRIPTORS_MAX];
static _Atomic int beyond; /* behind the highest that ever was known */
static _Atomic int owner;  /* the process whose table this is */

static struct handle *handle_of(uintptr_t entry)
{
	return (struct handle *)(entry & ~DOUBT);
}

bool descriptors_any(void)
{
	return atomic_load_explicit(&beyond, memory_order_relaxed);
}

struct uf *handle_object(const struct handle *handle)
{
	return handle->uf;
}

bool handle_blocks(const struct handle *handle)
{
	return atomic_load_explicit(&handle->blocks, memory_order_relaxed);
}

void handle_flags_changed(struct handle *handle, int fd)
{
	long flags = raw_syscall3(SYS_fcntl, fd, F_GETFL, 0);

	if (flags >= 0)
		atomic_store_explicit(&handle->blocks, !(flags & O_NONBLOCK), memory_order_relaxed);
}

static bool hold(struct handle *handle)
{
	uint32_t users = atomic_load(&handle->users);

	while (users && !(users & CLAIMED))
		if (atomic_compare_exchange_weak(&handle->users, &users, users + 1))
			return true;
	return false;
}

void descriptors_put(struct handle *handle)
{
	uint32_t users = atomic_load(&handle->users);

	while (!atomic_compare_exchange_weak(&handle->users, &users, users == 1 ? CLAIMED : users - 1))
		;
	if (users != 1)
		return;
	uf_close(handle->uf);
	handle->uf = NULL;
	atomic_store(&handle->users, 0);
}

static struct handle *new_handle(void)
{
	for (size_t i = 0; i < HANDLES; i++) {
		uint32_t none = 0;

		if (atomic_compare_exchange_strong(&handles[i].users, &none, CLAIMED))
			return &handles[i];
	}
	return NULL;
}

static bool is_null_device(int fd)
{
	struct stat stat;

	return !fstat(fd, &stat) && S_ISCHR(stat.st_mode) && stat.st_rdev == makedev(1, 3);
}

static bool is_still(int fd, const struct handle *handle)
{
	char name[SERVICE_NAME_LEN + 1];

	if (!handle->name[0])
		return is_null_device(fd);
	return user_service_name_of(fd, name) && !strcmp(name, handle->name);
}

/* Takes an entry out, and its part in the handle with it. */
static bool forget(int fd, uintptr_t entry)
{
	if (!atomic_compare_exchange_strong(&known[fd], &entry, 0))
		return false;
	descriptors_put(handle_of(entry));
	return true;
}

static void set_entry(int fd, struct handle *handle)
{
	uintptr_t old = atomic_exchange(&known[fd], (uintptr_t)handle);
	int end = atomic_load(&beyond);

	while (end <= fd && !atomic_compare_exchange_weak(&beyond, &end, fd + 1))
		;
	/* What was there has been closed without our notice. */
	if (old)
		descriptors_put(handle_of(old));
}

int descriptors_add(int fd, struct uf *uf)
{
	struct handle *handle = fd < DESCRIPTORS_MAX ? new_handle() : NULL;

	if (!handle)
		return -EMFILE;
	if (!atomic_load(&owner))
		atomic_store(&owner, raw_getpid());
	handle->uf = uf;
	handle_flags_changed(handle, fd);
	handle->name[0] = 0;
	if (uf)
		user_service_name_of(fd, handle->name);
	atomic_store(&handle->users, 1);
	set_entry(fd, handle);
	return 0;
}

/* A descriptor that came from elsewhere: of an object that we have, or of one of another process. */
static struct handle *identify(int fd)
{
	char name[SERVICE_NAME_LEN + 1];
	struct uf *uf;

	if (fd < 0 || fd >= DESCRIPTORS_MAX || !user_service_name_of(fd, name))
		return NULL;
	for (size_t i = 0; i < HANDLES; i++) {
		if (!hold(&handles[i]))
			continue;
		if (!strcmp(handles[i].name, name)) {
			set_entry(fd, &handles[i]);
			return descriptors_get(fd, false);
		}
		descriptors_put(&handles[i]);
	}
	if (uf_engine_adopt(&uf, &uf_engine_remote, fd))
		return NULL;
	if (descriptors_add(fd, uf)) {
		uf->ops->renumber(uf, -1);
		uf_close(uf);
		return NULL;
	}
	return descriptors_get(fd, false);
}

struct handle *descriptors_get(int fd, bool unknown)
{
	while (fd >= 0 && fd < DESCRIPTORS_MAX) {
		uintptr_t entry = atomic_load(&known[fd]);
		struct handle *handle = handle_of(entry);

		if (!handle)
			break;
		if (!hold(handle))
			continue;
		if (atomic_load(&known[fd]) == entry && (!(entry & DOUBT) || is_still(fd, handle)))
			return handle;
		descriptors_put(handle);
		if (entry & DOUBT)
			forget(fd, entry);
	}
	return unknown ? identify(fd) : NULL;
}

void descriptors_duplicated(int from, int to)
{
	struct handle *handle = descriptors_get(from, false);

	if (!handle)
		return;
	if (to < DESCRIPTORS_MAX)
		set_entry(to, handle);
	else
		descriptors_put(handle);
}

/* Another descriptor of the same object, or -1. */
static int other_number(const struct handle *handle, int fd)
{
	for (int i = 0; i < atomic_load(&beyond); i++)
		if (i != fd && handle_of(atomic_load(&known[i])) == handle)
			return i;
	return -1;
}

bool descriptors_close(int fd)
{
	struct handle *handle;
	uintptr_t entry;

	if (!descriptors_any() || !(handle = descriptors_get(fd, false)))
		return false;
	entry = atomic_load(&known[fd]);
	if (atomic_load(&owner) != raw_getpid()) {
		/* Perhaps a task with a table of its own, such as a child of vfork(2): the others may have it still. */
		if (entry)
			atomic_compare_exchange_strong(&known[fd], &entry, entry | DOUBT);
		descriptors_put(handle);
		return false;
	}
	if (handle->uf && uf_fd(handle->uf) == fd)
		handle->uf->ops->renumber(handle->uf, other_number(handle, fd));
	raw_close(fd);
	if (handle_of(entry) == handle)
		forget(fd, entry);
	descriptors_put(handle);
	return true;
}

int descriptors_next(int fd)
{
	for (; fd < atomic_load(&beyond); fd++)
		if (atomic_load(&known[fd]))
			return fd;
	return -1;
}

void descriptors_forked(void)
{
	atomic_store(&owner, raw_getpid());
	for (int fd = 0; fd < atomic_load(&beyond); fd++)
		if (handle_of(atomic_load(&known[fd])) && handle_of(atomic_load(&known[fd]))->name[0])
			atomic_store(&known[fd], 0);
	/* Only what stands for the device stays. A call that was under way in another thread is not, here. */
	for (size_t i = 0; i < HANDLES; i++) {
		struct uf *uf = handles[i].uf;

		if (!atomic_load(&handles[i].users) || !handles[i].name[0])
			continue;
		handles[i].uf = NULL;
		handles[i].name[0] = 0;
		atomic_store(&handles[i].users, 0);
		if (uf)
			uf->ops->forget(uf);
	}
}
