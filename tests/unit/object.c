// SPDX-License-Identifier: MIT
/* src/uffd/object.c on the scripted engine: negotiation, the meaning of results, and handlers that are rolled back. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/actor.h"
#include "support/scripted.h"
#include "support/test.h"

#define BASE    ((uint64_t)0x7f0000000000)
#define AT      ((void *)(uintptr_t)BASE)
#define MISSING UFFDIO_REGISTER_MODE_MISSING
#define BASIC   ((uint64_t)(UFFD_FEATURE_SIGBUS | UFFD_FEATURE_THREAD_ID))

static int open_with(struct uf **uf, uint64_t required, uint64_t wanted, unsigned flags)
{
	struct uf_options opts = {.size = sizeof(opts), .required = required, .wanted = wanted, .flags = flags};

	return uf_engine_open_negotiated(uf, &uf_engine_scripted, &opts);
}

TEST(takes_the_first_way, "The ways are tried in the order of enum uf_way, and the first that grants all is taken.")
{
	struct uf *uf;

	CHECK_EQ(open_with(&uf, 0, 0, 0), 0);
	CHECK_EQ(uf_way(uf), UF_WAY_SYSCALL);
	CHECK_EQ(uf_features(uf), 0);
	CHECK_EQ(uf_ioctls(uf), UFFD_API_IOCTLS);
	CHECK_EQ(scripted_descriptors(), 1);
	uf_close(uf);
	CHECK_EQ(scripted_descriptors(), 0);
}

TEST(falls_back_when_refused, "A way that is refused gives place to the next.")
{
	struct uf *uf;

	scripted_way(UF_WAY_SYSCALL, -EPERM, 0);
	CHECK_EQ(open_with(&uf, BASIC, 0, 0), 0);
	CHECK_EQ(uf_way(uf), UF_WAY_DEVICE);
	uf_close(uf);
	scripted_way(UF_WAY_DEVICE, -EACCES, 0);
	CHECK_EQ(open_with(&uf, BASIC, 0, 0), 0);
	CHECK_EQ(uf_way(uf), UF_WAY_USER_MODE);
}

TEST(falls_back_for_features, "A way that lacks a required feature gives place to one that has it.")
{
	struct uf *uf;

	scripted_way(UF_WAY_SYSCALL, 0, UFFD_FEATURE_THREAD_ID);
	CHECK_EQ(open_with(&uf, BASIC, 0, 0), 0);
	CHECK_EQ(uf_way(uf), UF_WAY_DEVICE);
	CHECK_EQ(uf_features(uf), BASIC);
	CHECK_EQ(scripted_descriptors(), 1);
}

TEST(wanted_does_not_choose, "Wanted features are enabled where they can be had; they choose no way.")
{
	struct uf *uf;

	scripted_way(UF_WAY_SYSCALL, 0, UFFD_FEATURE_THREAD_ID);
	CHECK_EQ(open_with(&uf, 0, BASIC, 0), 0);
	CHECK_EQ(uf_way(uf), UF_WAY_SYSCALL);
	CHECK_EQ(uf_features(uf), UFFD_FEATURE_THREAD_ID);
}

TEST(first_refusal_wins, "When several ways fail, the error is that of the first way tried.")
{
	struct uf *uf = NULL;

	scripted_way(UF_WAY_SYSCALL, -ENOSYS, 0);
	scripted_way(UF_WAY_DEVICE, -ENOENT, 0);
	scripted_way(UF_WAY_USER_MODE, -EPERM, 0);
	CHECK_EQ(open_with(&uf, 0, 0, 0), -ENOSYS);
	CHECK(!uf);
	CHECK_EQ(open_with(&uf, 0, 0, UF_OPEN_USER_MODE_ONLY), -ENOENT);
}

TEST(shortage_beats_refusal, "-EOPNOTSUPP: a descriptor can be had, but none with all of `required`.")
{
	struct uf *uf = NULL;

	scripted_way(UF_WAY_SYSCALL, -EPERM, 0);
	scripted_way(UF_WAY_DEVICE, 0, UFFD_FEATURE_THREAD_ID);
	scripted_way(UF_WAY_USER_MODE, -EPERM, 0);
	CHECK_EQ(open_with(&uf, BASIC, 0, 0), -EOPNOTSUPP);
	CHECK(!uf);
	CHECK_EQ(scripted_descriptors(), 0);
}

TEST(flags_choose_ways, "USER_MODE_ONLY passes over the plain system call, KERNEL_FAULTS over user mode.")
{
	struct uf *uf;

	CHECK_EQ(open_with(&uf, 0, 0, UF_OPEN_USER_MODE_ONLY), 0);
	CHECK(uf_way(uf) != UF_WAY_SYSCALL);
	uf_close(uf);
	scripted_way(UF_WAY_SYSCALL, -EPERM, 0);
	scripted_way(UF_WAY_DEVICE, -EACCES, 0);
	CHECK_EQ(open_with(&uf, 0, 0, UF_OPEN_KERNEL_FAULTS), -EPERM);
	CHECK_EQ(scripted_descriptors(), 0);
}

TEST(fork_events_are_dropped, "EVENT_FORK among the wanted features is dropped silently where it is denied.")
{
	uint64_t wanted = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMOVE;
	struct uf *uf;

	scripted_deny(UFFD_FEATURE_EVENT_FORK, -EPERM);
	CHECK_EQ(open_with(&uf, UFFD_FEATURE_THREAD_ID, wanted, 0), 0);
	CHECK_EQ(uf_features(uf), UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_EVENT_REMOVE);
	uf_close(uf);
	scripted_deny(0, 0);
	CHECK_EQ(open_with(&uf, 0, wanted, 0), 0);
	CHECK_EQ(uf_features(uf), wanted);
}

TEST(fork_events_required, "-EPERM: EVENT_FORK required without CAP_SYS_PTRACE, also when it is wanted as well.")
{
	struct uf *uf = NULL;

	scripted_deny(UFFD_FEATURE_EVENT_FORK, -EPERM);
	CHECK_EQ(open_with(&uf, UFFD_FEATURE_EVENT_FORK, 0, 0), -EPERM);
	CHECK_EQ(open_with(&uf, UFFD_FEATURE_EVENT_FORK, UFFD_FEATURE_EVENT_FORK, 0), -EPERM);
	CHECK(!uf);
	CHECK_EQ(scripted_descriptors(), 0);
}

TEST(other_denials_are_errors, "Only EVENT_FORK is dropped: another denial is the answer.")
{
	struct uf *uf = NULL;

	scripted_deny(UFFD_FEATURE_THREAD_ID, -EPERM);
	CHECK_EQ(open_with(&uf, 0, UFFD_FEATURE_THREAD_ID, 0), -EPERM);
	CHECK(!uf);
	CHECK_EQ(scripted_descriptors(), 0);
}

TEST(async_brings_unpopulated, "The kernel turns WP_UNPOPULATED on with WP_ASYNC, and uf_features() says so.")
{
	CHECK_EQ(uf_features(scripted_open(UFFD_FEATURE_WP_ASYNC)),
	         UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED);
}

TEST(available_leaves_no_trace, "Asking what a way offers takes a descriptor of its own and gives it back.")
{
	uint64_t features, ioctls;

	scripted_way(UF_WAY_DEVICE, 0, BASIC);
	CHECK_EQ(uf_engine_available(&uf_engine_scripted, UF_WAY_DEVICE, O_NONBLOCK, &features, &ioctls), 0);
	CHECK_EQ(features, BASIC);
	CHECK_EQ(ioctls, UFFD_API_IOCTLS);
	CHECK_EQ(scripted_descriptors(), 0);
	scripted_way(UF_WAY_DEVICE, -EMFILE, 0);
	CHECK_EQ(uf_engine_available(&uf_engine_scripted, UF_WAY_DEVICE, O_NONBLOCK, &features, &ioctls), -EMFILE);
}

/* Results. */

static const struct delivery {
	const char *name;
	unsigned long request;
} deliveries[] = {
	{"copy", UFFDIO_COPY}, {"zeropage", UFFDIO_ZEROPAGE}, {"continue", UFFDIO_CONTINUE},
	{"move", UFFDIO_MOVE}, {"poison", UFFDIO_POISON},
};

static ssize_t deliver(struct uf *uf, unsigned long request, size_t len)
{
	switch (request) {
	case UFFDIO_COPY:
		return uf_copy(uf, AT, "", len, 0);
	case UFFDIO_ZEROPAGE:
		return uf_zeropage(uf, AT, len, 0);
	case UFFDIO_CONTINUE:
		return uf_continue(uf, AT, len, 0);
	case UFFDIO_MOVE:
		return uf_move(uf, AT, AT, len, 0);
	default:
		return uf_poison(uf, AT, len, 0);
	}
}

/* What all five make of an answer to a request for three pages. */
static void means(int err, int64_t done, ssize_t expected)
{
	for (size_t i = 0; i < sizeof(deliveries) / sizeof(deliveries[0]); i++) {
		struct scripted_answer answer = {.request = deliveries[i].request, .err = err, .done = done};
		struct uf *uf = scripted_open(0);

		scripted_answer(uf, &answer);
		CHECK_EQ(deliver(uf, answer.request, 3 * page_size), expected);
		CHECK_EQ(scripted_unused(uf), 0);
		uf_close(uf);
	}
}

TEST(result_whole, "n > 0: n bytes are in place.")
{
	means(0, (int64_t)(3 * page_size), (ssize_t)(3 * page_size));
}

TEST(result_partial, "EAGAIN with progress is a count.")
{
	means(-EAGAIN, (int64_t)page_size, (ssize_t)page_size);
	means(-EAGAIN, (int64_t)(2 * page_size), (ssize_t)(2 * page_size));
}

TEST(result_layout_changing, "-EAGAIN: nothing was done, in whichever of its two shapes the kernel reports it.")
{
	means(-EAGAIN, 0, -EAGAIN);
	means(-EAGAIN, -EAGAIN, -EAGAIN);
}

TEST(result_present, "-EEXIST the first page is there already.")
{
	means(-EEXIST, -EEXIST, -EEXIST);
}

TEST(result_gone, "-ESRCH the process is gone; Linux 4.11 and 4.12 say ENOSPC.")
{
	means(-ESRCH, 0, -ESRCH);
	means(-ENOSPC, 0, -ESRCH);
	means(-ENOSPC, -ENOSPC, -ESRCH);
}

TEST(result_other_errors, "Every other error is passed on, whatever the result field holds.")
{
	static const int errors[] = {-ENOENT, -EINVAL, -EFAULT, -ENOMEM, -EBUSY, -EPERM, -EINTR};

	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		means(errors[i], 0, errors[i]);
		means(errors[i], errors[i], errors[i]);
	}
}

TEST(request_arguments, "The requests carry what the caller gave, and the result field goes in as zero.")
{
	struct scripted_call calls[8];
	struct uf *uf = scripted_open(0);

	uf_copy(uf, AT, (void *)0x1234, page_size, UFFDIO_COPY_MODE_WP);
	uf_writeprotect(uf, AT, 2 * page_size, UFFDIO_WRITEPROTECT_MODE_WP);
	uf_wake(uf, AT, 3 * page_size);
	CHECK_EQ(scripted_calls(uf, calls, 8), 4); /* UFFDIO_API is the first */
	CHECK_EQ(calls[1].request, UFFDIO_COPY);
	CHECK_EQ(calls[1].address, BASE);
	CHECK_EQ(calls[1].src, 0x1234);
	CHECK_EQ(calls[1].len, page_size);
	CHECK_EQ(calls[1].mode, UFFDIO_COPY_MODE_WP);
	CHECK_EQ(calls[2].request, UFFDIO_WRITEPROTECT);
	CHECK_EQ(calls[2].len, 2 * page_size);
	CHECK_EQ(calls[2].mode, UFFDIO_WRITEPROTECT_MODE_WP);
	CHECK_EQ(calls[3].request, UFFDIO_WAKE);
	CHECK_EQ(calls[3].len, 3 * page_size);
}

TEST(unregister_wakes_all,
     "uf_unregister() wakes writers and minor faults too, which UFFDIO_UNREGISTER alone does not.")
{
	struct scripted_answer refusal = {.request = UFFDIO_UNREGISTER, .err = -EINVAL};
	struct uf *uf = scripted_open(0);

	scripted_memory(uf, BASE, 1);
	CHECK_EQ(uf_register(uf, AT, page_size, UFFDIO_REGISTER_MODE_WP, NULL), 0);
	scripted_answer(uf, &refusal);
	CHECK_EQ(uf_unregister(uf, AT, page_size), -EINVAL);
	CHECK_EQ(scripted_count(uf, UFFDIO_WAKE), 0);
	CHECK_EQ(uf_unregister(uf, AT, page_size), 0);
	CHECK_EQ(scripted_count(uf, UFFDIO_WAKE), 1);
}

TEST(register_answer, "uf_register() stores the range's ioctls, and none when it fails.")
{
	struct scripted_answer refusal = {.request = UFFDIO_REGISTER, .err = -EBUSY};
	struct uf *uf = scripted_open(0);
	uint64_t ioctls = 7;

	scripted_memory(uf, BASE, 1);
	scripted_answer(uf, &refusal);
	CHECK_EQ(uf_register(uf, AT, page_size, MISSING, &ioctls), -EBUSY);
	CHECK_EQ(ioctls, 7);
	CHECK_EQ(uf_register(uf, AT, page_size, MISSING, &ioctls), 0);
	CHECK(ioctls & (uint64_t)1 << _UFFDIO_COPY);
}

/*
 * Handlers. The signal is a real one: memory behind the end of its file gives SIGBUS with BUS_ADRERR, as a missing page
 * with UFFD_FEATURE_SIGBUS does. The handler resolves it by making the file longer.
 */
struct beyond {
	char *at;
	int fd;
	unsigned handled;
	int answer;
};

static int lengthen(struct uf *uf, const struct uf_fault *fault, void *arg)
{
	struct beyond *beyond = arg;

	(void)uf;
	CHECK_EQ(fault->address, (uintptr_t)beyond->at);
	beyond->handled++;
	if (!beyond->answer)
		CHECK_EQ(ftruncate(beyond->fd, (off_t)page_size), 0);
	return beyond->answer;
}

static struct uf *open_handled(struct beyond *beyond)
{
	struct uf_options opts = {.size = sizeof(opts), .handler = lengthen, .arg = beyond};
	struct uf *uf;

	beyond->fd = memfd_create("beyond", MFD_CLOEXEC);
	beyond->at = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_SHARED, beyond->fd, 0);
	CHECK(beyond->at != MAP_FAILED);
	catch_signals();
	CHECK_EQ(uf_engine_open_negotiated(&uf, &uf_engine_scripted, &opts), 0);
	return uf;
}

static void script(struct uf *uf, unsigned long request, int err)
{
	struct scripted_answer answer = {.request = request, .err = err};

	scripted_answer(uf, &answer);
}

static void shorten(struct beyond *beyond)
{
	CHECK_EQ(ftruncate(beyond->fd, 0), 0);
}

TEST(handler_implies_sigbus, "A handler implies UFFD_FEATURE_SIGBUS, and without it there is none.")
{
	struct uf_options opts = {.size = sizeof(opts), .handler = lengthen};
	struct uf *uf = NULL;

	CHECK_EQ(uf_engine_open_negotiated(&uf, &uf_engine_scripted, &opts), 0);
	CHECK(uf_features(uf) & UFFD_FEATURE_SIGBUS);
	for (enum uf_way way = 0; way < UF_WAY_USER_ENGINE; way++)
		scripted_way(way, 0, UFFD_FEATURE_THREAD_ID);
	CHECK_EQ(uf_engine_open_negotiated(&uf, &uf_engine_scripted, &opts), -EOPNOTSUPP);
}

TEST(handler_after_register, "Faults of a registered range go to the handler.")
{
	struct beyond beyond = {0};
	struct uf *uf = open_handled(&beyond);

	script(uf, UFFDIO_REGISTER, 0);
	CHECK_EQ(uf_register(uf, beyond.at, page_size, MISSING, NULL), 0);
	CHECK_EQ(try_read(beyond.at).value, 0);
	CHECK_EQ(beyond.handled, 1);
}

TEST(handler_rolled_back, "A registration that fails leaves nothing to the handler.")
{
	struct beyond beyond = {0};
	struct uf *uf = open_handled(&beyond);

	script(uf, UFFDIO_REGISTER, -EBUSY);
	CHECK_EQ(uf_register(uf, beyond.at, page_size, MISSING, NULL), -EBUSY);
	CHECK_EQ(try_read(beyond.at).signal, SIGBUS);
	CHECK_EQ(beyond.handled, 0);
}

TEST(handler_kept_when_unregister_fails, "An unregistration that fails leaves the range to the handler.")
{
	struct beyond beyond = {0};
	struct uf *uf = open_handled(&beyond);

	script(uf, UFFDIO_REGISTER, 0);
	CHECK_EQ(uf_register(uf, beyond.at, page_size, MISSING, NULL), 0);
	script(uf, UFFDIO_UNREGISTER, -EINVAL);
	CHECK_EQ(uf_unregister(uf, beyond.at, page_size), -EINVAL);
	CHECK_EQ(try_read(beyond.at).value, 0);
	CHECK_EQ(beyond.handled, 1);
}

TEST(handler_gone_after_unregister, "After uf_unregister() the signal takes its ordinary way.")
{
	struct beyond beyond = {0};
	struct uf *uf = open_handled(&beyond);

	script(uf, UFFDIO_REGISTER, 0);
	CHECK_EQ(uf_register(uf, beyond.at, page_size, MISSING, NULL), 0);
	script(uf, UFFDIO_UNREGISTER, 0);
	CHECK_EQ(uf_unregister(uf, beyond.at, page_size), 0);
	CHECK_EQ(try_read(beyond.at).signal, SIGBUS);
	CHECK_EQ(beyond.handled, 0);
}

TEST(handler_gone_after_close, "After uf_close() nothing of the object is left in the trap.")
{
	struct beyond beyond = {0};
	struct uf *uf = open_handled(&beyond);

	script(uf, UFFDIO_REGISTER, 0);
	CHECK_EQ(uf_register(uf, beyond.at, page_size, MISSING, NULL), 0);
	CHECK_EQ(try_read(beyond.at).value, 0);
	shorten(&beyond);
	uf_close(uf);
	CHECK_EQ(try_read(beyond.at).signal, SIGBUS);
	CHECK_EQ(beyond.handled, 1);
}

TEST(handler_that_gives_up, "A negated errno value lets the signal take the way it would have taken without us.")
{
	struct beyond beyond = {.answer = -EIO};
	struct uf *uf = open_handled(&beyond);

	script(uf, UFFDIO_REGISTER, 0);
	CHECK_EQ(uf_register(uf, beyond.at, page_size, MISSING, NULL), 0);
	CHECK_EQ(try_read(beyond.at).signal, SIGBUS);
	CHECK_EQ(beyond.handled, 1);
}

/* The scripted engine itself: others rely on it. */

static long touch_first(void *arg)
{
	return scripted_touch(arg, BASE, SCRIPTED_READ);
}

static int readable(struct uf *uf)
{
	struct pollfd fd = {.fd = uf_fd(uf), .events = POLLIN};

	CHECK(poll(&fd, 1, 0) >= 0);
	return fd.revents == POLLIN;
}

TEST(scripted_fault, "A touch of a missing page sleeps, can be read, and is resolved by a COPY.")
{
	struct uf *uf = scripted_open(0);
	char *bytes = scripted_memory(uf, BASE, 2);
	char *src = malloc(page_size);
	struct actor *actor;
	struct uffd_msg msg;

	memset(src, 7, page_size);
	CHECK_EQ(uf_register(uf, AT, 2 * page_size, MISSING, NULL), 0);
	CHECK_EQ(uf_read(uf, &msg, 1), -EAGAIN);
	actor = act_call(touch_first, uf);
	scripted_wait_sleepers(uf, 1);
	CHECK(readable(uf));
	CHECK_EQ(uf_read(uf, &msg, 1), 1);
	CHECK_EQ(msg.arg.pagefault.address, BASE);
	CHECK(!readable(uf));
	CHECK(actor_waits(actor));
	CHECK_EQ(uf_copy(uf, AT, src, page_size, 0), page_size);
	CHECK_EQ(actor_end(actor).value, 0);
	CHECK_EQ(bytes[0], 7);
	CHECK_EQ(uf_copy(uf, AT, src, 2 * page_size, 0), -EEXIST);
	CHECK_EQ(scripted_page(uf, BASE + page_size), SCRIPTED_MISSING);
	free(src);
}

TEST(scripted_layout, "While a layout event is unread requests answer -EAGAIN, and then they work.")
{
	struct uf *uf = scripted_open(UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP);
	struct uffd_msg msg;

	scripted_memory(uf, BASE, 2);
	CHECK_EQ(uf_register(uf, AT, 2 * page_size, MISSING, NULL), 0);
	scripted_remove(uf, BASE, page_size);
	CHECK(readable(uf));
	CHECK_EQ(uf_zeropage(uf, AT, page_size, 0), -EAGAIN);
	CHECK_EQ(uf_read(uf, &msg, 1), 1);
	CHECK_EQ(msg.event, UFFD_EVENT_REMOVE);
	CHECK_EQ(uf_zeropage(uf, AT, page_size, 0), page_size);
	scripted_unmap(uf, BASE, page_size);
	CHECK_EQ(uf_read(uf, &msg, 1), 1);
	CHECK_EQ(msg.event, UFFD_EVENT_UNMAP);
	CHECK_EQ(uf_zeropage(uf, AT, page_size, 0), -ENOENT);
	scripted_exit(uf);
	CHECK_EQ(uf_zeropage(uf, AT, page_size, 0), -ESRCH);
}

TEST(scripted_partial, "An answer with progress delivers that much; the next request goes on from there.")
{
	struct scripted_answer answer = {.request = UFFDIO_ZEROPAGE, .err = -EAGAIN, .done = (int64_t)page_size};
	struct uf *uf = scripted_open(0);

	scripted_memory(uf, BASE, 3);
	CHECK_EQ(uf_register(uf, AT, 3 * page_size, MISSING, NULL), 0);
	scripted_answer(uf, &answer);
	CHECK_EQ(uf_zeropage(uf, AT, 3 * page_size, 0), page_size);
	CHECK_EQ(scripted_page(uf, BASE), SCRIPTED_PRESENT);
	CHECK_EQ(scripted_page(uf, BASE + page_size), SCRIPTED_MISSING);
	CHECK_EQ(uf_zeropage(uf, (char *)AT + page_size, 2 * page_size, 0), 2 * page_size);
}

TEST(scripted_fork_and_remap,
     "A fork's event carries a descriptor of the engine, and a remap moves pages and tracking.")
{
	struct uf *uf = scripted_open(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP);
	uint64_t to = BASE + 64 * page_size;
	struct uffd_msg msg;
	struct uf *child;

	scripted_memory(uf, BASE, 1);
	CHECK_EQ(uf_register(uf, AT, page_size, MISSING, NULL), 0);
	scripted_fork(uf);
	CHECK_EQ(uf_read(uf, &msg, 1), 1);
	CHECK_EQ(msg.event, UFFD_EVENT_FORK);
	child = scripted_adopt((int)msg.arg.fork.ufd);
	CHECK_EQ(uf_zeropage(child, AT, page_size, 0), page_size);
	CHECK_EQ(scripted_page(uf, BASE), SCRIPTED_MISSING);
	scripted_remap(uf, BASE, to, page_size);
	CHECK_EQ(uf_read(uf, &msg, 1), 1);
	CHECK_EQ(msg.arg.remap.to, to);
	CHECK_EQ(scripted_page(uf, BASE), SCRIPTED_UNMAPPED);
	CHECK_EQ(uf_zeropage(uf, (void *)(uintptr_t)to, page_size, 0), page_size);
}

TEST(scripted_protection, "A write to a protected page sleeps until the protection is lifted.")
{
	struct uf *uf = scripted_open(0);
	struct uffd_msg msg;

	scripted_memory(uf, BASE, 1);
	CHECK_EQ(uf_register(uf, AT, page_size, MISSING | UFFDIO_REGISTER_MODE_WP, NULL), 0);
	CHECK_EQ(uf_zeropage(uf, AT, page_size, 0), page_size);
	CHECK_EQ(uf_writeprotect(uf, AT, page_size, UFFDIO_WRITEPROTECT_MODE_WP), 0);
	CHECK_EQ(scripted_touch(uf, BASE, SCRIPTED_READ), 0);
	CHECK_EQ(scripted_page(uf, BASE), SCRIPTED_PROTECTED);
	CHECK_EQ(uf_writeprotect(uf, AT, page_size, 0), 0);
	CHECK_EQ(scripted_touch(uf, BASE, SCRIPTED_WRITE), 0);
	CHECK_EQ(uf_read(uf, &msg, 1), -EAGAIN);
}
