// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "cli/table.h"

#define GAP 2

int table_begin(struct table *table, const struct table_column *columns, size_t column_count, size_t row_count)
{
	*table = (struct table){.columns = columns, .column_count = column_count, .row_count = row_count};
	table->cells = calloc(row_count * column_count + 1, sizeof(*table->cells));
	return table->cells ? 0 : -ENOMEM;
}

void table_free(struct table *table)
{
	free(table->cells);
	table->cells = NULL;
}

char *table_cell(struct table *table, size_t row, size_t column)
{
	return table->cells[row * table->column_count + column];
}

static const char *text_of(const struct table *table, long row, size_t column)
{
	return row < 0 ? table->columns[column].title : table->cells[(size_t)row * table->column_count + column];
}

/* In place. C1 controls are two bytes in UTF-8, and mean to some terminals what escape sequences do. */
static void clean(char *cell)
{
	for (char *at = cell; *at;) {
		size_t len = utf8_length(at);
		unsigned char c = (unsigned char)*at;

		if (!len || c < ' ' || c == 0x7f || (c == 0xc2 && (unsigned char)at[1] < 0xa0)) {
			*at++ = '?';
			if (len == 2)
				memmove(at, at + 1, strlen(at));
		} else {
			at += len;
		}
	}
}

static size_t width_of(const char *text)
{
	size_t width = 0;

	for (; *text; width++) {
		size_t len = utf8_length(text);

		text += len ? len : 1;
	}
	return width;
}

void table_finish(struct table *table)
{
	for (size_t column = 0; column < table->column_count; column++) {
		table->widths[column] = width_of(table->columns[column].title);
		for (size_t row = 0; row < table->row_count; row++) {
			char *cell = table_cell(table, row, column);
			size_t width;

			clean(cell);
			width = width_of(cell);
			if (width > table->widths[column])
				table->widths[column] = width;
		}
	}
}

char *table_line(const struct table *table, long row)
{
	char *line = NULL;
	size_t size, end = 0;
	FILE *out = open_memstream(&line, &size);

	if (!out)
		return NULL;
	for (size_t column = 0; column < table->column_count; column++) {
		const char *text = text_of(table, row, column);
		int padding = (int)(table->widths[column] - width_of(text)), gap = column ? GAP : 0;
		bool right = table->columns[column].right;

		fprintf(out, "%*s%s%*s", gap + (right ? padding : 0), "", text, right ? 0 : padding, "");
	}
	if (fclose(out)) {
		free(line);
		return NULL;
	}
	/* No blanks at the end. */
	for (size_t i = 0; line[i]; i++)
		if (line[i] != ' ')
			end = i + 1;
	line[end] = '\0';
	return line;
}

int table_print(const struct table *table, const char *indent)
{
	for (long row = -1; row < (long)table->row_count; row++) {
		char *line = table_line(table, row);

		if (!line)
			return -ENOMEM;
		printf("%s%s\n", indent, line);
		free(line);
	}
	return 0;
}
