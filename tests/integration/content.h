/* SPDX-License-Identifier: MIT */
/* content.h - what the stores of these tests hold: for those who write them, and those who read memory */
#ifndef TESTS_CONTENT_H
#define TESTS_CONTENT_H

#include <stdint.h>

#define CONTENT_PAGE  4096u
#define CONTENT_WORDS (CONTENT_PAGE / 8)

/* A word of a page; never 0. */
static inline uint64_t content(unsigned seed, uint64_t page, unsigned word)
{
	uint64_t x = ((uint64_t)seed << 48) + page * CONTENT_WORDS + word + 1;

	x = (x ^ (x >> 31)) * 0x7fb5d329728ea185u;
	x = (x ^ (x >> 27)) * 0x81dadef4bc2dd44du;
	return (x ^ (x >> 33)) | 1;
}

#endif
