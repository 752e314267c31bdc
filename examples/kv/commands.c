// SPDX-License-Identifier: MIT
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "commands.h"
#include "resp.h"

struct request {
	struct kv *kv;
	const struct slice *args;
	size_t count;
	struct buffer *reply;
};

struct command {
	const char *name;
	int arity; /* with the name itself; negative: at least */
	enum command_result (*execute)(const struct request *request);
};

/* The longest decimal number of 64 bits, with its sign. */
enum { NUMBER = 20 };

static bool is_word(struct slice text, const char *word)
{
	return text.len == strlen(word) && !strncasecmp(text.data, word, text.len);
}

/* As Redis takes numbers: no spaces, no leading zeros, no plus. */
static bool to_number(struct slice text, int64_t *number)
{
	bool negative = text.len && *text.data == '-';
	uint64_t value = 0, limit = negative ? 1ULL << 63 : (1ULL << 63) - 1;
	size_t at = negative;

	if (at == text.len || text.len > NUMBER || (text.data[at] == '0' && text.len > 1))
		return false;
	for (; at < text.len; at++) {
		unsigned digit = (unsigned char)text.data[at] - '0';

		if (digit > 9 || value > (limit - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	*number = (int64_t)(negative ? 0 - value : value);
	return true;
}

static enum command_result fail(const struct request *request, const char *error)
{
	reply_error(request->reply, error);
	return COMMAND_DONE;
}

static enum command_result fail_memory(const struct request *request)
{
	return fail(request, "OOM the heap is full");
}

static enum command_result ok(const struct request *request)
{
	reply_status(request->reply, "OK");
	return COMMAND_DONE;
}

static void reply_value(const struct request *request, struct slice key)
{
	struct slice value;

	if (table_get(request->kv->heap, key, &value))
		reply_bulk(request->reply, value);
	else
		reply_null(request->reply);
}

static enum command_result execute_get(const struct request *request)
{
	reply_value(request, request->args[1]);
	return COMMAND_DONE;
}

static enum command_result execute_mget(const struct request *request)
{
	reply_array(request->reply, request->count - 1);
	for (size_t i = 1; i < request->count && !request->reply->failed; i++)
		reply_value(request, request->args[i]);
	return COMMAND_DONE;
}

/* SET key value [NX | XX] */
static enum command_result execute_set(const struct request *request)
{
	bool absent = request->count > 3 && is_word(request->args[3], "NX");
	bool present = request->count > 3 && is_word(request->args[3], "XX");

	if (request->count > 4 || (request->count == 4 && !absent && !present))
		return fail(request, "ERR syntax error");
	if ((absent || present) && table_get(request->kv->heap, request->args[1], NULL) == absent) {
		reply_null(request->reply);
		return COMMAND_DONE;
	}
	if (table_set(request->kv->heap, request->args[1], request->args[2]))
		return fail_memory(request);
	return ok(request);
}

/* In the order of the arguments; those before the one that found no room are set. */
static enum command_result execute_mset(const struct request *request)
{
	if (request->count % 2 == 0)
		return fail(request, "ERR wrong number of arguments for 'mset' command");
	for (size_t i = 1; i < request->count; i += 2)
		if (table_set(request->kv->heap, request->args[i], request->args[i + 1]))
			return fail_memory(request);
	return ok(request);
}

static enum command_result execute_del(const struct request *request)
{
	int64_t deleted = 0;

	for (size_t i = 1; i < request->count; i++)
		deleted += table_delete(request->kv->heap, request->args[i]);
	reply_integer(request->reply, deleted);
	return COMMAND_DONE;
}

static enum command_result execute_exists(const struct request *request)
{
	int64_t found = 0;

	for (size_t i = 1; i < request->count; i++)
		found += table_get(request->kv->heap, request->args[i], NULL);
	reply_integer(request->reply, found);
	return COMMAND_DONE;
}

static enum command_result add(const struct request *request, int64_t amount)
{
	struct slice value = {"0", 1};
	char text[NUMBER + 1];
	int64_t number;

	table_get(request->kv->heap, request->args[1], &value);
	if (!to_number(value, &number))
		return fail(request, "ERR value is not an integer or out of range");
	if (__builtin_add_overflow(number, amount, &number))
		return fail(request, "ERR increment or decrement would overflow");
	value = (struct slice){text, (size_t)snprintf(text, sizeof(text), "%" PRId64, number)};
	if (table_set(request->kv->heap, request->args[1], value))
		return fail_memory(request);
	reply_integer(request->reply, number);
	return COMMAND_DONE;
}

static enum command_result execute_incr(const struct request *request)
{
	return add(request, 1);
}

static enum command_result execute_decr(const struct request *request)
{
	return add(request, -1);
}

static enum command_result execute_incrby(const struct request *request)
{
	int64_t amount;

	if (!to_number(request->args[2], &amount))
		return fail(request, "ERR value is not an integer or out of range");
	return add(request, amount);
}

static enum command_result execute_append(const struct request *request)
{
	struct slice value;
	int err = table_append(request->kv->heap, request->args[1], request->args[2]);

	if (err == -E2BIG)
		return fail(request, "ERR string exceeds maximum allowed size");
	if (err)
		return fail_memory(request);
	table_get(request->kv->heap, request->args[1], &value);
	reply_integer(request->reply, (int64_t)value.len);
	return COMMAND_DONE;
}

static enum command_result execute_strlen(const struct request *request)
{
	struct slice value = {"", 0};

	table_get(request->kv->heap, request->args[1], &value);
	reply_integer(request->reply, (int64_t)value.len);
	return COMMAND_DONE;
}

static enum command_result execute_dbsize(const struct request *request)
{
	reply_integer(request->reply, (int64_t)table_count(request->kv->heap));
	return COMMAND_DONE;
}

static enum command_result execute_flushall(const struct request *request)
{
	table_clear(request->kv->heap);
	return ok(request);
}

static enum command_result execute_digest(const struct request *request)
{
	uint64_t digest[2];
	char text[33];

	table_digest(request->kv->heap, digest);
	snprintf(text, sizeof(text), "%016" PRIx64 "%016" PRIx64, digest[0], digest[1]);
	reply_text(request->reply, text);
	return COMMAND_DONE;
}

static enum command_result execute_ping(const struct request *request)
{
	if (request->count > 2)
		return fail(request, "ERR wrong number of arguments for 'ping' command");
	if (request->count == 2)
		reply_bulk(request->reply, request->args[1]);
	else
		reply_status(request->reply, "PONG");
	return COMMAND_DONE;
}

static enum command_result execute_echo(const struct request *request)
{
	reply_bulk(request->reply, request->args[1]);
	return COMMAND_DONE;
}

static enum command_result execute_select(const struct request *request)
{
	return is_word(request->args[1], "0") ? ok(request) : fail(request, "ERR DB index is out of range");
}

/* Whether the heap is still to arrive: the one question that is answered before. */
static enum command_result execute_waits(const struct request *request)
{
	reply_integer(request->reply, !request->kv->heap);
	return COMMAND_DONE;
}

static enum command_result execute_quit(const struct request *request)
{
	ok(request);
	return COMMAND_CLOSE;
}

/* What redis-cli asks for when it starts, to complete what is typed: nothing. */
static enum command_result execute_command(const struct request *request)
{
	reply_array(request->reply, 0);
	return COMMAND_DONE;
}

/* What clients want to know: nothing is saved, and how much there may be. */
static enum command_result execute_config(const struct request *request)
{
	char size[NUMBER + 1];
	const char *const settings[][2] = {{"save", ""}, {"appendonly", "no"}, {"databases", "1"}, {"maxmemory", size}};
	size_t count = sizeof(settings) / sizeof(*settings), found = 0;

	if (!is_word(request->args[1], "get"))
		return fail(request, "ERR only CONFIG GET is known");
	snprintf(size, sizeof(size), "%" PRIu64, heap_size(request->kv->heap));
	for (size_t i = 0; i < count; i++)
		found += is_word(request->args[2], settings[i][0]) || is_word(request->args[2], "*");
	reply_array(request->reply, 2 * found);
	for (size_t i = 0; i < count; i++) {
		if (is_word(request->args[2], settings[i][0]) || is_word(request->args[2], "*")) {
			reply_text(request->reply, settings[i][0]);
			reply_text(request->reply, settings[i][1]);
		}
	}
	return COMMAND_DONE;
}

static enum command_result execute_info(const struct request *request)
{
	const struct kv *kv = request->kv;
	struct buffer text = {0};

	buffer_print(&text, "# Server\r\nprocess_id:%d\r\nuptime_in_seconds:%lld\r\n", (int)getpid(),
	             (long long)(time(NULL) - kv->started));
	buffer_print(&text, "\r\n# Clients\r\nconnected_clients:%" PRIu64 "\r\n", kv->clients);
	buffer_print(&text, "\r\n# Memory\r\nused_memory:%" PRIu64 "\r\nmaxmemory:%" PRIu64 "\r\n", heap_used(kv->heap),
	             heap_size(kv->heap));
	buffer_print(&text, "\r\n# Stats\r\ntotal_connections_received:%" PRIu64 "\r\n", kv->accepted);
	buffer_print(&text, "total_commands_processed:%" PRIu64 "\r\n", kv->commands);
	buffer_print(&text, "\r\n# Keyspace\r\ndb0:keys=%" PRIu64 "\r\n", table_count(kv->heap));
	buffer_print(&text, "\r\n# Migration\r\n");
	kv->describe(kv->arg, &text);
	if (text.failed)
		fail(request, "OOM out of memory");
	else
		reply_bulk(request->reply, (struct slice){buffer_bytes(&text), buffer_length(&text)});
	buffer_free(&text);
	return COMMAND_DONE;
}

static enum command_result execute_migrateto(const struct request *request)
{
	(void)request;
	return COMMAND_MIGRATE;
}

static const struct command commands[] = {
	{"get", 2, execute_get},
	{"set", -3, execute_set},
	{"del", -2, execute_del},
	{"exists", -2, execute_exists},
	{"incr", 2, execute_incr},
	{"decr", 2, execute_decr},
	{"incrby", 3, execute_incrby},
	{"mget", -2, execute_mget},
	{"mset", -3, execute_mset},
	{"append", 3, execute_append},
	{"strlen", 2, execute_strlen},
	{"dbsize", 1, execute_dbsize},
	{"flushall", -1, execute_flushall},
	{"digest", 1, execute_digest},
	{"ping", -1, execute_ping},
	{"echo", 2, execute_echo},
	{"select", 2, execute_select},
	{"quit", -1, execute_quit},
	{"waits", 1, execute_waits},
	{"command", -1, execute_command},
	{"config", 3, execute_config},
	{"info", -1, execute_info},
	{"migrateto", 5, execute_migrateto},
};

static const struct command *find(struct slice name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (is_word(name, commands[i].name))
			return &commands[i];
	return NULL;
}

/* A name that came from outside may hold anything, and an answer is one line. */
static enum command_result fail_unknown(const struct request *request)
{
	char name[64];
	size_t len = 0;

	for (; len < request->args[0].len && len < sizeof(name) - 1; len++)
		name[len] = isprint((unsigned char)request->args[0].data[len]) ? request->args[0].data[len] : '?';
	buffer_print(request->reply, "-ERR unknown command '%.*s'\r\n", (int)len, name);
	return COMMAND_DONE;
}

enum command_result command_execute(struct kv *kv, const struct slice *args, size_t count, struct buffer *reply)
{
	struct request request = {kv, args, count, reply};
	const struct command *command = find(args[0]);

	if (!command)
		return fail_unknown(&request);
	if (command->arity < 0 ? count < (size_t)-command->arity : count != (size_t)command->arity) {
		buffer_print(reply, "-ERR wrong number of arguments for '%s' command\r\n", command->name);
		return COMMAND_DONE;
	}
	if (!kv->heap && command->execute != execute_waits && command->execute != execute_quit)
		return COMMAND_EARLY;
	kv->commands++;
	return command->execute(&request);
}
