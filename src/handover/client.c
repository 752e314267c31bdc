// SPDX-License-Identifier: MIT
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "base/clock.h"
#include "base/rawsys.h"
#include "base/unixname.h"
#include "handover/client.h"
#include "handover/message.h"

/* Where the cause of a failure goes. */
struct cause {
	char *line;
	size_t size;
};

__attribute__((format(printf, 3, 4))) static int because(const struct cause *cause, int err, const char *format, ...)
{
	va_list args;

	if (!cause->line || !cause->size)
		return err;
	va_start(args, format);
	vsnprintf(cause->line, cause->size, format, args);
	va_end(args);
	return err;
}

/* Requests and answers can no longer be told apart. */
#define BROKEN(handover, ...) ((handover)->broken = true, because(__VA_ARGS__))

/* Untranslated, and so without a lock. */
static const char *reason(long err)
{
	const char *text = strerrordesc_np((int)-err);

	return text ? text : "unknown error";
}

/*
 * The socket.
 */

static int64_t now_ms(void)
{
	return (int64_t)(now_ns() / 1000000);
}

/* The socket is ready, or has an error to tell; false: not until `end`. */
static bool ready_until(int fd, short events, int64_t end)
{
	for (;;) {
		struct pollfd ready = {.fd = fd, .events = events};
		int64_t left = end - now_ms();
		struct timespec timeout = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
		long found;

		if (left <= 0)
			return false;
		found = raw_syscall6(SYS_ppoll, (long)&ready, 1, (long)&timeout, 0, 0, 0);
		if (found && found != -EINTR)
			return found > 0;
	}
}

/* A unix socket whose queue is full cannot be polled for room: the kernel waits, as long as this says. */
static long connect_in_time(int fd, const struct sockaddr_un *address, int len)
{
	const int64_t end = now_ms() + UF_HANDOVER_TIMEOUT_MS;

	for (;;) {
		int64_t left = end - now_ms();
		const struct timeval limit = {.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000};
		long err;

		if (left <= 0)
			return -ETIMEDOUT;
		err = raw_syscall6(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, (long)&limit, sizeof(limit), 0);
		if (!err)
			err = raw_syscall3(SYS_connect, fd, (long)address, len);
		if (err != -EINTR)
			return err == -EAGAIN ? -ETIMEDOUT : err;
	}
}

int handover_connect(struct uf_handover *handover, const char *socket_path, char *line, size_t line_size)
{
	const struct cause cause = {line, line_size};
	struct sockaddr_un address;
	int len = socket_path ? unix_address(&address, socket_path) : -EINVAL;
	long fd, err;

	*handover = (struct uf_handover){.fd = -1};
	if (len < 0)
		return because(&cause, -EINVAL, "%s: a path of 1 to %zu bytes is needed",
		               socket_path ? socket_path : "(null)", sizeof(address.sun_path) - 1);
	fd = raw_syscall3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	err = fd < 0 ? fd : connect_in_time((int)fd, &address, len);
	if (err) {
		if (fd >= 0)
			raw_close((int)fd);
		return because(&cause, (int)err, "%s: %s", socket_path, reason(err));
	}
	handover->fd = (int)fd;
	return 0;
}

/*
 * A message, sent piece by piece from a small buffer; what it has to pass goes with its first byte.
 */
struct message {
	struct uf_handover *handover;
	const struct cause *cause;
	int64_t end; /* by when it must be gone */
	int pass;    /* a descriptor, or -1 */
	int err;
	size_t used;
	char text[2048];
};

/* How many bytes went, or -errno; -EAGAIN: no room. */
static ssize_t send_some(struct message *message, const char *text, size_t len)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {.head = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
	struct iovec bytes = {(void *)text, len};
	struct msghdr head = {.msg_iov = &bytes, .msg_iovlen = 1};
	ssize_t sent;

	if (message->pass >= 0) {
		memcpy(CMSG_DATA(&control.head), &message->pass, sizeof(int));
		head.msg_control = &control;
		head.msg_controllen = sizeof(control);
	}
	sent = raw_syscall3(SYS_sendmsg, message->handover->fd, (long)&head, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent > 0)
		message->pass = -1;
	return sent;
}

static void flush(struct message *message)
{
	size_t done = 0;

	while (!message->err && done < message->used) {
		ssize_t sent = send_some(message, message->text + done, message->used - done);

		if (sent > 0)
			done += (size_t)sent;
		else if (sent == -EBADF && message->pass >= 0)
			message->err = because(message->cause, -EINVAL, "%d is not an open descriptor", message->pass);
		else if (sent == -EPIPE || sent == -ECONNRESET)
			message->err = BROKEN(message->handover, message->cause, -ECONNRESET,
			                      "the manager has ended the connection");
		else if (sent == -EAGAIN && !ready_until(message->handover->fd, POLLOUT, message->end))
			message->err = BROKEN(message->handover, message->cause, -ETIMEDOUT,
			                      "the manager does not take the message");
		else if (sent != -EAGAIN && sent != -EINTR)
			message->err = BROKEN(message->handover, message->cause, (int)sent, "%s", reason(sent));
	}
	message->used = 0;
}

__attribute__((format(printf, 2, 3))) static void add(struct message *message, const char *format, ...)
{
	va_list args;

	/* Nothing that is added at once is longer. */
	if (sizeof(message->text) - message->used < 512)
		flush(message);
	va_start(args, format);
	message->used += (size_t)vsnprintf(message->text + message->used, sizeof(message->text) - message->used, format,
	                                   args);
	va_end(args);
}

/* An object, with a number of its own. */
static void begin(struct message *message)
{
	add(message, "{\"number\":%llu,", (unsigned long long)++message->handover->number);
}

/* A name as a JSON string; it has been checked. */
static void add_name(struct message *message, const char *key, const char *name)
{
	char quoted[2 * UF_HANDOVER_NAME_MAX + 1], *to = quoted;

	for (; *name; *to++ = *name++)
		if (*name == '"' || *name == '\\')
			*to++ = '\\';
	*to = 0;
	add(message, "\"%s\":\"%s\"", key, quoted);
}

static bool is_name(const char *name)
{
	size_t len = strnlen(name, UF_HANDOVER_NAME_MAX + 1);

	for (size_t i = 0; i < len; i++)
		if (name[i] < ' ' || name[i] > '~')
			return false;
	return len && len <= UF_HANDOVER_NAME_MAX;
}

/*
 * The answer: one line.
 */

#define ANSWER_MAX 512

/* 0, and the line is there without its end; or -errno. */
static int read_line(struct uf_handover *handover, char line[ANSWER_MAX], const struct cause *cause)
{
	const int64_t end = now_ms() + UF_HANDOVER_TIMEOUT_MS;
	size_t used = 0;

	while (used < ANSWER_MAX) {
		/* No byte too many: the next line may be there already where somebody answers what was not asked. */
		ssize_t got = raw_syscall6(SYS_recvfrom, handover->fd, (long)(line + used), 1, MSG_DONTWAIT, 0, 0);

		if (got == 1 && line[used++] == '\n') {
			line[used - 1] = 0;
			return 0;
		}
		if (!got || got == -ECONNRESET)
			return BROKEN(handover, cause, -ECONNRESET, "the manager has ended the connection");
		if (got == -EAGAIN && !ready_until(handover->fd, POLLIN, end))
			return BROKEN(handover, cause, -ETIMEDOUT, "the manager does not answer");
		if (got < 0 && got != -EAGAIN && got != -EINTR)
			return BROKEN(handover, cause, (int)got, "%s", reason(got));
	}
	return BROKEN(handover, cause, -EPROTO, "the manager's answer has no end");
}

/* A number that begins at *text, which is moved behind it; false: there is none. */
static bool take_number(char **text, uint64_t *number)
{
	char *c = *text;
	uint64_t value = 0;

	while (*c >= '0' && *c <= '9' && !__builtin_mul_overflow(value, 10, &value) &&
	       !__builtin_add_overflow(value, (unsigned)(*c - '0'), &value))
		c++;
	if (c == *text)
		return false;
	*text = c;
	*number = value;
	return true;
}

enum answer { ANSWER_NONE, ANSWER_OK, ANSWER_ERROR };

/*
 * Takes a line apart: *number is that of the message which it answers, 0 where it tells none; *rest what follows, without the space before it,
 * "" if there is nothing.
 */
static enum answer take_apart(char *line, uint64_t *number, char **rest)
{
	enum answer answer = !strncmp(line, "ok", 2)      ? ANSWER_OK
	                     : !strncmp(line, "error", 5) ? ANSWER_ERROR
	                                                  : ANSWER_NONE;

	*rest = line + (answer == ANSWER_ERROR ? 5 : 2);
	*number = 0;
	if (answer && (*rest)[0] == ' ' && (*rest)[1] == '#') {
		*rest += 2;
		if (!take_number(rest, number))
			return ANSWER_NONE;
	}
	if (answer && (*rest)[0] == ' ' && (*rest)[1])
		++*rest;
	else if (answer && ((*rest)[0] || answer == ANSWER_ERROR))
		return ANSWER_NONE;
	return answer;
}

/* value NULL: none is expected. */
static int take_answer(struct uf_handover *handover, uint64_t *value, const struct cause *cause)
{
	char line[ANSWER_MAX], *rest;
	uint64_t number;
	enum answer answer;

	/* A manager that was interrupted may have answered an earlier message twice. */
	do {
		int err = read_line(handover, line, cause);

		if (err)
			return err;
		answer = take_apart(line, &number, &rest);
	} while (answer && number && number < handover->number);
	if (number > handover->number)
		answer = ANSWER_NONE;
	if (answer == ANSWER_ERROR) {
		for (char *c = rest; *c; c++)
			if (*c < ' ' || *c > '~')
				*c = '?';
		return because(cause, -EREMOTEIO, "%s", rest);
	}
	if (answer == ANSWER_OK && !value && !*rest)
		return 0;
	if (answer == ANSWER_OK && value && take_number(&rest, value) && !*rest)
		return 0;
	return BROKEN(handover, cause, -EPROTO, "the manager's answer is none of this protocol");
}

/* value NULL: the answer has none. */
static int finish(struct message *message, uint64_t *value)
{
	flush(message);
	/* Who refuses a message before its end and hangs up has said why. */
	if (message->err && message->err != -ECONNRESET)
		return message->err;
	return take_answer(message->handover, value, message->cause);
}

/* What is wrong with a connection before anything is sent. */
static int check_connection(const struct uf_handover *handover, const struct cause *cause)
{
	if (!handover)
		return because(cause, -EINVAL, "no connection");
	return handover->broken ? because(cause, -EPIPE, "the connection has failed before") : 0;
}

int uf_handover_size(struct uf_handover *handover, const char *store, uint64_t *size, char *line, size_t line_size)
{
	const struct cause cause = {line, line_size};
	struct message message = {
		.handover = handover, .cause = &cause, .end = now_ms() + UF_HANDOVER_TIMEOUT_MS, .pass = -1};
	int err = check_connection(handover, &cause);

	if (err)
		return err;
	store = store ? store : HANDOVER_STORE;
	if (!size || !is_name(store))
		return because(&cause, -EINVAL, "a store has a name of 1 to %d printable bytes", UF_HANDOVER_NAME_MAX);
	begin(&message);
	add_name(&message, "size", store);
	add(&message, "}\n");
	return finish(&message, size);
}

static int check_regions(const struct uf_handover_region *regions, size_t count, const char *name,
                         const struct cause *cause)
{
	const unsigned known = UF_HANDOVER_REMOVED_IS_STORE | UF_HANDOVER_PREFETCH;

	if (!regions || !count)
		return because(cause, -EINVAL, "no regions");
	if (name && !is_name(name))
		return because(cause, -EINVAL, "the name is not 1 to %d printable bytes", UF_HANDOVER_NAME_MAX);
	for (size_t i = 0; i < count; i++)
		if (!regions[i].size || (regions[i].flags & ~known) || (regions[i].store && !is_name(regions[i].store)))
			return because(cause, -EINVAL,
			               "region %zu has no size, an unknown flag, or a store with no good name", i);
	return 0;
}

static void add_region(struct message *message, const struct uf_handover_region *region)
{
	add(message, "{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":%llu",
	    (unsigned long long)(uintptr_t)region->addr, (unsigned long long)region->size,
	    (unsigned long long)region->offset);
	if (region->page_size)
		add(message, ",\"page_size\":%zu,\"page_size_kib\":%zu", region->page_size, region->page_size);
	if (region->store) {
		add(message, ",");
		add_name(message, "store", region->store);
	}
	if (region->flags & UF_HANDOVER_REMOVED_IS_STORE)
		add(message, ",\"removed\":\"store\"");
	if (region->flags & UF_HANDOVER_PREFETCH)
		add(message, ",\"prefetch\":true");
	add(message, "}");
}

/* fd -1: none goes with it. */
static int give_batch(struct uf_handover *handover, int fd, const struct uf_handover_region *regions, size_t count,
                      const char *name, const struct cause *cause)
{
	struct message message = {
		.handover = handover, .cause = cause, .end = now_ms() + UF_HANDOVER_TIMEOUT_MS, .pass = fd};

	begin(&message);
	if (name) {
		add_name(&message, "name", name);
		add(&message, ",");
	}
	add(&message, "\"regions\":[");
	for (size_t i = 0; i < count; i++) {
		add(&message, "%s", i ? "," : "");
		add_region(&message, &regions[i]);
	}
	add(&message, "]}\n");
	return finish(&message, NULL);
}

int uf_handover_give(struct uf_handover *handover, int fd, const struct uf_handover_region *regions, size_t count,
                     const char *name, char *line, size_t line_size)
{
	const struct cause cause = {line, line_size};
	int err = check_connection(handover, &cause);

	if (!err)
		err = check_regions(regions, count, name, &cause);
	for (size_t i = 0; !err && i < count; i += UF_HANDOVER_BATCH) {
		size_t batch = count - i < UF_HANDOVER_BATCH ? count - i : UF_HANDOVER_BATCH;

		err = give_batch(handover, i ? -1 : fd, regions + i, batch, i ? NULL : name, &cause);
	}
	return err;
}

int uf_handover_open(struct uf_handover **out, const char *socket_path, char *cause, size_t cause_size)
{
	struct uf_handover *handover;
	int err;

	if (!out)
		return -EINVAL;
	handover = malloc(sizeof(*handover));
	if (!handover)
		return because(&(struct cause){cause, cause_size}, -ENOMEM, "out of memory");
	err = handover_connect(handover, socket_path, cause, cause_size);
	if (err)
		free(handover);
	else
		*out = handover;
	return err;
}

void uf_handover_close(struct uf_handover *handover)
{
	if (!handover)
		return;
	raw_close(handover->fd);
	free(handover);
}
