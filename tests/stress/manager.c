// SPDX-License-Identifier: MIT
/*
 * manager --userfault COMMAND [--clients N] [--kills N] [--seed N] [--over LAUNCHER...]
 *
 * A real manager, with clients that fork, move, give back and unmap their memory, write to it and read it, at random and in several threads each,
 * while the manager's worker is killed again and again. Each client knows by a model what every one of its pages holds.
 *
 * Clients are this program again, started by LAUNCHER if there is one (as `userfault run`), and know only libc, the kernel's userfaultfd and the
 * protocol of the handover.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE        4096ul
#define WORDS       (PAGE / 8)
#define STORE_PAGES 4096ul
#define PAGES       96ul /* of a thread */
#define THREADS     3
#define DEPTH       2 /* of forks */
#define CHILD_STEPS 40
#define KEPT        300 /* s: after that whoever still waits does so for ever, and what is still there stays */

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "manager[%ld]: failed: %s: %s\n", (long)getpid(), what, strerror(errno));
	_exit(1);
}

static void must(bool good, const char *what)
{
	if (!good)
		fail(what);
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 31)) * 0x7fb5d329728ea185u;
	x = (x ^ (x >> 27)) * 0x81dadef4bc2dd44du;
	return x ^ (x >> 33);
}

static uint64_t next(uint64_t *random)
{
	*random += 0x9e3779b97f4a7c15u;
	return mix(*random);
}

static uint64_t stored(uint64_t page, uint64_t word)
{
	return mix(page * WORDS + word + 1);
}

/*
 * A client.
 */

enum base { STORED, ZEROS, GONE };

struct page {
	char *addr;
	enum base base;
	uint64_t store; /* page of the store */
	uint64_t value; /* written to it, or 0 */
	unsigned chunk; /* what was moved together is one mapping, which mremap(2) wants */
};

struct actor {
	struct page pages[PAGES];
	uint64_t random;
	unsigned depth, chunks;
	bool restless; /* moves about half of the time, to where others go that moment */
	pthread_t thread;
};

static const char *stop_file;
static _Atomic unsigned forks;

/* Where the program writes, and one place where it never does. */
static const unsigned written[] = {0, 255, 511};
#define UNWRITTEN 100

static uint64_t expected(const struct page *page, unsigned word, bool can_be_written)
{
	if (page->value && can_be_written)
		return page->value + word;
	return page->base == STORED ? stored(page->store, word) : 0;
}

static void check_word(const struct page *page, unsigned word, bool can_be_written)
{
	uint64_t got = ((volatile uint64_t *)page->addr)[word], want = expected(page, word, can_be_written);

	if (got == want)
		return;
	fprintf(stderr, "manager[%ld]: %p word %u: %#llx instead of %#llx (base %d, store page %llu, value %#llx)\n",
	        (long)getpid(), (void *)page->addr, word, (unsigned long long)got, (unsigned long long)want,
	        (int)page->base, (unsigned long long)page->store, (unsigned long long)page->value);
	_exit(1);
}

static void check(const struct page *page)
{
	if (page->base == GONE)
		return;
	for (unsigned i = 0; i < 3; i++)
		check_word(page, written[i], true);
	check_word(page, UNWRITTEN, false);
}

static void write_page(struct actor *actor, struct page *page)
{
	if (page->base == GONE)
		return;
	page->value = next(&actor->random) | 1;
	for (unsigned i = 0; i < 3; i++)
		((volatile uint64_t *)page->addr)[written[i]] = page->value + written[i];
}

/* How many pages from the first on lie one behind the other in memory, and are there. */
static size_t run_of(const struct actor *actor, size_t first, size_t most)
{
	size_t n = 1;

	if (actor->pages[first].base == GONE)
		return 0;
	while (first + n < PAGES && n < most && actor->pages[first + n].base != GONE &&
	       actor->pages[first + n].addr == actor->pages[first].addr + n * PAGE &&
	       actor->pages[first + n].chunk == actor->pages[first].chunk)
		n++;
	return n;
}

static void give_back(struct actor *actor, size_t first, size_t most)
{
	size_t n = run_of(actor, first, most);

	if (!n)
		return;
	must(!madvise(actor->pages[first].addr, n * PAGE, MADV_DONTNEED), "madvise");
	for (size_t i = first; i < first + n; i++) {
		actor->pages[i].base = ZEROS;
		actor->pages[i].value = 0;
	}
}

/* The place that a thread is about to leave, and by how many pages, in the lowest bits. */
static _Atomic uintptr_t leaving;

/* A place for so many pages: where another thread's are that very moment, if it goes soon. */
static char *reserve(size_t n)
{
	uintptr_t left = atomic_exchange(&leaving, 0);
	char *at = MAP_FAILED;

	for (unsigned i = 0; i < 200 && at == MAP_FAILED && left % PAGE >= n; i++)
		at = mmap((void *)(left & ~(PAGE - 1)), n * PAGE, PROT_NONE,
		          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (at == MAP_FAILED)
		at = mmap(NULL, n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(at != MAP_FAILED, "mmap");
	return at;
}

static void move(struct actor *actor, size_t first, size_t most)
{
	size_t n = run_of(actor, first, most);
	char *to;

	if (!n)
		return;
	to = reserve(n);
	atomic_store(&leaving, (uintptr_t)actor->pages[first].addr | n);
	must(mremap(actor->pages[first].addr, n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "mremap");
	actor->chunks++;
	for (size_t i = 0; i < n; i++) {
		actor->pages[first + i].addr = to + i * PAGE;
		actor->pages[first + i].chunk = actor->chunks;
	}
}

static void unmap(struct actor *actor, size_t first, size_t most)
{
	size_t n = run_of(actor, first, most);

	if (!n)
		return;
	must(!munmap(actor->pages[first].addr, n * PAGE), "munmap");
	for (size_t i = first; i < first + n; i++)
		actor->pages[i].base = GONE;
}

static void act(struct actor *actor, unsigned steps);

static void fork_off(struct actor *actor)
{
	int status;
	pid_t pid;

	if (actor->depth >= DEPTH)
		return;
	pid = fork();
	must(pid >= 0, "fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		actor->depth++;
		actor->random ^= (uint64_t)getpid();
		if (next(&actor->random) % 2)
			for (size_t i = 0; i < PAGES; i++)
				check(&actor->pages[i]);
		act(actor, CHILD_STEPS);
		_exit(0);
	}
	/* Some parents change their memory while the child is at it, and are changed no less. */
	for (unsigned i = next(&actor->random) % 8; i; i--)
		write_page(actor, &actor->pages[next(&actor->random) % PAGES]);
	must(waitpid(pid, &status, 0) == pid, "waitpid");
	if (status) {
		fprintf(stderr, "manager[%ld]: child %ld ended with status %#x\n", (long)getpid(), (long)pid,
		        (unsigned)status);
		_exit(1);
	}
	forks++;
}

static void act(struct actor *actor, unsigned steps)
{
	while (steps--) {
		size_t at = next(&actor->random) % PAGES, most = 1 + next(&actor->random) % 12;
		unsigned what = next(&actor->random) % 200;

		if (actor->restless && what % 2)
			what = 188;
		if (what < 130)
			check(&actor->pages[at]);
		else if (what < 180)
			write_page(actor, &actor->pages[at]);
		else if (what < 188)
			give_back(actor, at, most);
		else if (what < 194)
			move(actor, at, most);
		else if (what < 195)
			unmap(actor, at, most / 4 + 1);
		else if (what < 197)
			fork_off(actor);
	}
}

/* The handover, as its manual page has it. */

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	must(fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof(address)), "connect");
	return fd;
}

static void send_with(int connection, int fd, const char *text)
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec piece = {.iov_base = (char *)text, .iov_len = strlen(text)};
	struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
	struct cmsghdr *head;

	if (fd >= 0) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		head = CMSG_FIRSTHDR(&message);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(head), &fd, sizeof(int));
	}
	must(sendmsg(connection, &message, 0) == (ssize_t)piece.iov_len, "sendmsg");
}

static void expect_ok(int connection)
{
	char line[256] = {0};

	must(read(connection, line, sizeof(line) - 1) > 0, "an answer");
	if (strncmp(line, "ok", 2)) {
		fprintf(stderr, "manager: the manager answers: %s", line);
		_exit(1);
	}
}

static int open_object(void)
{
	struct uffdio_api api = {.api = UFFD_API,
	                         .features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
	                                     UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	must(fd >= 0, "userfaultfd");
	must(!ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
	return fd;
}

static void populate(struct actor *actor, int fd, bool restless, char *text, size_t size, uint64_t *random)
{
	uint64_t from = next(random) % (STORE_PAGES - PAGES);
	char *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register range = {.range = {.start = (uintptr_t)memory, .len = PAGES * PAGE},
	                                .mode = UFFDIO_REGISTER_MODE_MISSING};

	must(memory != MAP_FAILED, "mmap");
	/* One fault, one page. */
	madvise(memory, PAGES * PAGE, MADV_NOHUGEPAGE);
	must(!ioctl(fd, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
	for (size_t i = 0; i < PAGES; i++)
		actor->pages[i] = (struct page){.addr = memory + i * PAGE, .base = STORED, .store = from + i};
	actor->random = next(random);
	actor->restless = restless;
	snprintf(text, size, "{\"base_host_virt_addr\":%lu,\"size\":%lu,\"offset\":%lu,\"page_size\":4096}",
	         (unsigned long)(uintptr_t)memory, PAGES * PAGE, from * PAGE);
}

static void *act_on(void *arg)
{
	struct actor *actor = arg;

	while (access(stop_file, F_OK)) {
		act(actor, 64);
		/* What is unmapped does not come back: from time to time there is nothing left to do. */
		if (run_of(actor, 0, 1) == 0 && next(&actor->random) % 64 == 0)
			break;
	}
	for (size_t i = 0; i < PAGES; i++)
		check(&actor->pages[i]);
	return NULL;
}

static int client(const char *folder, uint64_t seed)
{
	static struct actor actors[THREADS];
	char text[2048], regions[THREADS][160], path[108], stop[128];
	uint64_t random = seed;
	bool silent = next(&random) % 2, restless = next(&random) % 3 == 0;
	int fd = open_object(), connection;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(path, sizeof(path), "%s/manager", folder);
	snprintf(stop, sizeof(stop), "%s/stop", folder);
	stop_file = stop;
	for (unsigned i = 0; i < THREADS; i++)
		populate(&actors[i], fd, restless, regions[i], sizeof(regions[i]), &random);
	connection = connect_to(path);
	if (silent) {
		snprintf(text, sizeof(text), "[%s,%s,%s]", regions[0], regions[1], regions[2]);
		send_with(connection, fd, text);
	} else {
		snprintf(text, sizeof(text), "{\"regions\":[%s],\"name\":\"chaos\"}", regions[0]);
		send_with(connection, fd, text);
		expect_ok(connection);
		snprintf(text, sizeof(text), "{\"regions\":[%s,%s]}", regions[1], regions[2]);
		send_with(connection, -1, text);
		expect_ok(connection);
	}
	/* The descriptor is the manager's alone from here on. */
	if (next(&random) % 2)
		close(fd);
	for (unsigned i = 0; i < THREADS; i++)
		must(!pthread_create(&actors[i].thread, NULL, act_on, &actors[i]), "pthread_create");
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(actors[i].thread, NULL);
	printf("%u\n", forks);
	return 0;
}

/*
 * The one who sees to all that.
 */

struct settings {
	const char *command;
	unsigned clients, kills;
	uint64_t seed;
	char **launcher;
	int launcher_len;
};

static void write_store(const char *folder)
{
	char path[128];
	uint64_t page[WORDS];
	FILE *file;

	snprintf(path, sizeof(path), "%s/store", folder);
	file = fopen(path, "w");
	must(file, "store");
	for (uint64_t i = 0; i < STORE_PAGES; i++) {
		for (uint64_t k = 0; k < WORDS; k++)
			page[k] = stored(i, k);
		must(fwrite(page, PAGE, 1, file) == 1, "store");
	}
	must(!fclose(file), "store");
}

static pid_t start_manager(const struct settings *settings, const char *folder)
{
	char listen[128], store[160], control[128];
	struct stat stat_;
	pid_t pid;

	snprintf(listen, sizeof(listen), "%s/manager", folder);
	snprintf(store, sizeof(store), "default=file:%s/store", folder);
	snprintf(control, sizeof(control), "%s/control", folder);
	pid = fork();
	must(pid >= 0, "fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(settings->command, settings->command, "serve", "--listen", listen, "--store", store, "--control",
		      control, "--workers", "2", "--max-clients", "400", "--handover-timeout", "3600", NULL);
		fail(settings->command);
	}
	while (stat(listen, &stat_)) {
		must(waitpid(pid, NULL, WNOHANG) == 0, "the manager ended");
		usleep(1000);
	}
	return pid;
}

static pid_t start_client(const struct settings *settings, const char *folder, unsigned number, int out)
{
	char self[4096] = {0}, client_option[] = "--client", seed[32], *argv[32] = {0};
	int n = 0;
	ssize_t len;
	pid_t pid = fork();

	must(pid >= 0, "fork");
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(out, STDOUT_FILENO);
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)(settings->seed + number));
	/* A launcher is another program: it needs the path. */
	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	must(len > 0, "readlink");
	for (int i = 0; i < settings->launcher_len && n < 24; i++)
		argv[n++] = settings->launcher[i];
	argv[n++] = self;
	argv[n++] = client_option;
	argv[n++] = (char *)(uintptr_t)folder;
	argv[n++] = seed;
	execvp(argv[0], argv);
	fail(argv[0]);
}

/* The only child of the supervisor; 0: there is none just now. */
static pid_t worker_of(pid_t supervisor)
{
	char path[64], text[64] = {0};
	int fd;

	snprintf(path, sizeof(path), "/proc/%ld/task/%ld/children", (long)supervisor, (long)supervisor);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0 && read(fd, text, sizeof(text) - 1) >= 0, path);
	close(fd);
	return (pid_t)atol(text);
}

static unsigned kill_workers(const struct settings *settings, pid_t supervisor)
{
	uint64_t random = settings->seed ^ 0x5eed;
	unsigned done = 0;

	while (done < settings->kills) {
		pid_t worker;

		usleep(1000 + (useconds_t)(next(&random) % 40000));
		must(waitpid(supervisor, NULL, WNOHANG) == 0, "the supervisor ended");
		worker = worker_of(supervisor);
		if (worker > 0 && !kill(worker, SIGKILL))
			done++;
	}
	return done;
}

static void remove_folder(const char *folder)
{
	static const char *const names[] = {"store", "manager", "control", "stop"};
	char path[160];

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		unlink(path);
	}
	rmdir(folder);
}

/* The descriptors that the manager has open. */
static unsigned count_descriptors(pid_t pid)
{
	char command[64];
	unsigned count = 0;
	FILE *pipe_;

	snprintf(command, sizeof(command), "ls /proc/%ld/fd | wc -l", (long)pid);
	pipe_ = popen(command, "r");
	must(pipe_ && fscanf(pipe_, "%u", &count) == 1, command);
	pclose(pipe_);
	return count;
}

/* Each of its two threads has answered: what it has open from the beginning is open. */
static void meet(const char *folder)
{
	int connections[2];
	char path[128];

	snprintf(path, sizeof(path), "%s/manager", folder);
	for (unsigned i = 0; i < 2; i++) {
		connections[i] = connect_to(path);
		send_with(connections[i], -1, "{\"size\":\"default\"}");
		expect_ok(connections[i]);
	}
	for (unsigned i = 0; i < 2; i++)
		close(connections[i]);
}

static int drive(const struct settings *settings)
{
	char folder[] = "/tmp/userfault-chaos-XXXXXX", path[128];
	pid_t clients[64], manager;
	int out[2], status, bad = 0;
	unsigned kills, total = 0, value, before, after = 0;
	time_t deadline;
	FILE *counts;

	must(mkdtemp(folder) && !pipe2(out, O_CLOEXEC), "mkdtemp");
	write_store(folder);
	manager = start_manager(settings, folder);
	meet(folder);
	before = count_descriptors(manager);
	for (unsigned i = 0; i < settings->clients; i++)
		clients[i] = start_client(settings, folder, i, out[1]);
	close(out[1]);
	kills = kill_workers(settings, manager);
	snprintf(path, sizeof(path), "%s/stop", folder);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	deadline = time(NULL) + KEPT;
	for (unsigned i = 0; i < settings->clients; i++) {
		pid_t got;

		while (!(got = waitpid(clients[i], &status, WNOHANG)) && time(NULL) < deadline)
			usleep(10000);
		if (!got) {
			fprintf(stderr, "manager: client %ld waits for ever\n", (long)clients[i]);
			bad++;
			if (getenv("CHAOS_KEEP"))
				pause();
			kill(clients[i], SIGKILL);
			waitpid(clients[i], NULL, 0);
		} else if (status) {
			fprintf(stderr, "manager: client %ld ended with status %#x\n", (long)clients[i],
			        (unsigned)status);
			bad++;
		}
	}
	counts = fdopen(out[0], "r");
	while (counts && fscanf(counts, "%u", &value) == 1)
		total += value;
	/* Every one of them is gone, and so is what the manager had of them. */
	deadline = time(NULL) + KEPT;
	while ((after = count_descriptors(manager)) > before + 8 && time(NULL) < deadline)
		usleep(100000);
	if (after > before + 8) {
		fprintf(stderr, "manager: %u descriptors are open, %u were at first\n", after, before);
		bad++;
	}
	kill(manager, SIGTERM);
	must(waitpid(manager, &status, 0) == manager, "waitpid");
	if (status) {
		fprintf(stderr, "manager: the supervisor ended with status %#x\n", (unsigned)status);
		bad++;
	}
	remove_folder(folder);
	printf("%u clients, %u kills, %u forks, %u failures\n", settings->clients, kills, total, (unsigned)bad);
	return bad ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct settings settings = {.clients = 6, .kills = 100, .seed = (uint64_t)getpid() * 1000003u};

	if (argc == 4 && !strcmp(argv[1], "--client"))
		return client(argv[2], strtoull(argv[3], NULL, 10));
	for (int i = 1; i < argc; i += 2) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (!strcmp(argv[i], "--over")) {
			settings.launcher = argv + i + 1;
			settings.launcher_len = argc - i - 1;
			break;
		}
		if (!strcmp(argv[i], "--userfault"))
			settings.command = value;
		else if (!strcmp(argv[i], "--clients"))
			settings.clients = (unsigned)atoi(value);
		else if (!strcmp(argv[i], "--kills"))
			settings.kills = (unsigned)atoi(value);
		else if (!strcmp(argv[i], "--seed"))
			settings.seed = strtoull(value, NULL, 10);
		else
			return fprintf(stderr, "manager: unknown argument %s\n", argv[i]), 2;
	}
	if (!settings.command || !settings.clients || settings.clients > 64)
		return fprintf(stderr, "manager: --userfault is missing, or --clients is not from 1 to 64\n"), 2;
	return drive(&settings);
}
