/* SPDX-License-Identifier: MIT */
/*
 * queue.h - attempts on their way to the one thread that carries them out
 *
 * That thread waits for what it serves and, in the same call, for the bell.
 */
#ifndef STORE_QUEUE_H
#define STORE_QUEUE_H

#include <pthread.h>

#include <userfault/store.h>

/* A list in order, which is its owner's alone. */
struct store_list {
	struct uf_store_io *first, **last;
};

static inline void store_list_init(struct store_list *list)
{
	list->first = NULL;
	list->last = &list->first;
}

static inline void store_list_add(struct store_list *list, struct uf_store_io *io)
{
	io->next = NULL;
	*list->last = io;
	list->last = &io->next;
}

/* The first, or NULL. */
static inline struct uf_store_io *store_list_take(struct store_list *list)
{
	struct uf_store_io *io = list->first;

	if (io) {
		list->first = io->next;
		if (!list->first)
			list->last = &list->first;
	}
	return io;
}

struct store_queue {
	pthread_mutex_t lock; /* the list; held for a few instructions */
	struct store_list list;
	int bell; /* eventfd, not blocking: readable after it was rung */
};

int store_queue_init(struct store_queue *queue);
void store_queue_destroy(struct store_queue *queue);

void store_queue_add(struct store_queue *queue, struct uf_store_io *io);
void store_queue_ring(struct store_queue *queue);

/* Silences the bell, and moves all there is to the end of `to`. */
void store_queue_take(struct store_queue *queue, struct store_list *to);

#endif
