// SPDX-License-Identifier: MIT
/*
 * model [--seed N] [--operations N] [--threads N] - random operations on tracked memory, each byte checked against a model
 *
 * Knows only libc and the kernel's userfaultfd, so it runs as it is on either engine: by itself, or under `userfault run`.
 *
 * Threads take a page, or a whole region, do something to it, and check that it holds what the model says: its *base* content,
 * which is what the monitors deliver, with what was written since it was delivered. What was removed is base content again.
 * Two monitors read the same descriptor. Messages may come twice and late (a wake for nothing, a signal); that changes nothing,
 * as every delivery of a page has the same content.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define REGIONS  6
#define PAGES    48
#define WORDS    4 /* of a page that are written, spread over it */
#define MONITORS 2

struct page {
	pthread_mutex_t lock;
	uint64_t written[WORDS];
	bool is_written[WORDS];
};

enum kind { PRIVATE, SHARED, MEMFD, KINDS };

static struct region {
	enum kind kind;
	char *_Atomic base;
	struct page pages[PAGES];
} regions[REGIONS];

static int uffd;
static size_t page_size;

/*
 * Written by whoever moves a region or maps it anew. A monitor that has a message from before must not deliver to a place that is
 * another region's now; it never waits for this, since the change may wait for its event to be read.
 */
static pthread_rwlock_t layout = PTHREAD_RWLOCK_INITIALIZER;
static _Atomic bool finished;
static _Atomic uint64_t faults, removals, remaps, forks, wp_faults;
static unsigned long seed;

static _Noreturn __attribute__((format(printf, 1, 2))) void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "failed: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, " (seed %lu)\n", seed);
	va_end(args);
	_exit(1);
}

static void must(bool good, const char *what)
{
	if (!good)
		fail("%s: %s", what, strerror(errno));
}

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/*
 * The model.
 */

/* Every third page is zeros. */
static uint64_t base_word(size_t region, size_t page, size_t word)
{
	return (region + page) % 3 ? (region + 1) * 0x9e3779b97f4a7c15u ^ (page << 32) ^ word : 0;
}

static size_t place_of(size_t i)
{
	return i * (page_size / sizeof(uint64_t)) / WORDS + i;
}

static void check_page(size_t region, size_t page, const char *at, const char *who)
{
	const struct page *model = &regions[region].pages[page];
	const volatile uint64_t *words = (const volatile uint64_t *)at;
	size_t overlay = 0;

	for (size_t i = 0; i < page_size / sizeof(*words); i++) {
		uint64_t expected = base_word(region, page, i), got = words[i];

		if (overlay < WORDS && i == place_of(overlay)) {
			if (model->is_written[overlay])
				expected = model->written[overlay];
			overlay++;
		}
		if (got != expected)
			fail("%s: region %zu page %zu word %zu is %llx, not %llx", who, region, page, i,
			     (unsigned long long)got, (unsigned long long)expected);
	}
}

static void forget_writes(struct page *page)
{
	memset(page->is_written, 0, sizeof(page->is_written));
}

static char *page_at(size_t region, size_t page)
{
	return atomic_load(&regions[region].base) + page * page_size;
}

/*
 * Monitors.
 */

static bool find(uint64_t address, size_t *region, size_t *page)
{
	for (size_t i = 0; i < REGIONS; i++) {
		uint64_t base = (uintptr_t)atomic_load(&regions[i].base);

		if (address >= base && address < base + PAGES * page_size) {
			*region = i;
			*page = (address - base) / page_size;
			return true;
		}
	}
	return false;
}

/* 0, or errno. What is there already, or nowhere any more, is as good as delivered: whoever waits looks again. */
static int deliver(size_t region, size_t page, uint64_t at)
{
	uint64_t content[65536 / sizeof(uint64_t)] __attribute__((aligned(4096)));
	struct uffdio_range range = {at, page_size};
	int err = 0;

	if (base_word(region, page, 0)) {
		struct uffdio_copy copy = {.dst = at, .src = (uintptr_t)content, .len = page_size};

		for (size_t i = 0; i < page_size / sizeof(uint64_t); i++)
			content[i] = base_word(region, page, i);
		err = ioctl(uffd, UFFDIO_COPY, &copy) ? errno : 0;
	} else {
		struct uffdio_zeropage zero = {.range = range};

		err = ioctl(uffd, UFFDIO_ZEROPAGE, &zero) ? errno : 0;
	}
	if (err == EEXIST)
		must(!ioctl(uffd, UFFDIO_WAKE, &range), "UFFDIO_WAKE");
	if (err && err != EEXIST && err != EAGAIN && err != ENOENT)
		fail("delivery: %s", strerror(err));
	return err;
}

static int unprotect(uint64_t at)
{
	struct uffdio_writeprotect wp = {.range = {at, page_size}};
	int err = ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) ? errno : 0;

	if (err && err != EAGAIN && err != ENOENT)
		fail("UFFDIO_WRITEPROTECT: %s", strerror(err));
	if (!err)
		atomic_fetch_add(&wp_faults, 1);
	return err;
}

/* 0, or errno; EAGAIN: later. */
static int serve(const struct uffd_msg *msg)
{
	uint64_t at = msg->arg.pagefault.address & ~(uint64_t)(page_size - 1);
	size_t region, page;
	int err = 0;

	if (pthread_rwlock_tryrdlock(&layout))
		return EAGAIN;
	if (msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)
		err = unprotect(at);
	else if (find(at, &region, &page))
		err = deliver(region, page, at);
	pthread_rwlock_unlock(&layout);
	return err;
}

#define PARKED (REGIONS * PAGES * 2)

static bool is_parked(const struct uffd_msg *parked, size_t count, const struct uffd_msg *msg)
{
	size_t i = 0;

	while (i < count && (parked[i].arg.pagefault.address != msg->arg.pagefault.address ||
	                     parked[i].arg.pagefault.flags != msg->arg.pagefault.flags))
		i++;
	if (i == PARKED)
		fail("more faults than pages");
	return i < count;
}

static void *monitor(void *unused)
{
	/* Faults whose delivery has to wait until an event is read. */
	struct uffd_msg parked[PARKED], msg;
	size_t count = 0;

	while (!atomic_load(&finished)) {
		struct pollfd readable = {.fd = uffd, .events = POLLIN};
		size_t left = 0;

		poll(&readable, 1, count ? 0 : 100);
		if (read(uffd, &msg, sizeof(msg)) == sizeof(msg) && msg.event == UFFD_EVENT_PAGEFAULT) {
			atomic_fetch_add(&faults, 1);
			if (!is_parked(parked, count, &msg))
				parked[count++] = msg;
		}
		for (size_t i = 0; i < count; i++)
			if (serve(&parked[i]) == EAGAIN)
				parked[left++] = parked[i];
		count = left;
	}
	return unused;
}

/*
 * Regions.
 */

static void map_region(struct region *region)
{
	size_t len = PAGES * page_size;
	struct uffdio_register reg = {.range.len = len, .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP};
	int flags = region->kind == PRIVATE  ? MAP_PRIVATE | MAP_ANONYMOUS
	            : region->kind == SHARED ? MAP_SHARED | MAP_ANONYMOUS
	                                     : MAP_SHARED;
	int fd = -1;
	char *at;

	if (region->kind == MEMFD) {
		fd = memfd_create("model", MFD_CLOEXEC);
		must(fd >= 0 && !ftruncate(fd, (off_t)len), "memfd");
	}
	at = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fd, 0);
	must(at != MAP_FAILED, "mmap");
	if (fd >= 0)
		close(fd);
	madvise(at, len, MADV_NOHUGEPAGE);
	/* Before the first fault can come. */
	atomic_store(&region->base, at);
	reg.range.start = (uintptr_t)at;
	must(!ioctl(uffd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
	for (size_t i = 0; i < PAGES; i++)
		forget_writes(&region->pages[i]);
}

static void lock_region(struct region *region)
{
	for (size_t i = 0; i < PAGES; i++)
		pthread_mutex_lock(&region->pages[i].lock);
}

static void unlock_region(struct region *region)
{
	for (size_t i = 0; i < PAGES; i++)
		pthread_mutex_unlock(&region->pages[i].lock);
}

static void map_again(struct region *region)
{
	must(!munmap(atomic_load(&region->base), PAGES * page_size), "munmap");
	map_region(region);
}

static void move_region(struct region *region)
{
	size_t len = PAGES * page_size;
	char *to = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *from = atomic_load(&region->base);

	must(to != MAP_FAILED, "mmap");
	must(mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "mremap");
	atomic_store(&region->base, to);
	atomic_fetch_add(&remaps, 1);
}

/*
 * Operations on one page, which is locked.
 */

static void do_write(size_t region, size_t page, uint64_t *state)
{
	struct page *model = &regions[region].pages[page];
	size_t i = next(state) % WORDS;
	uint64_t value = next(state);

	((volatile uint64_t *)page_at(region, page))[place_of(i)] = value;
	model->written[i] = value;
	model->is_written[i] = true;
}

static void do_remove(size_t region, size_t page)
{
	int advice = regions[region].kind == PRIVATE ? MADV_DONTNEED : MADV_REMOVE;

	must(!madvise(page_at(region, page), page_size, advice), "madvise");
	forget_writes(&regions[region].pages[page]);
	atomic_fetch_add(&removals, 1);
}

static void do_protect(size_t region, size_t page)
{
	struct uffdio_writeprotect wp = {
		.range = {(uintptr_t)page_at(region, page), page_size},
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	must(!ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) || errno == EAGAIN, "UFFDIO_WRITEPROTECT");
}

static void do_wake(size_t region, size_t page)
{
	struct uffdio_range range = {(uintptr_t)page_at(region, page), page_size};

	must(!ioctl(uffd, UFFDIO_WAKE, &range), "UFFDIO_WAKE");
}

/* The kernel's own touch: a pipe gets the page's bytes. */
static void do_write_out(size_t region, size_t page)
{
	char *copy = malloc(page_size);
	int ends[2];

	must(!pipe(ends), "pipe");
	must(write(ends[1], page_at(region, page), page_size) == (ssize_t)page_size, "write");
	must(read(ends[0], copy, page_size) == (ssize_t)page_size, "read");
	check_page(region, page, copy, "through a pipe");
	close(ends[0]);
	close(ends[1]);
	free(copy);
}

/* Without fork events a child's memory is ordinary: what was there is there, what was missing reads as zeros or as the file. */
static void do_fork(size_t region, size_t page)
{
	int status;
	pid_t pid;

	check_page(region, page, page_at(region, page), "before a fork");
	pid = fork();
	must(pid >= 0, "fork");
	if (!pid) {
		check_page(region, page, page_at(region, page), "in a child");
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0)
		must(errno == EINTR, "waitpid");
	if (status)
		fail("a child ended with %x", status);
	atomic_fetch_add(&forks, 1);
}

static void one_page(uint64_t *state)
{
	size_t region = next(state) % REGIONS, page = next(state) % PAGES;
	struct page *model = &regions[region].pages[page];
	unsigned what = next(state) % 100;

	pthread_mutex_lock(&model->lock);
	if (what < 30)
		check_page(region, page, page_at(region, page), "read");
	else if (what < 55)
		do_write(region, page, state);
	else if (what < 75)
		do_remove(region, page);
	else if (what < 82)
		deliver(region, page, (uintptr_t)page_at(region, page));
	else if (what < 90)
		do_protect(region, page);
	else if (what < 93)
		do_wake(region, page);
	else if (what < 99)
		do_write_out(region, page);
	else
		do_fork(region, page);
	check_page(region, page, page_at(region, page), "after all");
	pthread_mutex_unlock(&model->lock);
}

static void one_region(uint64_t *state)
{
	struct region *region = &regions[next(state) % REGIONS];

	lock_region(region);
	pthread_rwlock_wrlock(&layout);
	if (next(state) % 2)
		map_again(region);
	else
		move_region(region);
	pthread_rwlock_unlock(&layout);
	unlock_region(region);
}

struct work {
	pthread_t thread;
	uint64_t state;
	unsigned long operations;
	_Atomic bool done;
};

static void *work(void *arg)
{
	struct work *mine = arg;

	for (unsigned long i = 0; i < mine->operations; i++) {
		if (next(&mine->state) % 200)
			one_page(&mine->state);
		else
			one_region(&mine->state);
	}
	atomic_store(&mine->done, true);
	return NULL;
}

static void on_usr1(int sig)
{
	(void)sig;
}

static void open_object(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP |
	                    UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP |
	                    (1 << 12) /* WP_HUGETLBFS_SHMEM */,
	};

	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0 && errno == EPERM) {
		printf("skipped: userfaultfd(2): %s\n", strerror(errno));
		exit(77);
	}
	must(uffd >= 0, "userfaultfd");
	must(!ioctl(uffd, UFFDIO_API, &api), "UFFDIO_API");
}

int main(int argc, char **argv)
{
	unsigned long operations = 20000, threads = 4;
	struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_RESTART};
	struct work *works;
	pthread_t monitors[MONITORS];

	seed = (unsigned long)getpid() * 2654435761u ^ (unsigned long)time(NULL);
	for (int i = 1; i + 1 < argc; i += 2) {
		unsigned long value = strtoul(argv[i + 1], NULL, 0);

		if (!strcmp(argv[i], "--seed"))
			seed = value;
		else if (!strcmp(argv[i], "--operations"))
			operations = value;
		else if (!strcmp(argv[i], "--threads"))
			threads = value;
		else
			fail("unknown option %s", argv[i]);
	}
	page_size = (size_t)sysconf(_SC_PAGESIZE);
	sigaction(SIGUSR1, &action, NULL);
	open_object();
	for (size_t i = 0; i < REGIONS; i++) {
		regions[i].kind = (enum kind)(i % KINDS);
		for (size_t j = 0; j < PAGES; j++)
			pthread_mutex_init(&regions[i].pages[j].lock, NULL);
		map_region(&regions[i]);
	}
	for (size_t i = 0; i < MONITORS; i++)
		must(!pthread_create(&monitors[i], NULL, monitor, NULL), "pthread_create");
	works = calloc(threads, sizeof(*works));
	for (size_t i = 0; i < threads; i++) {
		works[i].state = (seed + i + 1) * 0x9e3779b97f4a7c15u | 1;
		works[i].operations = operations / threads;
		must(!pthread_create(&works[i].thread, NULL, work, &works[i]), "pthread_create");
	}
	/* Signals interrupt waits at any moment. */
	for (size_t i = 0; i < threads; i++) {
		while (!atomic_load(&works[i].done)) {
			pthread_kill(works[i].thread, SIGUSR1);
			usleep(1000);
		}
		pthread_join(works[i].thread, NULL);
	}
	for (size_t i = 0; i < REGIONS; i++)
		for (size_t j = 0; j < PAGES; j++)
			check_page(i, j, page_at(i, j), "at the end");
	atomic_store(&finished, true);
	for (size_t i = 0; i < MONITORS; i++)
		pthread_join(monitors[i], NULL);
	printf("%lu operations, %llu messages, %llu of write protection, %llu removals, %llu moves, %llu forks; seed "
	       "%lu\n",
	       operations, (unsigned long long)faults, (unsigned long long)wp_faults, (unsigned long long)removals,
	       (unsigned long long)remaps, (unsigned long long)forks, seed);
	return 0;
}
