// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "conformance/engine.h"
#include "support/test.h"
#include "uffd/engine.h"

/*
 * Engine "libc": a program that knows nothing of the library. Whoever stands behind libc's functions is what is tested: the kernel, or
 * what `userfault run` puts in its place.
 */
static int libc_open(enum uf_way way, int open_flags, void **state)
{
	int device, fd, err;

	(void)state;
	if (way == UF_WAY_DEVICE) {
		device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
		fd = device < 0 ? -1 : ioctl(device, USERFAULTFD_IOC_NEW, open_flags);
		err = errno;
		if (device >= 0)
			close(device);
		errno = err;
	} else {
		fd = (int)syscall(SYS_userfaultfd, open_flags | (way == UF_WAY_USER_MODE ? UFFD_USER_MODE_ONLY : 0));
	}
	return fd < 0 ? -errno : fd;
}

static int libc_ioctl(const struct uf *uf, unsigned long request, void *arg)
{
	return ioctl(uf->fd, request, arg) < 0 ? -errno : 0;
}

static ssize_t libc_read(const struct uf *uf, struct uffd_msg *msgs, size_t count)
{
	ssize_t len = read(uf->fd, msgs, count * sizeof(*msgs));

	return len < 0 ? -errno : len / (ssize_t)sizeof(*msgs);
}

static void libc_close(struct uf *uf)
{
	close(uf->fd);
}

static const struct uf_engine_ops engine_libc = {
	.name = "libc",
	.faults_are_sigbus = true,
	.open = libc_open,
	.ioctl = libc_ioctl,
	.read = libc_read,
	.close = libc_close,
};

static const struct engine {
	const char *name;
	enum uf_engine id;
	const struct uf_engine_ops *ops;
} engines[] = {
	{"kernel", UF_ENGINE_KERNEL, &uf_engine_kernel},
	{"user", UF_ENGINE_USER, &uf_engine_user},
	{"libc", UF_ENGINE_AUTO, &engine_libc},
};

static const struct engine *engine(void)
{
	for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++)
		if (!strcmp(engines[i].name, test_engine))
			return &engines[i];
	FAIL("there is no engine \"%s\"", test_engine);
}

struct uf *object_raw(int open_flags)
{
	int first = 0;
	struct uf *uf;

	for (enum uf_way way = 0; way < UF_WAY_USER_ENGINE; way++) {
		int err = uf_engine_open(&uf, engine()->ops, way, open_flags | O_CLOEXEC);

		if (!err)
			return uf;
		if (!first)
			first = err;
	}
	SKIP("engine %s gives no descriptor here: %s", test_engine, strerror(-first));
}

int enable(struct uf *uf, uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};

	return uf_ioctl(uf, UFFDIO_API, &api);
}

uint64_t offered(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uf *uf = object_raw(O_NONBLOCK);

	CHECK_EQ(uf_ioctl(uf, UFFDIO_API, &api), 0);
	uf_close(uf);
	return api.features;
}

void need(uint64_t features)
{
	uint64_t missing = features & ~offered();

	if (missing)
		SKIP("engine %s does not offer %s", test_engine, uf_feature_name((unsigned)__builtin_ctzll(missing)));
}

bool on_the_kernel(void)
{
	/* A program that knows libc only is told by its environment who stands behind that. */
	return engine()->ops == &uf_engine_kernel || (engine()->ops == &engine_libc && !getenv("USERFAULT_RUN"));
}

void need_kernel_faults(void)
{
	struct uf *uf = object_raw(O_NONBLOCK);
	enum uf_way way = uf_way(uf);

	uf_close(uf);
	if (way == UF_WAY_USER_MODE)
		SKIP("without CAP_SYS_PTRACE the kernel's own accesses are not served");
}

/* Skips the test unless EVENT_FORK is not only offered but granted. */
static void need_fork_events(void)
{
	struct uf *uf;

	need(UFFD_FEATURE_EVENT_FORK);
	uf = object_raw(O_NONBLOCK);
	if (enable(uf, UFFD_FEATURE_EVENT_FORK) == -EPERM)
		SKIP("fork events need CAP_SYS_PTRACE");
	uf_close(uf);
}

struct uf_options options(uint64_t required)
{
	return (struct uf_options){.size = sizeof(struct uf_options), .engine = engine()->id, .required = required};
}

int object_open(struct uf **out, const struct uf_options *opts)
{
	/* Not every engine is one that uf_open() chooses from. */
	if (engine()->id == UF_ENGINE_KERNEL)
		return uf_open(out, opts);
	return uf_engine_open_negotiated(out, engine()->ops, opts);
}

struct uf *object(uint64_t features)
{
	struct uf_options opts = options(features);
	struct uf *uf;

	need(features);
	if (features & UFFD_FEATURE_EVENT_FORK)
		need_fork_events();
	CHECK_EQ(object_open(&uf, &opts), 0);
	return uf;
}

ssize_t read_bytes(struct uf *uf, void *buf, size_t size)
{
	ssize_t len = read(uf_fd(uf), buf, size);

	return len < 0 ? -errno : len;
}

int poll_now(struct uf *uf)
{
	struct pollfd fd = {.fd = uf_fd(uf), .events = POLLIN};

	CHECK(poll(&fd, 1, 0) >= 0);
	return fd.revents;
}

struct uffd_msg next_message(struct uf *uf)
{
	struct pollfd fd = {.fd = uf_fd(uf), .events = POLLIN};
	struct uffd_msg msg;
	ssize_t count;

	do {
		CHECK_EQ(poll(&fd, 1, -1), 1);
		CHECK_EQ(fd.revents, POLLIN);
		count = uf_read(uf, &msg, 1);
	} while (count == -EAGAIN);
	CHECK_EQ(count, 1);
	CHECK_EQ(msg.reserved1, 0);
	CHECK_EQ(msg.reserved2, 0);
	CHECK_EQ(msg.reserved3, 0);
	return msg;
}

void expect_fault(struct uf *uf, const void *addr, size_t size, uint64_t flags)
{
	struct uffd_msg msg = next_message(uf);

	CHECK_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
	CHECK_EQ(msg.arg.pagefault.address & ~((uint64_t)size - 1), (uintptr_t)addr & ~((uint64_t)size - 1));
	CHECK_EQ(msg.arg.pagefault.flags, flags);
}

void expect_silence(struct uf *uf)
{
	struct uffd_msg msg;

	CHECK_EQ(poll_now(uf), 0);
	CHECK_EQ(uf_read(uf, &msg, 1), -EAGAIN);
}

bool take_missing(struct uf *uf, void *addr)
{
	static const char zeros[1 << 16];
	ssize_t done;

	CHECK(page_size <= sizeof(zeros));
	done = uf_copy(uf, addr, zeros, page_size, UFFDIO_COPY_MODE_DONTWAKE);
	if (done != -EEXIST)
		CHECK_EQ(done, page_size);
	return done != -EEXIST;
}
