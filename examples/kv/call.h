/* SPDX-License-Identifier: MIT */
/*
 * call.h - one command to a server, and its reply
 */
#ifndef KV_CALL_H
#define KV_CALL_H

#include <stddef.h>

#include "address.h"
#include "buffer.h"

/*
 * 0: `reply` is the text of a status, a bulk string or an integer; 1: it is that of an error. -errno: the server is not there; -EPROTO: it speaks
 * something else. seconds: to wait for it; 0: for ever. What is in `reply` ends with a zero that is not counted.
 */
int call(const struct address *server, int seconds, size_t count, const char *const *args, struct buffer *reply);

#endif
