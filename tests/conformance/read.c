// SPDX-License-Identifier: MIT
/* The read/POLLIN protocol: messages, when they come, and what they say. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define MISSING UFFDIO_REGISTER_MODE_MISSING

TEST(poll_reports_a_fault, "read/POLLIN protocol to notify a userland thread of the faults happening.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	CHECK_EQ(poll_now(uf), 0);
	actor = act_read(page);
	CHECK(actor_waits(actor));
	CHECK_EQ(poll_now(uf), POLLIN);
	expect_fault(uf, page, page_size, 0);
	/* The message is taken; that the thread still waits is no reason to be told again. */
	CHECK_EQ(poll_now(uf), 0);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(actor);
}

static long poll_forever(void *arg)
{
	struct pollfd fd = {.fd = uf_fd(arg), .events = POLLIN};

	return poll(&fd, 1, -1) == 1 ? fd.revents : -1;
}

TEST(poll_wakes_a_sleeper, "A POLLIN event is generated after a userfault triggers: a sleeping poll(2) returns.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *poller, *toucher;

	registered(uf, page, page_size, MISSING);
	poller = act_call(poll_forever, uf);
	CHECK(actor_waits(poller));
	toucher = act_read(page);
	CHECK_EQ(actor_end(poller).value, POLLIN);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(toucher);
}

TEST(poll_through_epoll, "The descriptor is an ordinary one: epoll(7) reports it too.")
{
	struct epoll_event event = {.events = EPOLLIN};
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *actor;
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	registered(uf, page, page_size, MISSING);
	CHECK_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, uf_fd(uf), &event), 0);
	CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 0);
	actor = act_read(page);
	CHECK_EQ(epoll_wait(epoll, &event, 1, -1), 1);
	CHECK_EQ(event.events, EPOLLIN);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(actor);
}

TEST(poll_of_blocking_descriptor, "poll(2) gives POLLERR when the descriptor is not O_NONBLOCK.")
{
	struct uf_options opts = options(0);
	struct uf *uf;

	opts.flags = UF_OPEN_BLOCKING;
	CHECK_EQ(object_open(&uf, &opts), 0);
	CHECK_EQ(poll_now(uf), POLLERR);
}

TEST(read_nothing, "EAGAIN There is no message.")
{
	struct uffd_msg msg;

	CHECK_EQ(uf_read(object(0), &msg, 1), -EAGAIN);
}

TEST(read_after_resolution, "-EAGAIN in case the userfault was already resolved and waken by a parallel thread.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	struct uffd_msg msg;
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	CHECK(actor_waits(actor));
	CHECK_EQ(poll_now(uf), POLLIN);
	CHECK_EQ(uf_copy(uf, page, filled(1), page_size, 0), page_size);
	CHECK_EQ(uf_read(uf, &msg, 1), -EAGAIN);
	CHECK_EQ(poll_now(uf), 0);
	CHECK_EQ(actor_end(actor).value, pattern(0));
}

TEST(read_blocking, "Without O_NONBLOCK read(2) waits for the next message.")
{
	struct uf_options opts = options(0);
	char *page = anon(1);
	struct actor *actor;
	struct uffd_msg msg;
	struct uf *uf;

	opts.flags = UF_OPEN_BLOCKING;
	CHECK_EQ(object_open(&uf, &opts), 0);
	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	CHECK_EQ(uf_read(uf, &msg, 1), 1);
	CHECK_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(actor);
}

static long read_one(void *arg)
{
	struct uffd_msg msg;

	return uf_read(arg, &msg, 1);
}

TEST(read_blocking_sleeps, "A blocking read(2) sleeps until a fault comes.")
{
	struct uf_options opts = options(0);
	struct actor *reader, *toucher;
	char *page = anon(1);
	struct uf *uf;

	opts.flags = UF_OPEN_BLOCKING;
	CHECK_EQ(object_open(&uf, &opts), 0);
	registered(uf, page, page_size, MISSING);
	reader = act_call(read_one, uf);
	CHECK(actor_waits(reader));
	toucher = act_read(page);
	CHECK_EQ(actor_end(reader).value, 1);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(toucher);
}

static void do_nothing(int sig)
{
	(void)sig;
}

TEST(read_interrupted, "-EINTR a signal came while waiting.")
{
	struct sigaction action = {.sa_handler = do_nothing};
	struct uf_options opts = options(0);
	struct actor *reader;
	struct uf *uf;

	CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	opts.flags = UF_OPEN_BLOCKING;
	CHECK_EQ(object_open(&uf, &opts), 0);
	reader = act_call(read_one, uf);
	CHECK(actor_waits(reader));
	CHECK_EQ(tgkill(getpid(), actor_tid(reader), SIGUSR1), 0);
	CHECK_EQ(actor_end(reader).value, -EINTR);
}

TEST(read_several_messages, "read can return many messages at once.")
{
	enum { COUNT = 5 };
	char *pages = anon(COUNT);
	struct uf *uf = object(0);
	struct actor *actors[COUNT];
	struct uffd_msg msgs[2 * COUNT];
	unsigned seen = 0;

	registered(uf, pages, COUNT * page_size, MISSING);
	for (size_t i = 0; i < COUNT; i++)
		actors[i] = act_read(pages + i * page_size);
	for (size_t i = 0; i < COUNT; i++)
		CHECK(actor_waits(actors[i]));
	CHECK_EQ(uf_read(uf, msgs, 2 * COUNT), COUNT);
	for (size_t i = 0; i < COUNT; i++) {
		CHECK_EQ(msgs[i].event, UFFD_EVENT_PAGEFAULT);
		seen |= 1u << (msgs[i].arg.pagefault.address - (uintptr_t)pages) / page_size;
	}
	CHECK_EQ(seen, (1u << COUNT) - 1);
	CHECK_EQ(uf_zeropage(uf, pages, COUNT * page_size, 0), COUNT * page_size);
	for (size_t i = 0; i < COUNT; i++)
		actor_end(actors[i]);
}

TEST(read_takes_no_more_than_asked, "Messages for which there is no room wait for the next read.")
{
	char *pages = anon(3);
	struct uf *uf = object(0);
	struct actor *actors[3];
	struct uffd_msg msgs[3];

	registered(uf, pages, 3 * page_size, MISSING);
	for (size_t i = 0; i < 3; i++) {
		actors[i] = act_read(pages + i * page_size);
		CHECK(actor_waits(actors[i]));
	}
	CHECK_EQ(uf_read(uf, msgs, 2), 2);
	CHECK_EQ(poll_now(uf), POLLIN);
	CHECK_EQ(uf_read(uf, msgs, 3), 1);
	CHECK_EQ(uf_zeropage(uf, pages, 3 * page_size, 0), 3 * page_size);
	for (size_t i = 0; i < 3; i++)
		actor_end(actors[i]);
}

TEST(read_too_small, "EINVAL The buffer has no room for one message.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *actor;
	struct uffd_msg msg;

	CHECK_EQ(read_bytes(uf, &msg, sizeof(msg) - 1), -EINVAL);
	CHECK_EQ(read_bytes(uf, &msg, 0), -EINVAL);
	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	CHECK(actor_waits(actor));
	CHECK_EQ(read_bytes(uf, &msg, sizeof(msg) - 1), -EINVAL);
	/* The message has not been lost. */
	expect_fault(uf, page, page_size, 0);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(actor);
}

TEST(read_whole_messages, "A read returns whole messages only, whatever room is left.")
{
	char *page = anon(1), room[2 * sizeof(struct uffd_msg) - 1];
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	CHECK(actor_waits(actor));
	CHECK_EQ(read_bytes(uf, room, sizeof(room)), sizeof(struct uffd_msg));
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(actor);
}

TEST(read_into_nothing,
     "EFAULT The buffer cannot be written: the message is lost, and WAKE makes the fault come again.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_read(uf, (struct uffd_msg *)unmapped(1), 1), -EFAULT);
	expect_silence(uf);
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_wake(uf, page, page_size), 0);
	expect_fault(uf, page, page_size, 0);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(actor);
}

TEST(message_of_a_read, "You get the address of the access that triggered the event out of a struct uffd_msg.")
{
	char *pages = anon(2);
	struct uf *uf = object(0);
	struct uffd_msg msg, expected;
	struct actor *actor;

	registered(uf, pages, 2 * page_size, MISSING);
	actor = act_read(pages + page_size);
	msg = next_message(uf);
	memset(&expected, 0, sizeof(expected));
	expected.event = UFFD_EVENT_PAGEFAULT;
	expected.arg.pagefault.address = (uintptr_t)pages + page_size;
	/* All of it: reserved fields are zero, no flag, and no thread without THREAD_ID. */
	CHECK(memcmp(&msg, &expected, sizeof(msg)) == 0);
	CHECK_EQ(uf_zeropage(uf, pages, 2 * page_size, 0), 2 * page_size);
	actor_end(actor);
}

TEST(message_of_a_write, "A write into a !WP area has UFFD_PAGEFAULT_FLAG_WRITE set.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *actor;

	registered(uf, page, page_size, MISSING);
	actor = act_write(page, 3);
	expect_fault(uf, page, page_size, UFFD_PAGEFAULT_FLAG_WRITE);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(actor);
	CHECK_EQ(*(volatile char *)page, 3);
}

TEST(messages_go_to_their_object, "Each object is told of the faults in its own ranges only.")
{
	char *pages = anon(2);
	struct uf *first = object(0), *second = object(0);
	struct actor *actor;

	registered(first, pages, page_size, MISSING);
	registered(second, pages + page_size, page_size, MISSING);
	actor = act_read(pages + page_size);
	CHECK(actor_waits(actor));
	expect_silence(first);
	expect_fault(second, pages + page_size, page_size, 0);
	CHECK_EQ(uf_zeropage(second, pages + page_size, page_size, 0), page_size);
	actor_end(actor);
}

TEST(message_per_thread, "Each thread that waits for a page has a message of its own.")
{
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *actors[3];
	struct uffd_msg msgs[4];

	registered(uf, page, page_size, MISSING);
	for (size_t i = 0; i < 3; i++) {
		actors[i] = act_read(page);
		CHECK(actor_waits(actors[i]));
	}
	CHECK_EQ(uf_read(uf, msgs, 4), 3);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	for (size_t i = 0; i < 3; i++)
		actor_end(actors[i]);
}

static _Atomic unsigned handled;

static void count_signal(int sig)
{
	(void)sig;
	handled++;
}

TEST(signal_interrupts_the_wait,
     "A signal's handler runs while a thread waits; the access is repeated, with a second message.")
{
	struct sigaction action = {.sa_handler = count_signal};
	char *page = anon(1);
	struct uf *uf = object(0);
	struct actor *actor;

	CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	expect_fault(uf, page, page_size, 0);
	CHECK(actor_waits(actor));
	CHECK_EQ(tgkill(getpid(), actor_tid(actor), SIGUSR1), 0);
	expect_fault(uf, page, page_size, 0);
	CHECK_EQ(handled, 1);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, 0);
}
