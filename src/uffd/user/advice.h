/* SPDX-License-Identifier: MIT */
/*
 * advice.h - kinds of madvise(2) that the distribution's headers lack
 */
#ifndef UFFD_USER_ADVICE_H
#define UFFD_USER_ADVICE_H

#define ADVICE_POPULATE_READ   22 /* Linux 5.14 */
#define ADVICE_POPULATE_WRITE  23
#define ADVICE_DONTNEED_LOCKED 24  /* Linux 5.18 */
#define ADVICE_GUARD_INSTALL   102 /* Linux 6.13; on memory of files 6.15 */
#define ADVICE_GUARD_REMOVE    103

#endif
