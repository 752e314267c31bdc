// SPDX-License-Identifier: MIT
/* What is wrong in the same way for every request: a range, a mode, a missing argument, a layout, a process. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conformance/scene.h"
#include "support/actor.h"
#include "support/passing.h"
#include "support/test.h"

#define PAGES 4

/* After a request that failed nothing has changed: what was missing still is. */
static void check_untouched(struct scene *scene)
{
	if (scene->request->nr == UFFDIO_REGISTER) {
		CHECK_EQ(uf_copy(scene->uf, scene_page(scene, 1), scene->src, page_size, 0), -ENOENT);
		return;
	}
	for (size_t i = 0; i < PAGES; i++)
		CHECK(scene_take_missing(scene, i));
}

static void fails_with(struct scene *scene, int offset, uint64_t value, int err)
{
	scene_fill(scene, 0, PAGES, 0);
	scene_put(scene, offset, value);
	CHECK_EQ(scene_issue(scene), err);
}

static void misaligned_start(const struct request *request)
{
	struct scene scene = scene_set(request, PAGES, 0);

	scene_fill(&scene, 0, 1, 0);
	scene_put(&scene, request->start, (uintptr_t)scene.memory.at + 1);
	CHECK_EQ(scene_issue(&scene), -EINVAL);
	scene_put(&scene, request->start, (uintptr_t)scene.memory.at + page_size / 2);
	CHECK_EQ(scene_issue(&scene), -EINVAL);
	check_untouched(&scene);
}

static void misaligned_len(const struct request *request)
{
	struct scene scene = scene_set(request, PAGES, 0);

	fails_with(&scene, request->len, 1, -EINVAL);
	fails_with(&scene, request->len, page_size - 1, -EINVAL);
	fails_with(&scene, request->len, page_size + 1, -EINVAL);
	check_untouched(&scene);
}

static void zero_len(const struct request *request)
{
	struct scene scene = scene_set(request, PAGES, 0);

	fails_with(&scene, request->len, 0, -EINVAL);
	check_untouched(&scene);
}

/* "These fields are otherwise invalid": the sum wraps, or no process can have memory there. */
static void invalid_range(const struct request *request)
{
	struct scene scene = scene_set(request, PAGES, 0);

	fails_with(&scene, request->len, -(uint64_t)page_size, -EINVAL);
	fails_with(&scene, request->start, -(uint64_t)page_size, -EINVAL);
	fails_with(&scene, request->start, (uint64_t)1 << 63, -EINVAL);
	fails_with(&scene, request->len, (uint64_t)1 << 62, -EINVAL);
	check_untouched(&scene);
}

static void unknown_mode(const struct request *request)
{
	struct scene scene = scene_set(request, PAGES, 0);

	for (unsigned bit = 8; bit < 64; bit += 11)
		fails_with(&scene, request->mode_at, request->mode | (uint64_t)1 << bit, -EINVAL);
	check_untouched(&scene);
}

static void bad_argp(const struct request *request)
{
	struct scene scene = scene_set(request, PAGES, 0);

	CHECK_EQ(uf_ioctl(scene.uf, request->nr, NULL), -EFAULT);
	CHECK_EQ(uf_ioctl(scene.uf, request->nr, unmapped(1)), -EFAULT);
	check_untouched(&scene);
}

/* The argument can be read, but the result cannot be stored in it. */
static void readonly_argp(const struct request *request)
{
	struct scene scene = scene_set(request, PAGES, 0);
	char *argp = anon(1);

	scene_fill(&scene, 0, 1, 0);
	memcpy(argp, &scene.arg, sizeof(scene.arg));
	CHECK_EQ(mprotect(argp, page_size, PROT_READ), 0);
	CHECK_EQ(uf_ioctl(scene.uf, request->nr, argp), -EFAULT);
}

static void not_registered(const struct request *request)
{
	struct scene scene = scene_set(request, PAGES, 0);
	char *other = memory_map(request->source, 1).at;

	scene_fill(&scene, 0, 1, 0);
	scene_put(&scene, request->start, (uintptr_t)other);
	CHECK_EQ(scene_issue(&scene), -ENOENT);
	scene_put(&scene, request->start, (uintptr_t)unmapped(1));
	CHECK_EQ(scene_issue(&scene), -ENOENT);
	/* Partly: nothing is done at all. */
	scene_fill(&scene, 0, PAGES + 1, 0);
	CHECK_EQ(scene_issue(&scene), -ENOENT);
	check_untouched(&scene);
}

static long discard_page(void *addr)
{
	return madvise(addr, page_size, MADV_DONTNEED);
}

/* Another range of the object loses a page, and nobody has read of it yet. */
static struct actor *change_layout(struct scene *scene, void *addr)
{
	struct actor *actor;

	registered(scene->uf, addr, page_size, UFFDIO_REGISTER_MODE_MISSING);
	actor = act_call(discard_page, addr);
	CHECK(actor_waits(actor));
	return actor;
}

static void layout_changing(const struct request *request)
{
	struct scene scene = scene_set(request, PAGES, UFFD_FEATURE_EVENT_REMOVE);
	struct actor *actor = change_layout(&scene, anon(1));

	scene_fill(&scene, 0, PAGES, 0);
	CHECK_EQ(scene_issue(&scene), -EAGAIN);
	if (request->result_at >= 0)
		CHECK_EQ(scene_result(&scene), -EAGAIN);
	CHECK_EQ(scene_issue(&scene), -EAGAIN);
	CHECK_EQ(next_message(scene.uf).event, UFFD_EVENT_REMOVE);
	CHECK_EQ(actor_end(actor).value, 0);
	/* Nothing had been done, and now it can be. */
	if (request->nr == UFFDIO_WRITEPROTECT)
		check_untouched(&scene);
	scene_fill(&scene, 0, PAGES, 0);
	CHECK_EQ(scene_issue(&scene), 0);
}

/* The object of a process that is gone: a child opens it and sends it, with a valid argument, before it exits. */
static struct scene orphaned(const struct request *request)
{
	struct scene scene = {.request = request};
	int sockets[2], fd;
	pid_t pid;

	need(request->feature);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	pid = fork();
	if (pid == 0) {
		scene = scene_set(request, PAGES, 0);
		scene_fill(&scene, 0, 1, 0);
		send_with_fd(sockets[1], &scene.arg, sizeof(scene.arg), uf_fd(scene.uf));
		_exit(0);
	}
	close(sockets[1]);
	fd = receive_with_fd(sockets[0], &scene.arg, sizeof(scene.arg));
	reap(pid);
	CHECK_EQ(uf_adopt(&scene.uf, fd), 0);
	return scene;
}

static void process_gone(const struct request *request, int err)
{
	struct scene scene = orphaned(request);

	CHECK_EQ(scene_issue(&scene), err);
}

#define MISALIGNED "EINVAL ... was not a multiple of the system page size."
#define ZERO_LEN   "EINVAL ... or len was zero."
#define INVALID    "EINVAL ... or the specified range was otherwise invalid."
#define ARGP       "EFAULT argp does not point to a valid memory address."
#define MODE       "EINVAL An invalid bit was specified in the mode field."
#define LOOK_UP    "ENOENT the range is not registered, or not mapped, or reaches beyond; nothing is done then."
#define CHANGING   "EAGAIN with nothing done while a layout event is unread; once it is read the request works."
#define RESULT     "EFAULT the result cannot be stored in the structure."

#define OF_A_RANGE(id)                           \
	TEST(id##_misaligned_start, MISALIGNED)  \
	{                                        \
		misaligned_start(&request_##id); \
	}                                        \
	TEST(id##_misaligned_len, MISALIGNED)    \
	{                                        \
		misaligned_len(&request_##id);   \
	}                                        \
	TEST(id##_zero_len, ZERO_LEN)            \
	{                                        \
		zero_len(&request_##id);         \
	}                                        \
	TEST(id##_invalid_range, INVALID)        \
	{                                        \
		invalid_range(&request_##id);    \
	}                                        \
	TEST(id##_bad_argp, ARGP)                \
	{                                        \
		bad_argp(&request_##id);         \
	}

#define WITH_MODE(id)                        \
	TEST(id##_unknown_mode, MODE)        \
	{                                    \
		unknown_mode(&request_##id); \
	}

#define WITH_RESULT(id)                       \
	TEST(id##_readonly_argp, RESULT)      \
	{                                     \
		readonly_argp(&request_##id); \
	}

#define OF_REGISTERED_MEMORY(id)               \
	TEST(id##_not_registered, LOOK_UP)     \
	{                                      \
		not_registered(&request_##id); \
	}

#define OF_A_LAYOUT(id)                         \
	TEST(id##_layout_changing, CHANGING)    \
	{                                       \
		layout_changing(&request_##id); \
	}

OF_A_RANGE(register)
OF_A_RANGE(unregister)
OF_A_RANGE(copy)
OF_A_RANGE(zeropage)
OF_A_RANGE(continue)
OF_A_RANGE(move)
OF_A_RANGE(poison)
OF_A_RANGE(writeprotect)
OF_A_RANGE(wake)

WITH_MODE(register)
WITH_MODE(copy)
WITH_MODE(zeropage)
WITH_MODE(continue)
WITH_MODE(move)
WITH_MODE(poison)
WITH_MODE(writeprotect)

WITH_RESULT(register)
WITH_RESULT(copy)
WITH_RESULT(zeropage)
WITH_RESULT(continue)
WITH_RESULT(move)
WITH_RESULT(poison)

OF_REGISTERED_MEMORY(copy)
OF_REGISTERED_MEMORY(zeropage)
OF_REGISTERED_MEMORY(continue)
OF_REGISTERED_MEMORY(poison)
OF_REGISTERED_MEMORY(writeprotect)

OF_A_LAYOUT(copy)
OF_A_LAYOUT(zeropage)
OF_A_LAYOUT(continue)
OF_A_LAYOUT(move)
OF_A_LAYOUT(poison)
OF_A_LAYOUT(writeprotect)

#define GONE(id, err, sentence)                   \
	TEST(id##_process_gone, sentence)         \
	{                                         \
		process_gone(&request_##id, err); \
	}

GONE(register, -ENOMEM, "UFFDIO_REGISTER may return -ENOMEM if the process is exiting and its memory has gone.")
GONE(unregister, -ENOMEM, "UFFDIO_UNREGISTER of a process that is gone: ENOMEM.")
GONE(copy, -ESRCH, "The monitored process has exited: ESRCH (the text: ENOSPC, true of Linux 4.11 and 4.12 only).")
GONE(zeropage, -ESRCH, "UFFDIO_ZEROPAGE of a process that has exited: ESRCH.")
GONE(continue, -ESRCH, "UFFDIO_CONTINUE of a process that has exited: ESRCH.")
GONE(poison, -ESRCH, "UFFDIO_POISON of a process that has exited: ESRCH.")
GONE(writeprotect, -ESRCH, "UFFDIO_WRITEPROTECT of a process that has exited: ESRCH.")
GONE(move, -EINVAL, "UFFDIO_MOVE within another process is EINVAL, whether that lives or not.")
GONE(wake, 0, "UFFDIO_WAKE does not care whether the process lives: it succeeds.")
