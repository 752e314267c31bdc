/* SPDX-License-Identifier: MIT */
/*
 * test.h - named tests, each in a process of its own, reported in TAP
 *
 *	TEST(copy_is_atomic, "The sentence or promise that this test holds fast.")
 *	{
 *		CHECK(condition);
 *		CHECK_EQ(uf_copy(...), 4096);     prints both values when they differ
 *		SKIP("reason");                   only where this machine cannot; on the reference system a skip is a failure
 *	}
 *
 * A test that crashes, exits or hangs fails alone. Programs take names of tests to run (all by default), --list, and
 * --engine NAME for those that run on any engine.
 */
#ifndef TESTS_SUPPORT_TEST_H
#define TESTS_SUPPORT_TEST_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct test {
	const char *name;
	const char *text;
	void (*run)(void);
	const char *engine; /* the only one that has this test; NULL: any */
	struct test *next;
};

void test_add(struct test *test);

#define TEST(ident, sentence) TEST_OF(NULL, ident, sentence)

/* Of one engine: with another there is no such test. */
#define TEST_OF(only, ident, sentence)                             \
	static void test_##ident(void);                            \
	static __attribute__((constructor)) void add_##ident(void) \
	{                                                          \
		static struct test self = {                        \
			.name = #ident,                            \
			.text = sentence,                          \
			.run = test_##ident,                       \
			.engine = only,                            \
		};                                                 \
		test_add(&self);                                   \
	}                                                          \
	static void test_##ident(void)

/* End the test's process (exit status 1, 77). Usable in threads and in children of the test as well. */
_Noreturn void test_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
_Noreturn void test_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define FAIL(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define SKIP(...) test_skip(__VA_ARGS__)

#define CHECK(condition)                                      \
	do {                                                  \
		if (!(condition))                             \
			FAIL("CHECK(%s) failed", #condition); \
	} while (0)

/* Compares two integers; negative ones are shown as errno names too. */
#define CHECK_EQ(got, expected) test_check_eq(__FILE__, __LINE__, #got, (long long)(got), (long long)(expected))
void test_check_eq(const char *file, int line, const char *text, long long got, long long expected);

/* The engine named with --engine; "kernel" by default. */
extern const char *test_engine;

/* The size of a page, and of a huge page (0: none configured). */
extern size_t page_size, huge_page_size;

/* Huge pages that can be had now. Tests that need some skip when there are too few. */
size_t free_huge_pages(void);

#endif
