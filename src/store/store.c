// SPDX-License-Identifier: MIT
/* What every store has in common. Contracts: <userfault/store.h>. */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/futex.h"
#include "base/options.h"
#include "store/module.h"
#include "store/pool.h"
#include "store/store.h"

#define DEFAULT_ATTEMPTS 3
#define DEFAULT_PAUSE_MS 10
#define DEFAULT_THREADS  8

/* A line that tells of a failure. */
#define FAILURE_ROOM 512

struct uf_store {
	struct uf_store_ops ops;
	void *state;
	void (*will_need)(void *state, size_t len, uint64_t offset);
	const void *(*at)(void *state, size_t len, uint64_t offset);
	uint64_t size;
	unsigned flags;
	char *name;
	struct uf_store_options options;
	pthread_mutex_t failure_lock;
	char failure[FAILURE_ROOM]; /* the last attempt that failed; with the lock */
	struct store_pool pool;
	_Atomic uint32_t in_flight; /* futex: submitted, and `done` has not returned; and calls that submit */
};

/*
 * One request, with all its attempts.
 */

/* Whether the same request can go better the next time. */
static bool may_pass(int err)
{
	switch (err) {
	case -EINVAL:
	case -ERANGE:
	case -EROFS:
	case -EBADF:
	case -ENOSPC:
	case -EOPNOTSUPP:
		return false;
	default:
		return true;
	}
}

static int ended(struct uf_store_cause *cause, size_t done, size_t len)
{
	return store_fail(cause, -EIO, "ended after %zu of %zu bytes", done, len);
}

/* Once: whole, or an error. */
static int transfer(struct uf_store *store, const struct uf_store_request *request, struct uf_store_cause *cause)
{
	size_t done = 0;

	while (done < request->len) {
		char *at = (char *)request->buf + done;
		size_t left = request->len - done;
		int64_t n;

		if (request->action == UF_STORE_READ)
			n = store->ops.read(store->state, at, left, request->offset + done, cause);
		else
			n = store->ops.write(store->state, at, left, request->offset + done, cause);
		if (n < 0)
			return (int)n;
		if (n == 0 || (size_t)n > left)
			return ended(cause, done, request->len);
		done += (size_t)n;
	}
	return 0;
}

static int attempt(struct uf_store *store, const struct uf_store_request *request, struct uf_store_cause *cause)
{
	cause->text[0] = '\0';
	if (request->action != UF_STORE_FLUSH)
		return transfer(store, request, cause);
	return store->ops.flush ? store->ops.flush(store->state, cause) : 0;
}

static void report(struct uf_store *store, const struct uf_store_request *request, int err,
                   const struct uf_store_cause *cause)
{
	static const char *const actions[] = {"read", "write", "flush"};
	char line[FAILURE_ROOM];

	snprintf(line, sizeof(line), "%s: %s of %zu bytes at %llu, attempt %u of %u: %s%s%s", store->name,
	         actions[request->action], request->len, (unsigned long long)request->offset, request->failed,
	         store->options.attempts, strerror(-err), cause->text[0] ? ": " : "", cause->text);
	pthread_mutex_lock(&store->failure_lock);
	memcpy(store->failure, line, sizeof(line));
	pthread_mutex_unlock(&store->failure_lock);
	if (store->options.failed)
		store->options.failed(store->options.arg, line);
}

void store_last_failure(struct uf_store *store, char *line, size_t size)
{
	pthread_mutex_lock(&store->failure_lock);
	snprintf(line, size, "%s", store->failure);
	pthread_mutex_unlock(&store->failure_lock);
}

/* Tells of an attempt that failed. Whether there is another. */
static bool goes_on(struct uf_store *store, struct uf_store_request *request, int err,
                    const struct uf_store_cause *cause)
{
	request->failed++;
	report(store, request, err, cause);
	return may_pass(err) && request->failed < store->options.attempts;
}

static void pause_for(unsigned long ms)
{
	struct timespec left = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

/* All attempts but those that have failed already. */
static int carry_out(struct uf_store *store, struct uf_store_request *request)
{
	unsigned long pause_ms = store->options.pause_ms;
	struct uf_store_cause cause;
	int err;

	for (;;) {
		if (request->failed) {
			pause_for(pause_ms);
			pause_ms = pause_ms < 1000 ? 2 * pause_ms : pause_ms;
		}
		err = attempt(store, request, &cause);
		if (!err || !goes_on(store, request, err, &cause))
			return err;
	}
}

/* Cuts what lies behind the end off a read, and fills it in. 0, or why the request cannot be. */
static int fit(struct uf_store *store, struct uf_store_request *request)
{
	uint64_t left;

	if (request->action == UF_STORE_FLUSH)
		return 0;
	if (!request->len || !request->buf)
		return -EINVAL;
	if (request->action == UF_STORE_WRITE && (store->flags & UF_STORE_READ_ONLY))
		return -EROFS;
	if (request->offset >= store->size)
		return -ERANGE;
	left = store->size - request->offset;
	if (request->len <= left)
		return 0;
	if (request->action == UF_STORE_WRITE)
		return -ERANGE;
	memset((char *)request->buf + left, 0, request->len - left);
	request->len = left;
	return 0;
}

static int now(struct uf_store *store, enum uf_store_action action, void *buf, size_t len, uint64_t offset)
{
	struct uf_store_request request = {.action = action, .buf = buf, .len = len, .offset = offset};
	int err = fit(store, &request);

	return err ? err : carry_out(store, &request);
}

int uf_store_read(struct uf_store *store, void *buf, size_t len, uint64_t offset)
{
	return now(store, UF_STORE_READ, buf, len, offset);
}

int uf_store_write(struct uf_store *store, const void *buf, size_t len, uint64_t offset)
{
	return now(store, UF_STORE_WRITE, (void *)buf, len, offset);
}

int uf_store_flush(struct uf_store *store)
{
	return now(store, UF_STORE_FLUSH, NULL, 0, 0);
}

int uf_store_try_read(struct uf_store *store, void *buf, size_t len, uint64_t offset)
{
	struct uf_store_request request = {.action = UF_STORE_READ, .buf = buf, .len = len, .offset = offset};
	int err = fit(store, &request);

	if (err)
		return err;
	if (!store->ops.try_read || store->ops.try_read(store->state, buf, request.len, offset))
		return -EAGAIN;
	return 0;
}

int store_read_once(struct uf_store *store, void *buf, size_t len, uint64_t offset)
{
	struct uf_store_request request = {.action = UF_STORE_READ, .buf = buf, .len = len, .offset = offset};
	int err = store->flags & UF_STORE_READS_IN_SIGNAL ? fit(store, &request) : -EOPNOTSUPP;

	return err ? err : transfer(store, &request, NULL);
}

bool store_will_need(struct uf_store *store, size_t len, uint64_t offset)
{
	if (store->will_need)
		store->will_need(store->state, len, offset);
	return store->will_need;
}

const void *store_at(struct uf_store *store, size_t len, uint64_t offset)
{
	if (!store->at || offset >= store->size || len > store->size - offset)
		return NULL;
	return store->at(store->state, len, offset);
}

int uf_store_extent(struct uf_store *store, uint64_t offset, uint64_t len, struct uf_extent *extent)
{
	uint64_t left;
	int err = 0;

	if (!len || !extent)
		return -EINVAL;
	if (offset >= store->size)
		return -ERANGE;
	left = store->size - offset;
	*extent = (struct uf_extent){.len = len < left ? len : left};
	if (store->ops.extent)
		err = store->ops.extent(store->state, offset, extent->len, extent);
	/* Not to know is no error: then all has to be read. */
	if (err || !extent->len || extent->len > (len < left ? len : left))
		*extent = (struct uf_extent){.len = len < left ? len : left};
	return 0;
}

/*
 * In the background.
 */

static void release(struct uf_store *store, unsigned count)
{
	/* Release: whoever closes sees what `done` did. The store may be gone before it is woken: the kernel only compares addresses. */
	if (atomic_fetch_sub_explicit(&store->in_flight, count, memory_order_release) == count)
		futex_wake(&store->in_flight, INT_MAX);
}

static void finish(struct uf_store *store, struct uf_store_request *request, int result)
{
	request->result = result;
	request->done(request);
	release(store, 1);
}

static void in_background(void *arg, struct uf_store_request *request)
{
	struct uf_store *store = arg;

	finish(store, request, carry_out(store, request));
}

static void to_pool(struct uf_store *store, struct uf_store_request *request, int otherwise)
{
	if (store_pool_add(&store->pool, request))
		finish(store, request, otherwise);
}

/* What the store itself has begun has ended. What is to be tried again is a thread's: here a pause would hold others up. */
static void complete(struct uf_store_io *io, int64_t result, const struct uf_store_cause *told)
{
	struct uf_store_request *request = (void *)((char *)io - offsetof(struct uf_store_request, io));
	struct uf_store *store = request->store;
	struct uf_store_cause cause = {""};
	int err;

	if (told)
		cause = *told;
	if (result == -ECANCELED || (result > 0 && (uint64_t)result < request->len)) {
		to_pool(store, request, -EAGAIN);
		return;
	}
	err = result < 0 ? (int)result : 0;
	if (!err && request->action != UF_STORE_FLUSH && (uint64_t)result != request->len)
		err = ended(&cause, 0, request->len);
	if (err && goes_on(store, request, err, &cause))
		to_pool(store, request, err);
	else
		finish(store, request, err);
}

static int begin(struct uf_store *store, struct uf_store_request *request)
{
	request->store = store;
	request->failed = 0;
	request->io = (struct uf_store_io){.action = request->action,
	                                   .buf = request->buf,
	                                   .len = request->len,
	                                   .offset = request->offset,
	                                   .complete = complete};
	if (store->ops.submit && !store->ops.submit(store->state, &request->io))
		return 0;
	return store_pool_add(&store->pool, request);
}

int uf_store_submit(struct uf_store *store, struct uf_store_request *request)
{
	int err;

	if (!request->done || (unsigned)request->action > UF_STORE_FLUSH)
		return -EINVAL;
	/* Also for this call: when its request is done, the store may be closed, but not under its hands. */
	atomic_fetch_add_explicit(&store->in_flight, 2, memory_order_relaxed);
	err = fit(store, request);
	/* What is at hand must not wait behind what is not. */
	if (err || (request->action == UF_STORE_READ && store->ops.try_read &&
	            !store->ops.try_read(store->state, request->buf, request->len, request->offset))) {
		finish(store, request, err);
		err = 0;
	} else {
		err = begin(store, request);
	}
	release(store, err ? 2 : 1);
	return err;
}

/*
 * Opening.
 */

static int take_options(struct uf_store_options *options, const struct uf_store_options *opts)
{
	size_t first = offsetof(struct uf_store_options, arg) + sizeof(opts->arg);
	int err;

	*options = (struct uf_store_options){0};
	err = opts ? options_take(options, sizeof(*options), opts, first) : 0;
	if (err)
		return err;
	if ((options->flags & ~UF_STORE_READ_ONLY) || options->threads > POOL_THREADS)
		return -EINVAL;
	options->attempts = options->attempts ? options->attempts : DEFAULT_ATTEMPTS;
	options->pause_ms = options->pause_ms ? options->pause_ms : DEFAULT_PAUSE_MS;
	options->threads = options->threads ? options->threads : DEFAULT_THREADS;
	return 0;
}

static int create(struct uf_store **out, const struct store_opened *opened, const char *name,
                  const struct uf_store_options *options)
{
	struct uf_store *store = calloc(1, sizeof(*store));

	if (store)
		store->name = strdup(name);
	if (!store || !store->name) {
		free(store);
		return -ENOMEM;
	}
	store->ops = *opened->ops;
	store->state = opened->state;
	store->will_need = opened->will_need;
	store->at = opened->at;
	store->size = opened->size;
	store->flags = opened->flags | options->flags;
	if (!store->ops.write)
		store->flags |= UF_STORE_READ_ONLY;
	store->options = *options;
	pthread_mutex_init(&store->failure_lock, NULL);
	store_pool_init(&store->pool, options->threads, in_background, store);
	*out = store;
	return 0;
}

int uf_store_create(struct uf_store **out, const struct uf_store_ops *ops, void *state, uint64_t size, unsigned flags,
                    const char *name, const struct uf_store_options *opts)
{
	struct store_opened opened = {.ops = ops, .state = state, .size = size, .flags = flags};
	struct uf_store_options options;
	int err = take_options(&options, opts);

	if (err)
		return err;
	if (!out || !ops || ops->size != sizeof(*ops) || ops->version != UF_STORE_OPS_VERSION || !ops->read || !size ||
	    !name || (flags & ~(UF_STORE_READ_ONLY | UF_STORE_TRIES_IN_SIGNAL | UF_STORE_READS_IN_SIGNAL)))
		return -EINVAL;
	return create(out, &opened, name, &options);
}

static const struct scheme {
	const char *name;
	store_opener *open;
	bool whole; /* gets the URI, not what is behind the colon */
} schemes[] = {
	{"memory:", store_open_memory, false}, {"file:", store_open_file, false}, {"nbd:", store_open_nbd, true},
	{"nbds:", store_open_nbd, true},       {"nbd+", store_open_nbd, true},    {"nbds+", store_open_nbd, true},
};

static int finish_open(struct uf_store **out, const struct store_opened *opened, const char *uri,
                       const struct uf_store_options *options)
{
	int err = create(out, opened, uri, options);

	if (err)
		opened->ops->close(opened->state);
	return err;
}

static int open_uri(struct uf_store **out, const char *uri, const struct uf_store_options *options,
                    struct uf_store_cause *cause)
{
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		size_t len = strlen(schemes[i].name);
		struct store_opened opened = {0};
		int err;

		if (strncmp(uri, schemes[i].name, len) != 0)
			continue;
		err = schemes[i].open(&opened, uri + (schemes[i].whole ? 0 : len), options->flags, cause);
		return err ? err : finish_open(out, &opened, uri, options);
	}
	return store_fail(cause, -EINVAL,
	                  "no store begins so: there are memory:, file:, nbd://, nbds:// and nbd+unix://");
}

int uf_store_open(struct uf_store **out, const char *uri, const struct uf_store_options *opts, char *cause,
                  size_t cause_size)
{
	struct uf_store_options options;
	struct uf_store_cause why = {""};
	int err = out && uri ? take_options(&options, opts) : -EINVAL;

	if (!err)
		err = open_uri(out, uri, &options, &why);
	if (err && cause && cause_size)
		snprintf(cause, cause_size, "%s: %s%s%s", uri ? uri : "no URI", strerror(-err), why.text[0] ? ": " : "",
		         why.text);
	return err;
}

void uf_store_close(struct uf_store *store)
{
	uint32_t left;

	if (!store)
		return;
	/* What `done` submits in its turn is carried out as well. */
	while ((left = atomic_load_explicit(&store->in_flight, memory_order_acquire)))
		futex_wait(&store->in_flight, left);
	store_pool_end(&store->pool);
	if (store->ops.close)
		store->ops.close(store->state);
	pthread_mutex_destroy(&store->failure_lock);
	free(store->name);
	free(store);
}

uint64_t uf_store_size(const struct uf_store *store)
{
	return store->size;
}

unsigned uf_store_flags(const struct uf_store *store)
{
	return store->flags;
}
