// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rawsys.h"
#include "manager/book.h"
#include "manager/journal.h"

/*
 * Opening.
 */

int journal_open(struct journal **out, unsigned capacity, unsigned share, unsigned threads)
{
	size_t bytes = sizeof(struct journal) + capacity * sizeof(struct journal_client);
	struct journal *journal = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (journal == MAP_FAILED)
		return -errno;
	journal->capacity = capacity;
	journal->share = share;
	journal->threads = threads;
	journal->bytes = bytes;
	journal->started = now_ns();
	journal->started_at = wall_ns();
	for (unsigned i = 0; i < JOURNAL_THREADS; i++)
		journal->bells[i] = -1;
	/*
	 * The kernel stores messages here on behalf of a task that may be killed meanwhile; a page that it would have to wait for could make it
	 * lose one. Where memory may not be locked, it is at least there.
	 */
	memset(journal->mailboxes, 0, sizeof(journal->mailboxes));
	(void)!mlock(journal->mailboxes, threads * sizeof(journal->mailboxes[0]));
	*out = journal;
	for (unsigned i = 0; i < threads; i++) {
		journal->bells[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (journal->bells[i] < 0) {
			int err = -errno;

			journal_close(journal);
			return err;
		}
	}
	return 0;
}

void journal_close(struct journal *journal)
{
	for (unsigned i = 0; i < journal->threads; i++)
		if (journal->bells[i] >= 0)
			close(journal->bells[i]);
	munmap(journal, journal->bytes);
}

void journal_ring(struct journal *journal, unsigned thread)
{
	uint64_t one = 1;

	/* Full means that it has not been heard for 2^64 times; either way it is readable. */
	(void)!write(journal->bells[thread], &one, sizeof(one));
}

/*
 * Records.
 */

/* Sequentially consistent with each other's claims: of two that come to the last place at least one sees the other. */
static bool has_too_many(const struct journal *journal, uid_t uid)
{
	unsigned count = 0;

	if (journal->share >= journal->capacity)
		return false;
	for (unsigned i = 0; i < journal->capacity; i++)
		count += atomic_load(&journal->client[i].state) != JOURNAL_FREE &&
		         atomic_load(&journal->client[i].uid) == uid;
	return count > journal->share;
}

int journal_claim(struct journal *journal, uid_t uid)
{
	for (unsigned i = 0; i < journal->capacity; i++) {
		struct journal_client *client = &journal->client[i];
		uint32_t free = JOURNAL_FREE;

		/* Acquire: what its last owner did to it is over. What it is to be becomes true only with what its maker stores last. */
		if (!atomic_compare_exchange_strong_explicit(&client->state, &free, JOURNAL_MAKING,
		                                             memory_order_acquire, memory_order_relaxed))
			continue;
		atomic_store(&client->connection, -1);
		atomic_store(&client->object, -1);
		atomic_store(&client->book, -1);
		client->id = atomic_fetch_add(&journal->clients, 1) + 1;
		client->parent = client->fork = 0;
		client->since = now_ns();
		client->pid = 0;
		client->name[0] = '\0';
		atomic_store(&client->born, false);
		atomic_store(&client->uid, uid);
		if (!has_too_many(journal, uid))
			return (int)i;
		journal_release(client);
		return -EDQUOT;
	}
	return -EAGAIN;
}

const char *journal_refusal(int err)
{
	switch (err) {
	case -EAGAIN:
		return "there are too many clients";
	case -EDQUOT:
		return "this user has too many clients";
	default:
		return strerror(-err);
	}
}

void journal_close_fd(_Atomic int *slot)
{
	/* Once it is out nobody knows it, and it is swept up if it is not closed now; the other way round its number might be another's. */
	int fd = atomic_exchange(slot, -1);

	if (fd >= 0)
		close(fd);
}

void journal_release(struct journal_client *client)
{
	journal_close_fd(&client->connection);
	journal_close_fd(&client->object);
	journal_close_fd(&client->book);
	atomic_store_explicit(&client->state, JOURNAL_FREE, memory_order_release);
}

/*
 * Between two workers.
 */

/* A book without its worker's view: as much as is needed to append to it. */
static int with_book(int fd, int (*what)(struct book *book, void *arg), void *arg)
{
	struct book book;
	int err = book_open(&book, fd);

	if (err)
		return err;
	err = what(&book, arg);
	book_close(&book);
	return err;
}

/* Layout events that were read and may not have reached the log. Faults are not kept: whoever waits is woken, and comes again. */
static int log_messages(struct book *book, void *arg)
{
	struct journal_mailbox *mailbox = arg;
	int err = 0;

	for (unsigned i = 0; !err && i < JOURNAL_MESSAGES && mailbox->messages[i].event; i++) {
		const struct uffd_msg *msg = &mailbox->messages[i];
		uint64_t id = mailbox->number * JOURNAL_MESSAGES + i;

		if (msg->event == UFFD_EVENT_PAGEFAULT || id <= book->last)
			continue;
		err = book_append_message(book, msg, id);
	}
	return err;
}

static int empty_mailbox(struct journal *journal, struct journal_mailbox *mailbox)
{
	uint32_t owner = atomic_load(&mailbox->owner);
	int err = 0, fd;

	if (owner && owner <= journal->capacity) {
		fd = atomic_load(&journal->client[owner - 1].book);
		if (fd >= 0)
			err = with_book(fd, log_messages, mailbox);
	}
	if (err)
		return err;
	atomic_store(&mailbox->owner, 0);
	memset(mailbox->messages, 0, sizeof(mailbox->messages));
	return 0;
}

/* The entry that the child was made from: nothing is left to be done. */
static int strike_out(struct book *book, void *arg)
{
	const struct journal_client *child = arg;

	for (uint64_t i = 0; i < book_count(book); i++)
		if (book_entry(book, i)->id == child->fork && book_entry(book, i)->kind == BOOK_FORK)
			book_forked(book, i);
	return 0;
}

/* Before anybody serves it: it might end, and its parent's log would have it made once more, of a descriptor that is another's by then. */
static int bear(struct journal *journal, struct journal_client *child)
{
	int err = 0;

	for (unsigned i = 0; child->parent && !err && i < journal->capacity; i++) {
		struct journal_client *client = &journal->client[i];

		if (atomic_load(&client->state) != JOURNAL_FREE && client->id == child->parent)
			err = with_book(atomic_load(&client->book), strike_out, child);
	}
	if (!err)
		atomic_store(&child->born, true);
	return err;
}

struct numbers {
	int *list;
	size_t count, room;
	int err;
};

static void note(void *arg, int fd)
{
	struct numbers *numbers = arg;

	if (fd < 0 || numbers->err)
		return;
	if (numbers->count == numbers->room) {
		size_t room = numbers->room ? 2 * numbers->room : 256;
		int *list = realloc(numbers->list, room * sizeof(*list));

		if (!list) {
			numbers->err = -ENOMEM;
			return;
		}
		numbers->list = list;
		numbers->room = room;
	}
	numbers->list[numbers->count++] = fd;
}

static int note_book(struct book *book, void *arg)
{
	book_descriptors(book, note, arg);
	return 0;
}

static void note_client(struct numbers *numbers, struct journal_client *client)
{
	int book = atomic_load(&client->book);

	note(numbers, atomic_load(&client->connection));
	note(numbers, atomic_load(&client->object));
	note(numbers, book);
	if (book >= 0 && !numbers->err)
		numbers->err = with_book(book, note_book, numbers);
}

static int by_number(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

/* Everything between those that are kept. */
static void close_others(struct numbers *kept)
{
	unsigned from = 0;

	qsort(kept->list, kept->count, sizeof(*kept->list), by_number);
	for (size_t i = 0; i < kept->count; i++) {
		if ((unsigned)kept->list[i] > from)
			raw_syscall3(SYS_close_range, from, kept->list[i] - 1, 0);
		from = (unsigned)kept->list[i] + 1;
	}
	raw_syscall3(SYS_close_range, from, ~0u, 0);
}

int journal_settle(struct journal *journal, const int *keep, size_t count)
{
	struct numbers kept = {0};
	int err = 0;

	for (unsigned i = 0; !err && i < journal->threads; i++)
		err = empty_mailbox(journal, &journal->mailboxes[i]);
	for (unsigned i = 0; !err && i < journal->capacity; i++) {
		struct journal_client *client = &journal->client[i];
		uint32_t state = atomic_load(&client->state);

		/* Its object is still in its parent's log: it must not be closed here, as it is nobody's else if it is in neither. */
		if (state == JOURNAL_MAKING) {
			atomic_store(&client->object, -1);
			journal_release(client);
		} else if (state != JOURNAL_FREE) {
			err = atomic_load(&client->born) ? 0 : bear(journal, client);
			note_client(&kept, client);
			if (!err)
				err = kept.err;
		}
	}
	for (size_t i = 0; i < count; i++)
		note(&kept, keep[i]);
	for (unsigned i = 0; i < journal->threads; i++)
		note(&kept, journal->bells[i]);
	if (!err)
		err = kept.err;
	if (!err)
		close_others(&kept);
	free(kept.list);
	return err;
}
