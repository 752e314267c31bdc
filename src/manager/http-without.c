// SPDX-License-Identifier: MIT
/* In place of http.c where there is no libmicrohttpd. */
#include <errno.h>

#include "manager/http.h"

int http_start(struct http **out, int listen_fd, status_collect *collect, void *arg)
{
	(void)out;
	(void)listen_fd;
	(void)collect;
	(void)arg;
	return -EOPNOTSUPP;
}

void http_stop(struct http *http)
{
	(void)http;
}
