/* SPDX-License-Identifier: MIT */
/*
 * userfault/handover.h - give memory of this process to a manager
 *
 * A manager is a process that serves the page faults of others: `userfault serve`, or any that speaks userfault-handover(5), where the
 * protocol is. This process opens an object, registers ranges with it, and hands the descriptor and the ranges over; from then on the
 * manager brings the pages from a store that it was started with.
 *
 *	uf_open(&uf, &opts);
 *	uf_register(uf, memory, len, UFFDIO_REGISTER_MODE_MISSING, NULL);
 *	uf_handover_open(&handover, "/run/userfault.sock", NULL, 0);
 *	uf_handover_give(handover, uf_fd(uf), &region, 1, "my program", NULL, 0);
 *
 * `userfault serve` serves the memory for as long as it is there, whatever becomes of the connection; another manager may let go of it when the
 * connection is closed. The object may be closed once it is given: the manager has a descriptor of its own. examples/handed.c is a complete
 * program.
 *
 * Results: 0 or a negated errno value. `cause`, of `cause_size` bytes, may be NULL; on failure it gets one line for people.
 *
 *	-EINVAL        a wrong argument; nothing was sent
 *	-ENOENT, -ECONNREFUSED, -EACCES and others of connect(2): there is no manager to be reached
 *	-EREMOTEIO     the manager refused; the cause is its own reason
 *	-ETIMEDOUT     the manager did not take a message, or did not answer it, within UF_HANDOVER_TIMEOUT_MS
 *	-ECONNRESET    the manager ended the connection
 *	-EPROTO        what came is not an answer of this protocol
 *	-ENOMEM, -EMFILE, -ENFILE
 *
 * After the four errors of a connection (-ETIMEDOUT, -ECONNRESET, -EPROTO, and -EPIPE, which all further calls give) it is of no use and is to
 * be closed. One thread at a time may use a connection.
 */
#ifndef USERFAULT_HANDOVER_H
#define USERFAULT_HANDOVER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct uf_handover;

#define UF_HANDOVER_TIMEOUT_MS 30000 /* of each step: to be accepted, to be read, to be answered */
#define UF_HANDOVER_NAME_MAX   64    /* bytes of a name, of a store or of a program */

/* uf_handover_region.flags */
#define UF_HANDOVER_REMOVED_IS_STORE \
	(1u << 0)                      /* what was given back (madvise) comes from the store again; without: zeros */
#define UF_HANDOVER_PREFETCH (1u << 1) /* the manager may bring pages before they are touched */

/* A range of this process that is registered with the object, and what it holds. */
struct uf_handover_region {
	void *addr;
	size_t size;       /* bytes */
	uint64_t offset;   /* of addr, in the store */
	size_t page_size;  /* of the memory; 0: the system's. addr, size and offset are multiples */
	const char *store; /* its name, or NULL: the one called `default` */
	unsigned flags;    /* UF_HANDOVER_* */
};

/*
 * uf_handover_open - connect to a manager
 *
 * socket_path  of a unix stream socket; @NAME: in the abstract name space
 */
int uf_handover_open(struct uf_handover **out, const char *socket_path, char *cause, size_t cause_size);

/* The size of a store, NULL being the one called `default`. Before or after descriptors are given. */
int uf_handover_size(struct uf_handover *handover, const char *store, uint64_t *size, char *cause, size_t cause_size);

/*
 * uf_handover_give - hand over ranges, and the object they are registered with
 *
 * fd     uf_fd() of the object, the first time; it stays the caller's. -1: further ranges of the one that was given.
 * name   of this program, for people: printable ASCII, at most UF_HANDOVER_NAME_MAX bytes; or NULL. It counts when a descriptor is given.
 *
 * When it returns 0 the manager serves all of the ranges. A touch before that waits. Regions go in messages of at most
 * UF_HANDOVER_BATCH: after an error none of more regions than that is known to be served, or not to be.
 */
int uf_handover_give(struct uf_handover *handover, int fd, const struct uf_handover_region *regions, size_t count,
                     const char *name, char *cause, size_t cause_size);

#define UF_HANDOVER_BATCH 1024

/* Ends the connection. A manager may let go of the memory then; `userfault serve` does not. NULL is allowed. */
void uf_handover_close(struct uf_handover *handover);

#ifdef __cplusplus
}
#endif

#endif
