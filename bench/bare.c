// SPDX-License-Identifier: MIT
/*
 * Baselines: the barest code that does the job, written by hand against the kernel and libc. Nothing of the library is
 * used, but the kernel's structures that the distribution's headers lack.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/pagemap.h"
#include "bench.h"

#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

static int fd;
static size_t page;
static char *content;

static double elapsed_ns(const struct timespec *since)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - since->tv_sec) * 1e9 + (double)(now.tv_nsec - since->tv_nsec);
}

static void open_userfaultfd(uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};

	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	must_libc(fd, "userfaultfd");
	must_libc(ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
}

static void register_range(const char *memory, size_t len, uint64_t mode)
{
	struct uffdio_register reg = {.range = {(uintptr_t)memory, len}, .mode = mode};

	must_libc(ioctl(fd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
}

/* Missing memory whose pages are answered with `content`. */
static char *missing_memory(const struct bench *bench, uint64_t features)
{
	char *memory = bench_memory(FAULT_PAGES * bench->page);

	page = bench->page;
	content = bench_memory(page);
	memset(content, CONTENT, page);
	open_userfaultfd(features);
	register_range(memory, FAULT_PAGES * page, UFFDIO_REGISTER_MODE_MISSING);
	return memory;
}

static void answer(uint64_t address)
{
	struct uffdio_copy copy = {
		.dst = address & ~(uint64_t)(page - 1),
		.src = (uintptr_t)content,
		.len = page,
	};

	if (ioctl(fd, UFFDIO_COPY, &copy))
		bench_refuse("UFFDIO_COPY: %s", strerror(errno));
}

static void *serve(void *arg)
{
	struct pollfd readable = {.fd = fd, .events = POLLIN};
	struct uffd_msg msg;

	(void)arg;
	for (;;) {
		poll(&readable, 1, -1);
		if (read(fd, &msg, sizeof(msg)) == sizeof(msg))
			answer(msg.arg.pagefault.address);
	}
	return NULL;
}

static void *serve_spinning(void *arg)
{
	struct uffd_msg msg;

	(void)arg;
	for (;;)
		if (read(fd, &msg, sizeof(msg)) == sizeof(msg))
			answer(msg.arg.pagefault.address);
	return NULL;
}

void bare_thread(struct bench *bench)
{
	char *memory = missing_memory(bench, 0);

	bench_monitor(bench, bench->place == SPIN ? serve_spinning : serve, NULL);
	bench_read_pages(bench, memory, FAULT_PAGES, CONTENT);
}

/* The monitor is another process, at the figure's place. */
static void serve_in_child(const struct bench *bench, void (*serve_)(int arg), int arg)
{
	pid_t pid = fork();

	must_libc(pid, "fork");
	if (pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (bench_is_pinned(bench))
		bench_pin(bench->place == NEAR ? bench->cpu : bench->other_cpu);
	serve_(arg);
	_exit(1);
}

static void serve_for_parent(int arg)
{
	(void)arg;
	serve(NULL);
}

void bare_process(struct bench *bench)
{
	char *memory = missing_memory(bench, 0);

	serve_in_child(bench, serve_for_parent, 0);
	bench_read_pages(bench, memory, FAULT_PAGES, CONTENT);
}

/* One descriptor with each message, served until the next comes. */
static void serve_given(int socket)
{
	for (;;) {
		struct pollfd fds[] = {{.fd = socket, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
		char control[CMSG_SPACE(sizeof(int))], text[256];
		struct iovec piece = {text, sizeof(text)};
		struct msghdr message = {
			.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
		struct uffd_msg msg;

		poll(fds, 2, -1);
		if (fds[0].revents && recvmsg(socket, &message, 0) > 0)
			memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
		if (fds[1].revents && read(fd, &msg, sizeof(msg)) == sizeof(msg))
			answer(msg.arg.pagefault.address);
	}
}

static void give(int socket)
{
	static const char text[] = "[{\"base_host_virt_addr\":0,\"size\":4096,\"offset\":0,\"page_size\":4096}]";
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec piece = {(char *)(uintptr_t)text, sizeof(text) - 1};
	struct msghdr message = {
		.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &fd, sizeof(int));
	must_libc(sendmsg(socket, &message, 0), "sendmsg");
}

void bare_handover(struct bench *bench)
{
	int pair[2];

	must_libc(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	page = bench->page;
	content = bench_memory(page);
	memset(content, CONTENT, page);
	fd = -1;
	serve_in_child(bench, serve_given, pair[1]);
	for (unsigned i = 0; i < 64; i++) {
		struct timespec start;
		char *memory;

		clock_gettime(CLOCK_MONOTONIC, &start);
		memory = missing_memory(bench, 0);
		give(pair[0]);
		if (*(volatile char *)memory != CONTENT)
			bench_refuse("the first byte is wrong");
		bench_sample(bench, elapsed_ns(&start) / 1e3);
	}
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	answer((uintptr_t)info->si_addr);
}

void bare_inline(struct bench *bench)
{
	struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
	char *memory = missing_memory(bench, UFFD_FEATURE_SIGBUS);

	sigaction(SIGBUS, &action, NULL);
	bench_read_pages(bench, memory, FAULT_PAGES, CONTENT);
}

void bare_memcpy(struct bench *bench)
{
	size_t len = (size_t)FILL_MIB << 20;
	char *memory = bench_memory(len), *source = bench_memory(CHUNK);
	struct timespec start;

	memset(source, CONTENT, CHUNK);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (size_t at = 0; at < len; at += CHUNK)
		memcpy(memory + at, source, CHUNK);
	bench_sample(bench, (double)len / elapsed_ns(&start));
}

/* Reads, which leave behind what a page of zeros that was delivered leaves: the shared zero page. */
void bare_first_touch(struct bench *bench)
{
	size_t len = (size_t)FILL_MIB << 20;
	const volatile char *memory = bench_memory(len);
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (size_t at = 0; at < len; at += bench->page)
		(void)memory[at];
	bench_sample(bench, (double)len / elapsed_ns(&start));
}

/* The dirty pages of [memory, memory + len), which are protected again. */
static size_t scan(int pagemap, const char *memory, size_t len, struct page_region *found, size_t room)
{
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.start = (uintptr_t)memory,
		.end = (uintptr_t)memory + len,
		.vec = (uintptr_t)found,
		.vec_len = room,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	size_t bytes = 0;

	while (arg.start < arg.end) {
		int count = ioctl(pagemap, PAGEMAP_SCAN, &arg);

		must_libc(count, "PAGEMAP_SCAN");
		for (int i = 0; i < count; i++)
			bytes += found[i].end - found[i].start;
		arg.start = arg.walk_end;
	}
	return bytes / page;
}

void bare_scan(struct bench *bench)
{
	size_t len = (size_t)SCAN_MIB << 20, pages = len / bench->page, room = 65536;
	struct page_region *found = malloc(room * sizeof(*found));
	uint32_t *order = bench_order(bench, pages);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	char *memory = bench_memory(len);
	struct uffdio_writeprotect wp = {.range = {(uintptr_t)memory, len}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};

	page = bench->page;
	must_libc(pagemap, "/proc/self/pagemap");
	bench_populate(memory, len, page);
	memset(found, 0, room * sizeof(*found));
	open_userfaultfd(UFFD_FEATURE_WP_ASYNC);
	register_range(memory, len, UFFDIO_REGISTER_MODE_WP);
	must_libc(ioctl(fd, UFFDIO_WRITEPROTECT, &wp), "UFFDIO_WRITEPROTECT");

	for (unsigned pass = 0; pass < SCAN_PASSES; pass++) {
		const uint32_t *dirty = order + pass * (pages / SCAN_DIRTY);
		struct timespec start;
		size_t count;

		for (size_t i = 0; i < pages / SCAN_DIRTY; i++)
			memory[dirty[i] * page]++;
		clock_gettime(CLOCK_MONOTONIC, &start);
		count = scan(pagemap, memory, len, found, room);
		if (pass)
			bench_sample(bench, elapsed_ns(&start) / 1e6 * 1024 / SCAN_MIB);
		if (count != pages / SCAN_DIRTY)
			bench_refuse("%zu dirty pages found, not %zu", count, pages / SCAN_DIRTY);
	}
}

static uint64_t dirty_bits[FAULT_PAGES / 64];
static char *protected_memory;

static void on_sigsegv(int sig, siginfo_t *info, void *context)
{
	size_t index = ((uintptr_t)info->si_addr - (uintptr_t)protected_memory) / page;

	(void)sig;
	(void)context;
	dirty_bits[index / 64] |= (uint64_t)1 << (index % 64);
	if (mprotect(protected_memory + index * page, page, PROT_READ | PROT_WRITE))
		bench_refuse("mprotect: %s", strerror(errno));
}

void bare_mprotect(struct bench *bench)
{
	struct sigaction action = {.sa_sigaction = on_sigsegv, .sa_flags = SA_SIGINFO};

	page = bench->page;
	protected_memory = bench_memory(FAULT_PAGES * page);
	bench_populate(protected_memory, FAULT_PAGES * page, page);
	sigaction(SIGSEGV, &action, NULL);
	must_libc(mprotect(protected_memory, FAULT_PAGES * page, PROT_READ), "mprotect");
	bench_write_pages(bench, protected_memory, FAULT_PAGES);
}
