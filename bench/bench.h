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

struct figure {
	const char *name;
	const char *unit; /* of the samples; all but "GB/s" is a time, where less is better */
	bench_side *side, *baseline;
	enum place place;
	bool tail;     /* the 99th percentile of the same samples is a row of its own, NAME.p99 */
	size_t memory; /* MiB in use at a time, beyond a few times FAULT_PAGES: warmed before the rounds */
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

/* ---- for main.c ---- */

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

bench_side fill_copy, fill_move, fill_zero;                 /* fill.c */
bench_side dirty_scan, dirty_write_async, dirty_write_sync; /* dirty.c */

bench_side bare_thread, bare_inline, bare_memcpy, bare_first_touch, bare_scan, bare_mprotect; /* bare.c */

/* What the sides of one figure must agree on. */
#define FAULT_PAGES 4096              /* faulted on in one round */
#define FILL_MIB    256               /* delivered in one round */
#define CHUNK       ((size_t)1 << 20) /* bytes delivered by one call */
#define SCAN_MIB    1024              /* scanned at once */
#define SCAN_PASSES 7                 /* in one round, the first not counted */
#define SCAN_DIRTY  10                /* every tenth page is dirty */
#define CONTENT     0x5a              /* the first byte of every page that is delivered */

#endif
