/* SPDX-License-Identifier: MIT */
/*
 * workingset.h - which pages of a store a program touches first, and in which order
 *
 * A program that is started again from the same store touches much the same pages again. So they are noted in one run (order.c), written to a
 * file (file.c; userfault-workingset(5)), and in the next brought before they are asked for (set.c): in few large reads and in the order of
 * their places, as many of the first touched as there is room for.
 *
 *	workingset_order_init(&order, size / unit, WORKINGSET_MOST);
 *	workingset_order_add(&order, offset / unit);                     at each first touch, by any thread
 *	workingset_from_order(&set, &order, unit, 0);
 *	workingset_write(set, dir, name);
 *
 *	workingset_read(&set, dir, name);
 *	if (workingset_fits(set, size, print))
 *		count = workingset_addrs(set, &place, room, &addrs);     for session_bring_set()
 *
 * A working set is advice: an old or a wrong one costs reads, but no page ever gets other bytes for it. That it comes in one piece its sum tells;
 * that it comes from a friend nobody does, so whatever a file says is checked.
 *
 * Results: 0 or a count, or -errno. Sets come from malloc(), and go by free(). Functions marked [signal] may be called in signal handlers.
 */
#ifndef WORKINGSET_WORKINGSET_H
#define WORKINGSET_WORKINGSET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <userfault/store.h>

/* So many pages at most: 64 Mi, a file of 512 MiB. */
#define WORKINGSET_MOST     ((uint64_t)1 << 26)
#define WORKINGSET_UNIT_MIN ((uint64_t)4 << 10)
#define WORKINGSET_UNIT_MAX ((uint64_t)1 << 30)

/* What a file holds, checked. */
struct workingset {
	uint64_t unit;      /* bytes to a page: a power of two from WORKINGSET_UNIT_MIN to _MAX */
	uint64_t size;      /* of the store, bytes; 0: unknown */
	uint64_t print;     /* of the store's content: workingset_print(); 0: unknown */
	uint64_t count;     /* up to WORKINGSET_MOST */
	uint64_t offsets[]; /* in the store, multiples of `unit`, less than `size`; perhaps one twice */
};

/*
 * order.c: the record of first touches. Any number of threads may add at the same time.
 */

struct workingset_order {
	uint64_t pages, most;
	_Atomic uint64_t count;    /* how many were added: may be more than `most` */
	_Atomic uint32_t *numbers; /* in their order, and 1 more each: 0 is one that is just being written down */
	_Atomic uint64_t *touched; /* a bit for each page */
};

/*
 * For pages 0 ... pages - 1, of which the first `most` are kept. It takes a bit for each page and 32 for each that is kept, from the system as
 * they are touched. -EINVAL: no page, or 2^32 - 1 and more; -ENOMEM.
 */
int workingset_order_init(struct workingset_order *order, uint64_t pages, uint64_t most);

/* When nobody adds any more. Zeroed, or ended before: nothing happens. */
void workingset_order_end(struct workingset_order *order);

/* [signal] A touch of a page: only its first counts. A page that there is not is passed over. */
void workingset_order_add(struct workingset_order *order, uint64_t page);

/*
 * set.c
 */

/* Of the touches so far, while others may add; page 0 lies at `base` in the store. `size` and `print` are the caller's to fill in. -ENODATA: none. */
int workingset_from_order(struct workingset **out, const struct workingset_order *order, uint64_t unit, uint64_t base);

/* Whether it was recorded from a store of this size and print; what is unknown (0) on either side fits. */
bool workingset_fits(const struct workingset *set, uint64_t size, uint64_t print);

/*
 * workingset_print - a number by which a store's content is known again
 *
 * From its size and 16 pages of it, spread over the whole: so it takes 16 reads, in this thread. Two stores that differ elsewhere have the same;
 * then the working set of one is likely to be as good for the other. Never 0.
 */
int workingset_print(struct uf_store *store, uint64_t *print);

/* Memory in units, where [offset, offset + len) of the store lies from addr on. */
struct workingset_place {
	uint64_t addr, offset, len;
	uint64_t unit; /* a power of two; need not be the set's */
};

/*
 * workingset_addrs - the units of a place that the set names
 *
 * As many as `most`, of those that were touched first; in *addrs (from malloc()) their addresses, in rising order, each once. How many.
 */
int64_t workingset_addrs(const struct workingset *set, const struct workingset_place *place, uint64_t most,
                         uint64_t **addrs);

/*
 * file.c
 */

/* The bytes of a file. -EBADMSG: they are not those of a working set, of this version, undamaged. */
int workingset_parse(struct workingset **out, const void *bytes, size_t len);

/* And back: *bytes from malloc(). */
int workingset_format(const struct workingset *set, void **bytes, size_t *len);

/*
 * A file, by a path that is seen from a folder (a descriptor, or AT_FDCWD). It is written beside its place, made durable, and put there
 * at once, with the mode 0644: whoever reads gets the old or the new one. Also what open(2), read(2) and their like say.
 */
int workingset_read(struct workingset **out, int dir, const char *path);
int workingset_write(const struct workingset *set, int dir, const char *path);

/* Whether a name that a stranger gave may be used as path in a folder: 1 to 128 letters, digits, '.', '_' and '-', the first no '.'. */
bool workingset_is_name(const char *name);

#endif
