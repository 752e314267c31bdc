/* SPDX-License-Identifier: MIT */
/* size.h - bytes as people write them: digits, and perhaps K, M, G or T, powers of 1024 */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include <stdbool.h>
#include <stdint.h>

/* False: it is not that, or more than INT64_MAX. */
bool size_parse(const char *text, uint64_t *bytes);

#endif
