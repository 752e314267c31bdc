// SPDX-License-Identifier: MIT
/*
 * ondemand FILE - a program whose memory is filled, page by page, by a monitor in another process
 *
 * The program maps memory as large as FILE, registers it, and hands the descriptor to the monitor over a unix socket. Then it
 * compares its memory with the file, touching the pages in random order: each first touch is a fault, which the monitor
 * answers from the file. Prints how long the touches took.
 *
 * Both processes stay on one processor: the wake-up of another one would cost more than all the rest.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <userfault.h>

static size_t page_size;

static void die(const char *what, int err)
{
	fprintf(stderr, "ondemand: %s: %s\n", what, strerror(err));
	exit(1);
}

/* What the monitor must know of the program's memory. */
struct handover {
	uint64_t start;
	uint64_t size;
};

static void send_handover(int sock, const struct handover *handover, int fd)
{
	char control[CMSG_SPACE(sizeof(fd))] = {0};
	struct iovec iov = {.iov_base = (void *)handover, .iov_len = sizeof(*handover)};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) != sizeof(*handover))
		die("cannot hand over", errno);
}

static int receive_handover(int sock, struct handover *handover)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {.iov_base = handover, .iov_len = sizeof(*handover)};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *cmsg;
	int fd;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != sizeof(*handover))
		exit(1); /* the program said why */
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
		die("no descriptor came", EPROTO);
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

/* The page at `offset`, with zeros behind the end of the file. */
static void read_page(int file, char *page, uint64_t offset)
{
	size_t done = 0;

	while (done < page_size) {
		ssize_t n = pread(file, page + done, page_size - done, (off_t)(offset + done));

		if (n < 0)
			die("cannot read the file", errno);
		if (n == 0)
			break;
		done += (size_t)n;
	}
	memset(page + done, 0, page_size - done);
}

static void serve(int sock, int file)
{
	struct handover handover;
	struct uf *uf;
	struct pollfd ready;
	char *page = aligned_alloc(page_size, page_size);
	int err = uf_adopt(&uf, receive_handover(sock, &handover));

	if (err || !page)
		die("cannot adopt the descriptor", err ? -err : ENOMEM);
	ready = (struct pollfd){.fd = uf_fd(uf), .events = POLLIN};
	/* The program kills us when it is done. */
	for (;;) {
		struct uffd_msg msg;
		uint64_t addr;
		ssize_t n;

		if (uf_read(uf, &msg, 1) < 1) {
			poll(&ready, 1, -1);
			continue;
		}
		addr = msg.arg.pagefault.address & ~(uint64_t)(page_size - 1);
		read_page(file, page, addr - handover.start);
		n = uf_copy(uf, (void *)(uintptr_t)addr, page, page_size, 0);
		if (n < 0 && n != -EEXIST)
			die("cannot deliver a page", (int)-n);
	}
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void shuffle(size_t *order, size_t count)
{
	uint64_t random = 1;

	for (size_t i = 0; i < count; i++)
		order[i] = i;
	for (size_t i = count; i > 1; i--) {
		size_t j, swap;

		random = random * 6364136223846793005u + 1442695040888963407u;
		j = (size_t)(random >> 33) % i;
		swap = order[j];
		order[j] = order[i - 1];
		order[i - 1] = swap;
	}
}

/* Touches every page once, compares it with the file, and prints what the first touches cost. */
static int verify(const char *memory, int file, size_t pages, const char *path)
{
	size_t *order = malloc(pages * sizeof(*order));
	uint64_t *cost = malloc(pages * sizeof(*cost));
	char *expected = malloc(page_size);

	if (!order || !cost || !expected)
		die("no memory", ENOMEM);
	shuffle(order, pages);
	for (size_t i = 0; i < pages; i++) {
		const char *page = memory + order[i] * page_size;
		uint64_t start = now_ns();

		(void)*(const volatile char *)page;
		cost[i] = now_ns() - start;
		read_page(file, expected, order[i] * page_size);
		if (memcmp(page, expected, page_size)) {
			fprintf(stderr, "ondemand: page %zu differs from %s\n", order[i], path);
			return 1;
		}
	}
	qsort(cost, pages, sizeof(*cost), by_value);
	printf("%s: %zu pages filled on demand by another process, every byte as in the file\n", path, pages);
	printf("fault latency: p50 %.1f us, p99 %.1f us, max %.1f us\n", (double)cost[pages / 2] / 1e3,
	       (double)cost[pages * 99 / 100] / 1e3, (double)cost[pages - 1] / 1e3);
	free(order);
	free(cost);
	free(expected);
	return 0;
}

/* Without its monitor the program would wait in a fault for ever. */
static void on_monitor_gone(int sig)
{
	(void)sig;
	_exit(1);
}

static void stay_on_this_processor(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

int main(int argc, char **argv)
{
	struct handover handover;
	int socks[2], file, status, err;
	struct stat st;
	struct uf *uf;
	pid_t monitor;

	if (argc != 2) {
		fprintf(stderr, "usage: ondemand FILE\n");
		return 2;
	}
	page_size = (size_t)sysconf(_SC_PAGESIZE);
	file = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (file < 0 || fstat(file, &st))
		die(argv[1], errno);
	if (!S_ISREG(st.st_mode) || !st.st_size)
		die(argv[1], S_ISDIR(st.st_mode) ? EISDIR : EINVAL);
	handover.size = ((uint64_t)st.st_size + page_size - 1) & ~(uint64_t)(page_size - 1);

	stay_on_this_processor();
	signal(SIGCHLD, on_monitor_gone);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks))
		die("socketpair", errno);
	monitor = fork();
	if (monitor < 0)
		die("fork", errno);
	if (monitor == 0) {
		close(socks[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(socks[1], file);
	}
	close(socks[1]);

	char *memory = mmap(NULL, handover.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("mmap", errno);
	handover.start = (uint64_t)(uintptr_t)memory;
	err = uf_open(&uf, NULL);
	if (!err)
		err = uf_register(uf, memory, handover.size, UFFDIO_REGISTER_MODE_MISSING, NULL);
	if (err)
		die("no userfaultfd ('userfault probe' tells why)", -err);
	send_handover(socks[0], &handover, uf_fd(uf));
	status = verify(memory, file, handover.size / page_size, argv[1]);
	signal(SIGCHLD, SIG_DFL);
	kill(monitor, SIGTERM);
	waitpid(monitor, NULL, 0);
	uf_close(uf);
	return status;
}
