// SPDX-License-Identifier: MIT
/*
 * manager.*: a real `userfault serve`, started by each side beside itself, whose clients are this process: each has an object, memory and a
 * connection of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <userfault.h>

#include "base/clock.h"
#include "bench.h"

/* Handed over by one run of a side, one after the other. */
#define HANDOVERS 64
/* Pages of each client of many. */
#define MOST_CLIENTS 1000
#define TOUCHES      8000
#define STRIDE       8 /* pages: so far apart nothing is read ahead */
/* Of one client, all of which it touches. */
#define WEIGHED_MIB 512

struct manager {
	char folder[64], socket[96];
	pid_t pid;
};

/* The command that was built beside this program. */
static void find_command(char *path, size_t size)
{
	ssize_t len = readlink("/proc/self/exe", path, size - 1);
	char *end;

	must_libc(len, "readlink");
	path[len] = '\0';
	for (int i = 0; i < 2; i++) {
		end = strrchr(path, '/');
		if (end)
			*end = '\0';
	}
	snprintf(path + strlen(path), size - strlen(path), "/userfault");
	if (access(path, X_OK))
		bench_refuse("%s: %s", path, strerror(errno));
}

static void exec_manager(const struct bench *bench, const struct manager *manager, const char *store,
                         const char *option)
{
	char command[4096], spec[512];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (bench_is_pinned(bench))
		bench_pin(bench->place == NEAR ? bench->cpu : bench->other_cpu);
	find_command(command, sizeof(command));
	snprintf(spec, sizeof(spec), "default=file:%s", store);
	/* It says that it serves, which nobody wants to read here. */
	dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
	execl(command, command, "serve", "--listen", manager->socket, "--store", spec, "--control", "none", "--workers",
	      "1", "--max-clients", "1100", option, option ? manager->folder : NULL, NULL);
	_exit(1);
}

static void start(const struct bench *bench, struct manager *manager, const char *store, const char *option)
{
	struct stat stat_;

	if (!manager->folder[0]) {
		snprintf(manager->folder, sizeof(manager->folder), "/tmp/userfault-bench-XXXXXX");
		if (!mkdtemp(manager->folder))
			bench_refuse("mkdtemp: %s", strerror(errno));
	}
	snprintf(manager->socket, sizeof(manager->socket), "%s/manager", manager->folder);
	manager->pid = fork();
	must_libc(manager->pid, "fork");
	if (!manager->pid)
		exec_manager(bench, manager, store, option);
	while (stat(manager->socket, &stat_)) {
		if (waitpid(manager->pid, NULL, WNOHANG))
			bench_refuse("the manager does not start");
		usleep(1000);
	}
}

static void stop(struct manager *manager)
{
	kill(manager->pid, SIGTERM);
	waitpid(manager->pid, NULL, 0);
}

static void clean_up(struct manager *manager)
{
	char command[128];

	stop(manager);
	snprintf(command, sizeof(command), "rm -rf %s", manager->folder);
	(void)!system(command);
}

/* A store all of whose pages begin with CONTENT. */
static void make_store(const struct bench *bench, struct manager *manager, char *path, size_t size, size_t pages)
{
	char *page = bench_memory(bench->page);
	int fd;

	snprintf(manager->folder, sizeof(manager->folder), "/tmp/userfault-bench-XXXXXX");
	if (!mkdtemp(manager->folder))
		bench_refuse("mkdtemp: %s", strerror(errno));
	snprintf(path, size, "%s/store", manager->folder);
	memset(page, CONTENT, bench->page);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	must_libc(fd, path);
	for (size_t i = 0; i < pages; i++)
		must_libc(write(fd, page, bench->page), path);
	close(fd);
}

static char *hand_over(const struct manager *manager, size_t len)
{
	const struct uf_options options = {
		.size = sizeof(options),
		.wanted = UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP,
	};
	char *memory = bench_memory(len);
	const struct uf_handover_region region = {.addr = memory, .size = len};
	struct uf_handover *handover;
	struct uf *uf;

	must(uf_open(&uf, &options), "uf_open");
	must(uf_register(uf, memory, len, UFFDIO_REGISTER_MODE_MISSING, NULL), "uf_register");
	must(uf_handover_open(&handover, manager->socket, NULL, 0), "uf_handover_open");
	must(uf_handover_give(handover, uf_fd(uf), &region, 1, "bench", NULL, 0), "uf_handover_give");
	return memory;
}

void manager_fault(struct bench *bench)
{
	struct manager manager = {0};
	char store[128], *memory;

	make_store(bench, &manager, store, sizeof(store), FAULT_PAGES);
	start(bench, &manager, store, NULL);
	memory = hand_over(&manager, FAULT_PAGES * bench->page);
	bench_read_pages(bench, memory, FAULT_PAGES, CONTENT);
	clean_up(&manager);
}

/* From the connection to the first byte of the memory. */
void manager_handover(struct bench *bench)
{
	struct manager manager = {0};
	char store[128];

	make_store(bench, &manager, store, sizeof(store), FAULT_PAGES);
	start(bench, &manager, store, NULL);
	for (unsigned i = 0; i < HANDOVERS; i++) {
		uint64_t before = now_ns();
		volatile char *memory = hand_over(&manager, FAULT_PAGES * bench->page);

		if (memory[0] != CONTENT)
			bench_refuse("the first byte is wrong");
		bench_sample(bench, (double)(now_ns() - before) / 1e3);
	}
	clean_up(&manager);
}

/* Touches in turn, so that no two that follow one another are of one client. */
static void touch_in_turn(struct bench *bench, unsigned clients)
{
	size_t pages = TOUCHES / clients * STRIDE;
	struct rlimit limit = {4096, 4096};
	struct manager manager = {0};
	char store[128], **memory = calloc(clients, sizeof(*memory));
	uint64_t before;
	size_t touches = 0;

	setrlimit(RLIMIT_NOFILE, &limit);
	make_store(bench, &manager, store, sizeof(store), pages);
	start(bench, &manager, store, NULL);
	for (unsigned i = 0; i < clients; i++)
		memory[i] = hand_over(&manager, pages * bench->page);
	before = now_ns();
	for (size_t page = 0; page < pages; page += STRIDE)
		for (unsigned i = 0; i < clients; i++, touches++)
			if (((volatile char *)memory[i])[page * bench->page] != CONTENT)
				bench_refuse("a page is wrong");
	bench_sample(bench, (double)(now_ns() - before) / 1e3 / (double)touches);
	clean_up(&manager);
}

void manager_clients_1(struct bench *bench)
{
	touch_in_turn(bench, 1);
}

void manager_clients_10(struct bench *bench)
{
	touch_in_turn(bench, 10);
}

void manager_clients_100(struct bench *bench)
{
	touch_in_turn(bench, 100);
}

void manager_clients_1000(struct bench *bench)
{
	touch_in_turn(bench, MOST_CLIENTS);
}

/*
 * Memory: what the manager needs for a page that a client has, and what the kernel's own tables need for it in the client.
 */

/* The sum of these fields of /proc/PID/status, bytes. */
static double memory_of(pid_t pid, const char *const *fields, size_t count)
{
	char path[64], line[256];
	double sum = 0;
	size_t found = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "re");
	if (!file)
		bench_refuse("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), file))
		for (size_t i = 0; i < count; i++)
			if (!strncmp(line, fields[i], strlen(fields[i]))) {
				sum += 1024.0 * atof(line + strlen(fields[i]));
				found++;
			}
	fclose(file);
	if (found != count)
		bench_refuse("%s has no %s", path, fields[0]);
	return sum;
}

/* Who serves is the only child of who was started. */
static pid_t worker_of(const struct manager *manager)
{
	char path[64];
	int pid = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", manager->pid, manager->pid);
	file = fopen(path, "re");
	if (!file || fscanf(file, "%d", &pid) != 1)
		bench_refuse("%s names no process", path);
	fclose(file);
	return pid;
}

/* Bytes for each page of a store of nothing but holes. Begins when the first page is there. */
static void weigh(struct bench *bench, bool of_manager)
{
	static const char *const own[] = {"RssAnon:", "RssShmem:", "VmPTE:"}, *const tables[] = {"VmPTE:"};
	const size_t pages = ((size_t)WEIGHED_MIB << 20) / bench->page;
	struct manager manager = {0};
	char store[128], *memory;
	double before, after;
	pid_t pid;

	make_store(bench, &manager, store, sizeof(store), 0);
	must_libc(truncate(store, (off_t)(pages * bench->page)), store);
	start(bench, &manager, store, NULL);
	memory = hand_over(&manager, pages * bench->page);
	if (*(volatile char *)memory)
		bench_refuse("a page is wrong");
	pid = of_manager ? worker_of(&manager) : getpid();
	before = of_manager ? memory_of(pid, own, 3) : memory_of(pid, tables, 1);
	for (size_t i = 0; i < pages; i++)
		if (((volatile char *)memory)[i * bench->page])
			bench_refuse("a page is wrong");
	after = of_manager ? memory_of(pid, own, 3) : memory_of(pid, tables, 1);
	bench_sample(bench, (after - before) / (double)pages);
	clean_up(&manager);
}

void manager_memory(struct bench *bench)
{
	weigh(bench, true);
}

void manager_page_tables(struct bench *bench)
{
	weigh(bench, false);
}

/*
 * A snapshot that is restored.
 */

static void touch_once(struct bench *bench, struct manager *manager, const uint32_t *pages, bool count)
{
	uint64_t before = now_ns();
	char *memory = hand_over(manager, (size_t)FILE_MIB << 20);

	bench_touch(bench, memory, pages, SET_PAGES);
	if (count)
		bench_sample(bench, (double)(now_ns() - before) / 1e6);
}

/* A first client, of a process of its own, whose touches are recorded when it ends. */
static void record(struct bench *bench, struct manager *manager, const uint32_t *pages)
{
	char path[128];
	pid_t pid = fork();

	must_libc(pid, "fork");
	if (!pid) {
		touch_once(bench, manager, pages, false);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	snprintf(path, sizeof(path), "%s/default.workingset", manager->folder);
	while (access(path, F_OK))
		usleep(1000);
}

static void restore(struct bench *bench, bool prefetch, bool cold)
{
	uint32_t *pages = bench_set_pages(bench);
	struct manager manager = {0};
	char store[512];

	snprintf(store, sizeof(store), "%s", bench_path(NUMBERED));
	if (prefetch) {
		start(bench, &manager, store, "--record");
		record(bench, &manager, pages);
		stop(&manager);
	}
	if (cold)
		bench_drop_cache(bench, store);
	else
		bench_warm_cache(store, (size_t)FILE_MIB << 20);
	start(bench, &manager, store, prefetch ? "--prefetch" : NULL);
	touch_once(bench, &manager, pages, true);
	clean_up(&manager);
}

void manager_restore(struct bench *bench)
{
	restore(bench, true, true);
}

void manager_no_prefetch(struct bench *bench)
{
	restore(bench, false, true);
}

void manager_restore_warm(struct bench *bench)
{
	restore(bench, true, false);
}

void manager_no_prefetch_warm(struct bench *bench)
{
	restore(bench, false, false);
}
