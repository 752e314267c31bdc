// SPDX-License-Identifier: MIT
/* Features of delivery: SIGBUS and handlers, THREAD_ID, EXACT_ADDRESS, and accesses by the kernel itself. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/uio.h>
#include <unistd.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/test.h"

#define MISSING UFFDIO_REGISTER_MODE_MISSING

TEST(sigbus_instead_of_a_message,
     "UFFD_FEATURE_SIGBUS: the faulting thread gets SIGBUS at the address, and no message comes.")
{
	char *page = anon(1);
	struct outcome outcome;
	struct uf *uf;

	catch_signals();
	uf = object(UFFD_FEATURE_SIGBUS);
	registered(uf, page, page_size, MISSING);
	outcome = try_read(page + 24);
	CHECK_EQ(outcome.signal, SIGBUS);
	CHECK_EQ(outcome.code, BUS_ADRERR);
	CHECK(outcome.addr == page + 24);
	expect_silence(uf);
	CHECK_EQ(uf_copy(uf, page, filled(1), page_size, 0), page_size);
	CHECK_EQ(try_read(page + 24).value, pattern(0));
}

TEST(sigbus_of_protected_pages, "With SIGBUS a write to a protected page is a signal as well.")
{
	char *page = filled(1);
	struct uf *uf;

	need(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	catch_signals();
	uf = object(UFFD_FEATURE_SIGBUS | UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	registered(uf, page, page_size, UFFDIO_REGISTER_MODE_WP);
	CHECK_EQ(uf_writeprotect(uf, page, page_size, UFFDIO_WRITEPROTECT_MODE_WP), 0);
	CHECK_EQ(try_read(page).value, pattern(0));
	CHECK_EQ(try_write(page, 1).signal, SIGBUS);
	CHECK_EQ(uf_writeprotect(uf, page, page_size, 0), 0);
	CHECK_EQ(try_write(page, 1).signal, 0);
	expect_silence(uf);
}

static long write_to_pipe(void *addr)
{
	int fds[2];
	ssize_t len;

	CHECK_EQ(pipe(fds), 0);
	len = write(fds[1], addr, 1);
	return len < 0 ? -errno : len;
}

static long read_from_pipe(void *addr)
{
	int fds[2];
	ssize_t len;

	CHECK_EQ(pipe(fds), 0);
	CHECK_EQ(write(fds[1], "z", 1), 1);
	len = read(fds[0], addr, 1);
	return len < 0 ? -errno : len;
}

TEST(sigbus_in_a_system_call, "With SIGBUS a system call's own touch is not served: EFAULT.")
{
	char *page = anon(1);
	struct uf *uf = object(UFFD_FEATURE_SIGBUS);

	registered(uf, page, page_size, MISSING);
	CHECK_EQ(read_from_pipe(page), -EFAULT);
	CHECK_EQ(write_to_pipe(page), -EFAULT);
	expect_silence(uf);
}

TEST(kernel_writes_are_served,
     "Accesses by the kernel, as in read(2) into a missing page, wait and are served as well.")
{
	char *page = anon(1);
	struct actor *actor;
	struct uf *uf;

	need_kernel_faults();
	uf = object(0);
	registered(uf, page, page_size, MISSING);
	actor = act_call(read_from_pipe, page + 3);
	CHECK(actor_waits(actor));
	expect_fault(uf, page, page_size, UFFD_PAGEFAULT_FLAG_WRITE);
	CHECK_EQ(uf_copy(uf, page, filled(1), page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, 1);
	CHECK_EQ(page[3], 'z');
	CHECK_EQ(page[4], pattern(0));
}

TEST(kernel_reads_are_served,
     "Accesses by the kernel, as in write(2) out of a missing page, wait and are served as well.")
{
	char *page = anon(1);
	struct actor *actor;
	struct uf *uf;

	need_kernel_faults();
	uf = object(0);
	registered(uf, page, page_size, MISSING);
	actor = act_call(write_to_pipe, page);
	CHECK(actor_waits(actor));
	expect_fault(uf, page, page_size, 0);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, 1);
}

static long peek(void *addr)
{
	unsigned char byte;
	struct iovec to = {&byte, 1}, from = {addr, 1};
	ssize_t len = process_vm_readv(getpid(), &to, 1, &from, 1, 0);

	return len < 0 ? -errno : byte;
}

TEST(pinning_is_served, "All GUP* features work just fine in combination with userfaults: process_vm_readv(2).")
{
	char *page = anon(1);
	struct actor *actor;
	struct uf *uf;

	need_kernel_faults();
	uf = object(0);
	registered(uf, page, page_size, MISSING);
	actor = act_call(peek, page);
	CHECK(actor_waits(actor));
	expect_fault(uf, page, page_size, 0);
	CHECK_EQ(uf_copy(uf, page, filled(1), page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, pattern(0));
}

TEST(user_mode_only, "UF_OPEN_USER_MODE_ONLY: a touch by the kernel itself (in a system call) fails with EFAULT.")
{
	struct uf_options opts = options(0);
	char *page = anon(1);
	struct actor *actor;
	struct uf *uf;

	opts.flags = UF_OPEN_USER_MODE_ONLY;
	CHECK_EQ(object_open(&uf, &opts), 0);
	registered(uf, page, page_size, MISSING);
	CHECK_EQ(read_from_pipe(page), -EFAULT);
	CHECK_EQ(write_to_pipe(page), -EFAULT);
	expect_silence(uf);
	actor = act_read(page);
	expect_fault(uf, page, page_size, 0);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, 0);
	CHECK_EQ(read_from_pipe(page), 1);
}

TEST(kernel_faults_wanted, "UF_OPEN_KERNEL_FAULTS refuses ways in which such touches cannot be served.")
{
	struct uf_options opts = options(0);
	struct uf *uf;

	need_kernel_faults();
	opts.flags = UF_OPEN_KERNEL_FAULTS;
	CHECK_EQ(object_open(&uf, &opts), 0);
	CHECK(uf_way(uf) != UF_WAY_USER_MODE);
}

TEST(thread_id, "UFFD_FEATURE_THREAD_ID: the message names the thread that faults.")
{
	char *page = anon(1);
	struct uf *uf = object(UFFD_FEATURE_THREAD_ID);
	struct actor *actor;
	struct uffd_msg msg;

	registered(uf, page, page_size, MISSING);
	actor = act_read(page);
	msg = next_message(uf);
	CHECK_EQ(msg.arg.pagefault.feat.ptid, actor_tid(actor));
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(actor);
}

static uint64_t address_told(uint64_t features, char *page)
{
	struct uf *uf = object(features);
	struct actor *actor;
	struct uffd_msg msg;

	registered(uf, page, page_size, MISSING);
	actor = act_read(page + 1234);
	msg = next_message(uf);
	CHECK_EQ(uf_zeropage(uf, page, page_size, 0), page_size);
	actor_end(actor);
	return msg.arg.pagefault.address;
}

TEST(exact_address, "UFFD_FEATURE_EXACT_ADDRESS: the address of the access itself, not rounded to the page.")
{
	char *page = anon(1);

	CHECK_EQ(address_told(UFFD_FEATURE_EXACT_ADDRESS, page), (uintptr_t)page + 1234);
}

TEST(rounded_address, "Without EXACT_ADDRESS the address is that of the page.")
{
	char *page = anon(1);

	CHECK_EQ(address_told(0, page), (uintptr_t)page);
}

/* Handlers. */

struct handled {
	char *src, *pages;
	_Atomic unsigned calls;
	_Atomic uint64_t address, flags;
	_Atomic pid_t tid;
};

static int deliver_here(struct uf *uf, const struct uf_fault *fault, void *arg)
{
	struct handled *handled = arg;
	char *page = (char *)(uintptr_t)(fault->address & ~((uint64_t)page_size - 1));
	ssize_t done;

	handled->calls++;
	handled->address = fault->address;
	handled->flags = fault->flags;
	handled->tid = gettid();
	done = uf_copy(uf, page, handled->src + (page - handled->pages), page_size, 0);
	return done == -EEXIST ? 0 : done < 0 ? (int)done : 0;
}

static struct uf *object_handled(uf_handler *handler, struct handled *handled)
{
	struct uf_options opts = options(0);
	struct uf *uf;

	need(UFFD_FEATURE_SIGBUS);
	opts.handler = handler;
	opts.arg = handled;
	CHECK_EQ(object_open(&uf, &opts), 0);
	return uf;
}

TEST(handler_resolves, "A handler resolves the fault on the thread that took it: no monitor.")
{
	struct handled handled = {.src = filled(8), .pages = anon(8)};
	struct uf *uf = object_handled(deliver_here, &handled);

	registered(uf, handled.pages, 8 * page_size, MISSING);
	CHECK(uf_features(uf) & UFFD_FEATURE_SIGBUS);
	for (size_t i = 0; i < 8; i++)
		CHECK_EQ(((volatile unsigned char *)handled.pages)[i * page_size + 5], pattern(i));
	CHECK_EQ(handled.calls, 8);
	CHECK_EQ(handled.address, (uintptr_t)handled.pages + 7 * page_size + 5);
	CHECK_EQ(handled.flags, 0);
	CHECK_EQ(handled.tid, gettid());
	expect_silence(uf);
}

TEST(handler_of_a_write, "The handler is told that the access is a write.")
{
	struct handled handled = {.src = filled(1), .pages = anon(1)};
	struct uf *uf = object_handled(deliver_here, &handled);

	registered(uf, handled.pages, page_size, MISSING);
	((volatile char *)handled.pages)[9] = 88;
	CHECK_EQ(handled.flags, UFFD_PAGEFAULT_FLAG_WRITE);
	CHECK_EQ(handled.pages[9], 88);
	CHECK_EQ(handled.pages[10], pattern(0));
}

static int refuse(struct uf *uf, const struct uf_fault *fault, void *arg)
{
	struct handled *handled = arg;

	(void)uf;
	(void)fault;
	handled->calls++;
	return -EIO;
}

TEST(handler_gives_up, "A negated errno value lets the signal take its way: the program's own SIGBUS handler.")
{
	struct handled handled = {.pages = anon(1)};
	struct outcome outcome;
	struct uf *uf;

	catch_signals();
	uf = object_handled(refuse, &handled);
	registered(uf, handled.pages, page_size, MISSING);
	outcome = try_read(handled.pages + 2);
	CHECK_EQ(outcome.signal, SIGBUS);
	CHECK(outcome.addr == handled.pages + 2);
	CHECK_EQ(handled.calls, 1);
}

TEST(handler_goes_with_its_object,
     "A duplicate of the descriptor keeps the ranges; the handler goes with the object that had it.")
{
	struct handled handled = {.src = filled(1), .pages = anon(1)};
	struct uf *uf;

	catch_signals();
	uf = object_handled(deliver_here, &handled);
	registered(uf, handled.pages, page_size, MISSING);
	CHECK(fcntl(uf_fd(uf), F_DUPFD_CLOEXEC, 0) >= 0);
	uf_close(uf);
	CHECK_EQ(try_read(handled.pages).signal, SIGBUS);
	CHECK_EQ(handled.calls, 0);
}

TEST(handler_not_for_unregistered,
     "After uf_unregister() the range is the kernel's again, and the handler is not called.")
{
	struct handled handled = {.src = filled(1), .pages = anon(1)};
	struct uf *uf = object_handled(deliver_here, &handled);

	registered(uf, handled.pages, page_size, MISSING);
	CHECK_EQ(uf_unregister(uf, handled.pages, page_size), 0);
	CHECK_EQ(*(volatile char *)handled.pages, 0);
	CHECK_EQ(handled.calls, 0);
}

static void *read_all(void *arg)
{
	const struct handled *handled = arg;

	for (size_t i = 0; i < 64; i++)
		CHECK_EQ(((volatile unsigned char *)handled->pages)[i * page_size], pattern(i));
	return NULL;
}

TEST(handler_in_many_threads, "Two threads may fault on one page: -EEXIST means that the other was first.")
{
	struct handled handled = {.src = filled(64), .pages = anon(64)};
	struct uf *uf = object_handled(deliver_here, &handled);
	pthread_t threads[4];

	registered(uf, handled.pages, 64 * page_size, MISSING);
	for (size_t i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, read_all, &handled), 0);
	for (size_t i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK(handled.calls >= 64);
}
