// SPDX-License-Identifier: MIT
/* Descriptors of the user engine, adopted: monitors that come and go, and owners that stop, end, or lie. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "support/actor.h"
#include "support/memory.h"
#include "support/passing.h"
#include "support/test.h"
#include "uffd/durable.h"
#include "uffd/user/layout.h"
#include "uffd/user/object.h"
#include "uffd/user/passing.h"
#include "uffd/user/pending.h"
#include "uffd/user/service.h"

#define EVENTS (UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMAP)
#define PAGES  8

static struct uf *open_object(char *pages)
{
	struct uf_options opts = {.size = sizeof(opts), .engine = UF_ENGINE_USER, .required = EVENTS};
	struct uf *uf;

	CHECK_EQ(uf_open(&uf, &opts), 0);
	CHECK_EQ(uf_register(uf, pages, PAGES * page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
	return uf;
}

static struct uf *adopt(int fd)
{
	struct uf *uf;

	CHECK_EQ(uf_adopt(&uf, fcntl(fd, F_DUPFD_CLOEXEC, 0)), 0);
	return uf;
}

static unsigned descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	CHECK(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/*
 * Monitors that come and go.
 */

/* A monitor is forgotten by the service thread at some time after it has closed, at the latest when the next one attaches. */
static void check_descriptors(struct uf *uf, unsigned before)
{
	struct uf *last = adopt(uf_fd(uf));
	/* Ours: the descriptor, its view's three; the owner's: two, and the staging memory, which it closes after it has answered. */
	unsigned most = before + 7;

	CHECK(descriptors() <= most);
	uf_close(last);
}

TEST(attaches_without_end, "A monitor may come and go a thousand times, and leaves nothing behind.")
{
	struct uf *uf = open_object(anon(PAGES));
	unsigned before;

	uf_close(adopt(uf_fd(uf)));
	before = descriptors();
	for (unsigned i = 0; i < 1000; i++)
		uf_close(adopt(uf_fd(uf)));
	check_descriptors(uf, before);
}

TEST(as_many_monitors_as_trays,
     "So many monitors at a time; one more is turned away, and has a place when another has gone.")
{
	struct uf *uf = open_object(anon(PAGES)), *monitors[USER_TRAYS], *more = NULL;
	int fd = fcntl(uf_fd(uf), F_DUPFD_CLOEXEC, 0);

	for (size_t i = 0; i < USER_TRAYS; i++)
		monitors[i] = adopt(uf_fd(uf));
	CHECK_EQ(uf_adopt(&more, fd), -EMFILE);
	uf_close(monitors[7]);
	CHECK_EQ(uf_adopt(&more, fd), 0);
}

/* A process that shares the caller's descriptors, so that nothing is closed when it is killed. */
static pid_t share_descriptors(void)
{
	return (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
}

static void wait_killed(pid_t pid)
{
	int status;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (!WIFSIGNALED(status))
		exit(WEXITSTATUS(status));
}

/* In a process of its own, since it is to share its descriptors with those that are killed. */
static void run_in_survivor(int fd, void (*run)(int fd))
{
	pid_t pid = fork();

	if (pid == 0) {
		run(fd);
		_exit(0);
	}
	reap(pid);
}

static void adopt_and_die(int fd)
{
	for (unsigned i = 0; i < 4 * USER_TRAYS; i++) {
		pid_t pid = share_descriptors();

		if (pid == 0) {
			adopt(fd);
			kill(getpid(), SIGKILL);
		}
		wait_killed(pid);
	}
}

TEST(trays_of_the_dead_are_given_back, "Monitors that were killed and whose descriptors another process keeps open "
                                       "take no place, and no descriptor of the owner.")
{
	struct uf *uf = open_object(anon(PAGES));
	unsigned before;

	uf_close(adopt(uf_fd(uf)));
	before = descriptors();
	run_in_survivor(uf_fd(uf), adopt_and_die);
	check_descriptors(uf, before);
}

static char *removed;

static long remove_page(void *unused)
{
	(void)unused;
	return user_layout_madvise((uintptr_t)removed, page_size, MADV_DONTNEED);
}

static uint64_t peek_event(struct uf *uf)
{
	struct uffd_msg msg;
	uint64_t id;

	CHECK_EQ(uf_peek(uf, &msg, &id, 1), 1);
	CHECK_EQ(msg.event, UFFD_EVENT_REMOVE);
	CHECK_EQ(msg.arg.remove.start, (uintptr_t)removed);
	CHECK(id);
	return id;
}

TEST(peeked_event_is_unread, "What delivers pages answers -EAGAIN until the event that was peeked at is accepted.")
{
	struct actor *actor;
	struct uf *uf, *monitor;
	uint64_t id;

	removed = anon(PAGES);
	uf = open_object(removed);
	monitor = adopt(uf_fd(uf));
	CHECK_EQ(uf_copy(monitor, removed, filled(1), page_size, 0), page_size);
	actor = act_call(remove_page, NULL);
	CHECK(actor_waits(actor));
	id = peek_event(monitor);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_copy(monitor, removed + page_size, filled(1), page_size, 0), -EAGAIN);
	CHECK_EQ(uf_zeropage(uf, removed + page_size, page_size, 0), -EAGAIN);
	CHECK_EQ(uf_accept(monitor, &id, 1), 0);
	CHECK_EQ(actor_end(actor).value, 0);
	CHECK_EQ(uf_copy(monitor, removed + page_size, filled(1), page_size, 0), page_size);
}

TEST(closed_with_an_event_in_hand,
     "An event that was peeked at by a monitor that closed comes out of the same number again.")
{
	struct actor *actor;
	struct uf *uf, *monitor;
	uint64_t id, again;
	int fd;

	removed = anon(PAGES);
	uf = open_object(removed);
	monitor = adopt(uf_fd(uf));
	fd = uf_fd(monitor);
	actor = act_call(remove_page, NULL);
	CHECK(actor_waits(actor));
	id = peek_event(monitor);
	uf_close(monitor);
	CHECK_EQ(fcntl(uf_fd(uf), F_DUPFD_CLOEXEC, fd), fd);
	CHECK_EQ(uf_adopt(&monitor, fd), 0);
	again = peek_event(monitor);
	CHECK_EQ(again, id);
	CHECK_EQ(uf_accept(monitor, &again, 1), 0);
	CHECK_EQ(actor_end(actor).value, 0);
}

TEST(kernel_reads_for_good, "With the kernel's engine peeking is reading, and there is nothing to accept.")
{
	struct uf_options opts = {
		.size = sizeof(opts), .engine = UF_ENGINE_KERNEL, .required = UFFD_FEATURE_EVENT_REMOVE};
	char *page = anon(1);
	struct actor *actor;
	struct uffd_msg msg;
	uint64_t id = 1;
	struct uf *uf;

	CHECK_EQ(uf_open(&uf, &opts), 0);
	CHECK_EQ(uf_register(uf, page, page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
	actor = act_read(page);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_peek(uf, &msg, &id, 1), 1);
	CHECK_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
	CHECK_EQ(id, 0);
	CHECK_EQ(uf_accept(uf, &id, 1), 0);
	CHECK_EQ(uf_peek(uf, &msg, &id, 1), -EAGAIN);
	uf_hang_up(uf);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(actor);
}

/*
 * Owners that stop or end.
 */

struct owner {
	pid_t pid;
	char *pages;   /* over there */
	struct uf *uf; /* adopted */
};

/* Another process, which opens an object and is then stopped while it is asked for something. */
static struct owner start_owner(void)
{
	struct owner owner;
	int sockets[2], status;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	owner.pid = fork();
	if (owner.pid == 0) {
		char *pages = anon(PAGES);

		send_with_fd(sockets[1], &pages, sizeof(pages), uf_fd(open_object(pages)));
		for (;;)
			pause();
	}
	CHECK_EQ(uf_adopt(&owner.uf, receive_with_fd(sockets[0], &owner.pages, sizeof(owner.pages))), 0);
	CHECK_EQ(kill(owner.pid, SIGSTOP), 0);
	CHECK_EQ(waitpid(owner.pid, &status, WUNTRACED), owner.pid);
	CHECK(WIFSTOPPED(status));
	return owner;
}

static long copy_to(void *arg)
{
	struct owner *owner = arg;

	return uf_copy(owner->uf, owner->pages, filled(1), page_size, 0);
}

static void end_owner(const struct owner *owner)
{
	int status;

	kill(owner->pid, SIGKILL);
	CHECK_EQ(waitpid(owner->pid, &status, 0), owner->pid);
}

TEST(hang_up_ends_waits,
     "uf_hang_up() ends requests that wait for a stopped owner, and all that come later, with -ESRCH.")
{
	struct owner owner = start_owner();
	struct actor *first = act_call(copy_to, &owner), *second = act_call(copy_to, &owner);

	CHECK(actor_waits(first));
	uf_hang_up(owner.uf);
	CHECK_EQ(actor_end(first).value, -ESRCH);
	CHECK_EQ(actor_end(second).value, -ESRCH);
	CHECK_EQ(uf_zeropage(owner.uf, owner.pages, page_size, 0), -ESRCH);
	uf_close(owner.uf);
	end_owner(&owner);
}

TEST(wait_ends_with_the_owner, "A request that waits for a stopped owner ends with -ESRCH when that is killed.")
{
	struct owner owner = start_owner();
	struct actor *actor = act_call(copy_to, &owner);

	CHECK(actor_waits(actor));
	end_owner(&owner);
	CHECK_EQ(actor_end(actor).value, -ESRCH);
	uf_close(owner.uf);
}

TEST(stopped_owner_goes_on, "A stopped owner answers when it goes on.")
{
	struct owner owner = start_owner();
	struct actor *actor = act_call(copy_to, &owner);

	CHECK(actor_waits(actor));
	CHECK_EQ(kill(owner.pid, SIGCONT), 0);
	CHECK_EQ(actor_end(actor).value, page_size);
	end_owner(&owner);
}

/*
 * An owner that forks while a monitor goes. What unmaps the monitor's staging memory is held up by a filter for as long as that takes.
 */

static struct {
	int listener;
	pid_t closer;          /* the thread that closes the monitor, whose memory is unmapped as well */
	_Atomic uint64_t held; /* what the service thread waits for; 0: it does not yet */
} door;

static void close_door(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, STAGING_SIZE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	door.listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	if (door.listener < 0)
		SKIP("another filter has the notifications, or there are none: %s", strerror(errno));
}

static void let_through(uint64_t id)
{
	struct seccomp_notif_resp response = {.id = id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};

	CHECK_EQ(ioctl(door.listener, SECCOMP_IOCTL_NOTIF_SEND, &response), 0);
}

static void *keep_door(void *unused)
{
	for (;;) {
		struct seccomp_notif request = {0};

		if (ioctl(door.listener, SECCOMP_IOCTL_NOTIF_RECV, &request))
			continue;
		if ((pid_t)request.pid == door.closer || atomic_load(&door.held))
			let_through(request.id);
		else
			atomic_store(&door.held, request.id);
	}
	return unused;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static long fork_and_look(void *unused)
{
	pid_t pid = fork();
	int status;

	(void)unused;
	if (!pid) {
		const struct user_object *object = user_object_first();

		_exit(object && is_open(object->pending.rope) && is_open(object->pending.memfd) ? 0 : 1);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

TEST(child_keeps_what_was_the_monitors, "A child that is forked while a monitor goes keeps its own descriptors, which "
                                        "may have the numbers of the monitor's.")
{
	struct uf_options opts = {.size = sizeof(opts), .engine = UF_ENGINE_USER, .required = UFFD_FEATURE_EVENT_FORK};
	struct actor *forker;
	struct uffd_msg msg;
	struct uf *uf;
	pthread_t keeper;

	close_door();
	CHECK_EQ(pthread_create(&keeper, NULL, keep_door, NULL), 0);
	CHECK_EQ(uf_open(&uf, &opts), 0);
	CHECK_EQ(uf_register(uf, anon(PAGES), PAGES * page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
	door.closer = gettid();
	uf_close(adopt(uf_fd(uf)));
	while (!atomic_load(&door.held))
		sched_yield();
	forker = act_call(fork_and_look, NULL);
	CHECK(actor_waits(forker));
	let_through(atomic_load(&door.held));
	while (uf_read(uf, &msg, 1) != 1)
		sched_yield();
	CHECK_EQ(msg.event, UFFD_EVENT_FORK);
	close((int)msg.arg.fork.ufd);
	CHECK_EQ(actor_end(forker).value, 0);
}

/*
 * An owner that lies: this process plays it, with an answer for each request.
 */

struct liar {
	struct user_pending pending;
	pthread_t thread;
	struct service_answer answer;
};

static void name_bell(int bell)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};

	snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, SERVICE_NAME "%016x/%016x", getpid(), 0);
	CHECK_EQ(bind(bell, (struct sockaddr *)&name,
	              (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + SERVICE_NAME_LEN)),
	         0);
}

static void *lie(void *arg)
{
	struct service_attached attached = {.reader = 1};
	struct liar *liar = arg;
	struct service_request request;
	size_t count = 3;
	int fds[3];
	char kind;

	CHECK_EQ(poll(&(struct pollfd){.fd = liar->pending.rope, .events = POLLIN}, 1, -1), 1);
	CHECK_EQ(user_receive(liar->pending.rope, &kind, 1, fds, &count), 1);
	CHECK_EQ(count, 3);
	CHECK_EQ(user_pass(fds[0], &attached, sizeof(attached), (int[]){liar->pending.memfd, liar->pending.rope}, 2),
	         0);
	while (recv(fds[0], &request, sizeof(request), 0) == (ssize_t)sizeof(request))
		CHECK_EQ(send(fds[0], &liar->answer, sizeof(liar->answer), MSG_NOSIGNAL), sizeof(liar->answer));
	return NULL;
}

static struct uf *adopt_liar(struct liar *liar)
{
	struct uf *uf;

	CHECK_EQ(user_pending_create(&liar->pending, O_NONBLOCK | O_CLOEXEC), 0);
	name_bell(liar->pending.bell);
	CHECK_EQ(user_service_mark(liar->pending.bell), 0);
	CHECK_EQ(pthread_create(&liar->thread, NULL, lie, liar), 0);
	CHECK_EQ(uf_adopt(&uf, liar->pending.bell), 0);
	return uf;
}

static ssize_t copy_pages(struct uf *uf, size_t pages)
{
	return uf_copy(uf, (void *)0x7f0000000000, filled(pages), pages * page_size, 0);
}

TEST(no_more_than_was_asked_for,
     "An owner that claims what cannot be true counts as gone: no result is more than was asked for.")
{
	static struct liar liar;
	struct uf *uf = adopt_liar(&liar);
	int result = offsetof(struct uffdio_copy, copy) / 8;
	void *at = (void *)0x7f0000000000;

	liar.answer = (struct service_answer){.err = -EAGAIN};
	liar.answer.arg[result] = 1 << 30;
	CHECK_EQ(copy_pages(uf, 2), -ESRCH);
	liar.answer.arg[result] = 2 * page_size;
	CHECK_EQ(copy_pages(uf, 2), -ESRCH);
	liar.answer.arg[result] = page_size + 1;
	CHECK_EQ(copy_pages(uf, 2), -ESRCH);
	liar.answer.err = 0;
	liar.answer.arg[result] = 0;
	CHECK_EQ(copy_pages(uf, 2), -ESRCH);
	liar.answer.err = 1 << 20;
	liar.answer.arg[result] = page_size;
	CHECK_EQ(copy_pages(uf, 1), -ESRCH);
	CHECK_EQ(uf_writeprotect(uf, at, page_size, 0), -ESRCH);
	liar.answer.err = -EAGAIN;
	liar.answer.arg[result] = page_size;
	CHECK_EQ(copy_pages(uf, 2), page_size);
	liar.answer = (struct service_answer){.err = -EAGAIN};
	liar.answer.arg[offsetof(struct uffdio_zeropage, zeropage) / 8] = 1 << 30;
	CHECK_EQ(uf_zeropage(uf, at, 2 * page_size, 0), -ESRCH);
}
