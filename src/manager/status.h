/* SPDX-License-Identifier: MIT */
/*
 * status.h - a snapshot of the manager, and its forms: JSON for `stat` and `top`, text for Prometheus
 *
 * Plain data: whoever knows the numbers fills a structure in, and everything by which people see them is a pure function of it. Counts only
 * grow while the manager, or the client that they are of, lives; what may also shrink says "now". Bytes and nanoseconds, but where the text
 * for Prometheus says seconds.
 */
#ifndef MANAGER_STATUS_H
#define MANAGER_STATUS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <userfault/handover.h>

#include "base/hist.h"

#define STATUS_NAME (UF_HANDOVER_NAME_MAX + 1) /* with the zero at its end: what is longer is cut */

enum status_engine { STATUS_ENGINE_KERNEL, STATUS_ENGINE_USER };

/* Where the page came from that resolved a fault. */
enum status_source {
	STATUS_SOURCE_CACHE,      /* memory of the manager's */
	STATUS_SOURCE_STORE,      /* read for this fault */
	STATUS_SOURCE_ZERO,       /* nowhere: a hole, or removed by the client */
	STATUS_SOURCE_PREFETCHED, /* brought ahead: it was there, or on its way, when the fault was looked at */
	STATUS_SOURCES,
};

/* Layout events of a client. */
enum status_event { STATUS_EVENT_FORK, STATUS_EVENT_REMAP, STATUS_EVENT_REMOVE, STATUS_EVENT_UNMAP, STATUS_EVENTS };

struct status_store {
	char name[STATUS_NAME];
	uint64_t size;       /* bytes */
	uint64_t reads;      /* runs of pages brought to clients, from its cache too */
	uint64_t read_bytes; /* bytes */
	uint64_t failures;   /* attempts that failed, also those that were made again */
};

struct status_client {
	uint64_t id;     /* never used twice, not 0 */
	uint64_t parent; /* id of the client that it was forked from; 0: it connected */
	pid_t pid;       /* 0: not known, as of a forked child */
	uid_t uid;
	char name[STATUS_NAME];
	enum status_engine engine;
	char store[STATUS_NAME]; /* "": none; of several, the first */
	uint64_t age;            /* ns since it came */
	unsigned regions;        /* now */
	uint64_t managed;        /* bytes of them, now */
	uint64_t resident;       /* bytes of them that are in memory, now */
	uint64_t prefetched;     /* bytes brought before they were touched */
	uint64_t poisoned;       /* bytes that could not be had and are SIGBUS, now */
	uint64_t faults;         /* messages of faults taken */
	uint64_t outstanding;    /* of them, neither resolved nor poisoned, now */
	uint64_t resolved[STATUS_SOURCES];
	uint64_t refaults; /* of `faults`, on pages that had been in memory and were evicted */
	uint64_t waits;    /* of `faults`, parked for an unread layout event, or for room */
	uint64_t events[STATUS_EVENTS];
	struct hist latency; /* ns, from the message's being read until the page is there; its sum and max are exact */
};

struct status {
	char version[32];
	uint64_t started_at; /* CLOCK_REALTIME, ns */
	uint64_t started;    /* CLOCK_MONOTONIC, ns */
	uint64_t now;        /* CLOCK_MONOTONIC, ns: when the snapshot was taken */
	pid_t supervisor, worker;
	uint64_t worker_restarts;
	unsigned workers;           /* threads that serve clients, now */
	uint64_t accepted, refused; /* handovers */
	struct {
		uint64_t budget, bytes; /* bytes; budget 0: there is no cache */
		uint64_t hits, misses;  /* pages asked of it */
	} cache;
	struct status_store *stores; /* status_add_store() */
	size_t store_count;
	struct status_client *clients; /* status_add_client(); in the order of their ids */
	size_t client_count;
};

/*
 * Fills in a zeroed status. 0, or -errno: then nobody is answered. It may be called by several threads at the same time; the caller calls
 * status_free() in either case.
 */
typedef int status_collect(void *arg, struct status *status);

/* One more at the end, zeroed; NULL: no memory. Good until the next is added. */
struct status_store *status_add_store(struct status *status);
struct status_client *status_add_client(struct status *status);

/* What was added. `status` is zeroed. */
void status_free(struct status *status);

/* Cut at STATUS_NAME, at the end of a character. */
void status_set_name(char name[STATUS_NAME], const char *text);

/*
 * status_json - one object, on one line without an end of line
 *
 * malloc()ed; NULL: no memory. Names that are not UTF-8 have U+FFFD in place of what is not. The keys are documented in userfault-stat(1), and
 * are only ever added to.
 */
char *status_json(const struct status *status);

/* And back. 0; -EBADMSG: not such an object, `*status` is zeroed; -ENOMEM. Keys that are missing are 0, what is not known is passed over. */
int status_from_json(struct status *status, const char *json);

/*
 * status_prometheus - the text exposition format, version 0.0.4
 *
 * malloc()ed; NULL: no memory. The metrics are documented in userfault-metrics(5).
 */
char *status_prometheus(const struct status *status);

const char *status_engine_name(enum status_engine engine);
const char *status_source_name(enum status_source source);
const char *status_event_name(enum status_event event);

#endif
