/* SPDX-License-Identifier: MIT */
/* format.h - numbers for people: three digits that count, and a unit */
#ifndef REPORT_FORMAT_H
#define REPORT_FORMAT_H

#include <stdint.h>

#define FORMAT_SIZE 32

/* Each returns `text`. */
char *format_ns(char text[FORMAT_SIZE], uint64_t ns); /* 950 ns, 12.3 µs, 1.25 ms, 12.0 s, 3 min 5 s, 7 h 2 min */
char *format_bytes(char text[FORMAT_SIZE], uint64_t bytes); /* 512 B, 4.00 KiB, 12.3 MiB */
char *format_count(char text[FORMAT_SIZE], uint64_t count); /* 1,234,567 */
char *format_short(char text[FORMAT_SIZE],
                   double count); /* 950, 12.3 k, 1.20 M; below 10 with a decimal, unless it is whole */

/* A share in percent: 0 %, 0.12 %, 12 %, 100 %. 0 of 0 is 0. What is more than nothing is never 0 %, what is not all never 100 %. */
char *format_share(char text[FORMAT_SIZE], uint64_t part, uint64_t whole);

#endif
