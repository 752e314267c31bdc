/* SPDX-License-Identifier: MIT */
/*
 * map-link.h - this process's object, and its connection to the manager
 *
 * Both are made when the first mapping is, and belong to one process: the child of a fork has its own, made before its first own step. With
 * map_lock() held.
 */
#ifndef PRELOAD_MAP_LINK_H
#define PRELOAD_MAP_LINK_H

#include <stdbool.h>

struct map_range;

/*
 * Registers memory that nobody can touch yet, and gives it to the manager. 0, or -errno: -ENODEV: it cannot be registered; -EIO: the manager
 * cannot be reached, or refuses; -ENOMEM: there is no thread to be had for its end (map-end.h).
 */
int map_link_give(const struct map_range *range);

/* Whether pages of ours are missing to the kernel itself, because the user engine hides them. Without the lock, once there is a mapping. */
bool map_link_hides(void);

/*
 * In the child of a fork: all ranges anew. Those that cannot be served any more become SIGBUS. threads: the C library knows of the child, so that
 * it can have threads.
 */
void map_link_forked(bool threads);

#endif
