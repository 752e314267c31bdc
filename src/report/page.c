// SPDX-License-Identifier: MIT
/* A page's frame, and the parts of it that are words and numbers. */
#include <errno.h>
#include <stdlib.h>

#include "report/page.h"
#include "report/write.h"

static const char style[] =
#include "page-style.h"
	;

static const char script[] =
#include "page-script.h"
	;

/* What the page may load: nothing, whatever its text turns out to be. */
#define POLICY "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

int report_begin(struct report **out, FILE *file, const char *title, const char *subtitle)
{
	struct report *report = malloc(sizeof(*report));

	if (!report)
		return -ENOMEM;
	*report = (struct report){.file = file};
	fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n", file);
	fputs("<meta http-equiv=\"Content-Security-Policy\" content=\"" POLICY "\">\n", file);
	fputs("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n", file);
	fputs("<meta name=\"color-scheme\" content=\"light dark\">\n<title>", file);
	write_html(file, title);
	fprintf(file, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n<header>\n<h1>", style);
	write_html(file, title);
	fputs("</h1>\n", file);
	write_paragraph(file, "subtitle", subtitle);
	fputs("</header>\n<noscript><p>The charts of this page are drawn by a script in it; the numbers and tables "
	      "need none."
	      "</p></noscript>\n",
	      file);
	*out = report;
	return 0;
}

int report_end(struct report *report)
{
	FILE *file = report->file;
	int err = 0;

	fputs("<footer>userfault " UF_VERSION "</footer>\n</main>\n", file);
	fprintf(file, "<script>\n%s</script>\n</body>\n</html>\n", script);
	if (ferror(file))
		err = -EIO;
	else if (fflush(file))
		err = -errno;
	free(report);
	return err;
}

void report_heading(struct report *report, const char *heading, const char *text)
{
	fputs("<h2>", report->file);
	write_html(report->file, heading);
	fputs("</h2>\n", report->file);
	report_text(report, text);
}

void report_text(struct report *report, const char *text)
{
	write_paragraph(report->file, "text", text);
}

void report_numbers(struct report *report, const struct report_number *numbers, size_t count)
{
	FILE *file = report->file;

	fputs("<dl class=\"numbers\">\n", file);
	for (size_t i = 0; i < count; i++) {
		fputs("<div><dt>", file);
		write_html(file, numbers[i].label);
		fputs("</dt><dd>", file);
		write_html(file, numbers[i].value);
		if (numbers[i].note) {
			fputs("<small>", file);
			write_html(file, numbers[i].note);
			fputs("</small>", file);
		}
		fputs("</dd></div>\n", file);
	}
	fputs("</dl>\n", file);
}

static void write_head(FILE *file, const struct report_table *table)
{
	fputs("<thead><tr>", file);
	for (size_t i = 0; i < table->column_count; i++) {
		fprintf(file, "<th scope=\"col\"%s>", table->columns[i].number ? " class=\"n\"" : "");
		write_html(file, table->columns[i].title);
		fputs("</th>", file);
	}
	fputs("</tr></thead>\n", file);
}

void report_table(struct report *report, const struct report_table *table)
{
	FILE *file = report->file;
	char text[REPORT_CELL];

	fputs("<figure class=\"table\"><figcaption>", file);
	write_html(file, table->title);
	fputs("</figcaption>\n", file);
	write_paragraph(file, "caption", table->text);
	/* A wide table scrolls by itself; with the keyboard too. */
	fputs("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"", file);
	write_html(file, table->title);
	fputs("\"><table>\n", file);
	write_head(file, table);
	fputs("<tbody>\n", file);
	for (size_t row = 0; row < table->row_count; row++) {
		fputs("<tr>", file);
		for (size_t column = 0; column < table->column_count; column++) {
			text[0] = '\0';
			table->cell(table->arg, row, column, text, sizeof(text));
			fprintf(file, "<td%s>", table->columns[column].number ? " class=\"n\"" : "");
			write_html(file, text);
			fputs("</td>", file);
		}
		fputs("</tr>\n", file);
	}
	fputs("</tbody>\n</table></div></figure>\n", file);
}
