/* SPDX-License-Identifier: MIT */
/*
 * bench.h - figures, each measured together with its baseline
 *
 * A figure is a row of the table in main.c: a name, a unit, and two *sides*, the measured one and its baseline. A side is a
 * function that measures once and adds samples; it is called once a round, in a child process of its own, so it may leak,
 * leave threads behind, change the affinity and install signal handlers. Rounds alternate the sides (ab ba ab ...) until
 * the time for the figure is over; each round gives the quantile of its samples, and the figure is the median over rounds.
 *
 * To add a figure: write its sides in the file of its family, declare them at the end of this header, and add its row.
 * Baselines use nothing of the library and live in bare.c, except where the library is compared with itself.
 *
 *	void open_close(struct bench *bench)
 *	{
 *		for (int i = 0; i < 1000; i++) {
 *			uint64_t start = now_ns();
 *			struct uf *uf;
 *
 *			must(uf_open(&uf, NULL), "uf_open");
 *			uf_close(uf);
 *			bench_sample(bench, (double)(now_ns() - start) / 1e3);
 *		}
 *	}
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where the two threads run: the one that faults (the side itself), and what bench_monitor() starts. */
enum place {
	NEAR,  /* both on one CPU */
	FAR,   /* on two CPUs */
	SPIN,  /* on two CPUs, and the monitor never sleeps: it asks for messages without end */
	FREE,  /* wherever the scheduler puts them; two CPUs at least */
	MOVED, /* the monitor as FREE; the side moves its own thread from CPU to CPU */
};

/* One side in one round. */
struct bench {
	enum place place;
	unsigned round;     /* the same for both sides: they work in the same random order */
	int cpu, other_cpu; /* of the side's own thread; of a monitor far away (-1: no such CPU) */
	size_t page;        /* the system's page size, bytes */
	struct samples *samples;
};

typedef void bench_side(struct bench *bench);

/* What has to be made before the rounds: disk.c. */
enum needs {
	NOTHING,
	DISK,  /* a file on a disk, FILE_MIB long, whose pages begin with their NUMBER() */
	LIMIT, /* beside it a group of processes whose memory can be limited */
};

struct figure {
	const char *name;
	const char *unit; /* of the samples; less is better in all but "GB/s" */
	bench_side *side, *baseline;
	enum place place;
	bool tail;     /* the 99th percentile of the same samples is a row of its own, NAME.p99 */
	size_t memory; /* MiB in use at a time, beyond a few times FAULT_PAGES: warmed before the rounds */
	enum needs needs;
};

/* What came of it: medians over the rounds. */
struct result {
	double value, baseline;       /* median of the samples */
	double tail, tail_baseline;   /* their 99th percentile */
	double ratio_low, ratio_high; /* quartiles of the rounds' own ratios: how far to trust the ratio */
	double tail_low, tail_high;
	unsigned rounds;
};

/* ---- for sides ---- */

/* Adds a sample, in the figure's unit. */
void bench_sample(struct bench *bench, double value);

/* Ends the side: the figure cannot be measured here, for this reason. Callable in any thread. */
_Noreturn void bench_refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Refuses unless the call went well: of a result that may be -errno, and of one that may be -1 with errno set. */
void must(long result, const char *what);
void must_libc(long result, const char *what);

/* Fresh private anonymous memory, never in huge pages. */
char *bench_memory(size_t len);

/* Makes every page of it present and writable. */
void bench_populate(char *memory, size_t len, size_t page);

/* The numbers 0 ... count - 1 in random order; the order depends on the round only. */
uint32_t *bench_order(const struct bench *bench, size_t count);

/* The next of a row of random numbers; the state is not 0. */
uint64_t bench_random_number(uint64_t *state);

/* Binds the calling thread to a CPU. */
void bench_pin(int cpu);

/* Starts a thread at the figure's place. It is never joined: it ends with the side. */
void bench_monitor(const struct bench *bench, void *(*run)(void *), void *arg);

/*
 * Touches `pages` pages once each in random order, and adds the time of each access in microseconds. Reading checks that
 * each page begins with `expected`. Where that takes long, the rest of the pages is left out.
 */
void bench_read_pages(struct bench *bench, const char *memory, size_t pages, char expected);
void bench_write_pages(struct bench *bench, char *memory, size_t pages);

/* Whether the place binds threads to CPUs from the start. */
bool bench_is_pinned(const struct bench *bench);

/* ---- for sides that need a disk: disk.c ---- */

/* Of a file in the folder that is removed at the end; NUMBERED is there. Valid until the next call. */
#define NUMBERED "numbered"
const char *bench_path(const char *name);

/* Takes a file out of the page cache, and refuses if it stays there; or reads its first `len` bytes into it. */
void bench_drop_cache(const struct bench *bench, const char *path);
void bench_warm_cache(const char *path, size_t len);

/* Puts this process under a limit: its memory and the page cache that it fills, bytes. Once. */
void bench_limit_memory(size_t bytes);

/* ---- what sides do to a file that they have mapped: patterns.c ---- */

/* As bench_read_pages(), of numbered pages. */
void bench_read_numbered(struct bench *bench, const char *memory, size_t pages);

/*
 * Reads `reads` of the first `pages` numbered pages in random order on threads, each page once, for some time at the most. Microseconds per
 * read, of the wall clock.
 */
double bench_random(const struct bench *bench, const char *memory, size_t pages, size_t reads, unsigned threads);

/* Reads all of the numbered pages [first, first + pages): GB/s. */
double bench_sequential(const struct bench *bench, const char *memory, size_t first, size_t pages);

/* Reads the numbered pages of a list. */
void bench_touch(const struct bench *bench, const char *memory, const uint32_t *pages, size_t count);

/* The pages of the numbered file that make a working set: the first SET_PAGES of these. The same in each round, so that it is recorded once. */
uint32_t *bench_set_pages(const struct bench *bench);

/* Sorts in place. */
void bench_sort(uint64_t *keys, size_t count);

/* Writes a file of KEYS_MIB of random keys, and drops it from the page cache: their sum. Refuses unless the file has them, sorted. */
uint64_t bench_make_keys(const struct bench *bench, const char *path);
void bench_check_keys(const char *path, uint64_t sum);

/* ---- for main.c ---- */

/* Makes what a figure needs, once. False when that cannot be. Its end removes it; so does the end of the process. */
bool disk_prepare(const struct figure *figure, size_t page, char *reason, size_t size);
void disk_end(void);

/* Measures a figure. False when it cannot run, and `reason` tells why. */
bool measure(const struct figure *figure, struct result *result, char *reason, size_t size);

/* The table on standard output, row by row, and the same rows as JSON. */
struct report;
struct report *report_new(void);
void report_row(struct report *report, const char *name, const char *unit, double value, double baseline, double low,
                double high, unsigned rounds);
int report_write(struct report *report, const char *path); /* 0, or -1 after a message; frees the report */

/* ---- sides, by file ---- */

bench_side fault_thread, fault_inline, fault_follow, fault_scheduled; /* fault.c */
/* user.c */
bench_side user_thread, user_thread_shared, user_process, user_process_shared, user_inline, user_inline_shared, user_wp;
bench_side kernel_thread, kernel_thread_shared, kernel_process, kernel_process_shared, kernel_inline,
	kernel_inline_shared;
bench_side user_random_last, user_random_first;

bench_side filling_copy, filling_move, filling_zero;        /* fill.c */
bench_side dirty_scan, dirty_write_async, dirty_write_sync; /* dirty.c */
bench_side cache_hit, file_hit, memory_hit;                 /* cache.c */

/* pager.c, and by hand in bare-pager.c */
bench_side pager_warm_inline, pager_warm_thread, pager_scale_1, pager_scale_2, pager_scale_4, pager_scale_8;
bench_side pager_cold, pager_cold_8, pager_sequential, pager_sort, pager_replay, pager_on_demand;
bench_side bare_warm_inline, bare_warm_thread, bare_scale_1, bare_scale_2, bare_scale_4, bare_scale_8;
bench_side mmap_cold, mmap_cold_8, mmap_sequential, mmap_sort, bare_copy_set;

bench_side manager_fault, manager_handover, manager_restore, manager_no_prefetch, manager_restore_warm,
	manager_no_prefetch_warm; /* manager.c */
bench_side manager_clients_1, manager_clients_10, manager_clients_100, manager_clients_1000;
bench_side manager_memory, manager_page_tables;

/* migrate.c, and by hand in bare-migrate.c */
bench_side migrate_postcopy, migrate_precopy, migrate_postcopy_one, migrate_checksum, migrate_request,
	migrate_request_one;
bench_side migrate_stopped, migrate_stall, migrate_total;
bench_side raw_tcp_throughput, raw_tcp_time, bare_request;

bench_side bare_thread, bare_process, bare_handover, bare_inline, bare_memcpy, bare_first_touch, bare_scan,
	bare_mprotect; /* bare.c */

/* What the sides of one figure must agree on. */
#define FAULT_PAGES 4096              /* faulted on in one round */
#define FILL_MIB    256               /* delivered in one round */
#define CHUNK       ((size_t)1 << 20) /* bytes delivered by one call */
#define SCAN_MIB    1024              /* scanned at once */
#define SCAN_PASSES 7                 /* in one round, the first not counted */
#define SCAN_DIRTY  10                /* every tenth page is dirty */
#define CONTENT     0x5a              /* the first byte of every page that is delivered */

/* And those of pager.*. */
#define FILE_MIB     1024  /* of the numbered file */
#define MEMORY_MIB   128   /* for pages of it, where memory is limited */
#define FILL_UP_MIB  160   /* read first, so that pages have to leave */
#define SEQUENCE_MIB 512   /* read in sequence */
#define SCALE_PAGES  16384 /* faulted on by all threads together */
#define SCALE_MIB    64
#define MOST_READERS 8
#define SET_PAGES    25600 /* the working set: 100 MiB */
#define SET_MIB      256   /* its budget */
#define KEYS_MIB     256   /* sorted */
#define SORT_MIB     128   /* in so much memory */
#define CACHE_MIB    64    /* read from a cache */
/* And those of migrate.*. */
#define MIGRATE_MIB 512   /* moved */
#define BUSY_MIB    1024  /* of a program that writes; half of it was ever touched */
#define BUSY_WRITES 20000 /* pages a second */
/* Never 0, so that a page of zeros is noticed. */
#define NUMBER(page) ((uint64_t)(page) + 1)

#endif
