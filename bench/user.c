// SPDX-License-Identifier: MIT
/* fault.user.*, wp.user: the user engine against the kernel's, in the same placement. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <userfault/uffd.h>

#include "base/clock.h"
#include "bench.h"
#include "uffd/user/passing.h"

struct scene {
	struct uf *uf;
	size_t page;
	char *content; /* of every page */
	char *memory;
};

static char *shared_memory(size_t len)
{
	char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	must_libc(p == MAP_FAILED ? -1 : 0, "mmap");
	return p;
}

static struct scene missing(const struct bench *bench, enum uf_engine engine, size_t pages, bool shared,
                            uf_handler *handler)
{
	struct scene scene = {.page = bench->page, .content = bench_memory(bench->page)};
	/* What a handler gets must last. */
	struct scene *kept = malloc(sizeof(*kept));
	struct uf_options opts = {.size = sizeof(opts), .engine = engine, .handler = handler, .arg = kept};
	size_t len = pages * bench->page;

	if (!kept)
		bench_refuse("out of memory");
	memset(scene.content, CONTENT, scene.page);
	scene.memory = shared ? shared_memory(len) : bench_memory(len);
	must(uf_open(&scene.uf, &opts), "uf_open");
	must(uf_register(scene.uf, scene.memory, len, UFFDIO_REGISTER_MODE_MISSING, NULL), "uf_register");
	*kept = scene;
	return scene;
}

static void answer(struct uf *uf, const struct scene *scene, uint64_t address)
{
	void *at = (void *)(uintptr_t)(address & ~(uint64_t)(scene->page - 1));

	must(uf_copy(uf, at, scene->content, scene->page, 0), "uf_copy");
}

/* The monitor's loop: it sleeps in uf_read(), or asks without end. */
static _Noreturn void serve(struct uf *uf, const struct scene *scene, bool spin)
{
	struct uffd_msg msg;

	must_libc(fcntl(uf_fd(uf), F_SETFL, spin ? O_NONBLOCK : 0), "F_SETFL");
	for (;;)
		if (uf_read(uf, &msg, 1) == 1)
			answer(uf, scene, msg.arg.pagefault.address);
}

/*
 * In a process of its own, which has the descriptor from a socket. It ends with this one.
 */

static _Noreturn void monitor_process(const struct bench *bench, int socket, bool spin)
{
	struct scene scene = {.page = bench->page, .content = bench_memory(bench->page)};
	size_t count = 1;
	struct uf *uf;
	char byte;
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	bench_pin(bench->place == NEAR ? bench->cpu : bench->other_cpu);
	memset(scene.content, CONTENT, scene.page);
	must(user_receive(socket, &byte, 1, &fd, &count), "receive");
	must(uf_adopt(&uf, fd), "uf_adopt");
	must_libc(write(socket, &byte, 1), "write");
	serve(uf, &scene, spin);
}

static int start_monitor(const struct bench *bench)
{
	int pair[2];
	pid_t pid;

	must_libc(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), "socketpair");
	pid = fork();
	must_libc(pid, "fork");
	if (!pid)
		monitor_process(bench, pair[1], bench->place == SPIN);
	return pair[0];
}

static void attach_monitor(int socket, struct uf *uf)
{
	char byte = 0;
	int fd = uf_fd(uf);

	must(user_pass(socket, &byte, 1, &fd, 1), "pass");
	must_libc(read(socket, &byte, 1) == 1 ? 0 : -1, "the monitor");
}

static void process(struct bench *bench, enum uf_engine engine, bool shared)
{
	int monitor = start_monitor(bench);
	struct scene scene = missing(bench, engine, FAULT_PAGES, shared, NULL);

	attach_monitor(monitor, scene.uf);
	bench_read_pages(bench, scene.memory, FAULT_PAGES, CONTENT);
}

void user_process(struct bench *bench)
{
	process(bench, UF_ENGINE_USER, false);
}

void user_process_shared(struct bench *bench)
{
	process(bench, UF_ENGINE_USER, true);
}

void kernel_process(struct bench *bench)
{
	process(bench, UF_ENGINE_KERNEL, false);
}

void kernel_process_shared(struct bench *bench)
{
	process(bench, UF_ENGINE_KERNEL, true);
}

/*
 * On a thread of the same process.
 */

static void *serve_here(void *arg)
{
	const struct scene *scene = arg;

	serve(scene->uf, scene, false);
}

static void thread(struct bench *bench, enum uf_engine engine, bool shared)
{
	struct scene scene = missing(bench, engine, FAULT_PAGES, shared, NULL);

	bench_monitor(bench, serve_here, &scene);
	bench_read_pages(bench, scene.memory, FAULT_PAGES, CONTENT);
}

void user_thread(struct bench *bench)
{
	thread(bench, UF_ENGINE_USER, false);
}

void user_thread_shared(struct bench *bench)
{
	thread(bench, UF_ENGINE_USER, true);
}

void kernel_thread(struct bench *bench)
{
	thread(bench, UF_ENGINE_KERNEL, false);
}

void kernel_thread_shared(struct bench *bench)
{
	thread(bench, UF_ENGINE_KERNEL, true);
}

/*
 * On the faulting thread itself.
 */

static int on_fault(struct uf *uf, const struct uf_fault *fault, void *arg)
{
	answer(uf, arg, fault->address);
	return 0;
}

static void in_line(struct bench *bench, enum uf_engine engine, bool shared)
{
	struct scene scene = missing(bench, engine, FAULT_PAGES, shared, on_fault);

	bench_read_pages(bench, scene.memory, FAULT_PAGES, CONTENT);
}

void user_inline(struct bench *bench)
{
	in_line(bench, UF_ENGINE_USER, false);
}

void user_inline_shared(struct bench *bench)
{
	in_line(bench, UF_ENGINE_USER, true);
}

void kernel_inline(struct bench *bench)
{
	in_line(bench, UF_ENGINE_KERNEL, false);
}

void kernel_inline_shared(struct bench *bench)
{
	in_line(bench, UF_ENGINE_KERNEL, true);
}

/* A million pages in random order: the cost of the last tenth, or of the first. */
static void random1m(struct bench *bench, size_t from, size_t to)
{
	const size_t pages = 1000000;
	struct scene scene = missing(bench, UF_ENGINE_USER, pages, false, on_fault);
	uint32_t *order = bench_order(bench, pages);

	for (size_t i = 0; i < to; i++) {
		const volatile char *at = scene.memory + order[i] * scene.page;
		uint64_t start = now_ns();

		(void)*at;
		if (i >= from)
			bench_sample(bench, (double)(now_ns() - start) / 1e3);
	}
	free(order);
}

void user_random_last(struct bench *bench)
{
	random1m(bench, 900000, 1000000);
}

void user_random_first(struct bench *bench)
{
	random1m(bench, 0, 100000);
}

static int on_write(struct uf *uf, const struct uf_fault *fault, void *arg)
{
	const struct scene *scene = arg;
	void *at = (void *)(uintptr_t)(fault->address & ~(uint64_t)(scene->page - 1));

	return uf_writeprotect(uf, at, scene->page, 0);
}

void user_wp(struct bench *bench)
{
	struct scene scene = {.page = bench->page};
	struct uf_options opts = {.size = sizeof(opts), .engine = UF_ENGINE_USER, .handler = on_write, .arg = &scene};
	size_t len = FAULT_PAGES * bench->page;

	scene.memory = bench_memory(len);
	bench_populate(scene.memory, len, bench->page);
	must(uf_open(&scene.uf, &opts), "uf_open");
	must(uf_register(scene.uf, scene.memory, len, UFFDIO_REGISTER_MODE_WP, NULL), "uf_register");
	must(uf_writeprotect(scene.uf, scene.memory, len, UFFDIO_WRITEPROTECT_MODE_WP), "uf_writeprotect");
	bench_write_pages(bench, scene.memory, FAULT_PAGES);
}
