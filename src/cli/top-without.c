// SPDX-License-Identifier: MIT
/* In place of top-screen.c where there is no ncurses. */
#include "cli/command.h"
#include "cli/top.h"

int top_screen(struct top *top)
{
	(void)top;
	return fail("top: built without ncurses, so there is no screen; --once prints a table");
}
