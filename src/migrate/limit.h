/* SPDX-License-Identifier: MIT */
/* limit.h - so many bytes a second, and no more */
#ifndef MIGRATE_LIMIT_H
#define MIGRATE_LIMIT_H

#include <stdint.h>

struct limit {
	uint64_t rate;    /* bytes a second; 0: none */
	uint64_t free_ns; /* when what has been let through is over */
};

/* After so many bytes: how long to wait before more is sent, ns. */
uint64_t limit_pass(struct limit *limit, uint64_t bytes);

#endif
