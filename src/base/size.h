/* SPDX-License-Identifier: MIT */
/* size.h - numbers as people write them, of digits alone: no sign, no blank, no other base */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include <stdbool.h>
#include <stdint.h>

/* From `least` to `most`. False: it is no number, or none of these. */
bool number_parse(const char *text, uint64_t least, uint64_t most, uint64_t *number);

/* Bytes: digits, and perhaps K, M, G or T, powers of 1024. False: it is not that, or more than INT64_MAX. */
bool size_parse(const char *text, uint64_t *bytes);

#endif
