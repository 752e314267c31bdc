/* SPDX-License-Identifier: MIT */
/* ask.h - asking a manager for its status; what goes wrong is told in words */
#ifndef CLI_ASK_H
#define CLI_ASK_H

#include "manager/status.h"

#define ASK_PATH  256
#define ASK_CAUSE 512

/* Where to ask: `given`, or where a manager listens by itself. 0, or EXIT_USAGE after an error on the standard error. */
int ask_where(const char *command, const char *given, char path[ASK_PATH]);

/*
 * The status as a line of JSON, malloc()ed, and if `status` is not NULL as numbers, to be freed with status_free(). 0; or -1, and `cause` is one line
 * that names the socket.
 */
int ask_status(const char *path, char **json, struct status *status, char cause[ASK_CAUSE]);

#endif
