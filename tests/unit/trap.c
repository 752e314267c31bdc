// SPDX-License-Identifier: MIT
/* Handlers on the faulting thread, and every SIGBUS that is not theirs. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <userfault/uffd.h>

#include "support/test.h"
#include "uffd/trap.h"

static _Atomic unsigned handled;
static _Atomic uint64_t last_address, last_flags;

static char *map_pages(size_t pages)
{
	char *p = mmap(NULL, pages * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

static void *page_of(uint64_t addr)
{
	return (void *)(uintptr_t)(addr & ~(page_size - 1));
}

/* Fills a page with its own number; arg is the page to copy from, large enough and aligned. */
static int fill(struct uf *uf, const struct uf_fault *fault, void *arg)
{
	static __thread uint64_t content[65536 / sizeof(uint64_t)];
	ssize_t n;

	(void)arg;
	if (fault->flags & UFFD_PAGEFAULT_FLAG_WP) {
		atomic_fetch_add(&handled, 1);
		last_address = fault->address;
		last_flags = fault->flags;
		return uf_writeprotect(uf, page_of(fault->address), page_size, 0);
	}
	for (size_t i = 0; i < page_size / sizeof(uint64_t); i++)
		content[i] = fault->address / page_size;
	n = uf_copy(uf, page_of(fault->address), content, page_size, 0);
	if (n < 0 && n != -EEXIST)
		return (int)n;
	atomic_fetch_add(&handled, 1);
	last_address = fault->address;
	last_flags = fault->flags;
	return 0;
}

static int decline(struct uf *uf, const struct uf_fault *fault, void *arg)
{
	(void)uf;
	(void)fault;
	(void)arg;
	atomic_fetch_add(&handled, 1);
	return -EIO;
}

static struct uf *open_handled(uf_handler *handler, uint64_t wanted)
{
	struct uf_options opts = {.size = sizeof(opts), .handler = handler, .wanted = wanted};
	struct uf *uf;

	CHECK_EQ(uf_open(&uf, &opts), 0);
	CHECK(uf_features(uf) & UFFD_FEATURE_SIGBUS);
	return uf;
}

static uint64_t word_at(const char *p)
{
	return *(const volatile uint64_t *)p;
}

TEST(handler_resolves_on_faulting_thread, "A handler resolves a fault on the thread that took it.")
{
	struct uf *uf = open_handled(fill, 0);
	char *p = map_pages(64);
	uint64_t ioctls = 0;

	CHECK_EQ(uf_register(uf, p, 64 * page_size, UFFDIO_REGISTER_MODE_MISSING, &ioctls), 0);
	CHECK(ioctls & (1 << _UFFDIO_COPY));
	for (size_t i = 0; i < 64; i++)
		CHECK_EQ(word_at(p + i * page_size + 16), (uintptr_t)p / page_size + i);
	CHECK_EQ(handled, 64);
	uf_close(uf);
}

TEST(handler_knows_address_and_access,
     "The fault carries the exact address, and whether it was a write, or a protected one.")
{
	struct uf *uf = open_handled(fill, UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	char *p = map_pages(2);

	CHECK_EQ(uf_register(uf, p, 2 * page_size, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP, NULL), 0);
	(void)word_at(p + 8);
	CHECK_EQ(last_address, (uintptr_t)p + 8);
	CHECK_EQ(last_flags, 0);
	*(volatile char *)(p + page_size + 3) = 1;
	CHECK_EQ(last_address, (uintptr_t)p + page_size + 3);
	CHECK_EQ(last_flags, UFFD_PAGEFAULT_FLAG_WRITE);
	CHECK_EQ(uf_writeprotect(uf, p, page_size, UFFDIO_WRITEPROTECT_MODE_WP), 0);
	*(volatile char *)(p + 5) = 1;
	CHECK_EQ(last_address, (uintptr_t)p + 5);
	CHECK_EQ(last_flags, UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
	CHECK_EQ(handled, 3);
	uf_close(uf);
}

#ifndef __SANITIZE_THREAD__ /* it blocks a signal while that signal's handler runs, SA_NODEFER or not */
static char *second_region;

static int touch_another_then_fill(struct uf *uf, const struct uf_fault *fault, void *arg)
{
	if (word_at(second_region) != (uintptr_t)second_region / page_size)
		return -EIO;
	return fill(uf, fault, arg);
}

TEST(handlers_nest, "A handler may itself touch pages of other handled ranges.")
{
	struct uf *inner = open_handled(fill, 0), *outer = open_handled(touch_another_then_fill, 0);
	char *p = map_pages(1);

	second_region = map_pages(1);
	CHECK_EQ(uf_register(inner, second_region, page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
	CHECK_EQ(uf_register(outer, p, page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
	CHECK_EQ(word_at(p), (uintptr_t)p / page_size);
	CHECK_EQ(handled, 2);
}
#endif

TEST(unregistered_pages_are_ordinary,
     "Nothing is handled outside what is registered now: in the middle, or at an edge.")
{
	struct uf *uf = open_handled(fill, 0);
	char *p = map_pages(9);

	for (size_t i = 0; i < 9; i += 3)
		CHECK_EQ(uf_register(uf, p + i * page_size, 3 * page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
	CHECK_EQ(uf_unregister(uf, p + 4 * page_size, page_size), 0);
	CHECK_EQ(uf_unregister(uf, p, page_size), 0);
	for (size_t i = 0; i < 9; i++)
		CHECK_EQ(word_at(p + i * page_size), i == 0 || i == 4 ? 0 : (uintptr_t)p / page_size + i);
	CHECK_EQ(handled, 7);
	uf_close(uf);
}

TEST(failed_register_changes_nothing, "A register that fails leaves nothing to the handler.")
{
	struct uf *uf = open_handled(fill, 0), *other;
	char *p = map_pages(2);

	CHECK_EQ(uf_open(&other, NULL), 0);
	CHECK_EQ(uf_register(other, p, page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
	CHECK_EQ(uf_register(uf, p, 2 * page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), -EBUSY);
	CHECK(!uf_trap_owner((uintptr_t)p));
	CHECK_EQ(uf_register(uf, p + page_size, page_size, 0, NULL), -EINVAL);
	CHECK(!uf_trap_owner((uintptr_t)p + page_size));
	CHECK_EQ(uf_register(uf, p + page_size, page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
	CHECK(uf_trap_owner((uintptr_t)p + page_size) == uf);
	uf_close(uf);
	CHECK(!uf_trap_owner((uintptr_t)p + page_size));
}

static sigjmp_buf back;
static siginfo_t seen;
static volatile sig_atomic_t seen_blocked;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	sigset_t mask;

	(void)context;
	seen = *info;
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	seen_blocked = sigismember(&mask, SIGUSR1) && sigismember(&mask, sig);
	siglongjmp(back, 1);
}

static void install_own_handler(void)
{
	struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

	sigaddset(&action.sa_mask, SIGUSR1);
	sigaction(SIGBUS, &action, NULL);
}

/* A page behind the end of a file: a SIGBUS that has nothing to do with us. */
static char *map_beyond_end(void)
{
	int fd = memfd_create("empty", MFD_CLOEXEC);
	char *p = mmap(NULL, page_size, PROT_READ, MAP_SHARED, fd, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

TEST(other_sigbus_reaches_own_handler,
     "Every SIGBUS that is not ours goes to the handler that was there before, as it was.")
{
	char *p = map_beyond_end();

	install_own_handler();
	open_handled(fill, 0);
	for (int i = 0; i < 3; i++) {
		if (!sigsetjmp(back, 1)) {
			(void)word_at(p + 24);
			FAIL("no signal came");
		}
		CHECK(seen.si_addr == p + 24);
		CHECK_EQ(seen.si_code, BUS_ADRERR);
		CHECK(seen_blocked);
		seen.si_addr = NULL;
	}
	if (!sigsetjmp(back, 1)) {
		raise(SIGBUS);
		FAIL("no signal came");
	}
	CHECK_EQ(seen.si_code, SI_TKILL);
	CHECK_EQ(handled, 0);
}

TEST(declined_fault_reaches_own_handler, "A handler that returns an error lets the signal take its old way.")
{
	char *p = map_pages(1);
	struct uf *uf;

	install_own_handler();
	uf = open_handled(decline, 0);
	CHECK_EQ(uf_register(uf, p, page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
	if (!sigsetjmp(back, 1)) {
		(void)word_at(p + 40);
		FAIL("the declined access went on");
	}
	CHECK(seen.si_addr == p + 40);
	CHECK_EQ(handled, 1);
}

/* The si_code of touching a poisoned page; the object must have been opened after install_own_handler(). */
static int code_of_poison(struct uf *uf)
{
	char *p = map_pages(1);

	CHECK_EQ(uf_register(uf, p, page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
	CHECK_EQ(uf_poison(uf, p, page_size, 0), page_size);
	if (!sigsetjmp(back, 1)) {
		(void)word_at(p);
		FAIL("a poisoned page was read");
	}
	CHECK(seen.si_addr == p);
	return seen.si_code;
}

TEST(poisoned_page_is_known_by_its_signal,
     "A poisoned page is offered to the handler only where the kernel's signal cannot "
     "tell it from a missing one (without CONFIG_MEMORY_FAILURE)")
{
	struct uf *plain, *uf;
	int code;

	install_own_handler();
	CHECK_EQ(uf_open(&plain, NULL), 0);
	uf = open_handled(decline, 0);
	code = code_of_poison(plain);
	CHECK(code == BUS_MCEERR_AR || code == BUS_ADRERR);
	CHECK_EQ(code_of_poison(uf), code);
	CHECK_EQ(handled, code == BUS_ADRERR);
}

/* Runs `act` in a child and returns how it ended. */
static int in_child(void (*act)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		act();
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

static void fault_without_handler(void)
{
	(void)word_at(map_beyond_end());
}

static void send_sigbus(void)
{
	kill(getpid(), SIGBUS);
	for (;;)
		pause();
}

TEST(unhandled_sigbus_still_kills, "A SIGBUS that nobody handles kills, whether it was raised by an access or sent.")
{
	int status;

	open_handled(fill, 0);
	status = in_child(fault_without_handler);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	status = in_child(send_sigbus);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

TEST(ignored_sigbus_stays_ignored,
     "A SIGBUS that was ignored and is sent changes nothing; one raised by an access kills.")
{
	int status;

	signal(SIGBUS, SIG_IGN);
	open_handled(fill, 0);
	raise(SIGBUS);
	raise(SIGBUS);
	status = in_child(fault_without_handler);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

TEST(errno_survives_handler, "The interrupted code finds its errno as it was.")
{
	struct uf *uf = open_handled(fill, 0);
	char *p = map_pages(1);

	CHECK_EQ(uf_register(uf, p, page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
	errno = 4711;
	(void)word_at(p);
	CHECK_EQ(errno, 4711);
}

TEST(handler_and_fork_events_exclude_each_other, "UFFD_FEATURE_EVENT_FORK cannot be had together with a handler.")
{
	struct uf_options opts = {.size = sizeof(opts), .handler = fill, .required = UFFD_FEATURE_EVENT_FORK};
	struct uf *uf;

	CHECK_EQ(uf_open(&uf, &opts), -EINVAL);
	uf = open_handled(fill, UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_THREAD_ID);
	CHECK(!(uf_features(uf) & UFFD_FEATURE_EVENT_FORK));
	CHECK(uf_features(uf) & UFFD_FEATURE_THREAD_ID);
}

static char *handled_region;

static void touch_handled_region(void)
{
	CHECK_EQ(word_at(handled_region), (uintptr_t)handled_region / page_size);
}

TEST(fork_handlers_may_fault, "Other fork handlers may touch handled memory; the child finds ordinary memory there.")
{
	struct uf *uf;
	int status;
	pid_t pid;

	/* Registered before ours, so called after it. */
	CHECK_EQ(pthread_atfork(touch_handled_region, NULL, NULL), 0);
	uf = open_handled(fill, 0);
	handled_region = map_pages(2);
	CHECK_EQ(uf_register(uf, handled_region, 2 * page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
	pid = fork();
	if (pid == 0)
		_exit(word_at(handled_region + page_size) != 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK_EQ(handled, 1);
	CHECK_EQ(word_at(handled_region + page_size), (uintptr_t)handled_region / page_size + 1);
}

static int fill_then_decline(struct uf *uf, const struct uf_fault *fault, void *arg)
{
	fill(uf, fault, arg);
	return -EIO;
}

static void touch_declined(void)
{
	(void)word_at(handled_region);
}

TEST(declined_fault_kills_for_certain,
     "A declined fault kills where nobody else handles SIGBUS, even if the page came meanwhile.")
{
	struct uf *uf = open_handled(fill_then_decline, 0);
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		/* The object of the parent serves the parent; this process needs its own. */
		uf = open_handled(fill_then_decline, 0);
		handled_region = map_pages(1);
		CHECK_EQ(uf_register(uf, handled_region, page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
		touch_declined();
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	uf_close(uf);
}

#define PLACES 64
#define START  ((uint64_t)1 << 40)

TEST(set_of_ranges_matches_model, "Adding and removing ranges at random keeps the set as a naive model has it.")
{
	static struct uf *model[PLACES];
	static char owners[4]; /* only their addresses count */
	uint64_t random = 1;

	for (int step = 0; step < 100000; step++) {
		unsigned from, to;
		struct uf *owner;

		random = random * 6364136223846793005u + 1442695040888963407u;
		from = (unsigned)(random >> 40) % PLACES;
		to = from + 1 + (unsigned)(random >> 50) % (PLACES - from);
		owner = (struct uf *)(void *)&owners[(random >> 33) % 4];
		CHECK_EQ(uf_trap_begin(2), 0);
		switch ((random >> 36) % 8) {
		case 0:
			uf_trap_end();
			uf_trap_remove_owner(owner);
			CHECK_EQ(uf_trap_begin(0), 0);
			for (unsigned i = 0; i < PLACES; i++)
				model[i] = model[i] == owner ? NULL : model[i];
			break;
		case 1:
		case 2:
		case 3:
			uf_trap_remove(START + from * page_size, START + to * page_size);
			memset(model + from, 0, (to - from) * sizeof(model[0]));
			break;
		default:
			uf_trap_add(START + from * page_size, START + to * page_size, owner);
			for (unsigned i = from; i < to; i++)
				model[i] = owner;
		}
		uf_trap_end();
		for (unsigned i = 0; i < PLACES; i++) {
			if (uf_trap_owner(START + i * page_size) != model[i] ||
			    uf_trap_owner(START + (i + 1) * page_size - 1) != model[i])
				FAIL("step %d: place %u has the wrong owner", step, i);
		}
		CHECK(!uf_trap_owner(START - 1) && !uf_trap_owner(START + PLACES * page_size));
	}
}

static _Atomic bool stop;

/* Faults in a region of its own, again and again, while others change the set. */
static void *fault_repeatedly(void *arg)
{
	struct uf *uf = arg;
	char *p = map_pages(16);

	CHECK_EQ(uf_register(uf, p, 16 * page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
	while (!atomic_load(&stop)) {
		for (size_t i = 0; i < 16; i++)
			CHECK_EQ(word_at(p + i * page_size), (uintptr_t)p / page_size + i);
		CHECK_EQ(madvise(p, 16 * page_size, MADV_DONTNEED), 0);
	}
	return NULL;
}

TEST(faults_race_changes, "Faults are served while other threads register, unregister and fork.")
{
	struct uf *uf = open_handled(fill, 0);
	pthread_t threads[2];
	char *p = map_pages(64);

	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, fault_repeatedly, uf), 0);
	for (unsigned round = 0; round < 3000; round++) {
		size_t at = round * 7 % 60;

		CHECK_EQ(uf_register(uf, p + at * page_size, 3 * page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
		CHECK_EQ(word_at(p + at * page_size), (uintptr_t)p / page_size + at);
		CHECK_EQ(uf_unregister(uf, p + at * page_size, 3 * page_size), 0);
		CHECK_EQ(madvise(p, 64 * page_size, MADV_DONTNEED), 0);
		if (round % 300 == 0) {
			/* The set is whole and unlocked in a child, wherever the threads were. */
			pid_t pid = fork();
			int status;

			if (pid == 0)
				_exit(uf_trap_begin(1) ? 1 : (uf_trap_end(), 0));
			CHECK_EQ(waitpid(pid, &status, 0), pid);
			CHECK_EQ(status, 0);
		}
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	uf_close(uf);
}

/* Reads pages that are handled now and ordinary then. */
static void *read_repeatedly(void *arg)
{
	const char *p = arg;

	while (!atomic_load(&stop)) {
		for (size_t i = 0; i < 64; i++) {
			uint64_t got = word_at(p + i * page_size);

			if (got && got != (uintptr_t)p / page_size + i)
				FAIL("page %zu holds %llu", i, (unsigned long long)got);
		}
	}
	return NULL;
}

TEST(faults_race_unregister, "A fault in a range that is being unregistered becomes an ordinary one.")
{
	struct uf *uf = open_handled(fill, 0);
	char *p = map_pages(64);
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, read_repeatedly, p), 0);
	for (unsigned round = 0; round < 20000; round++) {
		CHECK_EQ(uf_register(uf, p, 64 * page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
		CHECK_EQ(madvise(p, 64 * page_size, MADV_DONTNEED), 0);
		CHECK_EQ(uf_unregister(uf, p, 64 * page_size), 0);
		CHECK_EQ(madvise(p, 64 * page_size, MADV_DONTNEED), 0);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	uf_close(uf);
}
