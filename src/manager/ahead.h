/* SPDX-License-Identifier: MIT */
/*
 * ahead.h - pages that are brought before they are asked for: `serve --prefetch`, and regions that ask for it
 *
 * By a thread of its own, so that faults do not wait for it: it brings what earlier clients have touched, a part of one client after a part of
 * another. What the program gives back meanwhile stays away (session.h).
 */
#ifndef MANAGER_AHEAD_H
#define MANAGER_AHEAD_H

#include <stdint.h>

struct ahead;
struct client;
struct worker;

/* 0 or -errno. It lasts as long as the process. */
int ahead_start(struct ahead **out, struct worker *worker);

/* A region of a client that is served: what its store's working set says, and then all of it, if that was asked for. */
void ahead_region(struct ahead *ahead, struct client *client, uint64_t start, uint64_t len);

/* Returns when nothing is done for the client any more, and never will be. Any thread. */
void ahead_forget(struct ahead *ahead, struct client *client);

#endif
