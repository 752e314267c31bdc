/* SPDX-License-Identifier: MIT */
/*
 * recording.h - what happened to the memory of one client, written down as it happens
 *
 * A file: a header, the regions at the start, and a record of 48 bytes for each event, in the order in which the events were done with; little
 * endian. userfault-recording(5) is the format. A file whose writer was killed can be read up to its last whole record.
 *
 * The order of first touches, of which a working set is made, is the order of the READ and WRITE records: a page that was brought ahead is
 * touched without a fault, and is known by a PREFETCH record only.
 */
#ifndef REPORT_RECORDING_H
#define REPORT_RECORDING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define RECORDING_NAME 64 /* bytes of a name, with the zero at its end: what is longer is cut */

/* Values are those of the file. A reader passes over those it does not know. */
enum recording_kind {
	RECORDING_READ = 1, /* a fault: a read of a missing page */
	RECORDING_WRITE,    /* a fault: a write to one, or to a protected one */
	RECORDING_PREFETCH, /* a run of pages was put in place before they were touched */
	RECORDING_MAP,      /* a region came: `address`, `length`, `offset` */
	RECORDING_REMOVE,   /* MADV_DONTNEED and the like: [address, address + length) is zero from then on */
	RECORDING_REMAP,  /* mremap(2): [address, address + length) is at `offset`, which is an address, from then on */
	RECORDING_UNMAP,  /* [address, address + length) is gone */
	RECORDING_FORK,   /* `offset`: the id of the client that the child is; RECORDING_NOWHERE: it is not served */
	RECORDING_POISON, /* [address, address + length) could not be had; `latency` as of a fault */
	RECORDING_END,    /* the recording was closed in order; `length`: events that could not be written */
};

/* Where a page came from, for faults and prefetches. */
enum recording_source {
	RECORDING_UNKNOWN,
	RECORDING_CACHE,
	RECORDING_STORE,
	RECORDING_ZERO,
	RECORDING_PREFETCHED, /* a fault that found the page there or on its way */
};

#define RECORDING_NOWHERE UINT64_MAX /* an offset: of no store */

/* A record, as it lies in the file. */
struct recording_event {
	uint64_t time;    /* ns since the start: when the manager learned of it */
	uint64_t address; /* in the client; of a fault, of the page */
	uint64_t offset;  /* bytes in the store, or RECORDING_NOWHERE */
	uint64_t length;  /* bytes: of a fault, what was put in place for it */
	uint64_t latency; /* ns from `time` until it was done with */
	uint8_t kind;     /* enum recording_kind */
	uint8_t source;   /* enum recording_source */
	uint16_t reserved;
	uint32_t thread; /* that touched; 0: not known */
};

struct recording_region {
	uint64_t address, length, offset; /* bytes */
};

struct recording_about {
	uint32_t page_size; /* bytes: the smallest that is put in place */
	pid_t pid;
	uint64_t client;     /* its id */
	uint64_t started;    /* CLOCK_REALTIME, ns */
	uint64_t store_size; /* bytes */
	char name[RECORDING_NAME];
	char store[RECORDING_NAME];
	struct recording_region *regions;
	size_t region_count; /* at most RECORDING_REGIONS */
};

#define RECORDING_REGIONS 65536

/*
 * Writing.
 */

struct recording;

/*
 * recording_open - begin the file `name` in the folder `dirfd` (or AT_FDCWD), in place of one that is there
 *
 * Time is counted from now on by the caller: `event.time` is what it says. The header is written at once. 0, -EINVAL: about is impossible
 * (no page size, too many regions), or what openat(2) and write(2) say; nothing is left behind then.
 */
int recording_open(struct recording **out, int dirfd, const char *name, const struct recording_about *about);

/*
 * recording_add - write one event down
 *
 * Copies 48 bytes; every 1365th time it also makes one write(2) of 64 KiB. One thread at a time, which is not the one that may be stopped by
 * what it records: the file must not be on memory that it serves. It does not fail: when the file cannot be written, as on a
 * full disk, it ends there, and recording_close() tells. NULL is allowed.
 */
void recording_add(struct recording *recording, const struct recording_event *event);

/* Write out what is still buffered. 0, or the first error of writing: nothing more is written after one. */
int recording_flush(struct recording *recording);

/* Also frees it. As recording_flush(), and -EIO of close(2). Not fsync(2)ed. NULL is allowed. */
int recording_close(struct recording *recording);

/*
 * Reading.
 */

struct recording_data {
	struct recording_about about;
	struct recording_event *
		events; /* all that are in the file but END, of known and unknown kinds, unchecked but for their size */
	size_t count;
	int complete; /* END was there */
	char *memory;
};

/*
 * recording_read - the whole of a file, which may still be written to
 *
 * 0; -EBADMSG: not a recording, or its header is damaged; -EPROTONOSUPPORT: of another version; -ENOMEM; or what open(2) and read(2) say.
 * recording_free() in the end.
 */
int recording_read(struct recording_data *data, const char *path);
void recording_free(struct recording_data *data);

#endif
