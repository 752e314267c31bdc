/* SPDX-License-Identifier: MIT */
/*
 * http.h - GET /metrics, for Prometheus
 *
 * A thread of its own, with libmicrohttpd. Anything but /metrics is 404, anything but GET and HEAD is 405. At most 16 connections at the same
 * time, each of which may be silent for 10 seconds; no request's body is read. No TLS and no passwords: who may connect
 * is decided by where the socket listens.
 */
#ifndef MANAGER_HTTP_H
#define MANAGER_HTTP_H

#include "manager/status.h"

struct http;

/*
 * http_start - answer whoever connects to `listen_fd`, a listening stream socket of any family
 *
 * The descriptor stays the caller's, who closes it after http_stop(); it becomes O_NONBLOCK. `collect` is called on this module's thread,
 * for each request. 0; -EOPNOTSUPP: built without libmicrohttpd; -ENOMEM and the like.
 */
int http_start(struct http **out, int listen_fd, status_collect *collect, void *arg);

/* When it returns, `collect` is not called any more. NULL is allowed. */
void http_stop(struct http *http);

#endif
