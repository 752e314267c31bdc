/* SPDX-License-Identifier: MIT */
/* huge.h - the huge page of this system */
#ifndef BASE_HUGE_H
#define BASE_HUGE_H

#include <stddef.h>

/* Bytes of the default size, which is what MAP_HUGETLB maps; 0: there is none. */
size_t huge_page_bytes(void);

#endif
