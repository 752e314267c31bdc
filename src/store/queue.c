// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdbool.h>
#include <sys/eventfd.h>

#include "base/rawsys.h"
#include "store/queue.h"

int store_queue_init(struct store_queue *queue)
{
	queue->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->bell < 0)
		return -errno;
	store_list_init(&queue->list);
	pthread_mutex_init(&queue->lock, NULL);
	return 0;
}

void store_queue_destroy(struct store_queue *queue)
{
	raw_close(queue->bell);
	pthread_mutex_destroy(&queue->lock);
}

void store_queue_ring(struct store_queue *queue)
{
	uint64_t one = 1;

	/* It fails when it has been rung too often since it was heard, and then it rings. */
	raw_syscall3(SYS_write, queue->bell, (long)&one, sizeof(one));
}

void store_queue_add(struct store_queue *queue, struct uf_store_io *io)
{
	bool first;

	pthread_mutex_lock(&queue->lock);
	first = !queue->list.first;
	store_list_add(&queue->list, io);
	pthread_mutex_unlock(&queue->lock);
	/* Who takes one takes all, so the others have been rung for. */
	if (first)
		store_queue_ring(queue);
}

void store_queue_take(struct store_queue *queue, struct store_list *to)
{
	uint64_t rings;

	/* First, or a ring could be taken for one that has been heard. */
	raw_read(queue->bell, &rings, sizeof(rings));
	pthread_mutex_lock(&queue->lock);
	if (queue->list.first) {
		*to->last = queue->list.first;
		to->last = queue->list.last;
		store_list_init(&queue->list);
	}
	pthread_mutex_unlock(&queue->lock);
}
