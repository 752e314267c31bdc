/* SPDX-License-Identifier: MIT */
/* unixname.h - what people call a unix socket: a path, or @NAME in the abstract name space */
#ifndef BASE_UNIXNAME_H
#define BASE_UNIXNAME_H

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Its address, and how long that is; -EINVAL: there is no name; -ENAMETOOLONG. */
static inline int unix_address(struct sockaddr_un *address, const char *name)
{
	size_t len = strlen(name);

	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (!len || !strcmp(name, "@"))
		return -EINVAL;
	if (len >= sizeof(address->sun_path))
		return -ENAMETOOLONG;
	memcpy(address->sun_path, name, len);
	if (name[0] == '@')
		address->sun_path[0] = '\0';
	/* An abstract name ends with its length, a path with a zero. */
	return (int)(offsetof(struct sockaddr_un, sun_path) + len + (name[0] != '@'));
}

#endif
