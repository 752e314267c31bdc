/* SPDX-License-Identifier: MIT */
/*
 * machine.h - what matters to userfault on this machine beside userfaultfd itself: kernel, pages and limits
 */
#ifndef CLI_MACHINE_H
#define CLI_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#define MAX_POOLS 16
#define UNKNOWN   (-1)

/* Huge pages of one size. */
struct huge_pool {
	uint64_t size; /* bytes */
	int64_t total;
	int64_t free;    /* and not reserved */
	bool is_default; /* what MAP_HUGETLB maps */
};

struct machine {
	char release[65];
	uint64_t page_size;
	struct huge_pool pools[MAX_POOLS]; /* by rising size */
	unsigned pool_count;
	int64_t unprivileged_userfaultfd; /* sysctls: UNKNOWN where /proc does not tell */
	int64_t max_map_count;
	int64_t memlock; /* soft RLIMIT_MEMLOCK, bytes; UNKNOWN for no limit */
};

void machine_read(struct machine *machine);

#endif
