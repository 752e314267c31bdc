// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "base/thread.h"
#include "preload/map-end.h"
#include "preload/map-ranges.h"
#include "preload/settings.h"
#include "uffd/engine.h"

#define MESSAGES 16

/*
 * How often all who wait come again, ms: whose fault the manager had read, or could not be answered just then. And a reader of the user
 * engine's that has gone may have held an event.
 */
#define AGAIN 1000

/* One for the process, and with it the thread. */
static struct {
	const struct uf *uf;
	int connection;
} watched;

/* fd NULL: only the time is waited for. */
static long poll_one(struct pollfd *fd, int ms)
{
	const struct timespec timeout = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

	return raw_syscall6(SYS_ppoll, (long)fd, !!fd, ms < 0 ? 0 : (long)&timeout, 0, 0, 0);
}

/* False: there is nothing to be watched, for the program has closed the descriptor, by means that nobody stands before. */
static bool wait_for_end(void)
{
	/* The end and no text: that is read by whoever has asked. */
	struct pollfd fd = {.fd = watched.connection};

	while (poll_one(&fd, -1) <= 0)
		;
	return !(fd.revents & POLLNVAL);
}

static void wake(uint64_t start, uint64_t len)
{
	struct uffdio_range range = {start, len};

	watched.uf->ops->ioctl(watched.uf, UFFDIO_WAKE, &range);
}

static void wake_all(void)
{
	uint64_t low, high;

	if (map_ranges_bounds(&low, &high))
		wake(low, high - low);
}

/*
 * Zeros it must not become. Where an event stands in the way (EAGAIN), or the page is there or gone by now, whoever waits is to come again, or to
 * go on.
 */
static void refuse_page(uint64_t addr)
{
	uint64_t size = (uint64_t)sysconf(_SC_PAGESIZE), page = addr & ~(size - 1);
	struct uffdio_poison poison = {.range = {page, size}};
	int err = watched.uf->ops->ioctl(watched.uf, UFFDIO_POISON, &poison);

	if (!err || (err == -EINVAL && raw_mprotect(page, size, PROT_NONE)))
		return;
	wake(page, size);
}

static void read_messages(void)
{
	struct uffd_msg msgs[MESSAGES];
	ssize_t count = watched.uf->ops->read(watched.uf, msgs, MESSAGES);

	for (ssize_t i = 0; i < count; i++)
		if (msgs[i].event == UFFD_EVENT_PAGEFAULT)
			refuse_page(msgs[i].arg.pagefault.address);
	/* What rang is a reader's that has gone, and is let go of soon. */
	if (count <= 0)
		poll_one(NULL, 1);
}

static void *watch(void *unused)
{
	struct pollfd fd = {.fd = watched.uf->fd, .events = POLLIN};

	(void)unused;
	if (!wait_for_end())
		return NULL;
	tell("the manager has ended: what it has not brought of mapped files is SIGBUS");
	/* The flags are shared with whoever had the descriptor, and one that blocks cannot be polled. */
	raw_syscall3(SYS_fcntl, fd.fd, F_SETFL, raw_syscall3(SYS_fcntl, fd.fd, F_GETFL, 0) | O_NONBLOCK);
	do {
		wake_all();
		while (poll_one(&fd, AGAIN) > 0 && !(fd.revents & POLLNVAL))
			read_messages();
	} while (!(fd.revents & POLLNVAL));
	return NULL;
}

int map_end_watch(const struct uf *uf, int connection)
{
	pthread_t thread;
	int err;

	watched.uf = uf;
	watched.connection = connection;
	err = thread_start(&thread, watch, NULL);
	if (!err)
		pthread_detach(thread);
	return err;
}
