/* SPDX-License-Identifier: MIT */
/* collect.h - what the manager is doing, put together for those who ask: on the control socket, and over HTTP */
#ifndef MANAGER_COLLECT_H
#define MANAGER_COLLECT_H

struct worker;

/* Answers on both listening sockets from then on, -1 being none. 0 or -errno. */
int collect_start(struct worker *worker, int control, int metrics);

/* When it returns nobody is answered any more. */
void collect_stop(struct worker *worker);

#endif
