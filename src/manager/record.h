/* SPDX-License-Identifier: MIT */
/*
 * record.h - what clients do, in files: `serve --record`
 *
 *	STORE.workingset         the order of first touches of the store, of the client that ended last: userfault-workingset(5)
 *	NAME-PID-ID[-N].recording  all that happened to one client, for userfault-report(1): userfault-recording(5); N: how many workers
 *	                         had ended before
 *
 * A worker that is killed takes along what a client has touched so far, and the last events; its successor begins anew.
 */
#ifndef MANAGER_RECORD_H
#define MANAGER_RECORD_H

#include <stdint.h>

#include <userfault/uffd.h>

struct book_entry;
struct client;
struct client_source;
struct record;
struct session_done;

/* For a client whose regions are known; what cannot be recorded is said, and it is served all the same. NULL: nothing is recorded. */
struct record *record_begin(struct client *client);

/* A source of the client's is recorded from now on. By the client's thread. */
void record_source(struct record *record, struct client_source *source);

/*
 * A first touch; what was put in place; a layout event, and of a fork the id of the child, 0: it is not served; a region that came after
 * record_begin(). On any thread. `record` may be NULL, but for a touch.
 */
void record_touched(struct record *record, const struct client_source *source, uint64_t offset);
void record_done(struct record *record, const struct session_done *done);
void record_event(struct record *record, const struct uffd_msg *msg, uint64_t child);
void record_region(struct record *record, const struct book_entry *region);

/* Writes all that has been by now; of what comes after it nothing is kept. NULL is allowed. */
void record_finish(struct record *record);

/* The same when nothing comes any more, and frees it. */
void record_end(struct record *record);

#endif
