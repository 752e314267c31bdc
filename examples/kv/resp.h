/* SPDX-License-Identifier: MIT */
/*
 * resp.h - requests of the Redis protocol (RESP2), and inline ones: words on a line
 *
 * A parser reads one request after the other from bytes that arrive in pieces, and remembers how far it came: no byte is looked at twice. The
 * words of an inline request are separated by white space; there is no quoting.
 */
#ifndef KV_RESP_H
#define KV_RESP_H

#include <stddef.h>
#include <stdint.h>

#include "buffer.h"
#include "table.h"

/* Longest line, most arguments, longest argument, longest request. */
#define RESP_MAX_LINE    65536
#define RESP_MAX_ARGS    1048576
#define RESP_MAX_BULK    TABLE_MAX_LENGTH
#define RESP_MAX_REQUEST (256ULL << 20)

/* All zeros is a parser before its first request. */
struct resp {
	size_t at;        /* bytes of the request that are understood */
	size_t seen;      /* bytes in which no end of a line was found */
	int64_t expected; /* arguments still to come */
	int64_t bulk;     /* 1 + the length of the argument that comes next; 0: the line that tells it comes next */
	int started;      /* the line "*N" was read */
	struct {
		size_t at, len; /* from the start of the request */
	} * args;
	size_t count, room;
	const char *error; /* after RESP_WRONG: what is wrong */
};

enum resp_result {
	RESP_MORE,    /* the request goes on behind `len` */
	RESP_REQUEST, /* resp_arg() tells its arguments, of which there may be none; parser->at is its length */
	RESP_WRONG,   /* and what follows cannot be understood either */
};

/* data: the bytes from the start of the request on, of which there may be more than at the last call, and elsewhere. */
enum resp_result resp_parse(struct resp *parser, const char *data, size_t len);

static inline struct slice resp_arg(const struct resp *parser, const char *data, size_t number)
{
	return (struct slice){data + parser->args[number].at, parser->args[number].len};
}

/* Ready for the next request. */
void resp_next(struct resp *parser);
void resp_free(struct resp *parser);

/* Replies. An error's text must hold no line end; by convention its first word, in capitals, is a code. */
void reply_status(struct buffer *reply, const char *text);
void reply_error(struct buffer *reply, const char *text);
void reply_integer(struct buffer *reply, int64_t value);
void reply_bulk(struct buffer *reply, struct slice value);
void reply_text(struct buffer *reply, const char *text);
void reply_null(struct buffer *reply);
void reply_array(struct buffer *reply, size_t count);

#endif
