/* SPDX-License-Identifier: MIT */
/*
 * advice.h - kinds of madvise(2) that the distribution's headers lack
 */
#ifndef BASE_ADVICE_H
#define BASE_ADVICE_H

#include <sys/mman.h>

#ifndef MADV_GUARD_INSTALL /* Linux 6.13; on memory of files 6.15 */
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif

#endif
