/* SPDX-License-Identifier: MIT */
/*
 * sockets.h - the sockets that the manager listens on: its own, or those that a service manager hands to it
 *
 * They are the supervisor's, so that a worker that dies leaves them open.
 */
#ifndef MANAGER_SOCKETS_H
#define MANAGER_SOCKETS_H

#include <stdbool.h>

#include "manager/serve.h"

struct sockets {
	int handover, control, metrics;   /* listening; -1: none */
	bool made_handover, made_control; /* their files are ours, to be removed */
};

/*
 * Opens them; those that came by socket activation (sd_listen_fds(3)) by their names: "handover", "control", "metrics"; a single one without a
 * name that we know is the handover's. What was given counts, and the option for the same thing does not. A socket file that nobody listens
 * on is replaced. 0; or -errno, and what failed has been said.
 */
int sockets_open(struct sockets *sockets, const struct serve_options *options);

/* Nobody may come any more. Once more does nothing: the name may be another's by then. */
void sockets_close_handover(struct sockets *sockets, const struct serve_options *options);

/* Closes them and removes the files that were made. */
void sockets_close(struct sockets *sockets, const struct serve_options *options);

#endif
