// SPDX-License-Identifier: MIT
/* What family migrate is compared with: bytes over loopback TCP, and a fault that is served over it, by hand. */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <userfault/uffd.h>

#include "base/clock.h"
#include "bench.h"

#define MIB ((size_t)1 << 20)

/* A connection over loopback TCP: both ends in this process, for a child to take one. */
static void connect_pair(int fds[2])
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	must_libc(bind(listener, (struct sockaddr *)&at, sizeof(at)), "bind");
	must_libc(listen(listener, 1), "listen");
	must_libc(getsockname(listener, (struct sockaddr *)&at, &len), "getsockname");
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	must_libc(connect(fds[0], (struct sockaddr *)&at, len), "connect");
	fds[1] = accept(listener, NULL, NULL);
	must_libc(fds[1], "accept");
	for (int i = 0; i < 2; i++)
		setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	close(listener);
}

static void receive_all(int fd, char *to, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t got = recv(fd, to + at, len - at < MIB ? len - at : MIB, MSG_WAITALL);

		if (got <= 0)
			_exit(1);
		at += (size_t)got;
	}
}

static void send_all(int fd, const char *from, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t sent = send(fd, from + at, len - at < MIB ? len - at : MIB, MSG_NOSIGNAL);

		must_libc(sent, "send");
		at += (size_t)sent;
	}
}

/* From memory of one process into fresh memory of another: seconds. */
static double raw_tcp(struct bench *bench, size_t len)
{
	char byte = 0, *memory;
	uint64_t start;
	int fds[2];

	connect_pair(fds);
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		memory = bench_memory(len);
		must_libc(write(fds[1], &byte, 1), "write");
		receive_all(fds[1], memory, len);
		must_libc(write(fds[1], &byte, 1), "write");
		_exit(0);
	}
	memory = bench_memory(len);
	bench_populate(memory, len, bench->page);
	memset(memory, CONTENT, len);
	receive_all(fds[0], &byte, 1);
	start = now_ns();
	send_all(fds[0], memory, len);
	receive_all(fds[0], &byte, 1);
	return (double)(now_ns() - start) / 1e9;
}

void raw_tcp_throughput(struct bench *bench)
{
	bench_sample(bench, MIGRATE_MIB * MIB / raw_tcp(bench, MIGRATE_MIB * MIB) / 1e9);
}

/* What was filled of the busy program. */
void raw_tcp_time(struct bench *bench)
{
	bench_sample(bench, raw_tcp(bench, BUSY_MIB * MIB / 2) * 1e3);
}

/*
 * A fault, a message there, the page back, COPY; while the other connection is full.
 */

struct bare {
	struct bench *bench;
	int bulk, requests, uffd;
	char *memory;
	size_t len;
};

static void *flood(void *arg)
{
	struct bare *bare = arg;
	char *bytes = bench_memory(MIB);

	memset(bytes, CONTENT, MIB);
	for (;;)
		if (send(bare->bulk, bytes, MIB, MSG_NOSIGNAL) <= 0)
			return NULL;
}

static void *drain(void *arg)
{
	struct bare *bare = arg;
	char *bytes = bench_memory(MIB);

	for (;;)
		if (recv(bare->bulk, bytes, MIB, 0) <= 0)
			return NULL;
}

static _Noreturn void answer(struct bare *bare)
{
	char page[65536];
	uint64_t number;

	memset(page, CONTENT, sizeof(page));
	for (;;) {
		receive_all(bare->requests, (char *)&number, sizeof(number));
		send_all(bare->requests, page, bare->bench->page);
	}
}

static void *serve(void *arg)
{
	struct bare *bare = arg;
	size_t page = bare->bench->page;
	char *bytes = bench_memory(page);
	struct pollfd in = {.fd = bare->uffd, .events = POLLIN};

	while (poll(&in, 1, -1) >= 0) {
		struct uffdio_copy copy = {.src = (uintptr_t)bytes, .len = page};
		struct uffd_msg msg;

		if (read(bare->uffd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		copy.dst = msg.arg.pagefault.address & ~(page - 1);
		send_all(bare->requests, (char *)&copy.dst, sizeof(copy.dst));
		receive_all(bare->requests, bytes, page);
		must_libc(ioctl(bare->uffd, UFFDIO_COPY, &copy), "UFFDIO_COPY");
	}
	return NULL;
}

void bare_request(struct bench *bench)
{
	struct bare here = {.bench = bench, .len = FAULT_PAGES * bench->page}, there = here;
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register range = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	int bulk[2], requests[2];
	pthread_t thread;

	connect_pair(bulk);
	connect_pair(requests);
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		there.bulk = bulk[1];
		there.requests = requests[1];
		must(-pthread_create(&thread, NULL, flood, &there), "pthread_create");
		answer(&there);
	}
	here.bulk = bulk[0];
	here.requests = requests[0];
	here.memory = bench_memory(here.len);
	here.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	must_libc(here.uffd, "userfaultfd");
	must_libc(ioctl(here.uffd, UFFDIO_API, &api), "UFFDIO_API");
	range.range = (struct uffdio_range){(uintptr_t)here.memory, here.len};
	must_libc(ioctl(here.uffd, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
	must(-pthread_create(&thread, NULL, drain, &here), "pthread_create");
	must(-pthread_create(&thread, NULL, serve, &here), "pthread_create");
	bench_read_pages(bench, here.memory, FAULT_PAGES, CONTENT);
}
