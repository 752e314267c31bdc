// SPDX-License-Identifier: MIT
/* Descriptors that travel: to a manager process, into duplicates, and what happens when the last one is closed. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/passing.h"
#include "support/test.h"

#define MISSING UFFDIO_REGISTER_MODE_MISSING
#define PAGES   16

/* What a program tells its manager along with the descriptor. */
struct handover {
	uint64_t start;
};

/* A manager: a process of its own, which takes over objects and serves all of them until the programs have gone. */
struct manager {
	pid_t pid;
	int socket;
};

enum { CLIENTS = 3 };

/* Page i of every client is to hold pattern(i). */
static void serve_fault(struct uf *uf, const struct handover *client, char *src)
{
	struct uffd_msg msg;
	uint64_t page;

	if (uf_read(uf, &msg, 1) != 1)
		return;
	CHECK_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
	page = msg.arg.pagefault.address & ~((uint64_t)page_size - 1);
	CHECK_EQ(uf_copy(uf, (void *)(uintptr_t)page, src + (page - client->start), page_size, 0), page_size);
}

static void run_manager(int socket, size_t count)
{
	struct pollfd fds[CLIENTS + 1] = {{.fd = socket}};
	struct handover clients[CLIENTS];
	struct uf *ufs[CLIENTS];
	char *src = filled(PAGES);

	for (size_t i = 0; i < count; i++) {
		int fd = receive_with_fd(socket, &clients[i], sizeof(clients[i]));

		CHECK_EQ(uf_adopt(&ufs[i], fd), 0);
		fds[i + 1] = (struct pollfd){.fd = uf_fd(ufs[i]), .events = POLLIN};
	}
	/* The programs keep the other end open for as long as they live. */
	while (!(fds[0].revents & POLLHUP)) {
		CHECK(poll(fds, count + 1, -1) > 0);
		for (size_t i = 0; i < count; i++)
			if (fds[i + 1].revents)
				serve_fault(ufs[i], &clients[i], src);
	}
}

/* Started before there is anything to hand over, so that it shares nothing with the programs. */
static struct manager start_manager(size_t count)
{
	struct manager manager;
	int sockets[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	manager.socket = sockets[0];
	manager.pid = fork();
	if (manager.pid == 0) {
		close(sockets[0]);
		run_manager(sockets[1], count);
		_exit(0);
	}
	close(sockets[1]);
	return manager;
}

static void end_manager(struct manager *manager)
{
	close(manager->socket);
	reap(manager->pid);
}

/* The program hands its object over and then knows nothing of what is going on. */
static void run_client(const struct manager *manager)
{
	struct uf *uf = object(0);
	char *pages = anon(PAGES);
	struct handover handover = {(uintptr_t)pages};

	registered(uf, pages, PAGES * page_size, MISSING);
	send_with_fd(manager->socket, &handover, sizeof(handover), uf_fd(uf));
	uf_close(uf);
	for (size_t i = 0; i < PAGES; i++) {
		size_t page = i * 7 % PAGES;

		CHECK_EQ(*(volatile unsigned char *)(pages + page * page_size), pattern(page));
	}
}

TEST(passed_to_a_manager, "The userfaultfd can also be passed using unix domain sockets to a manager process.")
{
	struct manager manager = start_manager(1);

	run_client(&manager);
	end_manager(&manager);
}

TEST(passed_by_many, "The same manager process could handle the userfaults of a multitude of different processes.")
{
	struct manager manager = start_manager(CLIENTS);
	pid_t pids[CLIENTS];

	for (size_t i = 0; i < CLIENTS; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			run_client(&manager);
			_exit(0);
		}
	}
	for (size_t i = 0; i < CLIENTS; i++)
		reap(pids[i]);
	end_manager(&manager);
}

TEST(passed_region_is_busy, "Later trying to use the userfaultfd on a region the manager is tracking returns -EBUSY.")
{
	char *page = anon(1);
	struct uf *uf = object(0);

	registered(uf, page, page_size, MISSING);
	CHECK_EQ(uf_register(object(0), page, page_size, MISSING, NULL), -EBUSY);
}

TEST(adopt_learns_features, "uf_adopt(): its features are learnt; the descriptor belongs to the object from then on.")
{
	struct uf *uf, *adopted;
	int fd;

	need(UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EVENT_UNMAP);
	uf = object(UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EVENT_UNMAP);
	fd = fcntl(uf_fd(uf), F_DUPFD_CLOEXEC, 0);
	CHECK_EQ(uf_adopt(&adopted, fd), 0);
	CHECK_EQ(uf_features(adopted), UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EVENT_UNMAP);
	CHECK_EQ(uf_way(adopted), UF_WAY_ADOPTED);
	CHECK_EQ(uf_fd(adopted), fd);
	uf_close(adopted);
	CHECK_EQ(fcntl(fd, F_GETFD), -1);
}

TEST(adopt_without_features, "uf_adopt() of an object enabled with no feature at all.")
{
	struct uf *uf = object(0), *adopted;

	CHECK_EQ(uf_adopt(&adopted, fcntl(uf_fd(uf), F_DUPFD_CLOEXEC, 0)), 0);
	CHECK_EQ(uf_features(adopted), 0);
}

TEST(adopt_closed, "-EBADF not an open descriptor.")
{
	struct uf *adopted = NULL;
	int fd = dup(0);

	close(fd);
	CHECK_EQ(uf_adopt(&adopted, fd), -EBADF);
	CHECK_EQ(uf_adopt(&adopted, -1), -EBADF);
	CHECK(!adopted);
}

TEST(adopt_something_else, "-ENOTTY a descriptor of something else; it still belongs to the caller.")
{
	struct uf *adopted = NULL;
	int fd = eventfd(0, EFD_CLOEXEC), fds[2];

	CHECK_EQ(uf_adopt(&adopted, fd), -ENOTTY);
	CHECK(fcntl(fd, F_GETFD) >= 0);
	CHECK_EQ(pipe(fds), 0);
	CHECK_EQ(uf_adopt(&adopted, fds[0]), -ENOTTY);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	CHECK_EQ(uf_adopt(&adopted, fd), -ENOTTY);
	CHECK(!adopted);
}

TEST(adopt_not_enabled, "-EINVAL a userfaultfd that has not been enabled with UFFDIO_API.")
{
	struct uf *uf = object_raw(O_NONBLOCK), *adopted = NULL;

	CHECK_EQ(uf_adopt(&adopted, uf_fd(uf)), -EINVAL);
	CHECK(!adopted);
	CHECK_EQ(enable(uf, 0), 0);
}

/* In the child: the object is the parent's and so are the addresses. Its own memory lies at the same place. */
TEST(adopted_names_pages_of_the_opener, "Addresses belong to the process that opened the object, whoever holds it.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	pid_t pid = fork();

	if (pid == 0) {
		struct uf *adopted;

		CHECK_EQ(uf_adopt(&adopted, fcntl(uf_fd(uf), F_DUPFD_CLOEXEC, 0)), 0);
		registered(adopted, page, page_size, MISSING);
		CHECK_EQ(uf_copy(adopted, page, filled(1), page_size, 0), page_size);
		CHECK_EQ(*page, 0);
		_exit(0);
	}
	reap(pid);
	CHECK_EQ(*page, pattern(0));
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), -EEXIST);
}

enum { TURNS = 400 };

struct turns {
	_Atomic unsigned touched, answered;
};

static void wait_until(const _Atomic unsigned *count, unsigned wanted)
{
	while (atomic_load(count) < wanted)
		sched_yield();
}

/* Answers one touch after the other before its message is read. */
static void answer_unread(struct uf *uf, char *pages, struct turns *turns)
{
	const char *src = filled(TURNS);

	for (unsigned i = 0; i < TURNS; i++) {
		struct pollfd fd = {.fd = uf_fd(uf), .events = POLLIN};
		char *page = pages + i * page_size;
		struct uffd_msg msg;

		CHECK_EQ(poll(&fd, 1, -1), 1);
		if (i % 2)
			CHECK_EQ(uf_copy(uf, page, src + i * page_size, page_size, 0), page_size);
		else
			CHECK_EQ(uf_unregister(uf, page, page_size), 0);
		CHECK_EQ(uf_read(uf, &msg, 1), -EAGAIN);
		wait_until(&turns->touched, i + 1);
		atomic_store(&turns->answered, i + 1);
	}
}

TEST(woken_before_the_answer,
     "Once a request that wakes has returned, what it woke is not told any more, in another process either.")
{
	struct turns *turns = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *pages = anon(TURNS);
	struct uf *uf = object(0);
	pid_t pid;

	registered(uf, pages, TURNS * page_size, MISSING);
	pid = fork();
	if (pid == 0) {
		answer_unread(uf, pages, turns);
		_exit(0);
	}
	for (unsigned i = 0; i < TURNS; i++) {
		CHECK_EQ(((volatile unsigned char *)pages)[i * page_size], i % 2 ? pattern(i) : 0);
		atomic_store(&turns->touched, i + 1);
		wait_until(&turns->answered, i + 1);
	}
	reap(pid);
}

TEST(adopted_cannot_move, "EINVAL MOVE from another process than the one whose memory it is: Linux does not do that.")
{
	char *page = anon(1), *src = filled(1);
	struct uf *uf = object(UFFD_FEATURE_MOVE);
	pid_t pid;

	registered(uf, page, page_size, MISSING);
	pid = fork();
	if (pid == 0) {
		CHECK_EQ(uf_move(uf, page, src, page_size, 0), -EINVAL);
		_exit(0);
	}
	reap(pid);
	CHECK(take_missing(uf, page));
}

TEST(last_close_gives_zeros,
     "The last descriptor closed with a fault pending: the thread goes on with a page of zeros.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	CHECK(actor_waits(actor));
	expect_fault(uf, page, page_size, 0);
	uf_close(uf);
	CHECK_EQ(actor_end(actor).value, 0);
}

TEST(last_close_ends_registration, "Ranges still registered are unregistered when this was the last descriptor.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	uf_close(uf);
	actor = act_read(page);
	CHECK(!actor_waits(actor));
	CHECK_EQ(actor_end(actor).value, 0);
	registered(object(0), page, page_size, MISSING);
}

TEST(surviving_duplicate, "If a duplicate survives, WAKE makes the fault come again, and a new manager can resolve it.")
{
	char *page = anon(1);
	struct uf *uf = object(0), *survivor;
	struct actor *actor;

	CHECK_EQ(uf_adopt(&survivor, fcntl(uf_fd(uf), F_DUPFD_CLOEXEC, 0)), 0);
	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	expect_fault(uf, page, page_size, 0);
	CHECK(actor_waits(actor));
	uf_close(uf);
	/* The message went with the manager that had read it. */
	CHECK(actor_waits(actor));
	expect_silence(survivor);
	CHECK_EQ(uf_wake(survivor, page, page_size), 0);
	expect_fault(survivor, page, page_size, 0);
	CHECK_EQ(uf_copy(survivor, page, filled(1), page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, pattern(0));
}

TEST(duplicates_share_messages, "Duplicates are one object: a message is read once, through any of them.")
{
	char *page = anon(1);
	struct uf *uf = object(0), *duplicate;
	struct actor *actor;

	CHECK_EQ(uf_adopt(&duplicate, fcntl(uf_fd(uf), F_DUPFD_CLOEXEC, 0)), 0);
	registered(duplicate, page, page_size, MISSING);
	actor = act_read(page);
	CHECK(actor_waits(actor));
	expect_fault(duplicate, page, page_size, 0);
	expect_silence(uf);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(actor);
}
