// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rawsys.h"
#include "manager/ahead.h"
#include "manager/client.h"
#include "manager/log.h"
#include "manager/record.h"
#include "manager/worker.h"
#include "uffd/durable.h"

/*
 * Sources and regions.
 */

static struct client_source *source_for(struct client *client, uint16_t store, uint8_t flags)
{
	struct client_source *source;

	for (source = client->sources; source; source = source->next)
		if (source->store == store && source->flags == flags)
			return source;
	source = calloc(1, sizeof(*source));
	if (!source)
		return NULL;
	source->source.store = client->thread->worker->stores.list[store].store;
	source->source.inherited = flags & BOOK_INHERITED;
	source->source.comes_again = flags & BOOK_REMOVED_IS_STORE;
	source->store = store;
	source->flags = flags;
	source->next = client->sources;
	client->sources = source;
	if (client->recorder)
		record_source(client->recorder, source);
	return source;
}

static struct space *space_of(const struct client *client)
{
	return client->open ? client->session.space : client->space;
}

/* Into the space alone. */
static int insert(struct client *client, const struct book_entry *region)
{
	struct client_source *source = source_for(client, region->store, region->flags);
	struct space_range range = {
		.start = region->a, .len = region->b, .offset = region->c, .unit = region->unit, .source = source};

	return source ? space_insert(space_of(client), &range, NULL) : -ENOMEM;
}

/* Whether just this lies there: it was said by a message of which nobody knows whether it was answered. */
static bool is_there(const struct client *client, const struct book_entry *region)
{
	const struct client_source *source;
	struct space_range range;

	if (!space_find(space_of(client), region->a, &range))
		return false;
	source = range.source;
	return range.start == region->a && range.len == region->b && range.offset == region->c &&
	       range.unit == region->unit && source->store == region->store && source->flags == region->flags;
}

/* Before any of them is added: how many are new, or -errno. */
static ssize_t check_regions(const struct client *client, const struct book_entry *regions, size_t count, size_t *index)
{
	size_t most = client->thread->worker->options->max_regions, there = 0;
	struct space_range range;
	ssize_t fresh = 0;

	for (uint64_t at = 0; session_next(space_of(client), at, &range); at = range.start + range.len)
		there++;
	for (size_t i = 0; i < count; i++) {
		*index = i;
		if (is_there(client, &regions[i]))
			continue;
		if (space_next(space_of(client), regions[i].a, &range) && range.start < regions[i].a + regions[i].b)
			return -EEXIST;
		if (there + (size_t)++fresh > most)
			return -E2BIG;
	}
	return fresh;
}

int client_add(struct client *client, const struct book_entry *regions, size_t count, size_t *index)
{
	bool open = client->open;
	signal_mask before = open ? session_change_begin(&client->session) : 0;
	ssize_t fresh = check_regions(client, regions, count, index);
	int err = fresh < 0 ? (int)fresh : 0;

	for (size_t i = 0; fresh > 0 && !err && i < count; i++) {
		*index = i;
		if (is_there(client, &regions[i]))
			continue;
		err = insert(client, &regions[i]);
		/* Whoever touches it before it is in the book waits: it was not answered. */
		if (!err)
			err = book_append(&client->book, &regions[i]);
		if (!err)
			record_region(client->recorder, &regions[i]);
		else
			atomic_store(&client->broken, true);
	}
	if (open)
		session_change_end(&client->session, before);
	for (size_t i = 0; open && !err && i < count; i++)
		ahead_region(client->thread->worker->ahead, client, regions[i].a, regions[i].b);
	return err;
}

/* What the log says, from its beginning. */
static int replay(struct client *client)
{
	int err = 0;

	for (uint64_t i = 0; !err && i < book_count(&client->book); i++) {
		const struct book_entry *entry = book_entry(&client->book, i);

		switch (entry->kind) {
		case BOOK_REGION:
			/* The stores are what they were; a log that says something else is damaged. */
			err = entry->store < client->thread->worker->stores.count ? insert(client, entry) : -EINVAL;
			break;
		case BOOK_ZEROS:
			err = space_remove(client->space, entry->a, entry->b);
			break;
		case BOOK_EVENT:
			/* What else an event may be wrong in it was when it came, and nothing followed from it. */
			err = session_apply(client->space, &entry->msg, client->record->features);
			err = err == -ENOMEM ? err : 0;
			break;
		case BOOK_STAYS:
			err = session_stay(client->space, entry->a, entry->b);
			break;
		case BOOK_TOLD:
			err = session_all_told(client->space);
			break;
		case BOOK_FORK:
			family_make(client, client->space, i);
			break;
		default:
			break;
		}
	}
	return err;
}

/*
 * Messages.
 */

static void count_event(struct client *client, const struct uffd_msg *msg)
{
	enum status_event event = STATUS_EVENT_FORK;

	switch (msg->event) {
	case UFFD_EVENT_REMAP:
		event = STATUS_EVENT_REMAP;
		break;
	case UFFD_EVENT_REMOVE:
		event = STATUS_EVENT_REMOVE;
		break;
	case UFFD_EVENT_UNMAP:
		event = STATUS_EVENT_UNMAP;
		break;
	default:
		break;
	}
	atomic_fetch_add_explicit(&client->events[event], 1, memory_order_relaxed);
}

/* The log says it, before anything follows from it. */
static void log_event(struct client *client, const struct uffd_msg *msg, uint64_t id)
{
	int err = book_append_message(&client->book, msg, id);

	count_event(client, msg);
	if (!err)
		return;
	/* From now on nobody could go on where this worker stopped. */
	say(LOG_ERROR, "client %llu: a layout event cannot be noted: %s", (unsigned long long)client->record->id,
	    strerror(-err));
	atomic_store(&client->broken, true);
}

static void write_anew(void *arg, const struct book_entry *entry)
{
	book_rewrite_add(arg, entry);
}

/* A long log becomes what it has led to. Nothing that is in the log is still to be done to the space. */
static void shorten_log(struct client *client)
{
	struct book_rewrite rewrite;

	book_rewrite_begin(&rewrite, &client->book, family_count(client->session.space));
	family_write(client->session.space, write_anew, &rewrite);
	/* Without memory for it the long one serves. */
	book_rewrite_end(&rewrite);
}

/* A successor sees all that this thread did up to its end, whatever the processor: only the compiler must keep to the order. */
static void set_owner(struct journal_mailbox *mailbox, uint32_t owner)
{
	atomic_signal_fence(memory_order_seq_cst);
	atomic_store_explicit(&mailbox->owner, owner, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
}

/*
 * The kernel's: read(2) stores them where a successor finds them. Without waiting, whatever the descriptor's flags say: they are the
 * client's to change.
 */
static ssize_t receive_kernel(struct client *client, struct uffd_msg *msgs, size_t count)
{
	struct journal *journal = client->thread->worker->journal;
	struct journal_mailbox *mailbox = &journal->mailboxes[client->thread->number];
	struct iovec to = {.iov_base = mailbox->messages, .iov_len = count * sizeof(*msgs)};
	ssize_t n;

	mailbox->number++;
	set_owner(mailbox, client->index + 1);
	n = raw_syscall6(SYS_preadv2, uf_fd(client->session.uf), (long)&to, 1, -1, -1, RWF_NOWAIT);
	if (n == -EOPNOTSUPP || n == -EINVAL) {
		client_unblock(client);
		n = raw_read(uf_fd(client->session.uf), mailbox->messages, count * sizeof(*msgs));
	}
	n = n > 0 ? n / (ssize_t)sizeof(*msgs) : n;
	for (ssize_t i = 0; i < n; i++)
		if (mailbox->messages[i].event != UFFD_EVENT_PAGEFAULT)
			log_event(client, &mailbox->messages[i], mailbox->number * JOURNAL_MESSAGES + (uint64_t)i);
	if (n > 0)
		memcpy(msgs, mailbox->messages, (size_t)n * sizeof(*msgs));
	/* What it says is in the log now. It is emptied after that, and by a successor in any case. */
	set_owner(mailbox, 0);
	if (n > 0)
		memset(mailbox->messages, 0, (size_t)n * sizeof(*msgs));
	return n;
}

/* The user engine's: not read for good before the log has them. What the log had from a worker before this one is in the space already. */
static ssize_t receive_user(struct client *client, struct uffd_msg *msgs, size_t count)
{
	uint64_t ids[JOURNAL_MESSAGES];
	ssize_t n = uf_peek(client->session.uf, msgs, ids, count), left = 0;

	for (ssize_t i = 0; i < n; i++) {
		if (ids[i] && ids[i] <= client->book.last) {
			if (msgs[i].event == UFFD_EVENT_FORK)
				close((int)msgs[i].arg.fork.ufd);
			continue;
		}
		if (ids[i])
			log_event(client, &msgs[i], ids[i]);
		msgs[left++] = msgs[i];
	}
	if (n > 0)
		uf_accept(client->session.uf, ids, (size_t)n);
	return n > 0 ? left : n;
}

static ssize_t receive(void *arg, struct uffd_msg *msgs, size_t count)
{
	struct client *client = arg;

	if (count > JOURNAL_MESSAGES)
		count = JOURNAL_MESSAGES;
	if (book_is_long(&client->book))
		shorten_log(client);
	return client->user ? receive_user(client, msgs, count) : receive_kernel(client, msgs, count);
}

/* The child's id; 0: it is not served. */
static uint64_t make_child(struct client *client, uint64_t fd)
{
	for (uint64_t i = book_count(&client->book); i > 0; i--) {
		const struct book_entry *entry = book_entry(&client->book, i - 1);

		if (entry->kind == BOOK_FORK && entry->a == fd)
			return family_make(client, client->session.space, i - 1);
	}
	return 0;
}

static int stays(void *arg, uint64_t start, uint64_t len)
{
	struct client *client = arg;

	return book_append(&client->book, &(struct book_entry){.kind = BOOK_STAYS, .a = start, .b = len});
}

static int all_told(void *arg)
{
	struct client *client = arg;

	return book_append(&client->book, &(struct book_entry){.kind = BOOK_TOLD});
}

static void on_event(void *arg, const struct uffd_msg *msg)
{
	struct client *client = arg;
	uint64_t child = 0;

	if (msg->event == UFFD_EVENT_FORK)
		child = make_child(client, msg->arg.fork.ufd);
	record_event(client->recorder, msg, child);
}

/*
 * The session's questions.
 */

static uint64_t admit(void *arg, uint64_t bytes, uint64_t unit, enum session_need need)
{
	(void)arg;
	(void)unit;
	(void)need;
	return bytes;
}

static void dismiss(void *arg, uint64_t bytes)
{
	(void)arg;
	(void)bytes;
}

/* Until it is not, the kernel calls it an error to wait for it, without end. */
void client_unblock(struct client *client)
{
	int fd = atomic_load(&client->record->object), flags = fcntl(fd, F_GETFL);

	if (flags >= 0 && !(flags & O_NONBLOCK))
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/* The store has said what it is; here it is told whom it hits. */
static bool failed(void *arg, const struct space_range *range, uint64_t addr, int err)
{
	struct client *client = arg;
	const struct client_source *source = range->source;

	say_sparingly(LOG_ERROR, "client %llu: page %#llx, offset %llu of store %s, cannot be had: %s",
	              (unsigned long long)client->record->id, (unsigned long long)addr,
	              (unsigned long long)offset_at(range, addr),
	              client->thread->worker->stores.list[source->store].name, strerror(-err));
	return client->session.can_poison;
}

static void touched(void *arg, struct session_source *source, uint64_t offset)
{
	struct client *client = arg;

	record_touched(client->recorder, (struct client_source *)source, offset);
}

static void done(void *arg, const struct session_done *done_)
{
	struct client *client = arg;
	const struct client_source *source = (const struct client_source *)done_->source;

	if (done_->origin == ORIGIN_AT_HAND || done_->origin == ORIGIN_STORE)
		stores_count(&client->thread->worker->stores.list[source->store], done_->len);
	record_done(client->recorder, done_);
}

static void ring(void *arg)
{
	worker_ring(arg);
}

static const struct session_ops ops = {
	.admit = admit,
	.dismiss = dismiss,
	.failed = failed,
	.event = on_event,
	.stays = stays,
	.all_told = all_told,
	.receive = receive,
	.touched = touched,
	.done = done,
	.ring = ring,
};

/*
 * From a record to a client that is served.
 */

static int watch(struct client *client, int fd, bool connection)
{
	/* Clients are aligned: the lowest bit is free. */
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uintptr_t)client | connection};

	return epoll_ctl(client->thread->epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

/* Everyone who waits in it comes again: what was read by a worker that is no more was answered or not, and nobody knows. */
static void wake_all(struct uf *uf, const struct space *space)
{
	struct space_range range;

	for (uint64_t at = 0; session_next(space, at, &range); at = range.start + range.len)
		uf_wake(uf, pointer(range.start), range.len);
}

/* Whether what is lost can be SIGBUS. The program need not have asked for that; what the kernel knows it refuses for want of an argument. */
static bool can_poison(const struct client *client)
{
	return client->user || raw_ioctl(uf_fd(client->uf), UFFDIO_POISON, NULL) != -EINVAL;
}

static int begin_session(struct client *client)
{
	struct session_options options = {
		.ops = &ops,
		.arg = client,
		.driven = !client->user,
		.waits = client->user,
		.vanishes = true,
		.elsewhere = true,
		.poisons = can_poison(client),
		.threads = 1,
		.buffers = client->user ? NULL : &client->thread->worker->buffers,
		.space = client->space,
	};
	int err = session_open(&client->session, client->uf, &options);

	if (err)
		return err;
	client->space = NULL;
	client->uf = NULL;
	client->open = true;
	return 0;
}

/* What is brought ahead: all regions. A child has what its parent had. */
static size_t list_regions(const struct client *client, struct book_entry **regions)
{
	size_t most = space_ranges(client->space), count = 0;
	struct space_range range;

	*regions = client->record->parent ? NULL : calloc(most ? most : 1, sizeof(**regions));
	for (uint64_t at = 0; *regions && session_next(client->space, at, &range); at = range.start + range.len)
		(*regions)[count++] = (struct book_entry){.a = range.start, .b = range.len};
	return count;
}

/* The object is there. From here on the space is the session's, whose threads may hold it. */
static int begin_serving(struct client *client)
{
	struct book_entry *regions;
	size_t count = list_regions(client, &regions);
	int err;

	/* Before there is any event. */
	client->record->features = uf_features(client->uf);
	client->recorder = record_begin(client);
	for (struct client_source *source = client->sources; source && client->recorder; source = source->next)
		record_source(client->recorder, source);
	/* Of the user engine its attacher has, who may wait for it. */
	if (!client->user)
		wake_all(client->uf, client->space);
	err = begin_session(client);
	if (!err)
		client->stage = CLIENT_SERVED;
	for (size_t i = 0; !err && i < count; i++)
		ahead_region(client->thread->worker->ahead, client, regions[i].a, regions[i].b);
	free(regions);
	return err;
}

/* The thread of a client of the user engine: its owner is asked, and may take its time. */
static void *attach(void *arg)
{
	struct client *client = arg;
	int err = uf_adopt(&client->uf, atomic_load(&client->record->object));

	if (!err)
		wake_all(client->uf, client->space);
	atomic_store(&client->attached, err);
	worker_ring(client);
	return NULL;
}

static int end_attaching(struct client *client, char *cause, size_t cause_size)
{
	int err = atomic_load(&client->attached);

	pthread_join(client->attacher, NULL);
	/* It was served before, and is owed its pages however long it is stopped. */
	if (err == -ETIMEDOUT && client->taken_over) {
		atomic_store(&client->attached, 1);
		err = -pthread_create(&client->attacher, NULL, attach, client);
		if (!err)
			return 0;
	}
	if (!err)
		err = begin_serving(client);
	if (err)
		snprintf(cause, cause_size, "its descriptor does not answer: %s", strerror(-err));
	return err;
}

int client_serve(struct client *client, char *cause, size_t cause_size)
{
	int fd = atomic_load(&client->record->object), err;
	struct stat stat_;

	/* A socket that is none of the user engine's now may become one at any moment, and then it would have to be waited for. */
	client->user = uf_is_user_engine(fd) || (!fstat(fd, &stat_) && S_ISSOCK(stat_.st_mode));
	if (client->user) {
		atomic_store(&client->attached, 1);
		err = -pthread_create(&client->attacher, NULL, attach, client);
		if (err)
			snprintf(cause, cause_size, "no thread for it: %s", strerror(-err));
		else
			client->stage = CLIENT_ATTACHING;
		return err;
	}
	err = uf_adopt(&client->uf, fd);
	if (!err)
		err = begin_serving(client);
	if (err) {
		snprintf(cause, cause_size, "what it sent is no userfaultfd that can be served: %s", strerror(-err));
		return err;
	}
	client_unblock(client);
	err = watch(client, fd, false);
	if (err)
		snprintf(cause, cause_size, "%s", strerror(-err));
	return err;
}

static void list(struct client *client)
{
	struct thread *thread = client->thread;

	pthread_mutex_lock(&thread->lock);
	client->next = thread->clients;
	client->link = &thread->clients;
	if (client->next)
		client->next->link = &client->next;
	thread->clients = client;
	thread->count++;
	pthread_mutex_unlock(&thread->lock);
}

/* All that is neither the session's nor the record's. */
static void forget(struct client *client)
{
	struct client_source *source;

	record_end(client->recorder);
	space_free(client->space);
	book_close(&client->book);
	while ((source = client->sources)) {
		client->sources = source->next;
		free(source);
	}
	free(client);
}

int client_open(struct thread *thread, unsigned index)
{
	struct journal_client *record = &thread->worker->journal->client[index];
	bool served = atomic_load(&record->state) == JOURNAL_SERVED;
	struct client *client;
	char cause[128] = "no memory";
	int connection = atomic_load(&record->connection), err;

	/* A worker before this one was about to free it. */
	if (served && atomic_load(&record->object) < 0) {
		journal_release(record);
		return 0;
	}
	client = aligned_alloc(64, (sizeof(*client) + 63) & ~(size_t)63);
	if (!client)
		return -ENOMEM;
	*client = (struct client){.thread = thread, .index = index, .record = record, .taken_over = served};
	err = book_open(&client->book, atomic_load(&record->book));
	if (!err)
		err = space_new(&client->space);
	if (!err)
		err = replay(client);
	if (!err && connection >= 0)
		err = watch(client, connection, true);
	if (!err && served)
		err = client_serve(client, cause, sizeof(cause));
	/* It is owed its pages: without its object they would be zeros. */
	if (err && served && client->stage == CLIENT_MEETING && !client->uf) {
		client_unwatch(client);
		forget(client);
		return err;
	}
	list(client);
	/* What it said to a worker before this one may have been received and not understood. */
	if (err)
		client_end(client, cause);
	else if (client->stage != CLIENT_ATTACHING)
		client_converse(client);
	return 0;
}

/*
 * What happens.
 */

/* It has been joined. */
static void fail_to_attach(struct client *client, const char *cause)
{
	client->stage = CLIENT_MEETING;
	if (client->taken_over)
		client_end(client, cause);
	else
		client_refuse(client, NULL, cause);
}

void client_turn(struct client *client, unsigned reads)
{
	char cause[128];
	int ms = -1;

	if (client->stage == CLIENT_ATTACHING && atomic_load(&client->attached) <= 0) {
		if (end_attaching(client, cause, sizeof(cause)))
			fail_to_attach(client, cause);
		else if (client->stage == CLIENT_SERVED)
			client_converse(client);
	}
	if (client->adding && atomic_load(&client->attached) <= 0 && client->stage == CLIENT_SERVED) {
		pthread_join(client->attacher, NULL);
		handover_free(&client->add);
		client->adding = false;
		client->added = true;
		client_converse(client);
	}
	if (client->stage != CLIENT_SERVED)
		return;
	if (!client->user)
		ms = session_turn(&client->session, reads);
	client->due = ms < 0 ? 0 : now_ns() + (uint64_t)ms * 1000000u;
	if (client->due && (!client->thread->due || client->due < client->thread->due))
		client->thread->due = client->due;
	if (atomic_load(&client->session.gone))
		client_end(client, NULL);
	else if (atomic_load(&client->broken))
		client_end(client, "what it does cannot be written down");
}

void client_check(struct client *client, uint64_t now)
{
	const struct serve_options *options = client->thread->worker->options;

	bool meets = client->stage == CLIENT_MEETING || (client->stage == CLIENT_ATTACHING && !client->taken_over);

	if (meets && now - client->record->since > options->handover_ms * 1000000ull)
		client_refuse(client, NULL, "it took too long to hand over");
	else if (client->stage == CLIENT_SERVED && !uf_lives(client->session.uf))
		client_end(client, NULL);
}

/* How often an event that stands in the way is read, of a program that may have them without end. */
#define ATTEMPTS 1000

void client_end(struct client *client, const char *reason)
{
	if (client->stage == CLIENT_OVER)
		return;
	if (reason)
		say_sparingly(LOG_WARNING, "client %llu, pid %ld, uid %ld: %s", (unsigned long long)client->record->id,
		              (long)client->record->pid, (long)client->record->uid, reason);
	/* One whose program has to do it is left to the thread that frees it. */
	for (unsigned i = 0; i < ATTEMPTS && client->stage == CLIENT_SERVED && reason && !client->user; i++)
		if (client_leave(client))
			break;
	client->owes = client->stage == CLIENT_SERVED && reason && client->user;
	if (client->stage != CLIENT_SERVED && reason)
		atomic_fetch_add(&client->thread->worker->journal->refused, 1);
	client->joinable = client->stage == CLIENT_ATTACHING || client->adding;
	client->stage = CLIENT_OVER;
	worker_bury(client);
}

/* The program of a client of the user engine does it, and may not get to it. */
static void *leave(void *arg)
{
	struct client *client = arg;

	while (family_poison(client->session.uf, client->session.space) == -EAGAIN)
		usleep(1000);
	atomic_store(&client->left, true);
	return NULL;
}

bool client_leave(struct client *client)
{
	if (client->stage == CLIENT_ATTACHING)
		return false;
	if (!client->open || atomic_load(&client->left) || !uf_lives(client->session.uf))
		return true;
	if (client->user) {
		if (!client->leaving)
			client->leaving = !pthread_create(&client->leaver, NULL, leave, client);
		return !client->leaving || atomic_load(&client->left);
	}
	if (!family_poison(client->session.uf, client->session.space))
		atomic_store(&client->left, true);
	else
		session_turn(&client->session, SESSION_READS);
	return atomic_load(&client->left);
}

void client_give_up(struct client *client)
{
	if (!client->leaving)
		return;
	uf_hang_up(client->session.uf);
	pthread_join(client->leaver, NULL);
	client->leaving = false;
}

void client_show(struct client *client, struct status_client *out)
{
	static const enum status_source sources[ORIGINS] = {
		[ORIGIN_AT_HAND] = STATUS_SOURCE_CACHE,
		[ORIGIN_STORE] = STATUS_SOURCE_STORE,
		[ORIGIN_ZEROS] = STATUS_SOURCE_ZERO,
		[ORIGIN_THERE] = STATUS_SOURCE_PREFETCHED,
	};
	const struct journal_client *record = client->record;
	struct session_stats *stats = &client->session.stats;
	const struct stores *stores = &client->thread->worker->stores;
	struct space_range range;
	signal_mask before;

	out->id = record->id;
	out->parent = record->parent;
	out->pid = record->pid;
	out->uid = record->uid;
	status_set_name(out->name, record->name);
	out->engine = client->user ? STATUS_ENGINE_USER : STATUS_ENGINE_KERNEL;
	if (client->sources)
		status_set_name(out->store, stores->list[client->sources->store].name);
	out->age = now_ns() - record->since;
	for (unsigned i = 0; i < STATUS_EVENTS; i++)
		out->events[i] = atomic_load_explicit(&client->events[i], memory_order_relaxed);
	if (!client->open)
		return;
	if (session_try_enter(&client->session, &before)) {
		client->regions = client->managed = 0;
		for (uint64_t at = 0; session_next(client->session.space, at, &range); at = range.start + range.len) {
			client->regions++;
			client->managed += range.len;
		}
		session_leave(&client->session, before);
	}
	/* While its layout changes, which for a program that is stopped may take long: what it was. */
	out->regions = client->regions;
	out->managed = client->managed;
	out->faults = atomic_load_explicit(&stats->faults, memory_order_relaxed);
	out->prefetched = atomic_load_explicit(&stats->ahead, memory_order_relaxed);
	out->poisoned = atomic_load_explicit(&stats->poisoned, memory_order_relaxed);
	out->waits = atomic_load_explicit(&stats->waits, memory_order_relaxed);
	out->outstanding = atomic_load_explicit(&client->session.in_flight[0], memory_order_relaxed) +
	                   atomic_load_explicit(&client->session.in_flight[1], memory_order_relaxed);
	out->resident = atomic_load_explicit(&stats->present, memory_order_relaxed);
	for (unsigned i = 0; i < ORIGINS; i++)
		out->resolved[sources[i]] = atomic_load_explicit(&stats->origin[i], memory_order_relaxed);
	out->refaults = atomic_load_explicit(&stats->refaults, memory_order_relaxed);
	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		out->latency.bucket[i] = atomic_load_explicit(&stats->latency[i], memory_order_relaxed);
		out->latency.count += out->latency.bucket[i];
	}
	out->latency.sum = atomic_load_explicit(&stats->latency_sum, memory_order_relaxed);
	out->latency.max = atomic_load_explicit(&stats->latency_max, memory_order_relaxed);
}

void client_unwatch(struct client *client)
{
	int connection = atomic_load(&client->record->connection), object = atomic_load(&client->record->object);

	if (connection >= 0)
		epoll_ctl(client->thread->epoll, EPOLL_CTL_DEL, connection, NULL);
	if (object >= 0)
		epoll_ctl(client->thread->epoll, EPOLL_CTL_DEL, object, NULL);
}

void client_free(struct client *client)
{
	uint64_t until = now_ns() + WORKER_PATIENCE;
	struct journal_client *record = client->record;

	while (client->owes && !client_leave(client) && now_ns() < until)
		usleep(1000);
	client_give_up(client);
	/* Or it might wait for the program for ever. */
	if (client->open)
		uf_hang_up(client->session.uf);
	if (client->joinable)
		pthread_join(client->attacher, NULL);
	handover_free(&client->add);
	if (client->open || client->uf)
		/* The object's descriptor is closed with the object: it leaves the record before. */
		atomic_store(&client->record->object, -1);
	if (client->open) {
		ahead_forget(client->thread->worker->ahead, client);
		session_close(&client->session);
	} else if (client->uf) {
		uf_close(client->uf);
	}
	forget(client);
	journal_release(record);
}
