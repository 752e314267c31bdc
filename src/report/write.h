/* SPDX-License-Identifier: MIT */
/* write.h - text and numbers in the places of a page: what is between tags, and what the script reads */
#ifndef REPORT_WRITE_H
#define REPORT_WRITE_H

#include <stdio.h>

#include "report/page.h"

struct report {
	FILE *file;
	unsigned charts; /* so far */
};

/* Between tags, or in the quotes of an attribute. */
void write_html(FILE *file, const char *text);

/* A string with its quotes. "<" is written as an escape, so that no text can end the element that the data is in. */
void write_json_text(FILE *file, const char *text);

/* NAN and infinity are null. `digits` that count. The decimal point is the locale's: the program has none but "C" for numbers. */
void write_json_number(FILE *file, double value, int digits);

/* <p class="..."> with the text; nothing for NULL. */
void write_paragraph(FILE *file, const char *class_name, const char *text);

#endif
