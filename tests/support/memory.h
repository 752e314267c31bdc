/* SPDX-License-Identifier: MIT */
/*
 * memory.h - every kind of memory a program can have, each mapped as programs do it
 *
 * What comes from here lies between two pages that cannot be touched (hugetlbfs excepted), so that no mapping merges
 * with a neighbour and a run beyond the end is noticed. Where the machine has no such memory the test is skipped with
 * the reason.
 */
#ifndef TESTS_SUPPORT_MEMORY_H
#define TESTS_SUPPORT_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include <userfault/uffd.h>

enum memory_source {
	MEMORY_ANON,             /* MAP_PRIVATE | MAP_ANONYMOUS */
	MEMORY_DEV_ZERO_PRIVATE, /* a private mapping of /dev/zero */
	MEMORY_SHARED_ANON,      /* MAP_SHARED | MAP_ANONYMOUS */
	MEMORY_DEV_ZERO,         /* a shared mapping of /dev/zero */
	MEMORY_MEMFD,
	MEMORY_MEMFD_PRIVATE, /* a private mapping of a memfd */
	MEMORY_TMPFS,         /* a file of tmpfs */
	MEMORY_SYSV,          /* shmget(2) */
	MEMORY_HUGE_ANON,     /* MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB */
	MEMORY_HUGE_SHARED,   /* MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB */
	MEMORY_HUGE_MEMFD,    /* MFD_HUGETLB */
	MEMORY_SOURCES,
};

struct memory {
	enum memory_source source;
	enum uf_memory kind;
	bool shared;
	size_t page; /* its unit: the system's page, or the huge page */
	char *at;
	size_t len;
	int fd; /* of the file behind it, or -1 */
};

/* Fresh memory of so many pages, untouched. */
struct memory memory_map(enum memory_source source, size_t pages);

/* The same pages once more at another address. Only of shared memory that has a file, or is not of hugetlbfs. */
char *memory_alias(const struct memory *memory);

/* `pages` fresh private anonymous pages, and the same filled: page i holds the byte pattern(i). */
char *anon(size_t pages);
char *filled(size_t pages);
unsigned char pattern(size_t page);

/* An address range of so many pages in which nothing is mapped. */
char *unmapped(size_t pages);

/* A private mapping of a file that is not in memory-backed storage: nothing a userfaultfd can deliver to. */
char *file_backed(size_t pages);

#endif
