// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "handover/client.h"
#include "preload/map-end.h"
#include "preload/map-link.h"
#include "preload/map-memory.h"
#include "preload/map-ranges.h"
#include "preload/map.h"
#include "preload/settings.h"
#include "uffd/engine.h"
#include "uffd/user/own.h"

/* One for the process. Not allocated: it is made in children of programs with threads, too. */
static struct {
	bool linked;
	bool given;     /* the manager has the descriptor */
	bool unwatched; /* a thread cannot be made here (map-end.h) */
	struct uf uf;
	struct uf_handover handover;
} link_ = {.handover = {.fd = -1}};

#define FEATURES (UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)

/*
 * The object.
 */

static int enable(struct uf *uf, uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int err = uf->ops->ioctl(uf, UFFDIO_API, &api);

	if (!err)
		uf->features = features;
	return err;
}

/* The program cannot close it, nor duplicate over it. */
static void keep(struct uf *uf)
{
	int fd = user_own(uf->fd);

	if (uf->ops->renumber)
		uf->ops->renumber(uf, fd);
	else
		uf->fd = fd;
}

static void close_object(struct uf *uf)
{
	int fd = uf->fd;

	/* The engine is not to close a number that may be another's by then. */
	user_own_close(fd);
	if (uf->ops->renumber) {
		uf->ops->renumber(uf, -1);
		uf->ops->close(uf);
	}
}

static int open_with(const struct uf_engine_ops *ops, enum uf_way way, uint64_t features)
{
	struct uf *uf = &link_.uf;
	void *state = NULL;
	int fd = ops->open(way, O_CLOEXEC | O_NONBLOCK, &state), err;

	if (fd < 0)
		return fd;
	*uf = (struct uf){.ops = ops, .fd = fd, .way = way, .state = state};
	keep(uf);
	err = enable(uf, features);
	if (!err && ops->share)
		err = ops->share(uf);
	if (err)
		close_object(uf);
	return err;
}

/* What cannot be had is poisoned, from Linux 6.6 on. A request that asks for too much spoils the object (userfault-ioctl(2)). */
static int open_object(const struct uf_engine_ops *ops, enum uf_way way)
{
	int err = open_with(ops, way, FEATURES | UFFD_FEATURE_POISON);

	return err == -EINVAL ? open_with(ops, way, FEATURES) : err;
}

/* A process that has less rights than its parent had may have to be content with the user engine. */
static int open_any(void)
{
	int err = -EPERM;

	if (settings()->kernel_first)
		err = open_object(&uf_engine_kernel, UF_WAY_SYSCALL);
	if (err && settings()->kernel_first)
		err = open_object(&uf_engine_kernel, UF_WAY_DEVICE);
	if (err)
		err = open_object(&uf_engine_user, UF_WAY_USER_ENGINE);
	return err;
}

/*
 * The manager.
 */

static void program_name(char name[UF_HANDOVER_NAME_MAX + 1])
{
	const char *from = program_invocation_short_name ? program_invocation_short_name : "";
	size_t len = 0;

	for (; from[len] && len < UF_HANDOVER_NAME_MAX; len++)
		name[len] = from[len] >= ' ' && from[len] <= '~' ? from[len] : '?';
	name[len] = 0;
}

static int connect_manager(void)
{
	char cause[200];
	int err = handover_connect(&link_.handover, map_socket(), cause, sizeof(cause));

	if (err) {
		tell("the manager: %s", cause);
		return -EIO;
	}
	link_.handover.fd = user_own(link_.handover.fd);
	return 0;
}

static void disconnect_manager(void)
{
	user_own_close(link_.handover.fd);
	link_.handover = (struct uf_handover){.fd = -1};
}

static int ensure(void)
{
	int err;

	if (link_.linked)
		return 0;
	err = open_any();
	if (err) {
		tell("no userfaultfd for mapped files: %s", strerrordesc_np(-err));
		return -ENODEV;
	}
	err = connect_manager();
	/* Without it the end of the manager would be one without end for whoever unmaps. */
	if (!err && !link_.unwatched && map_end_watch(&link_.uf, link_.handover.fd)) {
		disconnect_manager();
		err = -ENOMEM;
	}
	if (err) {
		close_object(&link_.uf);
		return err;
	}
	link_.given = false;
	link_.linked = true;
	return 0;
}

static int register_range(const struct map_range *range)
{
	struct uffdio_register reg = {
		.range = {range->start, range->end - range->start},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return link_.uf.ops->ioctl(&link_.uf, UFFDIO_REGISTER, &reg);
}

static void unregister_range(const struct map_range *range)
{
	struct uffdio_range all = {range->start, range->end - range->start};

	link_.uf.ops->ioctl(&link_.uf, UFFDIO_UNREGISTER, &all);
}

static int give(const struct map_range *range)
{
	const struct uf_handover_region region = {
		.addr = (void *)(uintptr_t)range->start,
		.size = range->end - range->start,
		.offset = range->file->offset + range->offset,
		.page_size = (size_t)sysconf(_SC_PAGESIZE),
		.store = range->file->store,
		.flags = UF_HANDOVER_REMOVED_IS_STORE,
	};
	char cause[200], name[UF_HANDOVER_NAME_MAX + 1];
	int err;

	program_name(name);
	err = uf_handover_give(&link_.handover, link_.given ? -1 : link_.uf.fd, &region, 1, name[0] ? name : NULL,
	                       cause, sizeof(cause));
	if (err) {
		tell("%s: the manager: %s", range->file->path, cause);
		return -EIO;
	}
	link_.given = true;
	return 0;
}

int map_link_give(const struct map_range *range)
{
	int err = ensure();

	if (err)
		return err;
	err = register_range(range);
	if (err) {
		tell("%s: a mapping cannot be registered: %s", range->file->path, strerrordesc_np(-err));
		return -ENODEV;
	}
	err = give(range);
	/* Nobody reads its events: it could not even be unmapped. */
	if (err)
		unregister_range(range);
	return err;
}

bool map_link_hides(void)
{
	return link_.uf.ops == &uf_engine_user;
}

/*
 * Children.
 */

/* The copies of the parent's, which the parent goes on with. */
static void leave_parent(void)
{
	if (!link_.linked)
		return;
	link_.linked = false;
	disconnect_manager();
	close_object(&link_.uf);
}

/* Rather no page than a wrong one. */
static void give_up(const struct map_range *range)
{
	static const char line[] = "userfault: a mapping could not be handed over to the manager again after a fork: "
				   "to touch it is SIGBUS\n";

	raw_syscall3(SYS_write, STDERR_FILENO, (long)line, sizeof(line) - 1);
	if (map_place_void(range->start, range->end - range->start, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_FIXED) < 0)
		raw_mprotect(range->start, range->end - range->start, PROT_NONE);
}

void map_link_forked(bool threads)
{
	leave_parent();
	link_.unwatched = !threads;
	for (size_t i = 0; i < map_ranges_count();) {
		struct map_range range = *map_ranges_at(i);

		if (range.unforked) {
			map_ranges_drop(range.start, range.end);
			continue;
		}
		if (range.file && map_link_give(&range)) {
			give_up(&range);
			map_ranges_drop(range.start, range.end);
			continue;
		}
		i++;
	}
}
