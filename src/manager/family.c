// SPDX-License-Identifier: MIT
/*
 * A client that forks: the event brings the child's descriptor, and the child becomes a client with a book of its own, in which its memory is
 * as its parent's was at that moment.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "manager/client.h"
#include "manager/log.h"
#include "manager/worker.h"

/* What a space is, in a log. */

/* Zeros, whatever the store has: given back by the program, or already delivered as such. */
static bool is_zeros(uint8_t byte)
{
	return page_state(byte) == SPACE_REMOVED || page_state(byte) == SPACE_DIRTY;
}

static void write_range(const struct space_range *range, void (*entry)(void *arg, const struct book_entry *entry),
                        void *arg)
{
	const struct client_source *source = range->source;
	uint64_t end = range->start + range->len, from = 0;

	entry(arg, &(struct book_entry){.kind = BOOK_REGION,
	                                .flags = source->flags,
	                                .store = source->store,
	                                .unit = (uint32_t)range->unit,
	                                .a = range->start,
	                                .b = range->len,
	                                .c = range->offset});
	for (uint64_t at = range->start; at <= end; at += range->unit) {
		bool zeros = at < end && is_zeros(atomic_load(state_at(range, at)));

		if (zeros && !from)
			from = at;
		if (!zeros && from) {
			entry(arg, &(struct book_entry){.kind = BOOK_ZEROS, .a = from, .b = at - from});
			from = 0;
		}
	}
}

void family_write(const struct space *space, void (*entry)(void *arg, const struct book_entry *entry), void *arg)
{
	struct space_range range;

	for (uint64_t at = 0; space_next(space, at, &range); at = range.start + range.len)
		write_range(&range, entry, arg);
}

static void count_one(void *arg, const struct book_entry *entry)
{
	(void)entry;
	++*(uint64_t *)arg;
}

uint64_t family_count(const struct space *space)
{
	uint64_t count = 0;

	family_write(space, count_one, &count);
	return count;
}

/* Pages that nobody has got. */

static bool is_owed(uint8_t byte)
{
	enum space_page state = page_state(byte);

	return state == SPACE_MISSING || state == SPACE_FILLING || state == SPACE_LOST;
}

/*
 * What is there already stays; a page of which nothing was known is one of those. The kernel refuses as a whole what lies in more than one
 * mapping, or partly in none: then it is tried in halves. Of hugetlbfs it wants whole units.
 */
static int poison_run(struct uf *uf, uint64_t from, uint64_t to, uint64_t unit)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), most = to - from;

	while (from < to) {
		uint64_t len = to - from < most ? to - from : most;
		ssize_t n = uf_poison(uf, pointer(from), len, 0);

		if (n == -EAGAIN || n == -ESRCH)
			return n == -EAGAIN ? -EAGAIN : 0;
		if (n == -EINVAL && from % unit)
			n = (ssize_t)(unit - from % unit);
		else if (n == -EINVAL && len % unit && len > unit)
			most = len - len % unit;
		else if (n == -ENOENT && len > page)
			most = len / 2 & ~(page - 1);
		else if (n < 0)
			n = (ssize_t)page;
		if (n <= 0)
			continue;
		from += (uint64_t)n;
		most = to - from;
	}
	return 0;
}

int family_poison(struct uf *uf, const struct space *space)
{
	struct space_range range;
	int err = 0;

	for (uint64_t at = 0; !err && session_next(space, at, &range); at = range.start + range.len) {
		uint64_t end = range.start + range.len, from = 0;

		for (uint64_t page = range.start; !err && page <= end; page += range.unit) {
			bool owed = page < end && is_owed(atomic_load(state_at(&range, page)));

			if (owed && !from)
				from = page;
			if (!owed && from) {
				err = poison_run(uf, from, page, range.unit);
				from = 0;
			}
		}
	}
	return err;
}

/* The child. */

struct copying {
	struct book book;
	int err;
};

static void copy_one(void *arg, const struct book_entry *entry)
{
	struct copying *copying = arg;
	struct book_entry copy = *entry;

	/* What has departed from its parent had done so before the fork: nobody will tell the child. */
	copy.flags |= entry->kind == BOOK_REGION ? BOOK_INHERITED : 0;
	if (entry->a < SESSION_ASIDE && !copying->err)
		copying->err = book_append(&copying->book, &copy);
}

/* A book with this memory in it: its descriptor or -errno. */
static int write_book(const struct space *space)
{
	struct copying copying = {.err = 0};
	int fd = book_create();

	if (fd < 0)
		return fd;
	copying.err = book_open(&copying.book, fd);
	if (!copying.err)
		family_write(space, copy_one, &copying);
	book_close(&copying.book);
	if (!copying.err)
		return fd;
	close(fd);
	return copying.err;
}

/* What it has done already stands in the way: nobody else hears of it. One that does so without end is its own loss. */
static void poison_child(struct uf *uf, const struct space *space)
{
	for (unsigned i = 0; family_poison(uf, space) == -EAGAIN && i < 1000; i++) {
		struct uffd_msg msg;

		if (uf_read(uf, &msg, 1) == 1 && msg.event == UFFD_EVENT_FORK)
			close((int)msg.arg.fork.ufd);
	}
}

/*
 * Nobody will serve it. Its descriptor must not be closed before its pages are lost: they would be zeros; nor before the log is done with it:
 * by then its number may be another's.
 */
static void refuse(struct client *parent, const struct space *space, uint64_t index, int err)
{
	int fd = (int)book_entry(&parent->book, index)->a;
	struct uf *uf = NULL;

	say(LOG_ERROR, "client %llu: its child is not served: %s", (unsigned long long)parent->record->id,
	    journal_refusal(err));
	if (!uf_adopt(&uf, fd))
		poison_child(uf, space);
	book_forked(&parent->book, index);
	if (uf)
		uf_close(uf);
	else
		close(fd);
}

uint64_t family_make(struct client *parent, const struct space *space, uint64_t index)
{
	struct journal *journal = parent->thread->worker->journal;
	const struct book_entry *entry = book_entry(&parent->book, index);
	int claimed = journal_claim(journal, parent->record->uid), book;
	uint64_t id;
	struct journal_client *child = claimed < 0 ? NULL : &journal->client[claimed];

	book = child ? write_book(space) : claimed;
	if (book < 0) {
		if (child)
			journal_release(child);
		refuse(parent, space, index, book);
		return 0;
	}
	atomic_store(&child->book, book);
	atomic_store(&child->object, (int)entry->a);
	id = child->id;
	child->parent = parent->record->id;
	child->fork = entry->id;
	memcpy(child->name, parent->record->name, sizeof(child->name));
	/* Release: it is a client, and its parent's log only says so still. */
	atomic_store_explicit(&child->state, JOURNAL_SERVED, memory_order_release);
	book_forked(&parent->book, index);
	atomic_store_explicit(&child->born, true, memory_order_release);
	journal_ring(journal, journal_thread(journal, (unsigned)claimed));
	return id;
}
