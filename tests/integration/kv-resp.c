// SPDX-License-Identifier: MIT
/* The protocol's parser of examples/kv: requests that are whole, in pieces, and wrong. */
#include <string.h>

#include "kv/resp.h"
#include "support/test.h"

static uint64_t state = 88172645463325252ULL;

static uint64_t below(uint64_t limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % limit;
}

/* The first request of the bytes as "a|b|c", or what is wrong with it, or "more". */
static const char *parse(const char *bytes, size_t len)
{
	static char text[256];
	struct resp parser = {0};
	size_t at = 0;

	*text = 0;
	switch (resp_parse(&parser, bytes, len)) {
	case RESP_MORE:
		return "more";
	case RESP_WRONG:
		return parser.error;
	case RESP_REQUEST:
		break;
	}
	for (size_t i = 0; i < parser.count; i++) {
		struct slice arg = resp_arg(&parser, bytes, i);

		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%.*s", i ? "|" : "", (int)arg.len, arg.data);
	}
	resp_free(&parser);
	return text;
}

static void expect(const char *bytes, const char *expected)
{
	const char *got = parse(bytes, strlen(bytes));

	if (strcmp(got, expected) != 0)
		FAIL("'%s': expected '%s', got '%s'", bytes, expected, got);
}

TEST(requests_are_understood, "Arrays of bulk strings, and words on a line.")
{
	expect("*2\r\n$3\r\nGET\r\n$1\r\na\r\n", "GET|a");
	expect("*2\r\n$3\r\nGET\r\n$0\r\n\r\n", "GET|");
	expect("*2\r\n$3\r\nGET\r\n$4\r\n\r\n\r\n\r\n", "GET|\r\n\r\n");
	expect("GET a\r\nGET b\r\n", "GET|a");
	expect("  SET \t a  b \n", "SET|a|b");
	expect("\r\n", "");
	expect("*0\r\n", "");
	expect("*-1\r\n", "");
}

TEST(wrong_requests_are_refused, "What is not of the protocol is an error, and never a request.")
{
	expect("*x\r\n", "ERR Protocol error: invalid multibulk length");
	expect("*1048577\r\n", "ERR Protocol error: invalid multibulk length");
	expect("*99999999999999999999\r\n", "ERR Protocol error: invalid multibulk length");
	expect("*1\r\nGET\r\n", "ERR Protocol error: expected '$'");
	expect("*1\r\n$-1\r\n", "ERR Protocol error: invalid bulk length");
	expect("*1\r\n$67108865\r\n", "ERR Protocol error: invalid bulk length");
	expect("*1\r\n$\r\n", "ERR Protocol error: invalid bulk length");
	expect("*1\r\n$3\r\nGETxx", "ERR Protocol error: expected the end of a line behind an argument");
}

TEST(endless_lines_are_refused, "A line without an end is refused before it has been sent.")
{
	static char line[RESP_MAX_LINE + 2];

	memset(line, 'a', sizeof(line));
	CHECK(!strcmp(parse(line, sizeof(line)), "ERR Protocol error: too big a line"));
	CHECK(!strcmp(parse(line, sizeof(line) - 2), "more"));
	line[0] = '*';
	CHECK(!strcmp(parse(line, sizeof(line)), "ERR Protocol error: too big a line"));
}

/* A random request, and what it is made of. */
static size_t make(char *bytes, char args[8][64], size_t lens[8], size_t *count)
{
	size_t len;

	*count = 1 + below(8);
	len = (size_t)sprintf(bytes, "*%zu\r\n", *count);
	for (size_t i = 0; i < *count; i++) {
		lens[i] = below(64);
		for (size_t k = 0; k < lens[i]; k++)
			args[i][k] = "\r\n$*a"[below(5)];
		len += (size_t)sprintf(bytes + len, "$%zu\r\n", lens[i]);
		memcpy(bytes + len, args[i], lens[i]);
		len += lens[i];
		memcpy(bytes + len, "\r\n", 2);
		len += 2;
	}
	return len;
}

TEST(pieces_make_the_same_request,
     "However the bytes are cut into pieces, and wherever they lie, the request is the same.")
{
	static char bytes[1024], moved[2][1024], args[8][64];
	struct resp parser = {0};
	size_t lens[8], count;

	for (unsigned round = 0; round < 20000; round++) {
		size_t whole = make(bytes, args, lens, &count), have = 0;
		enum resp_result result;
		unsigned at = 0;

		do {
			have += 1 + below(whole - have);
			at = !at;
			memcpy(moved[at], bytes, have);
			memset(moved[!at], 0, sizeof(moved[!at]));
			result = resp_parse(&parser, moved[at], have);
			CHECK(have == whole || result == RESP_MORE);
		} while (have < whole);
		CHECK_EQ(result, RESP_REQUEST);
		CHECK_EQ(parser.at, whole);
		CHECK_EQ(parser.count, count);
		for (size_t i = 0; i < count; i++) {
			struct slice arg = resp_arg(&parser, moved[at], i);

			CHECK(arg.len == lens[i] && !memcmp(arg.data, args[i], arg.len));
		}
		resp_next(&parser);
	}
}

TEST(any_bytes_are_survived, "Damaged requests give requests and errors, whose arguments lie within what was received.")
{
	static char bytes[1024], args[8][64];
	size_t lens[8], count;

	for (unsigned round = 0; round < 200000; round++) {
		size_t len = make(bytes, args, lens, &count);
		struct resp parser = {0};
		/* In memory of its own and no larger, so that a sanitizer sees what is read behind. */
		char *exact;

		for (uint64_t damages = 1 + below(4); damages; damages--)
			bytes[below(len)] = "\r\n$*-0129a"[below(10)];
		len -= below(len);
		exact = malloc(len);
		CHECK(exact);
		memcpy(exact, bytes, len);
		if (resp_parse(&parser, exact, len) == RESP_REQUEST) {
			CHECK(parser.at <= len);
			for (size_t i = 0; i < parser.count; i++)
				CHECK(parser.args[i].at + parser.args[i].len <= parser.at);
		}
		resp_free(&parser);
		free(exact);
	}
}
