// SPDX-License-Identifier: MIT
/*
 * The loop: messages, many at once; layout events before faults, since a fault that was read together with one comes after it; faults in the
 * order of their addresses, those that follow one another as one. What cannot be done now is held, and looked at again when
 * the bell rings.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "base/clock.h"
#include "session/fault.h"
#include "session/loop.h"
#include "uffd/durable.h"

#define MESSAGES 64
/* Of so many reads one looks for more than one message, and one of so many looks at once whether another has come, where that was in vain. */
#define PROBE 16u
#define EVENTS \
	(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP)
/* How long what is to be tried later waits, ms, unless the owner says otherwise. */
#define LATER 1000u

/* What is posted comes from memory of its own: it is posted in signal handlers. */
#define POSTS_AT_ONCE (65536 / sizeof(struct session_post))

/* What waits for messages to be read looks again after so long in any case, ms: another thread may have read them. */
#define PARKED 1

/*
 * The bell, and posts.
 */

static void ring(struct session *session)
{
	uint64_t one = 1;

	/* Once is enough until it is heard. The exchange orders it behind what was done before. */
	if (atomic_exchange(&session->rung, 1))
		return;
	if (session->options.driven)
		session->options.ops->ring(session->options.arg);
	else
		raw_syscall3(SYS_write, session->bell, (long)&one, sizeof(one));
}

static void hear(struct session *session)
{
	uint64_t count;

	if (!session->options.driven)
		raw_read(session->bell, &count, sizeof(count));
	/*
	 * Before anything is looked at. A ring is not lost: its exchange comes before this one, and then this one, which reads what it has
	 * written, sees all that was done before it; or it comes after this one, finds 0, and writes to the bell, behind the read. So an
	 * exchange, not a store, which would see nothing. Whoever has exchanged before and writes only now rings once too often.
	 */
	atomic_exchange(&session->rung, 0);
}

void session_retry(struct session *session)
{
	ring(session);
}

/* With the lock. */
static void more_posts(struct session *session)
{
	struct session_post *posts = raw_map_own(POSTS_AT_ONCE * sizeof(*posts));

	/* The first links the pieces, for loop_forget(). */
	for (size_t i = 1; posts && i < POSTS_AT_ONCE; i++) {
		posts[i].next = session->free_posts;
		session->free_posts = &posts[i];
	}
	if (posts) {
		posts[0].next = session->pieces;
		session->pieces = &posts[0];
	}
}

static void push(struct session *session, const struct session_post *what)
{
	signal_mask before = block_signals();
	struct session_post *post;

	for (;;) {
		lock_take(&session->posts_lock);
		if (!session->free_posts)
			more_posts(session);
		post = session->free_posts;
		if (post)
			break;
		/* No memory at all: the loop will give some back. */
		lock_release(&session->posts_lock);
		raw_syscall3(SYS_sched_yield, 0, 0, 0);
	}
	session->free_posts = post->next;
	*post = *what;
	post->next = session->posts;
	session->posts = post;
	lock_release(&session->posts_lock);
	restore_signals(before);
	ring(session);
}

void session_post(struct session *session, uint64_t addr, bool write, enum session_when when)
{
	push(session, &(struct session_post){.addr = addr, .write = write, .when = when});
}

void session_post_ahead(struct session *session, uint64_t addr, uint64_t len)
{
	push(session, &(struct session_post){.addr = addr, .len = len});
}

static struct session_post *take_posts(struct session *session)
{
	struct session_post *posts;

	lock_take(&session->posts_lock);
	posts = session->posts;
	session->posts = NULL;
	lock_release(&session->posts_lock);
	return posts;
}

static void give_post(struct session *session, struct session_post *post)
{
	lock_take(&session->posts_lock);
	post->next = session->free_posts;
	session->free_posts = post;
	lock_release(&session->posts_lock);
}

void loop_forget(struct session *session)
{
	while (session->pieces) {
		struct session_post *piece = session->pieces;

		session->pieces = piece->next;
		raw_unmap(piece, POSTS_AT_ONCE * sizeof(*piece));
	}
}

/*
 * One fault.
 */

/* All that was to be seen to by the fill is looked at later. */
static void post_demand(struct session *session, const struct fill *fill)
{
	for (uint64_t at = fill->demand; at < fill->demand + fill->demand_len; at += fill->range.unit)
		session_post(session, at, fill->write, WHEN_LATER);
}

/* The fill was planned; its bytes are at hand, or have to be fetched. Leaves the gate. */
static void fetch(struct session *session, struct fill *fill, signal_mask before, uint64_t now)
{
	struct fill *heap = NULL;
	bool placed = fill_find(fill) || !fill_read(fill, false);

	/* Who waits in a handler counts for himself. */
	fill->start_ns = session->options.inline_faults ? 0 : now;
	if (placed) {
		fill_place(fill);
	} else {
		heap = malloc(sizeof(*heap));
		if (heap) {
			*heap = *fill;
			fill_begin(heap);
		} else {
			fill_abandon(fill);
		}
	}
	session_leave(session, before);
	if (heap && session->options.waits)
		fill_fetch(heap);
	else if (heap)
		fill_submit(heap);
	else if (placed && fill->start_ns)
		session_count_latency(session, fill->start_ns);
	else if (!placed)
		post_demand(session, fill);
}

/* False: it has to be looked at again. *covered: up to there touches of missing pages are seen to. */
static bool serve(struct session *session, uint64_t addr, uint64_t more, bool write, uint64_t now, uint64_t *covered)
{
	struct look look;

	*covered = addr;
	for (;;) {
		signal_mask before = session_enter(session);
		enum step step = fault_look(session, addr, more, write, false, &look);

		if (step == STEP_FETCH) {
			*covered = look.fill.demand + look.fill.demand_len;
			fetch(session, &look.fill, before, now);
			return true;
		}
		session_leave(session, before);
		switch (step) {
		case STEP_AGAIN:
			break;
		case STEP_BUFFER:
			buffers_wait(session->buffers, look.fill.len);
			break;
		case STEP_STATE:
			/* Who waits in a handler looks by itself when the state changes. */
			return session->options.inline_faults;
		case STEP_POST:
			session_post(session, addr, write, WHEN_READ);
			return true;
		case STEP_ROOM:
			return false;
		default:
			return true;
		}
	}
}

/* True: nothing is left of it to be done. */
static bool serve_post(struct session *session, const struct session_post *post, uint64_t now)
{
	uint64_t covered;

	if (!post->len)
		return serve(session, post->addr, 0, post->write, now, &covered);
	session_bring_next(session, post->addr, post->len);
	return true;
}

/* Looks at everything that is held once; what remains stays, in its order. */
static void serve_held(struct session *session)
{
	struct session_post **link = &session->kept.held, *post;
	uint64_t now = *link ? now_ns() : 0;

	while ((post = *link)) {
		if (serve_post(session, post, now)) {
			*link = post->next;
			give_post(session, post);
		} else {
			link = &post->next;
		}
	}
}

static unsigned later_ms(const struct session *session)
{
	return session->options.later_ms ? session->options.later_ms : LATER;
}

static struct session_post **end_of(struct session_post **list)
{
	while (*list)
		list = &(*list)->next;
	return list;
}

static void move_to(struct session_post **from, struct session_post **list)
{
	*end_of(list) = *from;
	*from = NULL;
}

/* New posts to their lists. They were stacked: the oldest is looked at first. */
static void sort_posts(struct session *session)
{
	struct session_kept *kept = &session->kept;
	struct session_post *posts = take_posts(session), *ordered = NULL;

	while (posts) {
		struct session_post *post = posts, **list = &ordered;

		posts = post->next;
		if (post->when == WHEN_READ) {
			list = &kept->parked;
			if (!kept->parked_due)
				kept->parked_due = now_ns() + PARKED * 1000000ull;
		}
		if (post->when == WHEN_LATER) {
			list = &kept->later;
			if (!kept->later_due)
				kept->later_due = now_ns() + later_ms(session) * 1000000ull;
		}
		post->when = WHEN_SOON;
		post->next = *list;
		*list = post;
	}
	move_to(&ordered, &kept->held);
}

/* Whose time has come. */
static void take_up(struct session *session)
{
	struct session_kept *kept = &session->kept;

	if (kept->read || (kept->parked_due && now_ns() >= kept->parked_due)) {
		move_to(&kept->parked, &kept->held);
		kept->parked_due = 0;
	}
	kept->read = false;
	if (kept->later_due && now_ns() >= kept->later_due) {
		move_to(&kept->later, &kept->held);
		kept->later_due = 0;
	}
}

/* With the gate closed, and all told. Shared memory has what its file has, whatever mapping it is seen through. 0, or -errno: not now. */
static int let_stay(struct session *session)
{
	const struct session_ops *ops = session->options.ops;
	uint64_t start = 0, len = 0;
	int err = 0;

	for (; !err && session_next_stay(session->space, &start, &len); start += len) {
		/* Without one of its pages only shared memory could go on. */
		if (uf_continue(session->uf, pointer(start), session->page, UFFDIO_CONTINUE_MODE_DONTWAKE) != -EINVAL)
			continue;
		err = ops->stays ? ops->stays(session->options.arg, start, len) : 0;
		while (!err && session_stay(session->space, start, len) == -ENOMEM)
			raw_syscall3(SYS_sched_yield, 0, 0, 0);
	}
	return err;
}

/* With the gate closed. What was kept until other events are told is not needed any more once nothing is untold. */
static void look_if_told(struct session *session)
{
	const struct session_ops *ops = session->options.ops;
	unsigned ms = atomic_load_explicit(&session->told_ms, memory_order_relaxed);
	uint64_t before;

	if (!ms)
		return;
	if ((!atomic_load_explicit(&session->told, memory_order_relaxed) && !uf_all_told(session->uf)) ||
	    let_stay(session) || (ops->all_told && ops->all_told(session->options.arg))) {
		atomic_store_explicit(&session->told_ms, ms < LATER / 2 ? ms * 2 : LATER, memory_order_relaxed);
		return;
	}
	atomic_store_explicit(&session->told_ms, 0, memory_order_relaxed);
	before = space_present(session->space, SESSION_ASIDE, UINT64_MAX);
	while (session_all_told(session->space) == -ENOMEM)
		raw_syscall3(SYS_sched_yield, 0, 0, 0);
	atomic_fetch_sub_explicit(&session->stats.present, before, memory_order_relaxed);
	/* What is known now may have been asked for before. */
	ring(session);
}

/*
 * What was posted, if the bell has been heard: whoever posts rings. `idle`: nothing else called for this look. How long it may wait for the next
 * one, ms; -1: any time.
 */
static int serve_posts(struct session *session, bool rung, bool idle)
{
	struct session_kept *kept = &session->kept;
	unsigned told_ms;
	int ms = -1;

	kept->read |= idle;
	if (idle && atomic_load_explicit(&session->told_ms, memory_order_relaxed)) {
		signal_mask before = session_change_begin(session);

		look_if_told(session);
		session_change_end(session, before);
	}
	/* What is parked by this very look waits for the next. */
	take_up(session);
	if (rung)
		sort_posts(session);
	serve_held(session);
	if (kept->later_due)
		ms = (int)later_ms(session);
	told_ms = atomic_load_explicit(&session->told_ms, memory_order_relaxed);
	if (told_ms && (ms < 0 || told_ms < (unsigned)ms))
		ms = (int)told_ms;
	return kept->parked ? PARKED : ms;
}

/*
 * Messages.
 */

struct fault {
	uint64_t addr;
	bool write;
};

static int by_address(const void *a, const void *b)
{
	const struct fault *x = a, *y = b;

	if (x->addr != y->addr)
		return x->addr < y->addr ? -1 : 1;
	/* Of two on one page the write decides. */
	return (int)y->write - (int)x->write;
}

static uint64_t present_in(const struct space *space, uint64_t start, uint64_t len)
{
	return space_present(space, start, start + len);
}

/* What is there in all that an event tells of, and of what is kept for later; or anywhere. */
static uint64_t present_at(const struct space *space, const struct uffd_msg *msg, bool anywhere)
{
	uint64_t kept = space_present(space, SESSION_ASIDE, UINT64_MAX);

	if (anywhere)
		return kept + present_in(space, 0, SESSION_ASIDE);
	switch (msg->event) {
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		return kept + present_in(space, msg->arg.remove.start, msg->arg.remove.end - msg->arg.remove.start);
	case UFFD_EVENT_REMAP:
		return kept + present_in(space, msg->arg.remap.from, msg->arg.remap.len) +
		       present_in(space, msg->arg.remap.to, msg->arg.remap.len);
	default:
		return kept;
	}
}

/* Nobody is inside the gate. What an event tells must not be forgotten: pages would come back that the program gave up. */
static void apply_event(struct session *session, const struct uffd_msg *msg)
{
	bool anywhere = session_in_doubt(session->space);
	uint64_t before = present_at(session->space, msg, anywhere);

	while (session_apply(session->space, msg, uf_features(session->uf)) == -ENOMEM)
		raw_syscall3(SYS_sched_yield, 0, 0, 0);
	atomic_fetch_sub_explicit(&session->stats.present, before - present_at(session->space, msg, anywhere),
	                          memory_order_relaxed);
	atomic_store_explicit(&session->told, false, memory_order_relaxed);
	atomic_store_explicit(&session->told_ms, session->counts && session_is_owed(session->space),
	                      memory_order_relaxed);
	if (session->options.ops->event)
		session->options.ops->event(session->options.arg, msg);
	/* A page that was on its way may not be any more: who waits for it is looked at again. */
	ring(session);
}

/* The end of the run of pages, one after the other, that begins with this fault and is touched in the same way. */
static uint64_t run_end(const struct session *session, const struct fault *faults, size_t count)
{
	uint64_t end = faults[0].addr + session->page;

	for (size_t i = 1; i < count && faults[i].addr <= end && faults[i].write == faults[0].write; i++)
		end = faults[i].addr + session->page;
	return end;
}

static void hold(struct session *session, const struct fault *fault)
{
	session_post(session, fault->addr, fault->write, WHEN_SOON);
	atomic_fetch_add_explicit(&session->stats.waits, 1, memory_order_relaxed);
}

static void serve_faults(struct session *session, struct fault *faults, size_t count)
{
	uint64_t now = now_ns(), covered = 0;

	if (count > 1)
		qsort(faults, count, sizeof(*faults), by_address);
	for (size_t i = 0; i < count; i++) {
		if (i && faults[i].addr < covered)
			continue;
		if (!serve(session, faults[i].addr, run_end(session, &faults[i], count - i), faults[i].write, now,
		           &covered))
			hold(session, &faults[i]);
	}
}

/*
 * The kernel refuses pages only until an event is read. One that was put in place between that and the change of the space would be put
 * there by what was true before; so where there are events, nobody is inside the gate from the one to the other.
 */
static ssize_t take_messages(struct session *session, struct uffd_msg *msgs, size_t count)
{
	const struct session_ops *ops = session->options.ops;
	signal_mask before;
	ssize_t n;

	if (!(uf_features(session->uf) & EVENTS) && !ops->receive)
		return uf_read(session->uf, msgs, count);
	before = session_change_begin(session);
	look_if_told(session);
	n = ops->receive ? ops->receive(session->options.arg, msgs, count) : uf_read(session->uf, msgs, count);
	for (ssize_t i = 0; i < n; i++)
		if (msgs[i].event != UFFD_EVENT_PAGEFAULT)
			apply_event(session, &msgs[i]);
	session_change_end(session, before);
	return n;
}

/* True: there was one. */
static bool read_messages(struct session *session, struct session_reader *reader)
{
	struct uffd_msg msgs[MESSAGES];
	struct fault faults[MESSAGES];
	size_t count = 0;
	/* Where they come one at a time, to look for a second costs a quarter of the read more. */
	ssize_t n = take_messages(session, msgs, reader->single % PROBE ? 1 : MESSAGES);

	reader->single = n > 1 ? 0 : reader->single + 1;
	for (ssize_t i = 0; i < n; i++)
		if (msgs[i].event == UFFD_EVENT_PAGEFAULT)
			faults[count++] = (struct fault){
				.addr = msgs[i].arg.pagefault.address & ~(session->page - 1),
				.write = msgs[i].arg.pagefault.flags &
			                 (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP),
			};
	if (count)
		serve_faults(session, faults, count);
	return n > 0;
}

/*
 * A thread that was woken on this processor may have run already, and faulted again: then its message is there, and need not be waited for. Where
 * it is not, since threads run elsewhere or have something else to do, a look is a system call for nothing.
 */
static void read_on(struct session *session, struct session_reader *reader, unsigned reads)
{
	bool found = reads && read_messages(session, reader);

	while (found && --reads) {
		if (reader->leave) {
			reader->leave--;
			return;
		}
		found = read_messages(session, reader);
		if (!found)
			reader->leave = PROBE;
	}
}

int session_turn(struct session *session, unsigned reads)
{
	bool rung = atomic_load(&session->rung);

	if (rung)
		hear(session);
	read_on(session, &session->reader, reads);
	session->kept.read |= reads > 0;
	return serve_posts(session, rung, !reads && !rung);
}

void *session_loop(void *arg)
{
	struct session *session = arg;
	bool reads = !session->options.inline_faults, keeps = !atomic_exchange(&session->hears, true);
	struct pollfd fds[] = {{.fd = keeps ? session->bell : -1, .events = POLLIN},
	                       {.fd = reads ? uf_fd(session->uf) : -1, .events = POLLIN},
	                       {.fd = session->end, .events = POLLIN}};
	/* Another process may make its descriptor a blocking one: it is read where there is a message. */
	unsigned most = session->options.elsewhere ? 1 : SESSION_READS;
	struct session_reader reader = {0};
	int timeout = -1;

	while (!atomic_load(&session->ending)) {
		bool messages, rung;
		int ready = poll(fds, 3, timeout);

		messages = reads && fds[1].revents;
		rung = fds[0].revents;
		if (rung)
			hear(session);
		read_on(session, &reader, messages ? most : 0);
		if (keeps) {
			session->kept.read |= messages;
			timeout = serve_posts(session, rung, !ready);
		}
	}
	return NULL;
}
