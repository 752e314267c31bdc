// SPDX-License-Identifier: MIT
#include <math.h>

#include "base/utf8.h"
#include "report/write.h"

#define REPLACEMENT "\xef\xbf\xbd"

void write_html(FILE *file, const char *text)
{
	while (*text) {
		size_t len = utf8_length(text);
		unsigned char c = (unsigned char)*text;

		if (c == '<')
			fputs("&lt;", file);
		else if (c == '>')
			fputs("&gt;", file);
		else if (c == '&')
			fputs("&amp;", file);
		else if (c == '"')
			fputs("&quot;", file);
		else if (c == '\'')
			fputs("&#39;", file);
		else if (!len || (c < ' ' && c != '\n' && c != '\t') || c == 0x7f)
			fputs(REPLACEMENT, file);
		else
			fwrite(text, 1, len, file);
		text += len ? len : 1;
	}
}

void write_json_text(FILE *file, const char *text)
{
	putc('"', file);
	while (*text) {
		size_t len = utf8_length(text);
		unsigned char c = (unsigned char)*text;

		if (!len)
			fputs(REPLACEMENT, file);
		else if (c < ' ' || c == '<' || c == '"' || c == '\\')
			fprintf(file, "\\u%04x", c);
		else
			fwrite(text, 1, len, file);
		text += len ? len : 1;
	}
	putc('"', file);
}

void write_json_number(FILE *file, double value, int digits)
{
	if (isfinite(value))
		fprintf(file, "%.*g", digits, value);
	else
		fputs("null", file);
}

void write_paragraph(FILE *file, const char *class_name, const char *text)
{
	if (!text)
		return;
	fprintf(file, "<p class=\"%s\">", class_name);
	write_html(file, text);
	fputs("</p>\n", file);
}
