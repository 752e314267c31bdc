/* SPDX-License-Identifier: MIT */
/*
 * paged.h - pagers for tests: opened as the test is told, over stores that do as they are told
 *
 * A test that holds for every way of resolving faults is written with BOTH_WAYS(), and becomes two: NAME_thread and NAME_inline. The
 * engine is the one named with --engine.
 */
#ifndef TESTS_SUPPORT_PAGED_H
#define TESTS_SUPPORT_PAGED_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include <userfault/pager.h>

#include "support/test.h"

extern enum uf_pager_way paged_way;

#define BOTH_WAYS(ident, sentence) BOTH_WAYS_OF(NULL, ident, sentence)
#define BOTH_WAYS_OF(only, ident, sentence)     \
	static void both_##ident(void);         \
	TEST_OF(only, ident##_thread, sentence) \
	{                                       \
		paged_way = UF_PAGER_THREAD;    \
		both_##ident();                 \
	}                                       \
	TEST_OF(only, ident##_inline, sentence) \
	{                                       \
		paged_way = UF_PAGER_INLINE;    \
		both_##ident();                 \
	}                                       \
	static void both_##ident(void)

/* What was told of failures: how many lines, and the last one. */
extern _Atomic unsigned paged_failures;
extern char paged_failure[512];

/* Options as the test is told, with failures noted; and a pager of so many bytes. Also catches the signals of touches, see below. */
struct uf_pager_options paged_options(uint64_t budget);
struct uf_pager *paged_open(uint64_t budget);
struct uf_pager *paged_open_with(const struct uf_pager_options *options);

/* Maps; a failure is the test's. */
char *paged_map(struct uf_pager *pager, struct uf_store *store, uint64_t offset, uint64_t len, unsigned flags,
                size_t unit);

struct uf_pager_statistics paged_stats(struct uf_pager *pager);

/* Reads a byte, or writes it: 0, or the signal that this raised. On any thread. */
int touch_read(const char *at, char *byte);
int touch_write(char *at, char byte);

/*
 * A store in memory whose every page has its own mind. What it holds at first: paged_content().
 */
struct fake {
	uint64_t size;
	char *bytes;
	_Atomic uint8_t *script; /* a byte for each 4096 bytes: FAKE_* */
	_Atomic bool flush_fails;
	_Atomic bool held;     /* reads wait while it is */
	_Atomic bool try_held; /* so do attempts to read at once, which then fail */
	_Atomic unsigned waiting, reads, writes, flushes, failed;
	_Atomic unsigned try_waiting;
};

#define FAKE_BAD_READ  1u
#define FAKE_BAD_WRITE 2u

/* What a fake can do beside reading and writing on a thread of the store's. */
#define FAKE_IN_SIGNAL 1u /* reads in signal handlers */
#define FAKE_TRIES     2u /* is asked to read at once, first */
#define FAKE_READ_ONLY 4u

struct uf_store *fake_open(struct fake *fake, uint64_t size, unsigned kind);
void fake_script(struct fake *fake, uint64_t offset, uint64_t len, unsigned script);

/* The byte that lies at `offset` of a store at first; never 0. */
static inline char paged_content(uint64_t offset)
{
	return (char)(1 + (offset * 7 + offset / 4096 * 13) % 251);
}

/* Whether [offset, offset + len) of a store is at `at`, as it was at first. */
bool is_content(const char *at, uint64_t offset, uint64_t len);

/* Each page's first byte becomes `byte`; and checks that it is, and the rest of the page is_content(). */
void write_pages(char *at, uint64_t len, char byte);
void check_pages(const char *at, uint64_t offset, uint64_t len, char byte);

/* A store whose content is that: in a file of the test's folder, or in memory. */
struct uf_store *filled_file(uint64_t size, const char **path);
struct uf_store *filled_memory(uint64_t size);

/* Waits until so many more are there. */
void wait_until(_Atomic unsigned *counter, unsigned least);

/* Waits until every one of these threads sleeps. */
struct sleeper {
	pthread_t thread;
	_Atomic int tid; /* its own to set, by sleeper_here() */
};

/* A thread that touches one byte: what it read, and the signal that this raised. */
struct toucher {
	struct sleeper sleeper;
	char *at;
	bool write;
	char byte;
	int sig;
};

void start_touch(struct toucher *toucher, const char *at);
void start_write(struct toucher *toucher, char *at);
void end_touch(struct toucher *toucher);

void sleeper_here(struct sleeper *sleeper);
void sleeper_wait(struct sleeper *sleeper);

#endif
