// SPDX-License-Identifier: MIT
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "resp.h"

enum { FEW_ARGS = 64 };

static enum resp_result wrong(struct resp *parser, const char *error)
{
	parser->error = error;
	return RESP_WRONG;
}

static bool add_arg(struct resp *parser, size_t at, size_t len)
{
	size_t room = parser->room ? parser->room * 2 : FEW_ARGS;
	void *args;

	if (parser->count == parser->room) {
		args = realloc(parser->args, room * sizeof(*parser->args));
		if (!args)
			return false;
		parser->args = args;
		parser->room = room;
	}
	parser->args[parser->count].at = at;
	parser->args[parser->count++].len = len;
	return true;
}

/* The line at parser->at: its bytes without its end, and where the next one begins. */
static enum resp_result take_line(struct resp *parser, const char *data, size_t len, struct slice *line)
{
	size_t from = parser->seen > parser->at ? parser->seen : parser->at;
	const char *start = data + parser->at, *end = from < len ? memchr(data + from, '\n', len - from) : NULL;

	parser->seen = len;
	if ((end ? (size_t)(end - start) : len - parser->at) > RESP_MAX_LINE)
		return wrong(parser, "ERR Protocol error: too big a line");
	if (!end)
		return RESP_MORE;
	parser->seen = parser->at = (size_t)(end - data) + 1;
	*line = (struct slice){start, (size_t)(end - start)};
	if (line->len && end[-1] == '\r')
		line->len--;
	return RESP_REQUEST;
}

static bool to_number(struct slice text, int64_t *number)
{
	bool negative = text.len && *text.data == '-';
	size_t at = negative;

	if (at == text.len || text.len - at > 12)
		return false;
	for (*number = 0; at < text.len; at++) {
		if (text.data[at] < '0' || text.data[at] > '9')
			return false;
		*number = *number * 10 + (text.data[at] - '0');
	}
	*number = negative ? -*number : *number;
	return true;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

static enum resp_result parse_inline(struct resp *parser, const char *data, size_t len)
{
	struct slice line;
	enum resp_result result = take_line(parser, data, len, &line);
	size_t start = (size_t)(line.data - data);

	if (result != RESP_REQUEST)
		return result;
	for (size_t at = 0, word; at < line.len;) {
		while (at < line.len && is_space(line.data[at]))
			at++;
		for (word = at; at < line.len && !is_space(line.data[at]);)
			at++;
		if (at > word && !add_arg(parser, start + word, at - word))
			return wrong(parser, "OOM out of memory");
	}
	return RESP_REQUEST;
}

static enum resp_result parse_count(struct resp *parser, const char *data, size_t len)
{
	struct slice line;
	enum resp_result result = take_line(parser, data, len, &line);

	if (result != RESP_REQUEST)
		return result;
	line.data++;
	line.len--;
	if (!to_number(line, &parser->expected) || parser->expected > RESP_MAX_ARGS)
		return wrong(parser, "ERR Protocol error: invalid multibulk length");
	parser->started = 1;
	return RESP_REQUEST;
}

static enum resp_result parse_length(struct resp *parser, const char *data, size_t len)
{
	struct slice line;
	enum resp_result result;
	int64_t bulk;

	if (parser->at < len && data[parser->at] != '$')
		return wrong(parser, "ERR Protocol error: expected '$'");
	result = take_line(parser, data, len, &line);
	if (result != RESP_REQUEST)
		return result;
	line.data++;
	line.len--;
	if (!to_number(line, &bulk) || bulk < 0 || (uint64_t)bulk > RESP_MAX_BULK)
		return wrong(parser, "ERR Protocol error: invalid bulk length");
	if (parser->at + (uint64_t)bulk > RESP_MAX_REQUEST)
		return wrong(parser, "ERR Protocol error: too big a request");
	parser->bulk = bulk + 1;
	return RESP_REQUEST;
}

static enum resp_result parse_bulk(struct resp *parser, const char *data, size_t len)
{
	size_t bulk = (size_t)parser->bulk - 1;

	if (len - parser->at < bulk + 2)
		return RESP_MORE;
	if (memcmp(data + parser->at + bulk, "\r\n", 2) != 0)
		return wrong(parser, "ERR Protocol error: expected the end of a line behind an argument");
	if (!add_arg(parser, parser->at, bulk))
		return wrong(parser, "OOM out of memory");
	parser->at += bulk + 2;
	parser->bulk = 0;
	parser->expected--;
	return RESP_REQUEST;
}

enum resp_result resp_parse(struct resp *parser, const char *data, size_t len)
{
	enum resp_result result = RESP_REQUEST;

	if (!len)
		return RESP_MORE;
	if (*data != '*')
		return parse_inline(parser, data, len);
	if (!parser->started)
		result = parse_count(parser, data, len);
	while (result == RESP_REQUEST && parser->expected > 0)
		result = parser->bulk ? parse_bulk(parser, data, len) : parse_length(parser, data, len);
	return result;
}

void resp_next(struct resp *parser)
{
	if (parser->room > FEW_ARGS)
		resp_free(parser);
	*parser = (struct resp){.args = parser->args, .room = parser->room};
}

void resp_free(struct resp *parser)
{
	free(parser->args);
	*parser = (struct resp){0};
}

void reply_status(struct buffer *reply, const char *text)
{
	buffer_print(reply, "+%s\r\n", text);
}

void reply_error(struct buffer *reply, const char *text)
{
	buffer_print(reply, "-%s\r\n", text);
}

void reply_integer(struct buffer *reply, int64_t value)
{
	buffer_print(reply, ":%" PRId64 "\r\n", value);
}

void reply_bulk(struct buffer *reply, struct slice value)
{
	buffer_print(reply, "$%zu\r\n", value.len);
	buffer_add(reply, value.data, value.len);
	buffer_add(reply, "\r\n", 2);
}

void reply_text(struct buffer *reply, const char *text)
{
	reply_bulk(reply, (struct slice){text, strlen(text)});
}

void reply_null(struct buffer *reply)
{
	buffer_add(reply, "$-1\r\n", 5);
}

void reply_array(struct buffer *reply, size_t count)
{
	buffer_print(reply, "*%zu\r\n", count);
}
