/* SPDX-License-Identifier: MIT */
/* utf8.h - names come from anybody; what people and programs are shown is UTF-8 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>

/* Bytes that so many of any kind are at most, when they are cleaned. */
#define UTF8_CLEAN(bytes) (3 * (bytes))

/* The length of the character that `text` begins with, 1 to 4; 0: it is none. */
size_t utf8_length(const char *text);

/* Copies `text`, with U+FFFD in place of each byte that belongs to no character. `out` has room for UTF8_CLEAN(strlen(text)) + 1. */
void utf8_clean(char *out, const char *text);

#endif
