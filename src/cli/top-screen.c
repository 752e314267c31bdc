// SPDX-License-Identifier: MIT
/* The screen of `top`, with ncurses. */
#include <curses.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "cli/command.h"
#include "cli/top.h"

#define HELP "q quit   < > sort by another column   r reverse   arrows, page up and down: scroll   space: look now"

struct screen {
	struct top *top;
	struct status statuses[2]; /* the last two looks */
	int looks;                 /* how many of them there are */
	int scroll;                /* rows that are above the screen */
	char cause[ASK_CAUSE];     /* why the last look failed, or "" */
};

static const struct status *now_of(const struct screen *screen)
{
	return screen->looks ? &screen->statuses[1] : NULL;
}

static const struct status *before_of(const struct screen *screen)
{
	return screen->looks > 1 ? &screen->statuses[0] : NULL;
}

/* Another manager may have taken the place of the first: then there is nothing to compare with. */
static void look(struct screen *screen)
{
	struct status status;
	char *json;

	if (ask_status(screen->top->path, &json, &status, screen->cause))
		return;
	free(json);
	screen->cause[0] = '\0';
	if (screen->looks && (screen->statuses[1].started != status.started || screen->statuses[1].now > status.now)) {
		status_free(&screen->statuses[1]);
		screen->looks = 0;
	}
	status_free(&screen->statuses[0]);
	screen->statuses[0] = screen->statuses[1];
	screen->statuses[1] = status;
	screen->looks += screen->looks < 2;
}

/* Bytes of the text that so many columns have room for. */
static int fitting(const char *text, int columns)
{
	size_t at = 0;

	for (; text[at] && columns; columns--)
		at += utf8_length(text + at) ? utf8_length(text + at) : 1;
	return (int)at;
}

/* Cut at the edge: ncurses would go on in the next line. Drawn from above, so what does so all the same is drawn over. */
static void put_line(int y, const char *line, attr_t attributes)
{
	move(y, 0);
	clrtoeol();
	attrset(attributes);
	if (attributes == A_REVERSE)
		hline(' ' | A_REVERSE, COLS);
	addnstr(line, fitting(line, COLS));
	attrset(A_NORMAL);
}

/* The title of the column that is sorted by stands out. */
static void mark_order(int y, const struct table *table, enum clients_column by)
{
	int x = 0, len = (int)strlen(clients_columns[by].title);

	for (size_t column = 0; column < by; column++)
		x += (int)table->widths[column] + 2;
	if (clients_columns[by].right)
		x += (int)table->widths[by] - len;
	if (x + len <= COLS)
		mvchgat(y, x, len, A_BOLD | A_UNDERLINE | A_REVERSE, 0, NULL);
}

static void draw_table(struct screen *screen, int top)
{
	struct table table;
	int room = LINES - top - 2, last;

	if (clients_table(&table, before_of(screen), now_of(screen), screen->top->order))
		return;
	last = (int)table.row_count - room;
	screen->scroll = screen->scroll > last ? last : screen->scroll;
	screen->scroll = screen->scroll < 0 ? 0 : screen->scroll;
	for (int i = -1; i < room && i < (int)table.row_count - screen->scroll; i++) {
		char *line = table_line(&table, i < 0 ? -1 : i + screen->scroll);

		put_line(top + 1 + i, line ? line : "", i < 0 ? A_REVERSE : A_NORMAL);
		free(line);
	}
	mark_order(top, &table, screen->top->order.by);
	table_free(&table);
}

static void draw(struct screen *screen)
{
	char summary[256];

	erase();
	if (now_of(screen)) {
		top_summary(summary, sizeof(summary), before_of(screen), now_of(screen));
		put_line(0, summary, A_BOLD);
		put_line(1, before_of(screen) ? "" : "Rates and latencies since each client came, until the next look.",
		         A_NORMAL);
		draw_table(screen, 2);
	}
	put_line(LINES - 1, screen->cause[0] ? screen->cause : HELP, screen->cause[0] ? A_REVERSE : A_DIM);
	refresh();
}

static void sort_by(struct clients_order *order, int step)
{
	order->by = (enum clients_column)(((int)order->by + step + CLIENTS_COLUMNS) % CLIENTS_COLUMNS);
}

/* False: quit. */
static bool take_key(struct screen *screen, int key)
{
	switch (key) {
	case 'q':
	case 'Q':
		return false;
	case '<':
	case KEY_LEFT:
		sort_by(&screen->top->order, -1);
		break;
	case '>':
	case KEY_RIGHT:
		sort_by(&screen->top->order, 1);
		break;
	case 'r':
	case 'R':
		screen->top->order.reverse = !screen->top->order.reverse;
		break;
	case KEY_UP:
		screen->scroll--;
		break;
	case KEY_DOWN:
		screen->scroll++;
		break;
	case KEY_PPAGE:
		screen->scroll -= LINES - 6;
		break;
	case KEY_NPAGE:
		screen->scroll += LINES - 6;
		break;
	case ' ':
		look(screen);
		break;
	default:
		break;
	}
	return true;
}

static void run(struct screen *screen)
{
	uint64_t interval = (uint64_t)screen->top->interval_ms * 1000000, next = now_ns() + interval;

	for (;;) {
		uint64_t now = now_ns();
		int key;

		if (now >= next) {
			look(screen);
			now = now_ns();
			next = now + interval;
		}
		draw(screen);
		timeout((int)((next - now) / 1000000) + 1);
		key = getch();
		if (key != ERR && !take_key(screen, key))
			return;
	}
}

int top_screen(struct top *top)
{
	struct screen screen = {.top = top};
	SCREEN *terminal;

	/* What goes wrong before anything was shown is told as by any other command. */
	look(&screen);
	if (screen.cause[0])
		return fail("top: %s", screen.cause);
	setlocale(LC_CTYPE, "");
	terminal = newterm(NULL, stdout, stdin);
	if (!terminal) {
		status_free(&screen.statuses[1]);
		return fail("top: the terminal '%s' cannot show a whole screen; --once prints a table",
		            getenv("TERM") ? getenv("TERM") : "");
	}
	cbreak();
	noecho();
	keypad(stdscr, TRUE);
	curs_set(0);
	run(&screen);
	endwin();
	delscreen(terminal);
	status_free(&screen.statuses[0]);
	status_free(&screen.statuses[1]);
	return 0;
}
