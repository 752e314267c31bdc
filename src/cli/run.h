/* SPDX-License-Identifier: MIT */
/*
 * run.h - `run --manager SOCKET --map PATH=STORE[@OFFSET]`: files that a manager serves
 *
 * What is wrong is said here, before the program starts; the functions return an exit status.
 */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include <stddef.h>

#include "preload/settings.h"

struct run_maps {
	const char *manager;              /* path of its socket, or NULL */
	const char *texts[MAP_FILES_MAX]; /* as they were given */
	size_t count;
};

int run_maps_add(struct run_maps *maps, const char *text);

/* Asks the manager for the sizes, and leaves what the preloaded library needs to know in the environment. Nothing where nothing was given. */
int run_maps_prepare(const struct run_maps *maps);

#endif
