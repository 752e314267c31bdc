// SPDX-License-Identifier: MIT
/*
 * file:PATH
 *
 * In the background through io_uring, where its module is installed and the kernel allows it, and on threads elsewhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "store/module.h"
#include "store/resident.h"
#include "store/store.h"
#include "store/uring.h"

struct file {
	int fd;
	_Atomic bool waits_anyway;           /* its file system does not know RWF_NOWAIT */
	const struct store_uring_ops *uring; /* NULL: no module */
	pthread_mutex_t lock;                /* making the ring */
	void *_Atomic ring;                  /* release: what it points to. NULL: not made yet; refused: it cannot be */
	pthread_mutex_t flushing;            /* held by whoever flushes: `lost` */
	int lost;                            /* 0, or what a flush has failed with */
	struct resident resident;
};

static char refused;

static int64_t file_read(void *state, void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause)
{
	const struct file *file = state;
	ssize_t n = raw_pread(file->fd, buf, len, offset);

	if (!n)
		return store_fail(cause, -EIO, "the file ends at or before %llu: it has been cut since it was opened",
		                  (unsigned long long)offset);
	return n;
}

/* Only what lies in the page cache. By a raw system call: in a signal handler errno is not ours. */
static int file_try_read(void *state, void *buf, size_t len, uint64_t offset)
{
	struct file *file = state;
	struct iovec iov = {buf, len};
	long n;

	if (atomic_load_explicit(&file->waits_anyway, memory_order_relaxed))
		return -EAGAIN;
	n = raw_syscall6(SYS_preadv2, file->fd, (long)&iov, 1, (long)offset, 0, RWF_NOWAIT);
	if (n == -EOPNOTSUPP)
		atomic_store_explicit(&file->waits_anyway, true, memory_order_relaxed);
	return n == (long)len ? 0 : -EAGAIN;
}

static void file_will_need(void *state, size_t len, uint64_t offset)
{
	const struct file *file = state;

	raw_syscall6(SYS_fadvise64, file->fd, (long)offset, (long)len, POSIX_FADV_WILLNEED, 0, 0);
}

static const void *file_at(void *state, size_t len, uint64_t offset)
{
	struct file *file = state;

	return resident_at(&file->resident, file->fd, len, offset);
}

static int64_t file_write(void *state, const void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause)
{
	const struct file *file = state;

	(void)cause;
	return raw_pwrite(file->fd, buf, len, offset);
}

/*
 * What it could not write the kernel tells once, to one caller, and drops: the next call would succeed. So no flush does after one that has
 * failed, be it another attempt or another thread's.
 */
static int file_flush(void *state, struct uf_store_cause *cause)
{
	struct file *file = state;
	int err;

	pthread_mutex_lock(&file->flushing);
	if (file->lost)
		store_fail(cause, 0, "a flush failed before: what was written may be lost");
	do
		err = file->lost ? file->lost : (int)raw_syscall3(SYS_fdatasync, file->fd, 0, 0);
	while (err == -EINTR);
	file->lost = err;
	pthread_mutex_unlock(&file->flushing);
	return err;
}

/* The position that this moves is nobody's: all else is read and written by offset. */
static int file_extent(void *state, uint64_t offset, uint64_t len, struct uf_extent *extent)
{
	const struct file *file = state;
	off_t data = lseek(file->fd, (off_t)offset, SEEK_DATA), hole;

	if (data < 0 && errno != ENXIO)
		return -errno;
	/* ENXIO: nothing but a hole until the end, which is not where it was if the file has been cut. */
	if (data < 0)
		data = lseek(file->fd, 0, SEEK_END);
	if (data < (off_t)offset)
		return -EIO;
	if ((uint64_t)data > offset) {
		extent->zero = 1;
		extent->len = (uint64_t)data - offset > len ? len : (uint64_t)data - offset;
		return 0;
	}
	hole = lseek(file->fd, (off_t)offset, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	extent->len = (uint64_t)hole - offset > len ? len : (uint64_t)hole - offset;
	return 0;
}

/* Made when it is first needed: most files are in the page cache. NULL: there is none. */
static void *find_ring(struct file *file)
{
	void *ring = atomic_load_explicit(&file->ring, memory_order_acquire);

	if (!ring) {
		pthread_mutex_lock(&file->lock);
		ring = atomic_load_explicit(&file->ring, memory_order_relaxed);
		if (!ring) {
			if (file->uring->open(&ring, file->fd))
				ring = &refused;
			atomic_store_explicit(&file->ring, ring, memory_order_release);
		}
		pthread_mutex_unlock(&file->lock);
	}
	return ring == &refused ? NULL : ring;
}

/* Not a flush: what became of that has to be kept. */
static int file_submit(void *state, struct uf_store_io *io)
{
	struct file *file = state;
	void *ring = file->uring && io->action != UF_STORE_FLUSH ? find_ring(file) : NULL;

	return ring ? file->uring->submit(ring, io) : -EOPNOTSUPP;
}

static void file_close(void *state)
{
	struct file *file = state;
	void *ring = atomic_load_explicit(&file->ring, memory_order_acquire);

	if (ring && ring != &refused)
		file->uring->close(ring);
	pthread_mutex_destroy(&file->flushing);
	pthread_mutex_destroy(&file->lock);
	resident_end(&file->resident);
	raw_close(file->fd);
	free(file);
}

static const struct uf_store_ops file_ops = {
	.size = sizeof(file_ops),
	.version = UF_STORE_OPS_VERSION,
	.read = file_read,
	.try_read = file_try_read,
	.write = file_write,
	.flush = file_flush,
	.extent = file_extent,
	.close = file_close,
	.submit = file_submit,
};

static int find_size(int fd, uint64_t *size, struct uf_store_cause *cause)
{
	struct stat info;

	if (fstat(fd, &info))
		return -errno;
	if (S_ISBLK(info.st_mode))
		return ioctl(fd, BLKGETSIZE64, size) ? -errno : 0;
	if (!S_ISREG(info.st_mode))
		return store_fail(cause, -EINVAL, "neither a file nor a block device");
	*size = (uint64_t)info.st_size;
	return *size ? 0 : store_fail(cause, -EINVAL, "it is empty");
}

int store_open_file(struct store_opened *opened, const char *rest, unsigned flags, struct uf_store_cause *cause)
{
	_cleanup_fd int fd = open(rest, (flags & UF_STORE_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	struct file *file;
	uint64_t size = 0;
	int err;

	if (!*rest)
		return store_fail(cause, -EINVAL, "no path");
	if (fd < 0)
		return -errno;
	err = find_size(fd, &size, cause);
	if (err)
		return err;
	file = calloc(1, sizeof(*file));
	if (!file)
		return -ENOMEM;
	file->fd = take_fd(&fd);
	resident_init(&file->resident, file->fd, size);
	pthread_mutex_init(&file->lock, NULL);
	pthread_mutex_init(&file->flushing, NULL);
	/* Now, and not when there is a fault to resolve: whoever waits for that may hold the loader's lock. */
	file->uring = store_module_find(&store_module_uring, STORE_URING_SYMBOL, NULL);
	*opened = (struct store_opened){
		.ops = &file_ops,
		.state = file,
		.size = size,
		.flags = UF_STORE_TRIES_IN_SIGNAL | UF_STORE_READS_IN_SIGNAL,
		.will_need = file_will_need,
		.at = file_at,
	};
	return 0;
}
