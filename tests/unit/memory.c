// SPDX-License-Identifier: MIT
/* Pages hidden, filled and shown without userfaultfd, on every kind of memory and with both traps. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/memory.h"
#include "support/test.h"
#include "uffd/user/memory.h"

static __thread sigjmp_buf back;

static void on_trap(int sig)
{
	siglongjmp(back, sig);
}

static void catch_traps(void)
{
	struct sigaction action = {.sa_handler = on_trap, .sa_flags = SA_NODEFER};

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}

/* What the program meets there: the byte, or minus the signal. */
static int look(const char *p)
{
	int sig = sigsetjmp(back, 1);

	return sig ? -sig : *(const volatile unsigned char *)p;
}

/* 0, or minus the signal. Changes nothing. */
static int touch(char *p)
{
	int sig = sigsetjmp(back, 1);

	if (!sig)
		*(volatile char *)p = *(volatile char *)p;
	return -sig;
}

/* What a system call meets there: 0, or minus the error. */
static int give_to_kernel(const char *p)
{
	int ends[2], n;

	CHECK_EQ(pipe(ends), 0);
	n = (int)write(ends[1], p, 1);
	n = n < 0 ? -errno : 0;
	close(ends[0]);
	close(ends[1]);
	return n;
}

static void check_hidden(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i += page_size) {
		CHECK_EQ(look(p + i), -SIGSEGV);
		CHECK_EQ(look(p + i + page_size - 1), -SIGSEGV);
	}
	CHECK_EQ(give_to_kernel(p), -EFAULT);
}

static void check_holds(const char *p, size_t len, int byte)
{
	for (size_t i = 0; i < len; i += page_size / 4)
		CHECK_EQ(look(p + i), byte);
	CHECK_EQ(look(p + len - 1), byte);
	CHECK_EQ(give_to_kernel(p), 0);
}

/* One piece, ready for use. */
static struct user_memory inspect(const char *p, size_t len, bool protect_only)
{
	struct user_memory memory;
	uint64_t start = (uintptr_t)p;

	catch_traps();
	CHECK_EQ(user_memory_inspect(start, start + len, protect_only, &memory, 1), 1);
	CHECK_EQ(memory.start, start);
	CHECK_EQ(memory.end, start + len);
	CHECK_EQ(user_memory_prepare(&memory), 0);
	return memory;
}

static uint64_t at(const struct user_memory *memory, size_t page)
{
	return memory->start + page * memory->page_size;
}

static char *pointer(const struct user_memory *memory, size_t page)
{
	return (char *)(uintptr_t)at(memory, page);
}

static void *content(const struct user_memory *memory, int byte)
{
	void *p = malloc(memory->page_size);

	return memset(p, byte, memory->page_size);
}

/* A whole delivery: hidden pages get content and are shown. */
static int fill(const struct user_memory *memory, uint64_t start, const void *src, size_t len, bool writable)
{
	int err = user_memory_open(memory, start, len);

	if (err)
		return err;
	err = user_memory_write(memory, start, src, len);
	if (!err)
		err = user_memory_publish(memory, start, len, writable);
	if (err)
		user_memory_shut(memory, start, len);
	return err;
}

static int zero(const struct user_memory *memory, uint64_t start, size_t len, bool writable)
{
	if (memory->type == UF_MEMORY_ANON)
		return user_memory_show(memory, start, len, writable);
	return fill(memory, start, NULL, len, writable);
}

#define ROW_PAGES 7

/* Each function on each state, of memory that the program may write. */
static void check_row(const struct user_memory *m)
{
	size_t page = m->page_size;
	char *unreadable = mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (size_t i = 0; i < ROW_PAGES; i++)
		memset(pointer(m, i), 0x77, page);
	CHECK_EQ(user_memory_hide(m, m->start, m->end), 0);
	check_hidden(pointer(m, 0), m->end - m->start);

	CHECK_EQ(fill(m, at(m, 0), content(m, 0xa0), page, true), 0);
	check_holds(pointer(m, 0), page, 0xa0);
	CHECK_EQ(touch(pointer(m, 0)), 0);
	CHECK_EQ(fill(m, at(m, 1), content(m, 0xa1), page, false), 0);
	check_holds(pointer(m, 1), page, 0xa1);
	CHECK_EQ(touch(pointer(m, 1)), -SIGSEGV);
	CHECK_EQ(zero(m, at(m, 2), page, true), 0);
	check_holds(pointer(m, 2), page, 0);
	CHECK_EQ(touch(pointer(m, 2)), 0);
	CHECK_EQ(zero(m, at(m, 3), page, false), 0);
	check_holds(pointer(m, 3), page, 0);
	CHECK_EQ(touch(pointer(m, 3)), -SIGSEGV);
	CHECK_EQ(user_memory_show(m, at(m, 4), page, true), 0);
	check_holds(pointer(m, 4), page, m->shared ? 0x77 : 0);
	CHECK_EQ(touch(pointer(m, 4)), 0);
	CHECK_EQ(user_memory_show(m, at(m, 5), page, false), 0);
	check_holds(pointer(m, 5), page, m->shared ? 0x77 : 0);
	CHECK_EQ(touch(pointer(m, 5)), -SIGSEGV);

	CHECK_EQ(fill(m, at(m, 6), unreadable, page, true), -EFAULT);
	check_hidden(pointer(m, 6), page);

	/* Write protection, taken away and given back; then hidden in every state at once. */
	CHECK_EQ(user_memory_protect(m, at(m, 1), page, true), 0);
	CHECK_EQ(touch(pointer(m, 1)), 0);
	CHECK_EQ(user_memory_protect(m, at(m, 0), page, false), 0);
	CHECK_EQ(touch(pointer(m, 0)), -SIGSEGV);
	check_holds(pointer(m, 0), page, 0xa0);
	CHECK_EQ(user_memory_hide(m, m->start, m->end), 0);
	check_hidden(pointer(m, 0), m->end - m->start);
	for (size_t i = 0; i < ROW_PAGES; i++) {
		CHECK_EQ(fill(m, at(m, i), content(m, (int)(0xb0 + i)), page, true), 0);
		check_holds(pointer(m, i), page, (int)(0xb0 + i));
		CHECK_EQ(touch(pointer(m, i)), 0);
		if (i + 1 < ROW_PAGES)
			check_hidden(pointer(m, i + 1), page);
	}
}

static void check_rows(enum memory_source source)
{
	bool huge = source == MEMORY_HUGE_ANON || source == MEMORY_HUGE_SHARED || source == MEMORY_HUGE_MEMFD;

	for (int protect_only = huge; protect_only < 2; protect_only++) {
		struct memory memory = memory_map(source, ROW_PAGES);
		struct user_memory m = inspect(memory.at, memory.len, protect_only);

		CHECK_EQ(m.type, memory.kind);
		CHECK_EQ(m.shared, memory.shared);
		CHECK_EQ(m.page_size, memory.page);
		CHECK_EQ(m.prot, PROT_READ | PROT_WRITE);
		CHECK_EQ(m.trap, protect_only ? USER_TRAP_PROTECT : USER_TRAP_GUARD);
		check_row(&m);
		user_memory_dispose(&m);
		munmap(memory.at, memory.len);
	}
}

#define ROW(ident, source)                                                                  \
	TEST(every_state_##ident, "Each function takes pages of this memory where it says") \
	{                                                                                   \
		check_rows(source);                                                         \
	}

/* On kernels before 6.15 the rows say so: guards are expected on all memory but mlocked and hugetlbfs. */
ROW(anon, MEMORY_ANON)
ROW(dev_zero_private, MEMORY_DEV_ZERO_PRIVATE)
ROW(shared_anon, MEMORY_SHARED_ANON)
ROW(dev_zero, MEMORY_DEV_ZERO)
ROW(memfd, MEMORY_MEMFD)
ROW(memfd_private, MEMORY_MEMFD_PRIVATE)
ROW(tmpfs, MEMORY_TMPFS)
ROW(sysv, MEMORY_SYSV)
ROW(huge_anon, MEMORY_HUGE_ANON)
ROW(huge_shared, MEMORY_HUGE_SHARED)
ROW(huge_memfd, MEMORY_HUGE_MEMFD)

TEST(mlocked_memory_is_protected, "Memory that is mlocked is trapped by its protection, and works like any other.")
{
	for (int shared = 0; shared < 2; shared++) {
		struct memory memory = memory_map(shared ? MEMORY_MEMFD : MEMORY_ANON, ROW_PAGES);
		struct user_memory m;

		/* Raw: the sanitizers make the library call do nothing. */
		CHECK_EQ(syscall(SYS_mlock, memory.at, memory.len), 0);
		m = inspect(memory.at, memory.len, false);
		CHECK_EQ(m.trap, USER_TRAP_PROTECT);
		check_row(&m);
	}
}

TEST(protection_of_the_program_is_kept, "Pages appear with the protection that the program mapped them with.")
{
	static const enum memory_source sources[] = {MEMORY_ANON, MEMORY_MEMFD, MEMORY_MEMFD_PRIVATE};

	for (size_t i = 0; i < 6; i++) {
		struct memory memory = memory_map(sources[i / 2], 3);
		struct user_memory m;

		CHECK_EQ(mprotect(memory.at, memory.len, PROT_READ), 0);
		m = inspect(memory.at, memory.len, i % 2);
		CHECK_EQ(m.prot, PROT_READ);
		CHECK_EQ(user_memory_hide(&m, m.start, m.end), 0);
		check_hidden(memory.at, memory.len);
		CHECK_EQ(fill(&m, at(&m, 0), content(&m, 5), page_size, true), 0);
		CHECK_EQ(zero(&m, at(&m, 1), page_size, false), 0);
		check_holds(pointer(&m, 0), page_size, 5);
		check_holds(pointer(&m, 1), page_size, 0);
		CHECK_EQ(touch(pointer(&m, 0)), -SIGSEGV);
		CHECK_EQ(touch(pointer(&m, 1)), -SIGSEGV);

		/* What the program may not touch it cannot touch when shown either; it finds the content later. */
		CHECK_EQ(user_memory_hide(&m, m.start, m.end), 0);
		CHECK_EQ(mprotect(memory.at, memory.len, PROT_NONE), 0);
		user_memory_dispose(&m);
		m = inspect(memory.at, memory.len, i % 2);
		CHECK_EQ(m.prot, PROT_NONE);
		CHECK_EQ(fill(&m, at(&m, 2), content(&m, 6), page_size, true), 0);
		CHECK_EQ(look(pointer(&m, 2)), -SIGSEGV);
		CHECK_EQ(mprotect(pointer(&m, 2), page_size, PROT_READ), 0);
		check_holds(pointer(&m, 2), page_size, 6);
	}
}

/* Readers that race what is done to one page. */
static struct race {
	char *page;
	bool zeros;           /* zeros are among what the page may hold */
	_Atomic bool stop;    /* ends the readers */
	_Atomic size_t reads; /* words seen: the test goes on until there are enough */
} race;

/* Generations only rise; a zero, where allowed, ends the generation seen before it. */
static void *read_racing(void *arg)
{
	static __thread volatile uint64_t seen;
	static __thread volatile bool zero_seen;

	(void)arg;
	while (sigsetjmp(back, 1) || !atomic_load_explicit(&race.stop, memory_order_relaxed)) {
		if (atomic_load_explicit(&race.stop, memory_order_relaxed))
			break;
		for (size_t i = 0; i < 4; i++) {
			uint64_t word = *(volatile uint64_t *)(race.page + i * (page_size - sizeof(word)) / 3 / 8 * 8);

			if (!word && !race.zeros)
				FAIL("a reader saw zeros after generation %llu", (unsigned long long)seen);
			if (word && (word < seen || (zero_seen && word == seen)))
				FAIL("a reader saw generation %llu after %llu", (unsigned long long)word,
				     (unsigned long long)seen);
			zero_seen = !word || (zero_seen && word == seen);
			seen = word ? word : seen;
			atomic_fetch_add_explicit(&race.reads, 1, memory_order_relaxed);
		}
	}
	return NULL;
}

static void fill_generation(const struct user_memory *m, uint64_t generation, bool writable)
{
	static uint64_t words[65536 / sizeof(uint64_t)];

	for (size_t i = 0; i < page_size / sizeof(words[0]); i++)
		words[i] = generation;
	CHECK_EQ(fill(m, at(m, 1), words, page_size, writable), 0);
}

static void check_race(enum memory_source source, bool protect_only, bool zeros)
{
	struct memory memory = memory_map(source, 3);
	struct user_memory m = inspect(memory.at, memory.len, protect_only);
	pthread_t readers[2];
	uint64_t generation = 1;

	CHECK_EQ(user_memory_hide(&m, m.start, m.end), 0);
	fill_generation(&m, generation, true);
	race = (struct race){.page = pointer(&m, 1), .zeros = zeros};
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&readers[i], NULL, read_racing, NULL), 0);
	while (generation < 1500 || atomic_load(&race.reads) < 1500) {
		CHECK_EQ(user_memory_hide(&m, at(&m, 1), at(&m, 2)), 0);
		if (zeros) {
			CHECK_EQ(zero(&m, at(&m, 1), page_size, generation & 1), 0);
			CHECK_EQ(user_memory_hide(&m, at(&m, 1), at(&m, 2)), 0);
		}
		generation++;
		fill_generation(&m, generation, generation & 2);
		/* On one processor a reader gets its turn with the page shown. */
		if (generation % 16 == 0)
			sched_yield();
	}
	atomic_store(&race.stop, true);
	for (int i = 0; i < 2; i++)
		pthread_join(readers[i], NULL);
	user_memory_dispose(&m);
}

#define RACE(ident, source)                                                                                     \
	TEST(readers_race_##ident, "Readers see a trap, the old content or the new: never zeros, never a mix.") \
	{                                                                                                       \
		for (int i = 0; i < 4; i++)                                                                     \
			check_race(source, i & 1, i & 2);                                                       \
	}

RACE(anon, MEMORY_ANON)
RACE(memfd, MEMORY_MEMFD)
RACE(memfd_private, MEMORY_MEMFD_PRIVATE)
RACE(shared_anon, MEMORY_SHARED_ANON)

#ifndef __SANITIZE_THREAD__ /* It makes mappings of its own, at any time, and ends the program where it cannot. */
static size_t count_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	size_t lines = 0;
	int c;

	while ((c = getc(maps)) != EOF)
		lines += c == '\n';
	fclose(maps);
	return lines;
}

TEST(guards_cost_no_mapping,
     "With guards, 20,000 pages filled at random and hidden again leave the mappings as they were.")
{
	static const enum memory_source sources[] = {MEMORY_ANON, MEMORY_MEMFD, MEMORY_MEMFD_PRIVATE};
	static char page[65536];

	memset(page, 9, sizeof(page));
	for (size_t s = 0; s < 3; s++) {
		struct memory memory = memory_map(sources[s], 40000);
		struct user_memory m = inspect(memory.at, memory.len, false);
		uint64_t random = 1;
		size_t before;

		CHECK_EQ(user_memory_hide(&m, m.start, m.end), 0);
		CHECK_EQ(fill(&m, m.start, page, page_size, true), 0);
		before = count_mappings();
		for (size_t i = 0; i < 20000; i++) {
			size_t n;

			random = random * 6364136223846793005u + 1442695040888963407u;
			n = (size_t)(random >> 33) % 40000;
			if (look(pointer(&m, n)) == 9)
				CHECK_EQ(user_memory_hide(&m, at(&m, n), at(&m, n + 1)), 0);
			else
				CHECK_EQ(fill(&m, at(&m, n), page, page_size, true), 0);
		}
		CHECK_EQ(count_mappings(), before);
		user_memory_dispose(&m);
		munmap(memory.at, memory.len);
	}
}

static size_t max_map_count(void)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	size_t count = 0;

	CHECK(file && fscanf(file, "%zu", &count) == 1);
	fclose(file);
	return count;
}

TEST(no_mapping_left,
     "When no mapping is left a page stays as it was, and the same call works when there is room again.")
{
	size_t pages = max_map_count() + 16, last;
	char *p = mmap(NULL, pages * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
	               0);
	struct user_memory m = inspect(p, pages * page_size, true);
	void *new = content(&m, 7);
	int err = 0;

	CHECK_EQ(user_memory_hide(&m, m.start, m.end), 0);
	for (size_t i = 0; i < 3; i++)
		CHECK_EQ(fill(&m, at(&m, i), new, page_size, true), 0);
	for (last = 4; last < pages && !err; last += 2)
		err = user_memory_show(&m, at(&m, last), page_size, true);
	CHECK_EQ(err, -ENOMEM);
	last -= 2;
	CHECK_EQ(fill(&m, at(&m, last), new, page_size, true), -ENOMEM);
	CHECK_EQ(fill(&m, at(&m, last), new, page_size, false), -ENOMEM);
	CHECK_EQ(zero(&m, at(&m, last), page_size, true), -ENOMEM);
	CHECK_EQ(look(pointer(&m, last)), -SIGSEGV);
	CHECK_EQ(user_memory_hide(&m, at(&m, 1), at(&m, 2)), -ENOMEM);
	for (size_t i = 0; i < 3; i++)
		CHECK_EQ(look(pointer(&m, i)), 7);
	CHECK_EQ(look(pointer(&m, 4)), 0);

	/* A page shown between two others joins three mappings. */
	CHECK_EQ(fill(&m, at(&m, 3), new, page_size, true), 0);
	CHECK_EQ(fill(&m, at(&m, last), new, page_size, true), 0);
	CHECK_EQ(look(pointer(&m, last)), 7);
}

#endif

/* System call `nr` fails with this error from now on; only with this second argument, unless that is 0. */
static void refuse(unsigned nr, unsigned second, unsigned error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, second, 0, second ? 1 : 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static int inspect_one(const void *p, size_t len)
{
	struct user_memory piece;
	uint64_t start = (uintptr_t)p & ~(page_size - 1);

	return user_memory_inspect(start, start + len, false, &piece, 1);
}

static void check_sources(void)
{
	for (int source = 0; source < MEMORY_HUGE_ANON; source++) {
		struct memory memory = memory_map((enum memory_source)source, 4);
		uint64_t start = (uintptr_t)memory.at;
		struct user_memory piece;

		CHECK_EQ(user_memory_inspect(start + page_size, start + 3 * page_size, false, &piece, 1), 1);
		CHECK_EQ(piece.start, start + page_size);
		CHECK_EQ(piece.end, start + 3 * page_size);
		CHECK_EQ(piece.type, memory.kind);
		CHECK_EQ(piece.shared, memory.shared);
		CHECK_EQ(piece.page_size, page_size);
	}
}

static void check_refused(void)
{
	int fd = open("/bin/sh", O_RDONLY | O_CLOEXEC);
	char *shared = mmap(NULL, page_size, PROT_READ, MAP_SHARED, fd, 0);

	CHECK(shared != MAP_FAILED);
	CHECK_EQ(inspect_one(shared, page_size), -EINVAL);
	CHECK_EQ(inspect_one(file_backed(2), page_size), -EINVAL);
	CHECK_EQ(inspect_one((void *)getauxval(AT_SYSINFO_EHDR), page_size), -EINVAL);
	CHECK_EQ(inspect_one(unmapped(8), 4 * page_size), 0);
	/* The heap and the stack are ordinary private memory. */
	CHECK_EQ(inspect_one((char *)sbrk((intptr_t)(4 * page_size)) + page_size, page_size), 1);
	CHECK_EQ(inspect_one(&fd, page_size), 1);
}

static void check_pieces(void)
{
	char *p = anon(12);
	uint64_t start = (uintptr_t)p, end = start + 12 * page_size;
	struct user_memory pieces[4];

	CHECK_EQ(munmap(p + 2 * page_size, 3 * page_size), 0);
	CHECK_EQ(mprotect(p + 7 * page_size, page_size, PROT_READ | PROT_EXEC), 0);
	CHECK_EQ(user_memory_inspect(start, end, true, pieces, 4), 4);
	CHECK_EQ(pieces[0].end, start + 2 * page_size);
	CHECK_EQ(pieces[1].start, start + 5 * page_size);
	CHECK_EQ(pieces[1].end, start + 7 * page_size);
	CHECK_EQ(pieces[2].prot, PROT_READ | PROT_EXEC);
	CHECK_EQ(pieces[3].prot, PROT_READ | PROT_WRITE);
	CHECK_EQ(pieces[3].end, end);
	CHECK_EQ(pieces[3].trap, USER_TRAP_PROTECT);
	CHECK_EQ(user_memory_inspect(start, end, true, pieces, 3), -ENOSPC);
	CHECK_EQ(user_memory_inspect(start + 2 * page_size, start + 5 * page_size, true, pieces, 4), 0);
}

#define PROCMAP_QUERY_NUMBER 0xc0686611u

TEST(inspect_by_request, "Mappings are known by what they are, where the kernel can be asked for one.")
{
	check_sources();
	check_refused();
	check_pieces();
}

TEST(inspect_by_smaps, "The same is learnt from smaps where the kernel cannot be asked.")
{
	refuse(SYS_ioctl, PROCMAP_QUERY_NUMBER, ENOTTY);
	check_sources();
	check_refused();
	check_pieces();
}

TEST(inspect_knows_huge_pages, "Memory of hugetlbfs is known by its page size, asked for or read from smaps.")
{
	for (int source = MEMORY_HUGE_ANON; source < MEMORY_SOURCES; source++) {
		struct memory memory = memory_map((enum memory_source)source, 2);
		pid_t pid = fork();
		int status;

		if (!pid) {
			struct user_memory piece;
			uint64_t start = (uintptr_t)memory.at;

			for (int i = 0; i < 2; i++) {
				CHECK_EQ(user_memory_inspect(start, start + memory.len, false, &piece, 1), 1);
				CHECK_EQ(piece.type, UF_MEMORY_HUGETLB);
				CHECK_EQ(piece.shared, memory.shared);
				CHECK_EQ(piece.page_size, huge_page_size);
				CHECK_EQ(piece.trap, USER_TRAP_PROTECT);
				refuse(SYS_ioctl, PROCMAP_QUERY_NUMBER, ENOTTY);
			}
			_exit(0);
		}
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK_EQ(status, 0);
		munmap(memory.at, memory.len);
		close(memory.fd);
	}
}

static unsigned present_bits(const struct user_memory *m)
{
	uint8_t present[8];
	unsigned bits = 0;

	CHECK_EQ(m->end - m->start, 4 * m->page_size);
	memset(present, 0xee, sizeof(present));
	CHECK_EQ(user_memory_present(m, m->start, m->end, present), 0);
	for (unsigned i = 0; i < 4; i++) {
		CHECK(present[i] <= 1);
		bits |= (unsigned)present[i] << i;
	}
	CHECK_EQ(present[4], 0xee);
	return bits;
}

static void check_present(enum memory_source source)
{
	struct memory memory = memory_map(source, 4);
	struct user_memory m = inspect(memory.at, memory.len, false);
	bool in_file = m.shared && m.type == UF_MEMORY_SHMEM;

	CHECK_EQ(present_bits(&m), 0);
	memset(pointer(&m, 1), 1, m.page_size);
	memset(pointer(&m, 3), 1, m.page_size);
	CHECK_EQ(present_bits(&m), 0xa);
	/* Whether there is a swap device or none. */
	if (m.type != UF_MEMORY_HUGETLB)
		CHECK_EQ(madvise(memory.at, memory.len, MADV_PAGEOUT), 0);
	CHECK_EQ(present_bits(&m), 0xa);
	CHECK_EQ(madvise(pointer(&m, 1), m.page_size, MADV_DONTNEED), 0);
	CHECK_EQ(present_bits(&m), in_file ? 0xa : 0x8);
	if (m.shared)
		CHECK_EQ(madvise(pointer(&m, 1), m.page_size, MADV_REMOVE), 0);
	CHECK_EQ(present_bits(&m), 0x8);
	CHECK_EQ(user_memory_hide(&m, m.start, m.end), 0);
	CHECK_EQ(present_bits(&m), m.shared ? 0x8 : 0);
	CHECK_EQ(fill(&m, at(&m, 2), content(&m, 1), m.page_size, true), 0);
	CHECK_EQ(present_bits(&m), m.shared ? 0xc : 0x4);
	user_memory_dispose(&m);
	munmap(memory.at, memory.len);
}

TEST(present_tells_pages, "What is populated, swapped out, or in the file is there; what was given back is not.")
{
	static const enum memory_source sources[] = {
		MEMORY_ANON, MEMORY_DEV_ZERO_PRIVATE, MEMORY_SHARED_ANON, MEMORY_DEV_ZERO, MEMORY_MEMFD, MEMORY_TMPFS,
		MEMORY_SYSV};

	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++)
		check_present(sources[i]);
}

TEST(present_tells_huge_pages, "The same for the pages of hugetlbfs, one answer for each.")
{
	check_present(MEMORY_HUGE_ANON);
	check_present(MEMORY_HUGE_MEMFD);
}

TEST(present_looks_below_private, "A page that only the file holds is there for a private mapping of it.")
{
	struct memory memory = memory_map(MEMORY_MEMFD_PRIVATE, 4);
	struct user_memory m = inspect(memory.at, memory.len, false);

	CHECK_EQ(pwrite(memory.fd, "x", 1, (off_t)(2 * page_size)), 1);
	CHECK_EQ(present_bits(&m), 0x4);
	CHECK_EQ(user_memory_hide(&m, m.start, m.end), 0);
	CHECK_EQ(zero(&m, at(&m, 2), page_size, true), 0);
	check_holds(pointer(&m, 2), page_size, 0);
}

TEST(transparent_huge_pages_are_split, "Hiding a page in a transparent huge page leaves the others as they are.")
{
	size_t len = (size_t)8 << 20, middle = len / 2 / page_size + 3;
	char *p = anon(len / page_size);
	struct user_memory m;

	CHECK_EQ(madvise(p, len, MADV_HUGEPAGE), 0);
	memset(p, 3, len);
	m = inspect(p, len, false);
	CHECK_EQ(user_memory_hide(&m, at(&m, middle), at(&m, middle + 1)), 0);
	check_hidden(pointer(&m, middle), page_size);
	check_holds(p, middle * page_size, 3);
	check_holds(pointer(&m, middle + 1), len - (middle + 1) * page_size, 3);
	CHECK_EQ(fill(&m, at(&m, middle), content(&m, 4), page_size, true), 0);
	check_holds(pointer(&m, middle), page_size, 4);
	CHECK_EQ(user_memory_hide(&m, m.start, m.end), 0);
	check_hidden(p, len);
	CHECK_EQ(fill(&m, at(&m, middle), content(&m, 5), page_size, true), 0);
	check_holds(pointer(&m, middle), page_size, 5);
	check_hidden(pointer(&m, middle + 1), page_size);
}

static void in_child(void (*act)(struct user_memory *), struct user_memory *m)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		act(m);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

static void use_as_child(struct user_memory *m)
{
	check_hidden(pointer(m, 0), 2 * page_size);
	check_holds(pointer(m, 2), page_size, 8);
	CHECK_EQ(fill(m, at(m, 0), content(m, 6), page_size, true), 0);
	check_holds(pointer(m, 0), page_size, 6);
	CHECK_EQ(user_memory_hide(m, at(m, 2), at(m, 3)), 0);
	check_hidden(pointer(m, 1), 2 * page_size);
}

TEST(fork_inherits_what_is_hidden, "A child finds hidden what was hidden, and what it does happens to itself alone.")
{
	static const enum memory_source sources[] = {MEMORY_ANON, MEMORY_MEMFD, MEMORY_SHARED_ANON,
	                                             MEMORY_MEMFD_PRIVATE};

	for (size_t i = 0; i < 8; i++) {
		struct memory memory = memory_map(sources[i / 2], 3);
		struct user_memory m = inspect(memory.at, memory.len, i % 2);

		CHECK_EQ(user_memory_hide(&m, m.start, m.end), 0);
		CHECK_EQ(fill(&m, at(&m, 2), content(&m, 8), page_size, true), 0);
		in_child(use_as_child, &m);
		check_hidden(memory.at, 2 * page_size);
		check_holds(pointer(&m, 2), page_size, 8);
		CHECK_EQ(user_memory_show(&m, at(&m, 0), page_size, true), 0);
		check_holds(pointer(&m, 0), page_size, m.shared ? 6 : 0);
	}
}

static void become_nobody(void)
{
	if (geteuid() == 0)
		CHECK_EQ(setresuid(65534, 65534, 65534), 0);
	/* As a program of that user is that was started by exec. */
	CHECK_EQ(prctl(PR_SET_DUMPABLE, 1), 0);
}

TEST(needs_no_privilege, "Every row but the shared one of hugetlbfs works for an ordinary user.")
{
	become_nobody();
	check_rows(MEMORY_ANON);
	check_rows(MEMORY_SHARED_ANON);
	check_rows(MEMORY_MEMFD);
	check_rows(MEMORY_MEMFD_PRIVATE);
}

TEST(shared_huge_pages_need_privilege, "Without the privilege, shared memory of hugetlbfs says why it has no alias.")
{
	struct memory memory = memory_map(MEMORY_HUGE_SHARED, 1);
	struct user_memory m;
	uint64_t start = (uintptr_t)memory.at;

	become_nobody();
	CHECK_EQ(user_memory_inspect(start, start + memory.len, false, &m, 1), 1);
	CHECK_EQ(user_memory_prepare(&m), -EPERM);
	CHECK_EQ(m.alias_error, -EPERM);
	CHECK(!m.alias);
}

TEST(shared_memory_without_proc_mem, "Where /proc/self/mem is refused, private memory says so and shared memory works.")
{
	struct memory memory = memory_map(MEMORY_ANON, 2);
	struct user_memory m = inspect(memory.at, memory.len, false);

	CHECK_EQ(user_memory_hide(&m, m.start, m.end), 0);
	refuse(SYS_pwrite64, 0, EPERM);
	CHECK(!user_memory_private_works());
	CHECK_EQ(fill(&m, m.start, content(&m, 1), page_size, true), -EIO);
	check_hidden(memory.at, memory.len);
	CHECK_EQ(zero(&m, m.start, page_size, true), 0);
	check_holds(memory.at, page_size, 0);
	check_rows(MEMORY_MEMFD);
}

TEST(read_only_file_cannot_be_filled, "A shared mapping of a file that may not be written has no alias.")
{
	int fd = memfd_create("test", MFD_CLOEXEC), read_only;
	char path[64], *p;
	struct user_memory m;

	CHECK_EQ(ftruncate(fd, (off_t)page_size), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	p = mmap(NULL, page_size, PROT_READ, MAP_SHARED, read_only, 0);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(user_memory_inspect((uintptr_t)p, (uintptr_t)p + page_size, false, &m, 1), 1);
	CHECK_EQ(user_memory_prepare(&m), -EPERM);
}

TEST(page_behind_end_of_file, "A page behind the end of its file cannot be filled, and no signal comes.")
{
	for (int protect_only = 0; protect_only < 2; protect_only++) {
		struct memory memory = memory_map(MEMORY_MEMFD, 2);
		struct user_memory m = inspect(memory.at, memory.len, protect_only);

		CHECK_EQ(user_memory_hide(&m, m.start, m.end), 0);
		CHECK_EQ(ftruncate(memory.fd, (off_t)page_size), 0);
		CHECK_EQ(fill(&m, at(&m, 1), content(&m, 1), page_size, true), -EFAULT);
		CHECK_EQ(fill(&m, at(&m, 0), content(&m, 1), page_size, true), 0);
		check_holds(pointer(&m, 0), page_size, 1);
	}
}

TEST(failed_run_stays_hidden,
     "When a run cannot be filled to its end, none of its pages appears, and private ones hold nothing.")
{
	char *src = filled(4);

	CHECK_EQ(mprotect(src + 2 * page_size, page_size, PROT_NONE), 0);
	for (int i = 0; i < 4; i++) {
		struct memory memory = memory_map(i & 2 ? MEMORY_MEMFD : MEMORY_ANON, 4);
		struct user_memory m = inspect(memory.at, memory.len, i & 1);

		CHECK_EQ(user_memory_hide(&m, m.start, m.end), 0);
		CHECK_EQ(fill(&m, m.start, src, 4 * page_size, true), -EFAULT);
		check_hidden(memory.at, memory.len);
		if (!m.shared) {
			CHECK_EQ(user_memory_show(&m, at(&m, 1), page_size, true), 0);
			check_holds(pointer(&m, 1), page_size, 0);
			CHECK_EQ(user_memory_hide(&m, at(&m, 1), at(&m, 2)), 0);
		}
		CHECK_EQ(fill(&m, m.start, src, 2 * page_size, false), 0);
		for (size_t n = 0; n < 2; n++)
			check_holds(pointer(&m, n), page_size, pattern(n));
		CHECK_EQ(user_memory_show(&m, at(&m, 2), page_size, true), 0);
		check_holds(pointer(&m, 2), page_size, 0);
	}
}

struct restless {
	const volatile char *at;
	_Atomic bool end;
};

static void *touch_without_end(void *arg)
{
	struct restless *restless = arg;

	for (size_t i = 0; !atomic_load(&restless->end); i++)
		(void)restless->at[i % 8 * page_size];
	return NULL;
}

TEST(unregistered_while_touched,
     "A thread that traps just before its page is unregistered goes on, and does not die of it.")
{
	struct uf_options options = {.size = sizeof(options), .engine = UF_ENGINE_USER};
	struct restless restless = {.at = anon(8)};
	char *at = (char *)(uintptr_t)restless.at;
	pthread_t threads[2];
	struct uf *uf;

	CHECK_EQ(uf_open(&uf, &options), 0);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, touch_without_end, &restless), 0);
	for (int round = 0; round < 3000; round++) {
		CHECK_EQ(uf_register(uf, at, 8 * page_size, UFFDIO_REGISTER_MODE_MISSING, NULL), 0);
		CHECK_EQ(uf_unregister(uf, at, 8 * page_size), 0);
	}
	atomic_store(&restless.end, true);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	uf_close(uf);
}
