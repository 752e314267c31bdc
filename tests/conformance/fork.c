// SPDX-License-Identifier: MIT
/* Non-cooperative userfaultfd: fork(2), with and without its event. */
#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define MISSING UFFDIO_REGISTER_MODE_MISSING
#define FORK    UFFD_FEATURE_EVENT_FORK

/* What a child does, and how it tells that it has come so far. */
struct family {
	char *pages;
	void (*child)(struct family *family);
	int told[2];
	int go[2];
	bool to_be_adopted; /* the child waits until then */
	int adopted[2];
};

static void tell(struct family *family)
{
	CHECK_EQ(write(family->told[1], "x", 1), 1);
}

static void wait_told(struct family *family)
{
	char byte;

	CHECK_EQ(read(family->told[0], &byte, 1), 1);
}

static long fork_child(void *arg)
{
	struct family *family = arg;
	pid_t pid = fork();

	if (pid == 0) {
		char byte;

		if (family->to_be_adopted)
			CHECK_EQ(read(family->adopted[0], &byte, 1), 1);
		family->child(family);
		_exit(0);
	}
	return pid;
}

static void family_set(struct family *family, char *pages, void (*child)(struct family *family))
{
	family->pages = pages;
	family->child = child;
	family->to_be_adopted = false;
	CHECK_EQ(pipe(family->told), 0);
	CHECK_EQ(pipe(family->go), 0);
	CHECK_EQ(pipe(family->adopted), 0);
}

/* Forks, takes the event, and adopts the descriptor that stands for the child. */
static struct uf *fork_and_adopt(struct uf *uf, struct family *family, pid_t *pid)
{
	struct actor *actor;
	struct uffd_msg msg;
	struct uf *child;

	family->to_be_adopted = true;
	actor = act_call(fork_child, family);
	CHECK(actor_waits(actor));
	msg = next_message(uf);
	CHECK_EQ(msg.event, UFFD_EVENT_FORK);
	*pid = (pid_t)actor_end(actor).value;
	CHECK_EQ(uf_adopt(&child, (int)msg.arg.fork.ufd), 0);
	CHECK_EQ(write(family->adopted[1], "x", 1), 1);
	return child;
}

static void exit_at_once(struct family *family)
{
	(void)family;
}

static void read_first_page(struct family *family)
{
	CHECK_EQ(*(volatile unsigned char *)family->pages, pattern(0));
}

TEST(fork_event, "The manager receives UFFD_EVENT_FORK with file descriptor of the new userfaultfd context.")
{
	struct uf *uf = object(FORK);
	struct family family;
	struct uf *child;
	char *page = anon(1);
	pid_t pid;

	registered(uf, page, page_size, MISSING);
	family_set(&family, page, exit_at_once);
	child = fork_and_adopt(uf, &family, &pid);
	CHECK(uf_fd(child) != uf_fd(uf));
	CHECK_EQ(uf_features(child), uf_features(uf));
	CHECK(fcntl(uf_fd(child), F_GETFL) & O_NONBLOCK);
	CHECK(fcntl(uf_fd(child), F_GETFD) & FD_CLOEXEC);
	reap(pid);
	expect_silence(uf);
}

TEST(fork_context_is_duplicated, "The context is duplicated into the newly created process: its faults come there.")
{
	struct uf *uf = object(FORK);
	struct family family;
	struct uf *child;
	char *page = anon(1);
	pid_t pid;

	registered(uf, page, page_size, MISSING);
	family_set(&family, page, read_first_page);
	child = fork_and_adopt(uf, &family, &pid);
	expect_fault(child, page, page_size, 0);
	expect_silence(uf);
	CHECK_EQ(uf_copy(child, page, filled(1), page_size, 0), page_size);
	reap(pid);
	/* The parent's page is another one, and still missing. */
	CHECK(take_missing(uf, page));
}

TEST(fork_present_pages, "Pages that were there before the fork are the child's as ever, by copy on write.")
{
	struct uf *uf = object(FORK);
	struct family family;
	struct uf *child;
	char *page = anon(1);
	pid_t pid;

	registered(uf, page, page_size, MISSING);
	CHECK_EQ(uf_copy(uf, page, filled(1), page_size, 0), page_size);
	family_set(&family, page, read_first_page);
	child = fork_and_adopt(uf, &family, &pid);
	reap(pid);
	expect_silence(child);
}

static void fork_a_child(struct family *family)
{
	pid_t pid = fork();

	if (pid == 0) {
		read_first_page(family);
		_exit(0);
	}
	reap(pid);
}

TEST(fork_of_a_child, "The duplicated context reports the child's own forks in the same way.")
{
	struct uf *uf = object(FORK);
	struct family family;
	struct uf *child, *grandchild;
	char *page = anon(1);
	struct uffd_msg msg;
	pid_t pid;

	registered(uf, page, page_size, MISSING);
	family_set(&family, page, fork_a_child);
	child = fork_and_adopt(uf, &family, &pid);
	msg = next_message(child);
	CHECK_EQ(msg.event, UFFD_EVENT_FORK);
	CHECK_EQ(uf_adopt(&grandchild, (int)msg.arg.fork.ufd), 0);
	expect_fault(grandchild, page, page_size, 0);
	CHECK_EQ(uf_copy(grandchild, page, filled(1), page_size, 0), page_size);
	reap(pid);
}

static void expect_zero(struct family *family)
{
	CHECK_EQ(*(volatile unsigned char *)family->pages, 0);
}

TEST(fork_not_asked_for, "Without EVENT_FORK the child's copy is not tracked: it finds ordinary zero memory.")
{
	struct uf *uf = object(0);
	struct family family;
	char *page = anon(1);

	registered(uf, page, page_size, MISSING);
	family_set(&family, page, expect_zero);
	reap((pid_t)fork_child(&family));
	expect_silence(uf);
	/* The parent goes on as before. */
	CHECK(take_missing(uf, page));
}

static void tell_and_stay(struct family *family)
{
	char byte;

	tell(family);
	CHECK_EQ(read(family->go[0], &byte, 1), 1);
}

TEST(fork_does_not_wait_for_child, "Without EVENT_FORK a fork does not wait for a manager.")
{
	struct uf *uf = object(0);
	struct family family;
	char *page = anon(1);
	pid_t pid;

	registered(uf, page, page_size, MISSING);
	family_set(&family, page, tell_and_stay);
	pid = (pid_t)fork_child(&family);
	wait_told(&family);
	CHECK_EQ(write(family.go[1], "x", 1), 1);
	reap(pid);
}

TEST(fork_child_gone,
     "A dead child's descriptor stays silent; COPY tells: ENOENT while it lives, ESRCH when it is gone.")
{
	struct uf *uf = object(FORK);
	struct family family;
	struct uf *child;
	char *page = anon(1), *nowhere = unmapped(1), *src = filled(1);
	pid_t pid;

	registered(uf, page, page_size, MISSING);
	family_set(&family, page, tell_and_stay);
	child = fork_and_adopt(uf, &family, &pid);
	wait_told(&family);
	CHECK_EQ(uf_copy(child, nowhere, src, page_size, 0), -ENOENT);
	CHECK_EQ(write(family.go[1], "x", 1), 1);
	reap(pid);
	CHECK_EQ(poll_now(child), 0);
	CHECK_EQ(uf_wake(child, page, page_size), 0);
	CHECK_EQ(uf_copy(child, nowhere, src, page_size, 0), -ESRCH);
}

TEST(fork_child_gone_before,
     "A child that had gone before its descriptor was adopted is as silent as one that goes later.")
{
	struct uf *uf = object(FORK);
	struct family family;
	struct actor *actor;
	struct uffd_msg msg;
	struct uf *child;
	char *page = anon(1), *src = filled(1);
	int flags;

	registered(uf, page, page_size, MISSING);
	family_set(&family, page, exit_at_once);
	actor = act_call(fork_child, &family);
	msg = next_message(uf);
	CHECK_EQ(msg.event, UFFD_EVENT_FORK);
	reap((pid_t)actor_end(actor).value);
	flags = fcntl((int)msg.arg.fork.ufd, F_GETFL);
	CHECK_EQ(uf_adopt(&child, (int)msg.arg.fork.ufd), 0);
	CHECK_EQ(uf_features(child), uf_features(uf));
	CHECK_EQ(uf_fd(child), (int)msg.arg.fork.ufd);
	CHECK_EQ(fcntl(uf_fd(child), F_GETFL), flags);
	CHECK(fcntl(uf_fd(child), F_GETFD) & FD_CLOEXEC);
	expect_silence(child);
	CHECK_EQ(uf_copy(child, page, src, page_size, 0), -ESRCH);
	expect_silence(child);
}

/*
 * One that does *child goes while one object of it is open, and its descriptor is adopted by another. *gone() waits for that, and tells whether it
 * has been reaped.
 */
static void adopt_again(void (*child)(struct family *family), bool (*gone)(struct family *family, pid_t pid))
{
	struct uf *uf = object(FORK);
	struct family family;
	struct uf *first, *second;
	char *page = anon(1), *src = filled(1);
	bool is_reaped;
	int other;
	pid_t pid;

	registered(uf, page, page_size, MISSING);
	family_set(&family, page, child);
	first = fork_and_adopt(uf, &family, &pid);
	other = fcntl(uf_fd(first), F_DUPFD_CLOEXEC, 0);
	CHECK(other >= 0);
	is_reaped = gone(&family, pid);
	CHECK_EQ(uf_adopt(&second, other), 0);
	CHECK_EQ(uf_features(second), uf_features(uf));
	expect_silence(second);
	CHECK_EQ(uf_copy(second, page, src, page_size, 0), -ESRCH);
	uf_close(first);
	expect_silence(second);
	CHECK_EQ(write(family.go[1], "x\n", 2), 2);
	if (!is_reaped)
		reap(pid);
}

static bool wait_reaped(struct family *family, pid_t pid)
{
	(void)family;
	reap(pid);
	return true;
}

TEST(fork_child_gone_between,
     "A child that has gone when one monitor had adopted its descriptor is silent for the next one too.")
{
	adopt_again(exit_at_once, wait_reaped);
}

static bool wait_zombie(struct family *family, pid_t pid)
{
	siginfo_t info;

	(void)family;
	CHECK_EQ(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	return false;
}

TEST(fork_child_zombie_between, "So is one that nobody has waited for yet.")
{
	adopt_again(exit_at_once, wait_zombie);
}

static void execute(struct family *family)
{
	CHECK(dup2(family->go[0], STDIN_FILENO) >= 0 && dup2(family->told[1], STDOUT_FILENO) >= 0);
	execl("/bin/sh", "sh", "-c", "echo x; read line", NULL);
	CHECK_EQ(errno, 0);
}

static bool wait_executed(struct family *family, pid_t pid)
{
	(void)pid;
	wait_told(family);
	return false;
}

TEST(fork_child_exec_between,
     "And one that has executed another program: the memory is gone, though the process is not.")
{
	adopt_again(execute, wait_executed);
}

TEST(fork_event_not_adopted,
     "The descriptor in the event belongs to the reader, who may also close it: zeros from then on.")
{
	struct uf *uf = object(FORK);
	struct family family;
	struct actor *actor;
	struct uffd_msg msg;
	char *page = anon(1);

	registered(uf, page, page_size, MISSING);
	family_set(&family, page, expect_zero);
	actor = act_call(fork_child, &family);
	msg = next_message(uf);
	CHECK_EQ(close((int)msg.arg.fork.ufd), 0);
	reap((pid_t)actor_end(actor).value);
}
