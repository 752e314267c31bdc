/* SPDX-License-Identifier: MIT */
/* paths.h - where the manager's sockets are, unless somebody says otherwise */
#ifndef MANAGER_PATHS_H
#define MANAGER_PATHS_H

#include <stddef.h>

/*
 * The folder: $XDG_RUNTIME_DIR/userfault for a user, /run/userfault for root and where that variable is not an absolute path. For root the
 * variable does not count: it is set where root has logged in and not where a service is started, and the two are to meet.
 *
 * 0, or -ENAMETOOLONG: there is no room, or for a socket's path no room in a socket's address.
 */
int path_runtime(char *path, size_t size);

/* Where `serve` answers, and `top` and `stat` ask: "control" in it. */
int path_control(char *path, size_t size);

#endif
