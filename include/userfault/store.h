/* SPDX-License-Identifier: MIT */
/*
 * userfault/store.h - where pages come from and go to
 *
 * A store is an array of bytes of a fixed size that can be read, perhaps written, and flushed. It is opened by a URI:
 *
 *	memory:SIZE               fresh memory, all zeros; SIZE in bytes, or with K, M, G, T (powers of 1024)
 *	file:PATH                 a file or a block device, as long as it is when it is opened
 *	nbd://HOST[:PORT]/EXPORT  an export of an NBD server; with TLS nbds://, over a unix socket nbd+unix:///EXPORT?socket=PATH
 *
 *	uf_store_open(&store, "file:/var/lib/snapshot.mem", NULL, NULL, 0);
 *	uf_store_read(store, buf, 4096, offset);
 *
 * or made by the program itself from a table of functions (struct uf_store_ops).
 *
 * A store never makes up data. A read that fails, or ends early, is an error with its cause; it is tried again as the options
 * tell, and then it fails, each time it is asked for. Zeros are what the store says are zeros: holes, and what lies behind the end in
 * a read that begins before it.
 *
 * Results: 0 or a positive count, or a negated errno value. Offsets and lengths are in bytes; a length of 0 is -EINVAL. What reaches behind the
 * end is -ERANGE, but for reads as above. Any number of threads may use a store at the same time; uf_store_close() comes last. Functions
 * marked [signal] may be called in signal handlers.
 */
#ifndef USERFAULT_STORE_H
#define USERFAULT_STORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct uf_store;

/* uf_store_options.flags, and of uf_store_flags(). */
#define UF_STORE_READ_ONLY (1u << 0) /* writes are -EROFS; a file is opened for reading only */

/* uf_store_flags() alone. */
#define UF_STORE_TRIES_IN_SIGNAL (1u << 8) /* uf_store_try_read() is async-signal-safe */
#define UF_STORE_READS_IN_SIGNAL (1u << 9) /* so is an attempt to read that may wait: see `read` below */

struct uf_store_options {
	size_t size; /* sizeof(struct uf_store_options): the structure grows only at its end */
	unsigned flags;
	unsigned attempts; /* of a request that fails for a reason that may pass; 0: 3 */
	unsigned pause_ms; /* between them, doubled each time; 0: 10 */
	unsigned threads;  /* that carry out requests in the background, at most 64; 0: 8. Started when first needed */
	/*
	 * Told of each attempt that failed: what was asked for, and why it failed. May be NULL. It is called on the thread that made the
	 * attempt, on which others may depend: it must neither wait nor use the store.
	 */
	void (*failed)(void *arg, const char *cause);
	void *arg;
};

/*
 * uf_store_open - open the store that a URI names
 *
 * `cause`, of `cause_size` bytes, may be NULL; on failure it gets one line for people. -EINVAL: not a URI of a store, or an option it
 * does not know; -E2BIG: `opts` is longer than this library knows, and asks for what it does not know; otherwise why it cannot be opened.
 */
int uf_store_open(struct uf_store **out, const char *uri, const struct uf_store_options *opts, char *cause,
                  size_t cause_size);

/* Waits for the requests in flight. NULL is allowed. Does not flush. */
void uf_store_close(struct uf_store *store);

uint64_t uf_store_size(const struct uf_store *store);  /* [signal] */
unsigned uf_store_flags(const struct uf_store *store); /* [signal] */

/*
 * uf_store_try_read - read, if that can be done at once
 *
 * -EAGAIN: it would have to wait for a device or a peer, or failed: uf_store_read() tells. [signal] with UF_STORE_TRIES_IN_SIGNAL.
 */
int uf_store_try_read(struct uf_store *store, void *buf, size_t len, uint64_t offset);

/* All of it, or an error, and then what is in buf is undefined. */
int uf_store_read(struct uf_store *store, void *buf, size_t len, uint64_t offset);
int uf_store_write(struct uf_store *store, const void *buf, size_t len, uint64_t offset);

/*
 * What was written before this call is durable when it returns 0: it survives a loss of power, as far as the store can tell. A store that
 * is on a server and cannot tell says so: -EOPNOTSUPP. From then on it fails where what was written may be lost: -EIO, when a connection broke
 * before it was flushed, or the server refused to; what fdatasync(2) said, when the flush of a file has failed once.
 */
int uf_store_flush(struct uf_store *store);

/* A run of bytes that are all zeros, or may not be. */
struct uf_extent {
	uint64_t len; /* from the offset that was asked for; at least 1 */
	int zero;     /* 1: they read as zeros, and need not be read */
};

/* What lies at `offset`, at most `len` bytes of it. A store that does not know says that it is not zeros. */
int uf_store_extent(struct uf_store *store, uint64_t offset, uint64_t len, struct uf_extent *extent);

/* For a failure: why, in one line, beside the error. */
struct uf_store_cause {
	char text[256];
};

enum uf_store_action { UF_STORE_READ, UF_STORE_WRITE, UF_STORE_FLUSH };

/* One attempt at a request, for `submit` of a store of one's own. */
struct uf_store_io {
	enum uf_store_action action;
	void *buf;
	size_t len;
	uint64_t offset;
	/* `result` as read, write and flush have it, or -ECANCELED: it was not tried. `cause` may be NULL. The attempt is gone then. */
	void (*complete)(struct uf_store_io *io, int64_t result, const struct uf_store_cause *cause);
	struct uf_store_io *next; /* this and `own`: whatever the store keeps until then */
	void *own[2];
};

/*
 * A request that is carried out in the background. It and its buffer are the store's from uf_store_submit() until `done` is called: once, on any
 * thread, perhaps before uf_store_submit() returns, with `result` set to 0 or -errno. `done` may submit, and free the request; it must not
 * wait.
 */
struct uf_store_request {
	enum uf_store_action action;
	void *buf; /* written by a read, read by a write */
	size_t len;
	uint64_t offset;
	void (*done)(struct uf_store_request *request);
	int result;
	void *user;                    /* the caller's */
	struct uf_store_request *next; /* this and the following: the store's */
	struct uf_store *store;
	unsigned failed;
	struct uf_store_io io;
};

/* Requests may be carried out in any order. 0; or -EINVAL, -EAGAIN (no thread can be started), and `done` is not called. */
int uf_store_submit(struct uf_store *store, struct uf_store_request *request);

/*
 * Stores of one's own.
 */

#define UF_STORE_OPS_VERSION 1

/*
 * Each function may be called by any number of threads. One that is NULL is not offered. Ranges lie within the store; lengths are not 0.
 * Those that return an int return 0 or -errno.
 */
struct uf_store_ops {
	size_t size;      /* sizeof(struct uf_store_ops) */
	unsigned version; /* UF_STORE_OPS_VERSION */
	/*
	 * Reads up to `len` bytes: how many, or -errno. 0 where there should be some is an error. Must be there. With
	 * UF_STORE_READS_IN_SIGNAL it is async-signal-safe when `cause` is NULL.
	 */
	int64_t (*read)(void *state, void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause);
	/* As uf_store_try_read(). Async-signal-safe if the flags say so. */
	int (*try_read)(void *state, void *buf, size_t len, uint64_t offset);
	/* Writes up to `len` bytes: how many, or -errno. NULL: the store is read-only. */
	int64_t (*write)(void *state, const void *buf, size_t len, uint64_t offset, struct uf_store_cause *cause);
	int (*flush)(void *state, struct uf_store_cause *cause);
	int (*extent)(void *state, uint64_t offset, uint64_t len, struct uf_extent *extent);
	void (*close)(void *state);
	/*
	 * Begins an attempt, and does not wait for it: io->complete is to be called once, on any thread, perhaps before this returns.
	 * Anything but 0: not here or not now; then a thread of the store's calls the functions above, as it does for the attempts after one
	 * that has failed, and for the whole of one that was short. `close` is called when all are complete, and must wait for the calls
	 * of io->complete to return.
	 */
	int (*submit)(void *state, struct uf_store_io *io);
};

/*
 * uf_store_create - a store from a table of functions
 *
 * `ops` is copied. `size` in bytes; of `flags` UF_STORE_READ_ONLY, UF_STORE_TRIES_IN_SIGNAL and UF_STORE_READS_IN_SIGNAL are known. `name` is
 * for messages. On failure `state` is still the caller's.
 */
int uf_store_create(struct uf_store **out, const struct uf_store_ops *ops, void *state, uint64_t size, unsigned flags,
                    const char *name, const struct uf_store_options *opts);

#ifdef __cplusplus
}
#endif

#endif
