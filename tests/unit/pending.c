// SPDX-License-Identifier: MIT
/* The faults that wait: put in, announced, read, woken, taken over, and never lost. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/task.h"
#include "support/test.h"
#include "uffd/user/pending.h"

static struct user_pending pending;

static void create(void)
{
	CHECK_EQ(user_pending_create(&pending, O_NONBLOCK | O_CLOEXEC), 0);
}

static struct uffd_msg fault_at(uint64_t address)
{
	return (struct uffd_msg){.event = UFFD_EVENT_PAGEFAULT, .arg.pagefault.address = address};
}

static bool rings(void)
{
	struct pollfd bell = {.fd = pending.bell, .events = POLLIN};

	return poll(&bell, 1, 0) == 1 && (bell.revents & POLLIN);
}

static struct user_ticket put_in(const struct uffd_msg *msg)
{
	struct user_ticket ticket = user_pending_add(&pending, msg, page_size);

	user_pending_tell(&pending, &ticket);
	return ticket;
}

static struct user_ticket add(uint64_t address)
{
	struct uffd_msg msg = fault_at(address);

	return put_in(&msg);
}

/* A thread that puts a fault in and waits for it. */
struct waiter {
	pthread_t thread;
	uint64_t address;
	_Atomic bool done;
};

static void wait_done(struct user_ticket ticket)
{
	signal_mask before = block_signals();

	user_pending_wait_done(&pending, ticket, before);
	restore_signals(before);
}

static void *wait_in_fault(void *arg)
{
	struct waiter *waiter = arg;

	wait_done(add(waiter->address));
	atomic_store(&waiter->done, true);
	return NULL;
}

static void start(struct waiter *waiter, uint64_t address)
{
	waiter->address = address;
	CHECK_EQ(pthread_create(&waiter->thread, NULL, wait_in_fault, waiter), 0);
}

static void wait_for_ring(void)
{
	struct pollfd bell = {.fd = pending.bell, .events = POLLIN};

	CHECK_EQ(poll(&bell, 1, -1), 1);
}

TEST(message_rings_and_is_read_once,
     "The descriptor is readable while something is unread, and each message is read once.")
{
	struct uffd_msg msg;

	create();
	CHECK(!rings());
	CHECK_EQ(user_pending_take(&pending, &msg, 1, true), 0);
	add(0x1234567);
	CHECK(rings());
	CHECK_EQ(user_pending_take(&pending, &msg, 1, true), 1);
	CHECK_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
	CHECK_EQ(msg.arg.pagefault.address, 0x1234567);
	CHECK_EQ(msg.arg.pagefault.feat.ptid, gettid());
	CHECK(!rings());
	CHECK_EQ(user_pending_take(&pending, &msg, 1, true), 0);
	CHECK(!rings());
}

TEST(address_is_rounded_unless_exact, "Without EXACT_ADDRESS the address is rounded down to the page.")
{
	struct uffd_msg msg;

	create();
	add(0x1234567);
	CHECK_EQ(user_pending_take(&pending, &msg, 1, false), 1);
	CHECK_EQ(msg.arg.pagefault.address, 0x1234567 & ~(page_size - 1));
}

TEST(woken_before_read_is_not_read, "What is woken before it was read is not read any more, and does not ring.")
{
	struct waiter waiter = {0};
	struct uffd_msg msg;

	create();
	start(&waiter, 0x5000);
	wait_for_ring();
	CHECK_EQ(user_pending_wake(&pending, 0x6000, 0x7000), 0);
	CHECK_EQ(user_pending_wake(&pending, 0x5000, 0x6000), 1);
	pthread_join(waiter.thread, NULL);
	CHECK_EQ(user_pending_take(&pending, &msg, 1, true), 0);
	CHECK(!rings());
}

TEST(wake_wakes_all_in_range_and_no_others,
     "Every thread that waits in the range is woken, whether it was read or not.")
{
	struct waiter waiters[16] = {0};
	struct uffd_msg msgs[16];
	size_t seen = 0;

	create();
	for (size_t i = 0; i < 16; i++)
		start(&waiters[i], 0x10000 + i * 0x1000);
	while (seen < 16) {
		wait_for_ring();
		seen += user_pending_take(&pending, msgs + seen, seen < 8 ? 1 : 16 - seen, true);
	}
	CHECK_EQ(user_pending_wake(&pending, 0x14000, 0x18000), 4);
	for (size_t i = 4; i < 8; i++)
		pthread_join(waiters[i].thread, NULL);
	for (size_t i = 0; i < 16; i++)
		CHECK_EQ(waiters[i].done, i >= 4 && i < 8);
	CHECK_EQ(user_pending_wake(&pending, 0, UINT64_MAX), 12);
	for (size_t i = 0; i < 16; i++)
		if (i < 4 || i >= 8)
			pthread_join(waiters[i].thread, NULL);
}

/* Puts messages in from threads of their own, since a thread has one slot. */
static void *add_and_leave(void *arg)
{
	put_in(arg);
	return NULL;
}

static void add_from_thread(struct uffd_msg msg)
{
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, add_and_leave, &msg), 0);
	pthread_join(thread, NULL);
}

TEST(oldest_first_and_faults_before_events, "Faults are read before events, each kind oldest first.")
{
	struct uffd_msg event = {.event = UFFD_EVENT_REMAP, .arg.remap = {.from = 1, .to = 2, .len = 3}}, msgs[8];

	create();
	for (uint64_t i = 1; i <= 3; i++) {
		event.arg.remap.from = i;
		add_from_thread(event);
		add_from_thread(fault_at(i));
	}
	CHECK_EQ(user_pending_take(&pending, msgs, 2, true), 2);
	CHECK(rings());
	CHECK_EQ(user_pending_take(&pending, msgs + 2, 6, true), 4);
	for (uint64_t i = 0; i < 3; i++) {
		CHECK_EQ(msgs[i].event, UFFD_EVENT_PAGEFAULT);
		CHECK_EQ(msgs[i].arg.pagefault.address, i + 1);
		CHECK_EQ(msgs[3 + i].event, UFFD_EVENT_REMAP);
		CHECK_EQ(msgs[3 + i].arg.remap.from, i + 1);
		CHECK_EQ(msgs[3 + i].arg.remap.to, 2);
		CHECK_EQ(msgs[3 + i].arg.remap.len, 3);
	}
	CHECK(!rings());
}

static void *wait_in_event(void *arg)
{
	struct uffd_msg event = {.event = UFFD_EVENT_REMOVE};

	user_pending_wait_read(&pending, put_in(&event));
	atomic_store((_Atomic bool *)arg, true);
	return NULL;
}

TEST(event_waits_until_read, "A layout event lets its thread go on as soon as it is read, and a wake does not.")
{
	static _Atomic bool done;
	struct uffd_msg msg;
	pthread_t thread;

	create();
	CHECK_EQ(pthread_create(&thread, NULL, wait_in_event, &done), 0);
	wait_for_ring();
	CHECK_EQ(user_pending_wake(&pending, 0, UINT64_MAX), 0);
	CHECK(!atomic_load(&done));
	CHECK_EQ(user_pending_take(&pending, &msg, 1, true), 1);
	pthread_join(thread, NULL);
	CHECK(done);
}

/*
 * In two phases. Readers in other processes are played by views of their own.
 */

static struct user_pending reader_numbered(uint32_t number)
{
	struct user_pending view = pending;

	view.rope = -1;
	view.reader = number;
	return view;
}

/* A thread that waits until its event is read. */
static pthread_t start_event(_Atomic bool *done)
{
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, wait_in_event, done), 0);
	return thread;
}

TEST(held_event_waits_until_accepted,
     "An event that was peeked at is handed out once, and lets its thread go on when it is accepted.")
{
	static _Atomic bool done;
	struct user_pending reader, other;
	uint64_t ids[2] = {0};
	struct uffd_msg msgs[2];
	pthread_t thread;

	create();
	reader = reader_numbered(1);
	other = reader_numbered(2);
	thread = start_event(&done);
	wait_for_ring();
	CHECK_EQ(user_pending_peek(&reader, msgs, ids, 2, true), 1);
	CHECK_EQ(msgs[0].event, UFFD_EVENT_REMOVE);
	CHECK(ids[0]);
	CHECK(!rings());
	CHECK_EQ(user_pending_peek(&reader, msgs, ids + 1, 1, true), 0);
	CHECK_EQ(user_pending_peek(&other, msgs, ids + 1, 1, true), 0);
	CHECK_EQ(user_pending_take(&other, msgs, 1, true), 0);
	CHECK_EQ(user_pending_accept(&other, ids, 1), -ENOENT);
	CHECK(!atomic_load(&done));
	CHECK_EQ(user_pending_accept(&reader, ids, 1), 0);
	pthread_join(thread, NULL);
	CHECK(done);
	CHECK_EQ(user_pending_accept(&reader, ids, 1), -ENOENT);
}

TEST(held_event_goes_on_to_the_next,
     "What a reader held who has gone is handed out again, with the same id; what others hold is not.")
{
	static _Atomic bool done;
	struct user_pending reader, heir;
	uint64_t id = 0, again = 0;
	struct uffd_msg msg;
	pthread_t thread;

	create();
	reader = reader_numbered(1);
	heir = reader_numbered(2);
	thread = start_event(&done);
	wait_for_ring();
	CHECK_EQ(user_pending_peek(&reader, &msg, &id, 1, true), 1);
	CHECK(user_pending_is_held(&pending, 2));
	user_pending_let_go(&pending, (uint32_t[]){1, 2}, 2);
	CHECK(!rings());
	CHECK_EQ(user_pending_peek(&heir, &msg, &again, 1, true), 0);
	user_pending_let_go(&pending, (uint32_t[]){2}, 1);
	CHECK(rings());
	CHECK(!user_pending_is_held(&pending, 2));
	CHECK_EQ(user_pending_accept(&reader, &id, 1), -ENOENT);
	CHECK_EQ(user_pending_peek(&heir, &msg, &again, 1, true), 1);
	CHECK_EQ(msg.event, UFFD_EVENT_REMOVE);
	CHECK_EQ(again, id);
	CHECK(!atomic_load(&done));
	CHECK_EQ(user_pending_accept(&reader, &id, 1), -ENOENT);
	CHECK_EQ(user_pending_accept(&heir, &again, 1), 0);
	pthread_join(thread, NULL);
}

TEST(faults_are_not_held, "A fault has no id, and is read at once.")
{
	struct uffd_msg msg;
	uint64_t id = 1;

	create();
	add(0x1000);
	CHECK_EQ(user_pending_peek(&pending, &msg, &id, 1, true), 1);
	CHECK_EQ(id, 0);
	CHECK_EQ(user_pending_accept(&pending, &id, 1), 0);
	CHECK(!user_pending_is_held(&pending, 0));
}

static int no_child(struct user_pending *view, uint32_t number)
{
	(void)view, (void)number;
	return -EMFILE;
}

static int dup_child(struct user_pending *view, uint32_t number)
{
	(void)view;
	return fcntl((int)(number & ~CHILD_INHERIT), F_DUPFD_CLOEXEC, 0);
}

TEST(fork_without_a_descriptor_stays, "A fork whose descriptor cannot be had stays unread, and nobody holds it.")
{
	struct uffd_msg event = {.event = UFFD_EVENT_FORK}, msg;
	struct user_pending reader;
	uint64_t id;

	create();
	reader = reader_numbered(1);
	event.arg.fork.ufd = (uint32_t)pending.memfd;
	add_from_thread(event);
	reader.open_child = no_child;
	CHECK_EQ(user_pending_peek(&reader, &msg, &id, 1, true), -EMFILE);
	CHECK_EQ(user_pending_take(&reader, &msg, 1, true), -EMFILE);
	CHECK(!user_pending_is_held(&pending, 0));
	CHECK(user_pending_has_child(&pending, event.arg.fork.ufd));
	reader.open_child = dup_child;
	CHECK_EQ(user_pending_peek(&reader, &msg, &id, 1, true), 1);
	CHECK(msg.arg.fork.ufd != event.arg.fork.ufd);
	CHECK(fcntl((int)msg.arg.fork.ufd, F_GETFD) >= 0);
	/* Whoever comes next has to be able to ask for it once more. */
	CHECK(user_pending_has_child(&pending, event.arg.fork.ufd));
	CHECK_EQ(user_pending_accept(&reader, &id, 1), 0);
	CHECK(!user_pending_has_child(&pending, event.arg.fork.ufd));
}

static void *peek_and_end(void *arg)
{
	struct uffd_msg msg;

	CHECK_EQ(user_pending_peek(&pending, &msg, arg, 1, true), 1);
	return (void *)(uintptr_t)gettid();
}

TEST(held_by_a_task_that_ended, "What a thread of the owner held that has ended is handed out to another one.")
{
	static _Atomic bool done;
	pthread_t thread, waiter;
	uint64_t id = 0, again = 0;
	struct uffd_msg msg;
	void *tid;

	create();
	waiter = start_event(&done);
	wait_for_ring();
	CHECK_EQ(pthread_create(&thread, NULL, peek_and_end, &id), 0);
	pthread_join(thread, &tid);
	/* Joined is not ended yet for the kernel. */
	while (!task_is_gone((uint32_t)(uintptr_t)tid))
		sched_yield();
	CHECK_EQ(user_pending_peek(&pending, &msg, &again, 1, true), 1);
	CHECK_EQ(again, id);
	CHECK_EQ(user_pending_accept(&pending, &again, 1), 0);
	pthread_join(waiter, NULL);
}

/* Many threads wait for events one after the other; readers hold what they are handed, and some are gone before they accept. */
#define CHANGERS 4
#define CHANGES  2000
#define HOLDERS  3

static _Atomic uint32_t seen[CHANGERS * CHANGES + 1];
static uint32_t living[HOLDERS] = {1, 2, 3}, last_number = HOLDERS;
static _Atomic uint32_t accepted;

static void *change_often(void *arg)
{
	(void)arg;
	for (int i = 0; i < CHANGES; i++) {
		struct uffd_msg event = {.event = UFFD_EVENT_REMOVE};
		signal_mask before = block_signals();

		user_pending_wait_read(&pending, put_in(&event));
		restore_signals(before);
	}
	return NULL;
}

/* As in the owner, where one thread does both. */
static uint32_t come_back(size_t self)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	uint32_t number;

	pthread_mutex_lock(&lock);
	living[self] = number = ++last_number;
	user_pending_let_go(&pending, living, HOLDERS);
	pthread_mutex_unlock(&lock);
	return number;
}

/* Every third event that it is handed is its last, and it comes back as another. */
static void *hold_often(void *arg)
{
	struct user_pending view = reader_numbered((uint32_t)(uintptr_t)arg + 1);
	unsigned handed = 0;

	while (atomic_load(&accepted) < CHANGERS * CHANGES) {
		struct uffd_msg msg;
		uint64_t id;

		if (user_pending_peek(&view, &msg, &id, 1, true) != 1) {
			sched_yield();
			continue;
		}
		CHECK(id && id <= CHANGERS * CHANGES);
		/* Nobody else holds it. */
		CHECK_EQ(atomic_fetch_add(&seen[id], 1) % 2, 0);
		if (++handed % 3) {
			/* Before: its thread may be the last, and there is nothing to be seen after it. */
			atomic_fetch_add(&seen[id], 1);
			CHECK_EQ(user_pending_accept(&view, &id, 1), 0);
			atomic_fetch_add(&accepted, 1);
			continue;
		}
		atomic_fetch_add(&seen[id], 1);
		view.reader = come_back((size_t)(uintptr_t)arg);
	}
	return NULL;
}

TEST(held_events_are_accepted_once, "Readers that come and go hand on what they hold: each event is accepted once.")
{
	pthread_t changers[CHANGERS], holders[HOLDERS];

	create();
	for (uintptr_t i = 0; i < HOLDERS; i++)
		CHECK_EQ(pthread_create(&holders[i], NULL, hold_often, (void *)i), 0);
	for (size_t i = 0; i < CHANGERS; i++)
		CHECK_EQ(pthread_create(&changers[i], NULL, change_often, NULL), 0);
	for (size_t i = 0; i < CHANGERS; i++)
		pthread_join(changers[i], NULL);
	for (size_t i = 0; i < HOLDERS; i++)
		pthread_join(holders[i], NULL);
	CHECK_EQ(atomic_load(&accepted), CHANGERS * CHANGES);
	for (size_t i = 1; i <= CHANGERS * CHANGES; i++)
		CHECK(seen[i] >= 2 && seen[i] % 2 == 0);
}

static void fault_in_handler(int sig)
{
	(void)sig;
	add(0x9000); /* and never wait: as after a longjmp */
}

TEST(nested_fault_ends_the_outer_wait, "A fault in a signal handler takes the slot over; the wait underneath ends.")
{
	struct waiter waiter = {0};
	struct uffd_msg msgs[4];

	create();
	signal(SIGUSR1, fault_in_handler);
	start(&waiter, 0x8000);
	wait_for_ring();
	CHECK_EQ(user_pending_take(&pending, msgs, 4, true), 1);
	CHECK_EQ(msgs[0].arg.pagefault.address, 0x8000);
	pthread_kill(waiter.thread, SIGUSR1);
	pthread_join(waiter.thread, NULL);
	CHECK_EQ(user_pending_take(&pending, msgs, 4, true), 1);
	CHECK_EQ(msgs[0].arg.pagefault.address, 0x9000);
	CHECK_EQ(user_pending_take(&pending, msgs, 4, true), 0);
}

TEST(renewed_messages_are_read_again, "A reader that attaches is told of all faults that wait, read before or not.")
{
	struct uffd_msg msgs[8];

	create();
	for (uint64_t i = 1; i <= 3; i++)
		add_from_thread(fault_at(i));
	CHECK_EQ(user_pending_take(&pending, msgs, 2, true), 2);
	user_pending_renew(&pending);
	CHECK(rings());
	CHECK_EQ(user_pending_take(&pending, msgs, 8, true), 3);
	CHECK(!rings());
}

TEST(another_process_reads_and_wakes, "A process that attaches can do all that the owner can.")
{
	struct waiter waiter = {0};
	int status;
	pid_t pid;

	create();
	user_pending_attached(&pending, true);
	/* The child comes first: it must not inherit the mapping. */
	CHECK_EQ(madvise(pending.shared, page_size, MADV_DONTFORK), 0);
	pid = fork();
	if (pid == 0) {
		struct user_pending view;
		struct uffd_msg msg;

		CHECK_EQ(user_pending_attach(&view, pending.memfd, pending.bell), 0);
		wait_for_ring();
		CHECK_EQ(user_pending_take(&view, &msg, 1, true), 1);
		CHECK_EQ(msg.arg.pagefault.address, 0xa000);
		CHECK_EQ(user_pending_wake(&view, 0xa000, 0xb000), 1);
		_exit(0);
	}
	start(&waiter, 0xa000);
	pthread_join(waiter.thread, NULL);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK(!rings());
}

TEST(wrong_memory_is_not_attached, "Memory that could be taken away, or is of another kind, is refused.")
{
	struct user_pending view;
	int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	create();
	CHECK_EQ(user_pending_attach(&view, -1, pending.bell), -EINVAL);
	CHECK_EQ(user_pending_attach(&view, fd, pending.bell), -EINVAL);
	CHECK_EQ(ftruncate(fd, lseek(pending.memfd, 0, SEEK_END)), 0);
	CHECK_EQ(user_pending_attach(&view, fd, pending.bell), -EINVAL);
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
	CHECK_EQ(user_pending_attach(&view, fd, pending.bell), -EINVAL);
}

/* Many threads fault again and again; readers poll, read and wake; everyone must end. */
#define FAULTERS 8
#define FAULTS   4000

static _Atomic bool let_go;

static int carry_out_late(struct user_pending *view, uint64_t page, const void *tray, uint64_t mode)
{
	(void)view;
	(void)page;
	(void)tray;
	(void)mode;
	while (!atomic_load(&let_go))
		usleep(1000);
	return 0;
}

/* An errand that is begun, and given up. The one who sends it is not patient: it may be given up before its thread has woken. */
static void give_up_late(uint32_t tray, const void *content, struct user_ticket *busy)
{
	int err = 1;

	while (!busy->slot)
		CHECK(!user_pending_send(&pending, tray, 0x8000, content, 0, busy, &err));
}

TEST(late_errand_is_known_for_what_it_was,
     "An errand that was given up, and carried out after that, has done its request.")
{
	static char content[USER_TRAY];
	struct user_ticket busy = {0};
	struct waiter waiter;
	struct uffd_msg msg;

	create();
	pending.carry_out = carry_out_late;
	user_pending_attached(&pending, true);
	start(&waiter, 0x8000);
	wait_for_ring();
	CHECK_EQ(user_pending_take(&pending, &msg, 1, true), 1);
	give_up_late(0, content, &busy);
	CHECK(!user_pending_has_sent(&pending, &busy, 0x9000));
	CHECK(!user_pending_has_sent(&pending, &busy, 0x8000));
	atomic_store(&let_go, true);
	pthread_join(waiter.thread, NULL);
	CHECK(user_pending_has_sent(&pending, &busy, 0x8000));
	CHECK(!user_pending_has_sent(&pending, &busy, 0x8000));
}

TEST(result_for_the_dead_is_given_back, "What a monitor did not fetch that has gone is given back with its tray.")
{
	static char content[USER_TRAY];
	struct user_ticket busy = {0};
	struct waiter waiter;
	struct uffd_msg msg;

	create();
	pending.carry_out = carry_out_late;
	user_pending_attached(&pending, true);
	start(&waiter, 0x8000);
	wait_for_ring();
	CHECK_EQ(user_pending_take(&pending, &msg, 1, true), 1);
	give_up_late(5, content, &busy);
	CHECK(user_pending_uses(&pending, 5));
	atomic_store(&let_go, true);
	pthread_join(waiter.thread, NULL);
	user_pending_forget_tray(&pending, 4);
	user_pending_forget_tray(&pending, 5);
	CHECK(!user_pending_has_sent(&pending, &busy, 0x8000));
}

static _Atomic uint64_t reads;

static void *fault_often(void *arg)
{
	for (uint64_t i = 0; i < FAULTS; i++)
		wait_done(add(((uintptr_t)arg << 32) + i));
	return NULL;
}

static void *serve(void *arg)
{
	size_t room = (size_t)arg;

	for (;;) {
		struct uffd_msg msgs[8];
		size_t n;

		wait_for_ring();
		n = user_pending_take(&pending, msgs, room, true);
		for (size_t i = 0; i < n; i++) {
			uint64_t address = msgs[i].arg.pagefault.address;

			if (address == UINT64_MAX) {
				/* The end, for the next reader too. */
				add(UINT64_MAX);
				return NULL;
			}
			atomic_fetch_add(&reads, 1);
			user_pending_wake(&pending, address, address + 1);
		}
	}
}

TEST(no_message_is_lost_under_load,
     "Messages of many threads, read by several readers, are each read once and none is lost.")
{
	pthread_t faulters[FAULTERS], readers[2];

	create();
	for (size_t i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&readers[i], NULL, serve, (void *)(1 + 7 * i)), 0);
	for (uintptr_t i = 0; i < FAULTERS; i++)
		CHECK_EQ(pthread_create(&faulters[i], NULL, fault_often, (void *)i), 0);
	for (size_t i = 0; i < FAULTERS; i++)
		pthread_join(faulters[i], NULL);
	CHECK_EQ(reads, FAULTERS * FAULTS);
	add_from_thread(fault_at(UINT64_MAX));
	for (size_t i = 0; i < 2; i++)
		pthread_join(readers[i], NULL);
	CHECK_EQ(user_pending_take(&pending, &(struct uffd_msg){0}, 1, true), 1);
	/* A late ring may be left; whoever looks for its message takes it out. */
	CHECK_EQ(user_pending_take(&pending, &(struct uffd_msg){0}, 1, true), 0);
	CHECK(!rings());
}
