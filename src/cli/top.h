/* SPDX-License-Identifier: MIT */
/* top.h - what `top` was told, and its two ways to show it */
#ifndef CLI_TOP_H
#define CLI_TOP_H

#include "cli/ask.h"
#include "cli/clients.h"

struct top {
	char path[ASK_PATH];
	int interval_ms;
	struct clients_order order;
};

/* The whole screen, until it is told to quit. Returns the exit status; without ncurses an error. */
int top_screen(struct top *top);

/* What stands above the table: one line without its end, `size` bytes at most. `before` as for clients_table(). */
void top_summary(char *text, size_t size, const struct status *before, const struct status *now);

#endif
