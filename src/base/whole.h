/* SPDX-License-Identifier: MIT */
/* whole.h - all bytes or an error, where write(2) may do a part */
#ifndef BASE_WHOLE_H
#define BASE_WHOLE_H

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

/* 0 or -errno; then a part may have been written. */
static inline int write_whole(int fd, const void *bytes, size_t len)
{
	while (len) {
		ssize_t n = write(fd, bytes, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		bytes = (const char *)bytes + n;
		len -= (size_t)n;
	}
	return 0;
}

#endif
