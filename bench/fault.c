// SPDX-License-Identifier: MIT
/* fault.kernel.*: how long a thread waits for a missing page. */
#include <poll.h>
#include <string.h>

#include <userfault/uffd.h>

#include "bench.h"
#include "placement.h"

/* As many as the baseline: room for more makes the kernel look at its queue once more. */
#define MESSAGES 1

struct server {
	struct uf *uf;
	size_t page;
	char *content; /* of every page */
	bool spin;
	bool follow;
};

static char *missing_memory(const struct bench *bench, struct server *server, const struct uf_options *opts)
{
	size_t len = FAULT_PAGES * bench->page;
	char *memory = bench_memory(len);

	server->page = bench->page;
	server->content = bench_memory(bench->page);
	memset(server->content, CONTENT, bench->page);
	must(uf_open(&server->uf, opts), "uf_open");
	must(uf_register(server->uf, memory, len, UFFDIO_REGISTER_MODE_MISSING, NULL), "uf_register");
	return memory;
}

static void answer(const struct server *server, uint64_t address)
{
	void *at = (void *)(uintptr_t)(address & ~(uint64_t)(server->page - 1));

	must(uf_copy(server->uf, at, server->content, server->page, 0), "uf_copy");
}

static void *serve(void *arg)
{
	const struct server *server = arg;
	struct pollfd readable = {.fd = uf_fd(server->uf), .events = POLLIN};
	struct uffd_msg msgs[MESSAGES];
	struct follow follow;

	follow_init(&follow);
	for (;;) {
		ssize_t count;

		if (!server->spin)
			poll(&readable, 1, -1);
		count = uf_read(server->uf, msgs, MESSAGES);
		for (ssize_t i = 0; i < count; i++) {
			if (server->follow)
				must(follow_thread(&follow, msgs[i].arg.pagefault.feat.ptid), "follow_thread");
			answer(server, msgs[i].arg.pagefault.address);
		}
	}
	return NULL;
}

void fault_thread(struct bench *bench)
{
	struct server server = {.spin = bench->place == SPIN};
	char *memory = missing_memory(bench, &server, NULL);

	bench_monitor(bench, serve, &server);
	bench_read_pages(bench, memory, FAULT_PAGES, CONTENT);
}

static int on_fault(struct uf *uf, const struct uf_fault *fault, void *arg)
{
	const struct server *server = arg;
	void *at = (void *)(uintptr_t)(fault->address & ~(uint64_t)(server->page - 1));
	ssize_t done = uf_copy(uf, at, server->content, server->page, 0);

	return done < 0 ? (int)done : 0;
}

void fault_inline(struct bench *bench)
{
	struct server server = {0};
	struct uf_options opts = {.size = sizeof(opts), .handler = on_fault, .arg = &server};
	char *memory = missing_memory(bench, &server, &opts);

	bench_read_pages(bench, memory, FAULT_PAGES, CONTENT);
}

/* The thread is moved every STAY faults, as a balancer moves threads; or it is left alone (FREE). */
#define STAY (FAULT_PAGES / 4)

static void fault_anywhere(struct bench *bench, bool follow)
{
	struct server server = {.follow = follow};
	struct uf_options opts = {.size = sizeof(opts), .required = UFFD_FEATURE_THREAD_ID};
	char *memory = missing_memory(bench, &server, &opts);

	bench_monitor(bench, serve, &server);
	for (size_t at = 0; at < FAULT_PAGES; at += STAY) {
		if (bench->place == MOVED)
			bench_pin(at / STAY % 2 ? bench->other_cpu : bench->cpu);
		bench_read_pages(bench, memory + at * bench->page, STAY, CONTENT);
	}
}

void fault_follow(struct bench *bench)
{
	fault_anywhere(bench, true);
}

void fault_scheduled(struct bench *bench)
{
	fault_anywhere(bench, false);
}
