// SPDX-License-Identifier: MIT
/* Pagers: every function and error of <userfault/pager.h>, for each engine and way. Failing stores: pager-failures.c. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/folder.h"
#include "support/paged.h"

#define PAGE 4096u
#define KIB  ((uint64_t)1 << 10)
#define MIB  ((uint64_t)1 << 20)

static bool on_user_engine(void)
{
	return !strcmp(test_engine, "user");
}

/*
 * Opening and mapping.
 */

TEST(open_errors, "A budget that cannot be, and options that there are not, are EINVAL.")
{
	struct uf_pager_options options = paged_options(8 * PAGE), wrong;
	struct uf_pager *pager;

	CHECK_EQ(uf_pager_open(&pager, NULL), -EINVAL);
	CHECK_EQ(uf_pager_open(NULL, &options), -EINVAL);
	wrong = options;
	wrong.budget = 8 * PAGE - 1;
	CHECK_EQ(uf_pager_open(&pager, &wrong), -EINVAL);
	wrong.budget = UINT64_MAX;
	CHECK_EQ(uf_pager_open(&pager, &wrong), -EINVAL);
	wrong = options;
	wrong.size = 4;
	CHECK_EQ(uf_pager_open(&pager, &wrong), -EINVAL);
	wrong = options;
	wrong.flags = 1;
	CHECK_EQ(uf_pager_open(&pager, &wrong), -EINVAL);
	wrong = options;
	wrong.way = (enum uf_pager_way)3;
	CHECK_EQ(uf_pager_open(&pager, &wrong), -EINVAL);
	wrong = options;
	wrong.policy = (enum uf_pager_policy)2;
	CHECK_EQ(uf_pager_open(&pager, &wrong), -EINVAL);
	wrong = options;
	wrong.engine = (enum uf_engine)17;
	CHECK_EQ(uf_pager_open(&pager, &wrong), -EINVAL);
	CHECK_EQ(uf_pager_open(&pager, &options), 0);
	uf_pager_close(pager);
	uf_pager_close(NULL);
}

/* The C library has every thread make the call, by a signal. */
BOTH_WAYS(program_may_change_its_user,
          "A program with a pager may call setuid(2) and its like: no thread of the pager's keeps it.")
{
	struct uf_store *store = filled_memory(64 * PAGE);
	struct uf_pager *pager = paged_open(16 * PAGE);
	char *at = paged_map(pager, store, 0, 64 * PAGE, UF_PAGER_SHARED, 0);

	CHECK(is_content(at, 0, 64 * PAGE));
	CHECK_EQ(setgid(getgid()), 0);
	CHECK_EQ(setuid(getuid()), 0);
	CHECK(is_content(at, 0, 64 * PAGE));
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(way_and_engine, "A pager tells which way and which engine it has; AUTO chooses one of them.")
{
	struct uf_pager_options options = paged_options(MIB);
	struct uf_pager *pager = paged_open(MIB);

	CHECK_EQ(uf_pager_way(pager), paged_way);
	CHECK_EQ(uf_pager_engine(pager), options.engine);
	uf_pager_close(pager);
	options.way = UF_PAGER_AUTO;
	pager = paged_open_with(&options);
	CHECK(uf_pager_way(pager) != UF_PAGER_AUTO);
	CHECK_EQ(uf_pager_engine(pager), options.engine);
	uf_pager_close(pager);
}

BOTH_WAYS(map_errors, "What cannot be mapped is refused with its own error, and nothing is mapped.")
{
	static const unsigned bad_flags[] = {0,
	                                     UF_PAGER_HUGE,
	                                     UF_PAGER_READ_ONLY | UF_PAGER_SHARED,
	                                     UF_PAGER_PRIVATE | UF_PAGER_SHARED,
	                                     UF_PAGER_SHARED | 1u << 4,
	                                     7};
	static const size_t bad_units[] = {1, 2048, 4097, 12288, 4 * MIB, SIZE_MAX};
	struct uf_pager *pager = paged_open(8 * 64 * KIB - PAGE);
	struct uf_store *store = filled_memory(MIB), *read_only;
	struct fake fake;
	void *addr = pager;

	for (size_t i = 0; i < sizeof(bad_flags) / sizeof(bad_flags[0]); i++)
		CHECK_EQ(uf_pager_map(pager, &addr, store, 0, MIB, bad_flags[i], 0), -EINVAL);
	for (size_t i = 0; i < sizeof(bad_units) / sizeof(bad_units[0]); i++)
		CHECK_EQ(uf_pager_map(pager, &addr, store, 0, MIB, UF_PAGER_PRIVATE, bad_units[i]), -EINVAL);
	CHECK_EQ(uf_pager_map(pager, &addr, store, 0, 0, UF_PAGER_PRIVATE, 0), -EINVAL);
	CHECK_EQ(uf_pager_map(pager, &addr, store, 100, PAGE, UF_PAGER_PRIVATE, 0), -EINVAL);
	CHECK_EQ(uf_pager_map(pager, &addr, store, PAGE, PAGE, UF_PAGER_PRIVATE, 32 * KIB), -EINVAL);
	/* Of 64 KiB there is not room for eight. */
	CHECK_EQ(uf_pager_map(pager, &addr, store, 0, MIB, UF_PAGER_PRIVATE, 64 * KIB), -EINVAL);
	CHECK_EQ(uf_pager_map(pager, &addr, NULL, 0, MIB, UF_PAGER_PRIVATE, 0), -EINVAL);
	CHECK_EQ(uf_pager_map(pager, NULL, store, 0, MIB, UF_PAGER_PRIVATE, 0), -EINVAL);
	CHECK_EQ(uf_pager_map(NULL, &addr, store, 0, MIB, UF_PAGER_PRIVATE, 0), -EINVAL);
	CHECK_EQ(uf_pager_map(pager, &addr, store, MIB, PAGE, UF_PAGER_PRIVATE, 0), -ERANGE);
	CHECK_EQ(uf_pager_map(pager, &addr, store, UINT64_MAX & ~(uint64_t)(PAGE - 1), PAGE, UF_PAGER_PRIVATE, 0),
	         -ERANGE);
	read_only = fake_open(&fake, MIB, FAKE_READ_ONLY);
	CHECK_EQ(uf_pager_map(pager, &addr, read_only, 0, MIB, UF_PAGER_SHARED, 0), -EROFS);
	CHECK_EQ(uf_pager_map(pager, &addr, read_only, 0, MIB, UF_PAGER_PRIVATE, 0), 0);
	CHECK_EQ(uf_pager_unmap(pager, addr, MIB), 0);
	CHECK_EQ(uf_pager_map(pager, &addr, read_only, 0, MIB, UF_PAGER_READ_ONLY, 0), 0);
	CHECK_EQ(paged_stats(pager).faults, 0);
	uf_pager_close(pager);
	uf_store_close(store);
	uf_store_close(read_only);
}

BOTH_WAYS(null_pagers, "No pager, and addresses that are not mapped, are EINVAL everywhere.")
{
	struct uf_pager_statistics stats = {.size = sizeof(stats)};
	struct uf_pager *pager = paged_open(MIB), *pagers[] = {NULL, pager};
	char *elsewhere = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (int i = 0; i < 2; i++) {
		CHECK_EQ(uf_pager_unmap(pagers[i], elsewhere, PAGE), -EINVAL);
		CHECK_EQ(uf_pager_advise(pagers[i], elsewhere, PAGE, UF_PAGER_WILLNEED), -EINVAL);
		CHECK_EQ(uf_pager_pin(pagers[i], elsewhere, PAGE), -EINVAL);
		CHECK_EQ(uf_pager_unpin(pagers[i], elsewhere, PAGE), -EINVAL);
		CHECK_EQ(uf_pager_record(pagers[i], elsewhere, 1), -EINVAL);
		CHECK_EQ(uf_pager_save(pagers[i], elsewhere, "/nonexistent/x"), -EINVAL);
		CHECK_EQ(uf_pager_replay(pagers[i], elsewhere, "/nonexistent/x", 1), -EINVAL);
	}
	CHECK_EQ(uf_pager_flush(NULL, NULL, 0), -EINVAL);
	CHECK_EQ(uf_pager_flush(pager, NULL, PAGE), -EINVAL);
	CHECK_EQ(uf_pager_flush(pager, elsewhere, 0), -EINVAL);
	CHECK_EQ(uf_pager_flush(pager, elsewhere, UINT64_MAX), -EINVAL);
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	CHECK_EQ(uf_pager_stats(NULL, &stats), -EINVAL);
	CHECK_EQ(uf_pager_stats(pager, NULL), -EINVAL);
	stats.size = 8;
	CHECK_EQ(uf_pager_stats(pager, &stats), -EINVAL);
	uf_pager_close(pager);
}

/*
 * Reading and writing.
 */

static const size_t units[] = {4 * KIB, 64 * KIB, 2 * MIB};

BOTH_WAYS(reads_the_store, "Memory is what the store is, from any offset and with any unit, and zeros behind its end.")
{
	const uint64_t size = 4 * MIB + 5000;
	const char *path;
	struct uf_store *store = filled_file(size, &path);
	struct uf_pager *pager = paged_open(16 * MIB);

	for (size_t i = 0; i < 3; i++) {
		uint64_t offset = i == 2 ? 2 * MIB : units[i], len = size - offset, whole;
		const char *at = paged_map(pager, store, offset, len, UF_PAGER_READ_ONLY, units[i]);

		whole = (len + units[i] - 1) & ~(uint64_t)(units[i] - 1);
		CHECK(is_content(at, offset, len));
		for (uint64_t byte = len; byte < whole; byte++)
			CHECK_EQ(at[byte], 0);
		CHECK_EQ(uf_pager_unmap(pager, (void *)at, whole), 0);
	}
	CHECK_EQ(paged_stats(pager).resident, 0);
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(read_only_is_segv, "A write to a read-only mapping is SIGSEGV, and changes nothing.")
{
	struct uf_store *store = filled_memory(MIB);
	struct uf_pager *pager = paged_open(MIB);
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_READ_ONLY, 0), byte;

	CHECK_EQ(touch_write(at + PAGE, 1), SIGSEGV);
	CHECK_EQ(touch_read(at, &byte), 0);
	CHECK_EQ(touch_write(at, 1), SIGSEGV);
	CHECK(is_content(at, 0, MIB));
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(private_stays_here,
          "What is written to a private mapping stays in it, also what left memory, and not in the store.")
{
	struct fake fake;
	struct uf_store *store = fake_open(&fake, MIB, FAKE_IN_SIGNAL);
	struct uf_pager *pager = paged_open(8 * PAGE);
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_PRIVATE, 0);
	char *other = paged_map(pager, store, 0, MIB, UF_PAGER_PRIVATE, 0);

	write_pages(at, MIB, 'p');
	CHECK(is_content(other, 0, MIB));
	check_pages(at, 0, MIB, 'p');
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	check_pages(at, 0, MIB, 'p');
	/* Again, from where they were put aside. */
	write_pages(at, MIB, 'q');
	check_pages(at, 0, MIB, 'q');
	CHECK(is_content(other, 0, MIB));
	CHECK(paged_stats(pager).evicted >= MIB);
	uf_pager_close(pager);
	CHECK_EQ(fake.writes, 0);
	CHECK(is_content(fake.bytes, 0, MIB));
	uf_store_close(store);
}

BOTH_WAYS(shared_reaches_the_store, "After a flush what was written is on the store, and the store was flushed.")
{
	for (size_t i = 0; i < 3; i++) {
		const uint64_t size = 4 * MIB + 5000;
		struct fake fake;
		struct uf_store *store = fake_open(&fake, size, FAKE_IN_SIGNAL);
		struct uf_pager *pager = paged_open(16 * MIB);
		char *at = paged_map(pager, store, 0, size, UF_PAGER_SHARED, units[i]);

		write_pages(at, 4 * MIB, 's');
		/* Behind the end: lost. */
		memset(at + size, 'x', 1000);
		/* The last one was let in an instant ago. */
		while (paged_stats(pager).dirty < 4 * MIB)
			sched_yield();
		CHECK_EQ(uf_pager_flush(pager, at, 4 * MIB), 0);
		CHECK_EQ(fake.flushes, 1);
		check_pages(fake.bytes, 0, 4 * MIB, 's');
		CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
		CHECK_EQ(fake.flushes, 2);
		CHECK(is_content(fake.bytes + 4 * MIB, 4 * MIB, size - 4 * MIB));
		CHECK_EQ(paged_stats(pager).dirty, 0);
		CHECK_EQ(paged_failures, 0);
		/* It goes on being noticed. */
		at[5] = 'n';
		CHECK_EQ(uf_pager_flush(pager, at + 5, 1), 0);
		CHECK_EQ(fake.bytes[5], 'n');
		uf_pager_close(pager);
		uf_store_close(store);
	}
}

BOTH_WAYS(shared_survives_eviction, "What leaves memory is on the store, and comes back as it was, its tail too.")
{
	const uint64_t size = MIB + 5000;
	const char *path;
	struct uf_store *store = filled_file(size, &path);
	struct uf_pager *pager = paged_open(8 * PAGE);
	char *at = paged_map(pager, store, 0, size, UF_PAGER_SHARED, 0);
	struct stat info;

	for (int round = 0; round < 3; round++) {
		write_pages(at, MIB, (char)('a' + round));
		memset(at + size - 9, 'a' + round, 20);
		check_pages(at, 0, MIB, (char)('a' + round));
	}
	CHECK_EQ(at[size - 1], 'c');
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	uf_pager_close(pager);
	CHECK_EQ(stat(path, &info), 0);
	CHECK_EQ(info.st_size, size);
	pager = paged_open(8 * PAGE);
	at = paged_map(pager, store, 0, size, UF_PAGER_READ_ONLY, 0);
	check_pages(at, 0, MIB, 'c');
	CHECK_EQ(at[size - 1], 'c');
	CHECK_EQ(at[size], 0);
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(huge_pages, "A mapping in huge pages is read, written, evicted and flushed like others.")
{
	struct uf_pager *pager;
	struct uf_store *store;
	uint64_t size;
	void *addr;
	char *at;

	if (!huge_page_size || free_huge_pages() < 12)
		SKIP("there are no 12 free huge pages");
	size = 10 * huge_page_size + 5000;
	store = filled_memory(size);
	pager = paged_open(8 * huge_page_size);
	if (on_user_engine()) {
		CHECK_EQ(uf_pager_map(pager, &addr, store, 0, size, UF_PAGER_SHARED | UF_PAGER_HUGE, 0), -EOPNOTSUPP);
		uf_pager_close(pager);
		return;
	}
	CHECK_EQ(uf_pager_map(pager, &addr, store, 0, size, UF_PAGER_SHARED | UF_PAGER_HUGE, PAGE), -EINVAL);
	at = paged_map(pager, store, 0, size, UF_PAGER_SHARED | UF_PAGER_HUGE, 0);
	CHECK_EQ((uintptr_t)at % huge_page_size, 0);
	write_pages(at, 10 * huge_page_size, 'h');
	check_pages(at, 0, 10 * huge_page_size, 'h');
	CHECK(is_content(at + 10 * huge_page_size, 10 * huge_page_size, 5000));
	CHECK(paged_stats(pager).evicted > 0);
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	uf_pager_close(pager);
	pager = paged_open(8 * huge_page_size);
	at = paged_map(pager, store, 0, size, UF_PAGER_PRIVATE, 0);
	check_pages(at, 0, 10 * huge_page_size, 'h');
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(locked_memory, "A program that locks all of its memory to come has what its stores have, under the budget.")
{
	struct uf_store *store = filled_memory(8 * MIB);
	struct uf_pager *pager;
	char *at;

	/* What the test needs itself is not locked. */
	if (mlockall(MCL_FUTURE))
		SKIP("mlockall: %s", strerror(errno));
	pager = paged_open(MIB);
	for (unsigned flags = UF_PAGER_READ_ONLY; flags <= UF_PAGER_SHARED; flags <<= 1) {
		at = paged_map(pager, store, 0, 8 * MIB, flags, 0);
		CHECK(is_content(at, 0, 8 * MIB));
		CHECK(is_content(at, 0, 8 * MIB));
		CHECK(paged_stats(pager).evicted >= 8 * MIB);
		CHECK_EQ(uf_pager_unmap(pager, at, 8 * MIB), 0);
	}
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(many_mappings, "Several mappings of several stores share one budget.")
{
	struct uf_pager *pager = paged_open(64 * PAGE);
	struct fake fake;
	const char *path;
	struct uf_store *stores[3] = {filled_memory(2 * MIB), filled_file(2 * MIB, &path),
	                              fake_open(&fake, 2 * MIB, 0)};
	char *at[6];

	for (unsigned i = 0; i < 6; i++)
		at[i] = paged_map(pager, stores[i / 2], i % 2 * MIB, MIB, i % 2 ? UF_PAGER_PRIVATE : UF_PAGER_SHARED,
		                  0);
	for (uint64_t page = 0; page < MIB; page += PAGE)
		for (unsigned i = 0; i < 6; i++)
			at[i][page] = (char)('0' + i);
	for (unsigned i = 0; i < 6; i++)
		check_pages(at[i], i % 2 * MIB, MIB, (char)('0' + i));
	CHECK(paged_stats(pager).resident <= 64 * PAGE);
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	check_pages(fake.bytes, 0, MIB, '4');
	uf_pager_close(pager);
	for (unsigned i = 0; i < 3; i++)
		uf_store_close(stores[i]);
}

/*
 * The kernel's own touches.
 */

static void through_pipe(char *from, char *to, size_t len, int expected)
{
	int fds[2];

	CHECK_EQ(pipe(fds), 0);
	CHECK_EQ(write(fds[1], from, len) < 0 ? -errno : 0, expected);
	if (!expected)
		CHECK_EQ(read(fds[0], to, len) < 0 ? -errno : 0, expected);
	close(fds[0]);
	close(fds[1]);
}

TEST(system_calls_on_a_thread, "With full rights, system calls read from and write to pages that are not in memory.")
{
	struct uf_store *store = filled_memory(MIB);
	struct uf_pager *pager;
	char *at;

	paged_way = UF_PAGER_THREAD;
	if (on_user_engine())
		return;
	pager = paged_open(8 * PAGE);
	at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0);
	for (uint64_t page = 0; page < MIB / 2; page += PAGE)
		through_pipe(at + page, at + MIB / 2 + page, PAGE, 0);
	for (uint64_t page = 0; page < MIB / 2; page += PAGE)
		CHECK(is_content(at + MIB / 2 + page, page, PAGE));
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	uf_pager_close(pager);
	pager = paged_open(8 * PAGE);
	at = paged_map(pager, store, 0, MIB, UF_PAGER_PRIVATE, 0);
	CHECK(is_content(at + MIB / 2, 0, MIB / 2));
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(not_in_children, "A mapping does not go to the child of a fork: a touch there is SIGSEGV.")
{
	struct uf_store *store = filled_memory(MIB);
	struct uf_pager *pager = paged_open(MIB);
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0);
	int status;
	pid_t pid;

	at[0] = 1;
	for (unsigned page = 0; page < 2; page++) {
		pid = fork();
		CHECK(pid >= 0);
		/* It dies of it: under a sanitizer a jump out of the handler takes memory, for which a thread may have held a lock when it was forked. */
		if (!pid) {
			(void)*(const volatile char *)(at + page * PAGE);
			_exit(0);
		}
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK(WIFSIGNALED(status));
		CHECK_EQ(WTERMSIG(status), SIGSEGV);
	}
	CHECK(is_content(at + PAGE, PAGE, MIB - PAGE));
	uf_pager_close(pager);
	uf_store_close(store);
}

/*
 * Unmapping.
 */

BOTH_WAYS(unmap_writes_back, "What is unmapped is written back first; what is misplaced is EINVAL.")
{
	struct fake fake;
	struct uf_store *store = fake_open(&fake, MIB, FAKE_IN_SIGNAL);
	struct uf_pager *pager = paged_open(MIB);
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0), byte;

	write_pages(at, MIB, 'u');
	CHECK_EQ(uf_pager_unmap(pager, at, 0), -EINVAL);
	CHECK_EQ(uf_pager_unmap(pager, at + 1, PAGE), -EINVAL);
	CHECK_EQ(uf_pager_unmap(pager, at, MIB + PAGE), -EINVAL);
	CHECK_EQ(uf_pager_unmap(pager, at + PAGE, MIB), -EINVAL);
	CHECK_EQ(uf_pager_unmap(pager, at, UINT64_MAX), -EINVAL);
	CHECK_EQ(uf_pager_unmap(pager, at, MIB), 0);
	CHECK_EQ(uf_pager_unmap(pager, at, MIB), -EINVAL);
	check_pages(fake.bytes, 0, MIB, 'u');
	CHECK_EQ(touch_read(at, &byte), SIGSEGV);
	CHECK_EQ(paged_stats(pager).resident, 0);
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(close_does_not_flush, "Closing unmaps without a flush.")
{
	struct fake fake;
	struct uf_store *store = fake_open(&fake, MIB, FAKE_IN_SIGNAL);
	struct uf_pager *pager = paged_open(2 * MIB);
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0), byte;

	write_pages(at, MIB, 'u');
	uf_pager_close(pager);
	CHECK_EQ(fake.writes + fake.flushes, 0);
	CHECK_EQ(touch_read(at, &byte), SIGSEGV);
	uf_store_close(store);
}

BOTH_WAYS(unmap_a_part,
          "A part can be unmapped: it is written back, the rest goes on, and what is put there instead stays.")
{
	struct fake fake;
	struct uf_store *store = fake_open(&fake, MIB, FAKE_IN_SIGNAL);
	struct uf_pager *pager = paged_open(64 * PAGE);
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0), *middle = at + 100 * PAGE, *mine, byte;

	write_pages(at, MIB, 'u');
	CHECK_EQ(uf_pager_unmap(pager, middle, 56 * PAGE), 0);
	CHECK_EQ(touch_read(middle, &byte), SIGSEGV);
	CHECK_EQ(touch_read(middle + 55 * PAGE, &byte), SIGSEGV);
	check_pages(fake.bytes + 100 * PAGE, 100 * PAGE, 56 * PAGE, 'u');
	check_pages(at, 0, 100 * PAGE, 'u');
	check_pages(at + 156 * PAGE, 156 * PAGE, 100 * PAGE, 'u');
	CHECK_EQ(uf_pager_advise(pager, middle, PAGE, UF_PAGER_WILLNEED), -EINVAL);
	CHECK_EQ(uf_pager_pin(pager, middle, PAGE), -EINVAL);
	CHECK_EQ(uf_pager_unmap(pager, middle, PAGE), -EINVAL);
	mine = mmap(middle, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(mine == middle);
	*mine = 'm';
	/* The end of the first part, and then all that is left. */
	CHECK_EQ(uf_pager_unmap(pager, at + 90 * PAGE, 10 * PAGE), 0);
	write_pages(at, 90 * PAGE, 'v');
	CHECK_EQ(uf_pager_unmap(pager, at, MIB), 0);
	check_pages(fake.bytes, 0, 90 * PAGE, 'v');
	check_pages(fake.bytes + 90 * PAGE, 90 * PAGE, 166 * PAGE, 'u');
	CHECK_EQ(touch_read(at + 156 * PAGE, &byte), SIGSEGV);
	CHECK_EQ(*mine, 'm');
	CHECK_EQ(paged_stats(pager).resident, 0);
	uf_pager_close(pager);
	CHECK_EQ(*mine, 'm');
	uf_store_close(store);
}

BOTH_WAYS(close_after_a_part, "Closing takes away what was not unmapped, and nothing else.")
{
	struct uf_store *store = filled_memory(MIB);
	struct uf_pager *pager = paged_open(64 * PAGE);
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0), *mine, byte;

	at[0] = at[MIB - 1] = 1;
	CHECK_EQ(uf_pager_unmap(pager, at + PAGE, PAGE), 0);
	mine = mmap(at + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(mine == at + PAGE);
	*mine = 'm';
	uf_pager_close(pager);
	CHECK_EQ(*mine, 'm');
	CHECK_EQ(touch_read(at, &byte), SIGSEGV);
	CHECK_EQ(touch_read(at + MIB - 1, &byte), SIGSEGV);
	uf_store_close(store);
}

BOTH_WAYS(mixed_units, "Pages of all units leave and come back beside each other.")
{
	static const size_t mixed[] = {4 * KIB, 8 * KIB, 64 * KIB, 128 * KIB, MIB, 2 * MIB};
	struct uf_pager *pager = paged_open(16 * MIB);
	struct uf_store *stores[6];
	char *at[6];

	for (unsigned i = 0; i < 6; i++) {
		stores[i] = filled_memory(8 * MIB);
		at[i] = paged_map(pager, stores[i], 0, 8 * MIB, UF_PAGER_SHARED, mixed[i]);
	}
	/* Written in pieces that leave the ring at odd places. */
	for (unsigned round = 0; round < 3; round++)
		for (uint64_t piece = 0; piece < 8 * MIB; piece += 512 * KIB)
			for (unsigned i = 0; i < 6; i++)
				write_pages(at[i] + piece, 512 * KIB - (i ? 0 : 4 * KIB), (char)('0' + i));
	for (unsigned i = 0; i < 6; i++)
		for (uint64_t piece = 0; piece < 8 * MIB; piece += 512 * KIB)
			check_pages(at[i] + piece, piece, 512 * KIB - 4 * KIB, (char)('0' + i));
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	CHECK(paged_stats(pager).resident <= 16 * MIB);
	uf_pager_close(pager);
	for (unsigned i = 0; i < 6; i++)
		uf_store_close(stores[i]);
}

/*
 * Advice and pins.
 */

/* Pages of [at, at + len) that are in memory. */
static uint64_t in_memory(const char *at, uint64_t len)
{
	uint64_t entry, count = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	for (uint64_t page = 0; page < len; page += PAGE) {
		CHECK_EQ(pread(fd, &entry, 8, (off_t)(((uintptr_t)at + page) / PAGE * 8)), 8);
		count += entry >> 63;
	}
	close(fd);
	return count;
}

BOTH_WAYS(will_need, "WILLNEED reads in the background, as far as the budget goes, and nobody faults on it then.")
{
	struct uf_store *store = filled_memory(MIB);
	struct uf_pager *pager = paged_open(MIB);
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0);
	struct uf_pager_statistics stats;

	CHECK_EQ(uf_pager_advise(pager, at + 10, 100 * PAGE, UF_PAGER_WILLNEED), 0);
	do {
		stats = paged_stats(pager);
		sched_yield();
	} while (stats.ahead < 101 * PAGE);
	CHECK_EQ(stats.read, 101 * PAGE);
	while (in_memory(at, MIB) < 101)
		sched_yield();
	CHECK(is_content(at, 0, 101 * PAGE));
	CHECK_EQ(paged_stats(pager).faults, 0);
	/* More than there is room for. */
	CHECK_EQ(uf_pager_advise(pager, at, MIB, UF_PAGER_WILLNEED), 0);
	CHECK(is_content(at, 0, MIB));
	CHECK(paged_stats(pager).resident <= MIB);
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(advice_errors, "Advice that there is not, or for what is not in one mapping, is EINVAL.")
{
	struct uf_store *store = filled_memory(MIB);
	struct uf_pager *pager = paged_open(MIB);
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0);

	CHECK_EQ(uf_pager_advise(pager, at, MIB, (enum uf_pager_advice)5), -EINVAL);
	CHECK_EQ(uf_pager_advise(pager, at, MIB, (enum uf_pager_advice) - 1), -EINVAL);
	CHECK_EQ(uf_pager_advise(pager, at, MIB + 1, UF_PAGER_WILLNEED), -EINVAL);
	CHECK_EQ(uf_pager_advise(pager, at, UINT64_MAX, UF_PAGER_WILLNEED), -EINVAL);
	CHECK_EQ(uf_pager_advise(pager, at, 0, UF_PAGER_WILLNEED), -EINVAL);
	CHECK_EQ(uf_pager_advise(pager, at - 1, 1, UF_PAGER_DONTNEED), -EINVAL);
	CHECK_EQ(paged_stats(pager).read, 0);
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(read_ahead,
          "RANDOM reads what was touched, SEQUENTIAL far ahead at once, NORMAL where touches follow one another.")
{
	struct uf_store *store = filled_memory(8 * MIB);
	struct uf_pager *pager = paged_open(16 * MIB);
	char *at = paged_map(pager, store, 0, 8 * MIB, UF_PAGER_SHARED, 0), byte;
	uint64_t before;

	CHECK_EQ(uf_pager_advise(pager, at, PAGE, UF_PAGER_RANDOM), 0);
	for (uint64_t page = 0; page < 64; page++)
		CHECK_EQ(touch_read(at + page * PAGE, &byte), 0);
	CHECK_EQ(paged_stats(pager).read, 64 * PAGE);
	CHECK_EQ(paged_stats(pager).faults, 64);
	CHECK_EQ(uf_pager_advise(pager, at, PAGE, UF_PAGER_SEQUENTIAL), 0);
	CHECK_EQ(touch_read(at + MIB, &byte), 0);
	CHECK(paged_stats(pager).read >= 64 * PAGE + 256 * KIB);
	CHECK_EQ(uf_pager_advise(pager, at, PAGE, UF_PAGER_NORMAL), 0);
	before = paged_stats(pager).faults;
	CHECK(is_content(at + 4 * MIB, 4 * MIB, 2 * MIB));
	CHECK(paged_stats(pager).faults - before < 64);
	/* Downwards as well. */
	before = paged_stats(pager).faults;
	for (uint64_t page = 8 * MIB / PAGE; page-- > 6 * MIB / PAGE;)
		CHECK_EQ(touch_read(at + page * PAGE, &byte), 0);
	CHECK(paged_stats(pager).faults - before < 64);
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(dont_need, "DONTNEED loses nothing, and what it names leaves before what it does not.")
{
	struct uf_store *store = filled_memory(4 * MIB);
	struct uf_pager *pager = paged_open(2 * MIB);
	char *at = paged_map(pager, store, 0, 4 * MIB, UF_PAGER_SHARED, 0);

	CHECK_EQ(uf_pager_advise(pager, at, PAGE, UF_PAGER_RANDOM), 0);
	write_pages(at, MIB, 'd');
	CHECK_EQ(uf_pager_advise(pager, at, MIB / 2, UF_PAGER_DONTNEED), 0);
	while (in_memory(at, MIB / 2) == MIB / 2 / PAGE)
		for (uint64_t page = MIB; page < 4 * MIB; page += PAGE)
			CHECK(is_content(at + page, page, 16));
	check_pages(at, 0, MIB, 'd');
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(pinned_stays, "Pinned pages stay in memory, whatever else is touched, and are counted; others leave.")
{
	struct uf_store *store = filled_memory(4 * MIB);
	struct uf_pager *pager = paged_open(MIB);
	char *at = paged_map(pager, store, 0, 4 * MIB, UF_PAGER_SHARED, 0);
	uint64_t faults;

	CHECK_EQ(uf_pager_pin(pager, at + PAGE + 10, 64 * PAGE), 0);
	CHECK_EQ(in_memory(at, MIB), 65);
	CHECK_EQ(paged_stats(pager).pinned, 65 * PAGE);
	for (int round = 0; round < 3; round++)
		CHECK(is_content(at + MIB, MIB, 3 * MIB));
	CHECK_EQ(in_memory(at, MIB), 65);
	faults = paged_stats(pager).faults;
	CHECK(is_content(at + PAGE, PAGE, 65 * PAGE));
	CHECK_EQ(paged_stats(pager).faults, faults);
	CHECK_EQ(uf_pager_unpin(pager, at, MIB), 0);
	CHECK_EQ(paged_stats(pager).pinned, 0);
	while (in_memory(at, MIB))
		CHECK(is_content(at + MIB, MIB, 3 * MIB));
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(pin_errors, "What would leave too little for the others cannot be pinned, and then nothing is.")
{
	struct uf_store *store = filled_memory(4 * MIB);
	struct uf_pager *pager = paged_open(MIB);
	char *at = paged_map(pager, store, 0, 4 * MIB, UF_PAGER_SHARED, 0);

	CHECK_EQ(uf_pager_pin(pager, at, 0), -EINVAL);
	CHECK_EQ(uf_pager_pin(pager, at, 4 * MIB + 1), -EINVAL);
	CHECK_EQ(uf_pager_pin(pager, at, 4 * MIB), -ENOMEM);
	CHECK_EQ(uf_pager_pin(pager, at, MIB - MIB / 8 + PAGE), -ENOMEM);
	CHECK_EQ(paged_stats(pager).pinned, 0);
	CHECK_EQ(uf_pager_pin(pager, at, MIB - MIB / 8), 0);
	CHECK_EQ(uf_pager_pin(pager, at + 2 * MIB, PAGE), -ENOMEM);
	CHECK_EQ(paged_stats(pager).pinned, MIB - MIB / 8);
	CHECK(is_content(at, 0, 4 * MIB));
	CHECK_EQ(uf_pager_unmap(pager, at, MIB), 0);
	CHECK_EQ(paged_stats(pager).pinned, 0);
	CHECK_EQ(uf_pager_pin(pager, at + 2 * MIB, PAGE), 0);
	uf_pager_close(pager);
	uf_store_close(store);
}
BOTH_WAYS(pin_twice, "A pin is a flag: a page that is pinned already takes no more room.")
{
	struct uf_store *store = filled_memory(4 * MIB);
	struct uf_pager *pager = paged_open(MIB);
	char *at = paged_map(pager, store, 0, 4 * MIB, UF_PAGER_SHARED, 0);

	CHECK_EQ(uf_pager_pin(pager, at, MIB / 2), 0);
	CHECK_EQ(uf_pager_pin(pager, at, MIB / 2), 0);
	CHECK_EQ(uf_pager_pin(pager, at + MIB / 4, MIB / 2), 0);
	CHECK_EQ(paged_stats(pager).pinned, MIB / 4 * 3);
	/* What was pinned before stays so. */
	CHECK_EQ(uf_pager_pin(pager, at, MIB), -ENOMEM);
	CHECK_EQ(paged_stats(pager).pinned, MIB / 4 * 3);
	CHECK_EQ(uf_pager_unpin(pager, at, MIB / 2), 0);
	CHECK_EQ(paged_stats(pager).pinned, MIB / 4);
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(system_calls_on_pins,
          "System calls read from pinned pages, and write to them, in every way; also after a flush.")
{
	static const unsigned kinds[] = {UF_PAGER_SHARED, UF_PAGER_PRIVATE};

	for (int kind = 0; kind < 2; kind++) {
		struct uf_store *store = filled_memory(4 * MIB);
		struct uf_pager *pager = paged_open(MIB);
		char *at = paged_map(pager, store, 0, 4 * MIB, kinds[kind], 0);

		CHECK_EQ(uf_pager_pin(pager, at, 32 * PAGE), 0);
		for (int round = 0; round < 3; round++) {
			for (int i = 0; i < 16; i++)
				through_pipe(at + i * PAGE, at + (16 + i) * PAGE, PAGE, 0);
			CHECK(is_content(at + 16 * PAGE, 0, 16 * PAGE));
			CHECK(is_content(at + MIB, MIB, 3 * MIB));
			CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
			CHECK(is_content(at + MIB, MIB, 3 * MIB));
			memset(at + 16 * PAGE, 0, 16 * PAGE);
		}
		uf_pager_close(pager);
		uf_store_close(store);
	}
}

/*
 * Working sets, and statistics.
 */

BOTH_WAYS(working_set, "What was recorded is saved, and brought back by a replay: these pages, and no others.")
{
	struct uf_store *store = filled_memory(4 * MIB);
	struct uf_pager *pager = paged_open(8 * MIB);
	char *at = paged_map(pager, store, 16 * PAGE, 2 * MIB, UF_PAGER_SHARED, 0), byte;
	const char *path = in_folder("set");

	CHECK_EQ(uf_pager_save(pager, at, path), -ENODATA);
	CHECK_EQ(uf_pager_record(pager, at, 1), 0);
	CHECK_EQ(uf_pager_save(pager, at, path), -ENODATA);
	for (uint64_t page = 300; page > 100; page -= 2)
		CHECK_EQ(touch_read(at + page * PAGE, &byte), 0);
	CHECK_EQ(uf_pager_record(pager, at, 0), 0);
	CHECK_EQ(touch_read(at + 50 * PAGE, &byte), 0);
	CHECK_EQ(uf_pager_save(pager, at, "/nonexistent/set"), -ENOENT);
	CHECK_EQ(uf_pager_save(pager, at, path), 0);
	CHECK_EQ(uf_pager_unmap(pager, at, 2 * MIB), 0);
	/* Pages have their offset in the store, wherever that is mapped. */
	at = paged_map(pager, store, 0, 4 * MIB, UF_PAGER_SHARED, 0);
	CHECK_EQ(uf_pager_replay(pager, at, path, 1), 0);
	CHECK_EQ(in_memory(at, 4 * MIB), 100);
	for (uint64_t page = 300; page > 100; page -= 2)
		CHECK_EQ(in_memory(at + (16 + page) * PAGE, PAGE), 1);
	CHECK_EQ(uf_pager_replay(pager, at, path, 0), 0);
	CHECK(is_content(at, 0, 4 * MIB));
	CHECK_EQ(uf_pager_replay(pager, at, "/nonexistent/set", 1), -ENOENT);
	CHECK_EQ(uf_pager_replay(pager, at, test_folder(), 1), -EBADMSG);
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(working_set_of_other_units,
          "A working set may be replayed with other units than it was recorded with, and a small budget.")
{
	static const size_t sizes[] = {4 * KIB, 64 * KIB, 2 * MIB};
	struct fake fake;
	struct uf_store *store = fake_open(&fake, 16 * MIB, 0);
	const char *path = in_folder("set");

	for (unsigned i = 0; i < 9; i++) {
		struct uf_pager *pager = paged_open(16 * MIB);
		char *at = paged_map(pager, store, 0, 16 * MIB, UF_PAGER_SHARED, sizes[i / 3]), byte;

		CHECK_EQ(uf_pager_record(pager, at, 1), 0);
		for (uint64_t offset = 60 * KIB; offset < 16 * MIB; offset += 316 * KIB)
			CHECK_EQ(touch_read(at + offset, &byte), 0);
		CHECK_EQ(uf_pager_save(pager, at, path), 0);
		CHECK_EQ(uf_pager_unmap(pager, at, 16 * MIB), 0);
		at = paged_map(pager, store, 0, 16 * MIB, UF_PAGER_SHARED, sizes[i % 3]);
		CHECK_EQ(uf_pager_replay(pager, at, path, 1), 0);
		CHECK(paged_stats(pager).resident <= 16 * MIB);
		CHECK(is_content(at, 0, 16 * MIB));
		uf_pager_close(pager);
	}
	uf_store_close(store);
}

static size_t read_file(const char *path, char *bytes, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, bytes, room);

	CHECK(n > 0);
	close(fd);
	return (size_t)n;
}

static void write_file(const char *path, const char *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK_EQ(write(fd, bytes, len), len);
	close(fd);
}

BOTH_WAYS(working_set_damaged,
          "Of a damaged working set nothing is read: whatever byte is another, and wherever it ends.")
{
	struct uf_store *store = filled_memory(MIB);
	struct uf_pager *pager = paged_open(2 * MIB);
	char *at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0), byte, bytes[4096];
	const char *path = in_folder("set"), *damaged = in_folder("damaged");
	uint64_t before;
	size_t len;

	CHECK_EQ(uf_pager_record(pager, at, 1), 0);
	for (uint64_t page = 0; page < 20; page += 2)
		CHECK_EQ(touch_read(at + page * PAGE, &byte), 0);
	CHECK_EQ(uf_pager_save(pager, at, path), 0);
	CHECK_EQ(uf_pager_unmap(pager, at, MIB), 0);
	at = paged_map(pager, store, 0, MIB, UF_PAGER_SHARED, 0);
	before = paged_stats(pager).read;
	len = read_file(path, bytes, sizeof(bytes));
	for (size_t i = 0; i < 8 * len; i++) {
		bytes[i / 8] ^= (char)(1 << i % 8);
		write_file(damaged, bytes, len);
		CHECK_EQ(uf_pager_replay(pager, at, damaged, 1), -EBADMSG);
		bytes[i / 8] ^= (char)(1 << i % 8);
	}
	for (size_t end = 0; end < len; end++) {
		write_file(damaged, bytes, end);
		CHECK_EQ(uf_pager_replay(pager, at, damaged, 1), -EBADMSG);
	}
	write_file(damaged, bytes, len + 8);
	CHECK_EQ(uf_pager_replay(pager, at, damaged, 1), -EBADMSG);
	CHECK_EQ(paged_stats(pager).read, before);
	write_file(damaged, bytes, len);
	CHECK_EQ(uf_pager_replay(pager, at, damaged, 1), 0);
	CHECK_EQ(in_memory(at, MIB), 10);
	uf_pager_close(pager);
	uf_store_close(store);
}

BOTH_WAYS(stats_add_up, "Statistics say what happened, neither more nor less.")
{
	struct fake fake;
	struct uf_store *store = fake_open(&fake, 4 * MIB, FAKE_IN_SIGNAL);
	struct uf_pager *pager = paged_open(MIB);
	char *at = paged_map(pager, store, 0, 4 * MIB, UF_PAGER_SHARED, 0), byte;
	struct uf_pager_statistics stats = paged_stats(pager);
	uint64_t latencies = 0;

	CHECK_EQ(stats.size, sizeof(stats));
	CHECK_EQ(stats.budget, MIB);
	CHECK_EQ(stats.resident + stats.dirty + stats.faults + stats.read + stats.written + stats.errors, 0);
	CHECK(!stats.last_error[0]);
	CHECK_EQ(uf_pager_advise(pager, at, PAGE, UF_PAGER_RANDOM), 0);
	for (uint64_t page = 0; page < 100; page++)
		CHECK_EQ(touch_read(at + page * PAGE, &byte), 0);
	write_pages(at, 40 * PAGE, 's');
	for (uint64_t page = 100; page < 110; page++)
		CHECK_EQ(touch_write(at + page * PAGE, 's'), 0);
	while (paged_stats(pager).dirty != 50 * PAGE)
		sched_yield();
	stats = paged_stats(pager);
	CHECK_EQ(stats.faults, 110);
	CHECK_EQ(stats.write_faults, 40);
	CHECK_EQ(stats.read, 110 * PAGE);
	CHECK_EQ(stats.ahead, 0);
	CHECK_EQ(stats.resident, 110 * PAGE);
	CHECK_EQ(stats.written + stats.evicted + stats.refaults + stats.errors + stats.poisoned, 0);
	CHECK_EQ(uf_pager_flush(pager, NULL, 0), 0);
	stats = paged_stats(pager);
	CHECK_EQ(stats.written, 50 * PAGE);
	CHECK_EQ(stats.dirty, 0);
	for (unsigned i = 0; i < 48; i++)
		latencies += stats.latency[i];
	CHECK(latencies >= 110);
	CHECK(stats.latency_p50 <= stats.latency_p99 && stats.latency_p50 > 0);
	CHECK(is_content(at + MIB, MIB, 3 * MIB));
	stats = paged_stats(pager);
	CHECK(stats.evicted > 0 && stats.resident <= MIB);
	CHECK_EQ(stats.written, 50 * PAGE);
	CHECK(stats.read >= 3 * MIB + 110 * PAGE - stats.refaults * PAGE);
	/* Resting pages are dirty as well. */
	write_pages(at, 4 * MIB, 'd');
	stats = paged_stats(pager);
	CHECK(stats.written + stats.dirty >= 50 * PAGE + 4 * MIB - 64 * PAGE);
	uf_pager_close(pager);
	uf_store_close(store);
}
