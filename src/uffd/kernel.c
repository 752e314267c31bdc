// SPDX-License-Identifier: MIT
/* Engine "kernel": userfaultfd(2) and /dev/userfaultfd. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/rawsys.h"
#include "uffd/engine.h"

/* Set in fdinfo's features once UFFDIO_API succeeded (Linux 5.15); not a feature. */
#define FEATURES_INITIALIZED ((uint64_t)1 << 31)

static int kernel_open(enum uf_way way, int open_flags, void **state)
{
	_cleanup_fd int device = -1;

	(void)state;
	switch (way) {
	case UF_WAY_SYSCALL:
		return (int)raw_syscall3(SYS_userfaultfd, open_flags, 0, 0);
	case UF_WAY_USER_MODE:
		return (int)raw_syscall3(SYS_userfaultfd, open_flags | UFFD_USER_MODE_ONLY, 0, 0);
	case UF_WAY_DEVICE:
		device = raw_open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
		if (device < 0)
			return device;
		return raw_ioctl(device, USERFAULTFD_IOC_NEW, (void *)(long)open_flags);
	default:
		return -EINVAL;
	}
}

static int read_proc_fd(const char *dir, int fd, char *buf, size_t size)
{
	char path[64];
	_cleanup_fd int file = -1;
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/self/%s/%d", dir, fd);
	file = raw_open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return file;
	len = raw_read(file, buf, size - 1);
	if (len < 0)
		return (int)len;
	buf[len] = '\0';
	return 0;
}

/*
 * Whether the object was enabled, on kernels whose fdinfo does not say: every request but UFFDIO_API is EINVAL before that.
 * A wake of one page that certainly is an address does no harm: whoever waits there faults again.
 */
static int is_enabled(int fd)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct uffdio_range range = {.start = (uint64_t)(uintptr_t)&range & ~(page - 1), .len = page};

	return raw_ioctl(fd, UFFDIO_WAKE, &range) == 0;
}

static int kernel_recognise(int fd, uint64_t *features, void **state)
{
	static const char anon_inode[] = "anon_inode:[userfaultfd]";
	char path[64], link[64], info[512], *api;
	ssize_t len;
	int err;

	(void)state;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	len = raw_syscall6(SYS_readlinkat, AT_FDCWD, (long)path, (long)link, sizeof(link) - 1, 0, 0);
	if (len < 0)
		return raw_syscall3(SYS_fcntl, fd, F_GETFD, 0) < 0 ? -EBADF : (int)len;
	link[len] = '\0';
	if (strcmp(link, anon_inode) != 0)
		return -ENOTTY;

	err = read_proc_fd("fdinfo", fd, info, sizeof(info));
	if (err)
		return err;
	/* "API:\t<api>:<features>:<ioctls>", hexadecimal */
	api = strstr(info, "API:");
	api = api ? strchr(api + 4, ':') : NULL;
	if (!api)
		return -ENOENT;
	*features = strtoull(api + 1, NULL, 16);
	if (!(*features & FEATURES_INITIALIZED) && !is_enabled(fd))
		return -EINVAL;
	*features &= ~FEATURES_INITIALIZED;
	return 0;
}

static int kernel_ioctl(const struct uf *uf, unsigned long request, void *arg)
{
	return raw_ioctl(uf->fd, request, arg);
}

static ssize_t kernel_read(const struct uf *uf, struct uffd_msg *msgs, size_t count)
{
	ssize_t len = raw_read(uf->fd, msgs, count * sizeof(*msgs));

	return len < 0 ? len : len / (ssize_t)sizeof(*msgs);
}

static void kernel_close(struct uf *uf)
{
	raw_close(uf->fd);
}

const struct uf_engine_ops uf_engine_kernel = {
	.name = "kernel",
	.faults_are_sigbus = true,
	.open = kernel_open,
	.recognise = kernel_recognise,
	.ioctl = kernel_ioctl,
	.read = kernel_read,
	.close = kernel_close,
};
