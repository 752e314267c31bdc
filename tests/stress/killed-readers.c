// SPDX-License-Identifier: MIT
/*
 * Readers in two phases are killed at random moments: between peek and log, log and accept, while they attach, anywhere. Threads of the owner
 * remove, move, unmap and fork meanwhile, and the log holds each of their events once, in order, and a descriptor for each child.
 *
 * The readers share the descriptors of a survivor, which starts one after the other and closes, now and then, what the log does not name.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/memory.h"
#include "support/passing.h"
#include "support/test.h"
#include "uffd/durable.h"
#include "uffd/user/layout.h"

#define THREADS 4
#define ROUNDS  40 /* of a thread: a removal, a move, an unmapping and now and then a fork */
#define FORKS   4  /* of them, a fork in every so many */
#define KILLS   200
#define LIFE \
	4000 /* us, of a reader at most: twice as long after one that got nothing done, or it might take for ever */
#define EVENTS_MOST (THREADS * ROUNDS * 8)
#define EVENTS \
	(UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_FORK)
#define NUMBERS_MOST 4096

/* What a reader has taken note of. One writes at a time; an entry counts once `logged` is past it. */
struct entry {
	uint64_t id;
	struct uffd_msg msg;
	_Atomic bool served; /* a child, which has got its page */
};

static struct shared {
	_Atomic bool unchanging, finished;
	_Atomic unsigned kills, logged, again, accepted;
	struct entry log[EVENTS_MOST];
} * shared;

/*
 * A reader.
 */

static unsigned seed;

static void perhaps_die(void)
{
	if (rand_r(&seed) % 24 == 0)
		kill(getpid(), SIGKILL);
}

static struct entry *find(uint64_t id)
{
	for (unsigned i = atomic_load(&shared->logged); i-- > 0;)
		if (shared->log[i].id == id)
			return &shared->log[i];
	return NULL;
}

static void take_note(const struct uffd_msg *msg, uint64_t id)
{
	struct entry *entry = find(id);
	unsigned n = atomic_load(&shared->logged);

	if (entry) {
		CHECK_EQ(entry->msg.event, msg->event);
		if (msg->event == UFFD_EVENT_FORK)
			close((int)msg->arg.fork.ufd);
		else
			CHECK(!memcmp(&entry->msg, msg, sizeof(*msg)));
		atomic_fetch_add(&shared->again, 1);
		return;
	}
	CHECK(n < EVENTS_MOST);
	shared->log[n].id = id;
	shared->log[n].msg = *msg;
	atomic_store(&shared->logged, n + 1);
}

/* Who cannot have its page since an event is unread comes again. */
static void serve(struct uf *uf, const struct uffd_msg *msg, const char *page)
{
	char *at = (char *)(uintptr_t)(msg->arg.pagefault.address & ~(uint64_t)(page_size - 1));
	ssize_t n = uf_copy(uf, at, page, page_size, 0);

	if (n != (ssize_t)page_size)
		uf_wake(uf, at, page_size);
}

static void read_some(struct uf *uf, const char *page)
{
	struct uffd_msg msgs[4];
	uint64_t ids[4];
	ssize_t n = uf_peek(uf, msgs, ids, 1 + (size_t)rand_r(&seed) % 4);

	perhaps_die();
	for (ssize_t i = 0; i < n; i++) {
		if (msgs[i].event == UFFD_EVENT_PAGEFAULT)
			serve(uf, &msgs[i], page);
		else
			take_note(&msgs[i], ids[i]);
		perhaps_die();
	}
	if (n > 0) {
		CHECK_EQ(uf_accept(uf, ids, (size_t)n), 0);
		atomic_fetch_add(&shared->accepted, 1);
	}
	perhaps_die();
}

/* A child faults once. */
static void serve_child(struct entry *entry, struct uf *uf, const char *page)
{
	struct uffd_msg msg;

	if (uf_read(uf, &msg, 1) != 1)
		return;
	serve(uf, &msg, page);
	perhaps_die();
	if (msg.event == UFFD_EVENT_PAGEFAULT)
		atomic_store(&entry->served, true);
}

static bool is_child_to_serve(const struct entry *entry)
{
	return entry->msg.event == UFFD_EVENT_FORK && !atomic_load(&entry->served);
}

static _Noreturn void be_reader(int fd)
{
	static struct uf *children[EVENTS_MOST];
	const char *page = filled(1);
	struct uf *uf;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	seed = (unsigned)getpid();
	CHECK_EQ(uf_adopt(&uf, fd), 0);
	for (;;) {
		struct pollfd fds[EVENTS_MOST];
		unsigned of[EVENTS_MOST];
		nfds_t count = 1;

		fds[0] = (struct pollfd){.fd = fd, .events = POLLIN};
		for (unsigned i = 0; i < atomic_load(&shared->logged); i++) {
			if (!is_child_to_serve(&shared->log[i]))
				continue;
			if (!children[i])
				CHECK_EQ(uf_adopt(&children[i], (int)shared->log[i].msg.arg.fork.ufd), 0);
			of[count] = i;
			fds[count++] = (struct pollfd){.fd = uf_fd(children[i]), .events = POLLIN};
		}
		poll(fds, count, -1);
		if (fds[0].revents)
			read_some(uf, page);
		for (nfds_t i = 1; i < count; i++)
			if (fds[i].revents)
				serve_child(&shared->log[of[i]], children[of[i]], page);
	}
}

/*
 * The survivor.
 */

static void close_unknown(int fd)
{
	static bool known[NUMBERS_MOST];

	memset(known, 0, sizeof(known));
	known[fd] = true;
	for (unsigned i = 0; i < atomic_load(&shared->logged); i++)
		if (is_child_to_serve(&shared->log[i]))
			known[shared->log[i].msg.arg.fork.ufd] = true;
	for (int i = 3; i < NUMBERS_MOST; i++)
		if (!known[i])
			close(i);
}

/* At most so long: no longer than it lives by itself. */
static void let_live(unsigned us)
{
	struct timespec most = {us / 1000000, us % 1000000 * 1000l};
	sigset_t ended;

	sigemptyset(&ended);
	sigaddset(&ended, SIGCHLD);
	sigprocmask(SIG_BLOCK, &ended, NULL);
	sigtimedwait(&ended, NULL, &most);
}

static _Noreturn void survive(int socket)
{
	unsigned state = 1, life = LIFE;
	char byte;
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fd = receive_with_fd(socket, &byte, 1);
	CHECK(fd > 2);
	while (!atomic_load(&shared->finished)) {
		unsigned accepted = atomic_load(&shared->accepted);
		pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
		int status;

		CHECK(pid >= 0);
		if (!pid)
			be_reader(fd);
		let_live((unsigned)rand_r(&state) % life);
		kill(pid, SIGKILL);
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		/* Of this end. */
		let_live(0);
		if (!WIFSIGNALED(status))
			_exit(1);
		atomic_fetch_add(&shared->kills, 1);
		if (atomic_load(&shared->unchanging))
			life = LIFE;
		else if (atomic_load(&shared->accepted) == accepted)
			life *= 2;
		else if (life > LIFE)
			life -= life / 8;
		if (rand_r(&state) % 2)
			close_unknown(fd);
	}
	_exit(0);
}

/*
 * The owner's threads. Each has memory of its own, and knows what events it causes.
 */

#define BLOCK 2 /* pages that are moved */

struct changer {
	pthread_t thread;
	char *fixed;   /* a page that is emptied, and one that only children touch */
	char *moving;  /* a row of places; the block goes from one to the next */
	char *falling; /* pages that are unmapped, one after the other */
	struct uffd_msg expected[ROUNDS * 4];
	unsigned count, forks;
};

static struct changer changers[THREADS];

static void expect(struct changer *changer, struct uffd_msg msg)
{
	changer->expected[changer->count++] = msg;
}

static void expect_area(struct changer *changer, uint8_t event, const char *start, size_t len)
{
	struct uffd_msg msg = {.event = event};

	msg.arg.remove.start = (uintptr_t)start;
	msg.arg.remove.end = (uintptr_t)start + len;
	expect(changer, msg);
}

static void remove_one(struct changer *changer)
{
	CHECK_EQ(*(volatile unsigned char *)changer->fixed, pattern(0));
	CHECK_EQ(user_layout_madvise((uintptr_t)changer->fixed, page_size, MADV_DONTNEED), 0);
	expect_area(changer, UFFD_EVENT_REMOVE, changer->fixed, page_size);
}

static void move_one(struct changer *changer, size_t round)
{
	size_t len = BLOCK * page_size;
	char *from = changer->moving + round * len, *to = from + len;
	struct uffd_msg msg = {.event = UFFD_EVENT_REMAP};

	CHECK_EQ(user_layout_mremap((uintptr_t)from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, (uintptr_t)to),
	         (uintptr_t)to);
	msg.arg.remap.from = (uintptr_t)from;
	msg.arg.remap.to = (uintptr_t)to;
	msg.arg.remap.len = len;
	expect(changer, msg);
	expect_area(changer, UFFD_EVENT_UNMAP, from, len);
}

static void unmap_one(struct changer *changer, size_t round)
{
	char *page = changer->falling + round * page_size;

	CHECK_EQ(user_layout_munmap((uintptr_t)page, page_size), 0);
	expect_area(changer, UFFD_EVENT_UNMAP, page, page_size);
}

/* The child's page comes through the descriptor in the event: if that is lost, it finds zeros. */
static void fork_one(struct changer *changer)
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (!pid)
		_exit(*(volatile unsigned char *)(changer->fixed + page_size) == pattern(0) ? 0 : 99);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	changer->forks++;
}

static void *change(void *arg)
{
	struct changer *changer = arg;

	for (size_t round = 0; round < ROUNDS; round++) {
		remove_one(changer);
		move_one(changer, round);
		unmap_one(changer, round);
		if (round % FORKS == 0)
			fork_one(changer);
	}
	return NULL;
}

static void registered(struct uf *uf, char *at, size_t pages)
{
	CHECK_EQ(uf_register(uf, at, pages * page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
}

static void prepare(struct changer *changer, struct uf *uf)
{
	changer->fixed = anon(2);
	changer->moving = anon(BLOCK * (ROUNDS + 1));
	changer->falling = anon(ROUNDS + 1);
	registered(uf, changer->fixed, 2);
	registered(uf, changer->moving, BLOCK);
	registered(uf, changer->falling, ROUNDS + 1);
}

static bool is_within(uint64_t addr, const char *start, size_t pages)
{
	return addr >= (uintptr_t)start && addr < (uintptr_t)start + pages * page_size;
}

static bool is_of(const struct changer *changer, const struct uffd_msg *msg)
{
	/* Of a move, from where; the fields are the first of the union alike. */
	uint64_t addr = msg->arg.remove.start;

	return is_within(addr, changer->fixed, 2) || is_within(addr, changer->moving, BLOCK * (ROUNDS + 1)) ||
	       is_within(addr, changer->falling, ROUNDS + 1);
}

static void check_log(const struct changer *changer)
{
	unsigned n = 0;
	uint64_t last = 0;

	for (unsigned i = 0; i < atomic_load(&shared->logged); i++) {
		const struct entry *entry = &shared->log[i];

		if (entry->msg.event == UFFD_EVENT_FORK || !is_of(changer, &entry->msg))
			continue;
		CHECK(n < changer->count);
		CHECK(!memcmp(&entry->msg, &changer->expected[n], sizeof(entry->msg)));
		CHECK(entry->id > last);
		last = entry->id;
		n++;
	}
	CHECK_EQ(n, changer->count);
}

static unsigned forks_in_log(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < atomic_load(&shared->logged); i++)
		n += shared->log[i].msg.event == UFFD_EVENT_FORK;
	return n;
}

TEST(events_outlive_their_readers,
     "Readers are killed at random: every layout event is logged once, in order, and no child is without a monitor.")
{
	struct uf_options opts = {.size = sizeof(opts), .engine = UF_ENGINE_USER, .required = EVENTS};
	unsigned forks = 0, events = 0;
	int sockets[2], status;
	pid_t survivor;
	struct uf *uf;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	survivor = fork();
	if (survivor == 0)
		survive(sockets[1]);
	CHECK_EQ(uf_open(&uf, &opts), 0);
	for (size_t i = 0; i < THREADS; i++)
		prepare(&changers[i], uf);
	send_with_fd(sockets[0], "x", 1, uf_fd(uf));
	for (size_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&changers[i].thread, NULL, change, &changers[i]), 0);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(changers[i].thread, NULL);
	atomic_store(&shared->unchanging, true);
	while (atomic_load(&shared->kills) < KILLS)
		usleep(1000);
	atomic_store(&shared->finished, true);
	CHECK_EQ(waitpid(survivor, &status, 0), survivor);
	CHECK_EQ(status, 0);
	for (size_t i = 0; i < THREADS; i++) {
		check_log(&changers[i]);
		forks += changers[i].forks;
		events += changers[i].count + changers[i].forks;
	}
	CHECK_EQ(forks_in_log(), forks);
	CHECK_EQ(atomic_load(&shared->logged), events);
	printf("# %u events, %u of them handed out again, %u readers killed\n", events, atomic_load(&shared->again),
	       atomic_load(&shared->kills));
}
