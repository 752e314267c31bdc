// SPDX-License-Identifier: MIT
/*
 * open-device - opens /dev/userfaultfd by every call there is, from threads and forked children, and other files too
 *
 * Exit status 0 when the device was always refused with EPERM and the other files were always opened.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/openat2.h>

#define THREADS  4
#define CHILDREN 4
#define ROUNDS   50

static void expect(const char *what, long fd, bool refused)
{
	int error = errno;

	if (refused ? fd < 0 && error == EPERM : fd >= 0) {
		if (fd >= 0)
			close((int)fd);
		return;
	}
	fprintf(stderr, "open-device: %s: %s\n", what, fd < 0 ? strerror(error) : "opened");
	exit(1);
}

static void open_all(void)
{
	struct open_how how = {.flags = O_RDWR | O_CLOEXEC};
	int dev = open("/dev", O_PATH | O_CLOEXEC);

	expect("another file", open("/proc/self/status", O_RDONLY), false);
#ifdef SYS_open
	expect("open", syscall(SYS_open, "/dev/userfaultfd", O_RDWR), true);
#endif
	expect("openat", openat(AT_FDCWD, "/dev/userfaultfd", O_RDWR), true);
	expect("openat from a directory", openat(dev, "userfaultfd", O_RDWR), true);
	expect("openat2 from a directory", syscall(SYS_openat2, dev, "userfaultfd", &how, sizeof(how)), true);
	expect("a device beside it", openat(dev, "null", O_RDWR), false);
	close(dev);
}

static void *open_many_times(void *arg)
{
	for (int i = 0; i < ROUNDS; i++)
		open_all();
	return arg;
}

static void open_in_threads(void)
{
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, open_many_times, NULL))
			exit(1);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

int main(void)
{
	int status, failed = 0;

	for (int i = 0; i < CHILDREN; i++) {
		if (fork() == 0) {
			open_in_threads();
			return 0;
		}
	}
	open_in_threads();
	while (wait(&status) > 0)
		failed |= status;
	return failed ? 1 : 0;
}
