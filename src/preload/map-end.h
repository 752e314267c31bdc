/* SPDX-License-Identifier: MIT */
/*
 * map-end.h - what becomes of the mappings of served files when the manager has ended
 *
 * The process has the object's descriptor for itself too, so that a page which is missing never becomes zeros by the manager's end. But then
 * somebody has to read what the object tells: munmap(2) and its like wait, unkillable but for SIGKILL, until their event is read, and touches
 * until they are answered. A thread waits for the end of the connection, at which no manager reads any more (userfault-handover(5)), and from
 * then on it is the reader: events it reads and drops, and each page that is asked for it poisons. What was delivered stays.
 *
 * Before Linux 6.6 there is no POISON: a page that is asked for is made inaccessible, which is SIGSEGV.
 */
#ifndef PRELOAD_MAP_END_H
#define PRELOAD_MAP_END_H

struct uf;

/*
 * Starts the thread; it ends with the process. Both stay as they are. 0 or -errno. With map_lock() held. It allocates, as pthread_create(3)
 * does: not in a child that the C library knows nothing of.
 */
int map_end_watch(const struct uf *uf, int connection);

#endif
