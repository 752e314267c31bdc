/* SPDX-License-Identifier: MIT */
/*
 * session.h - one object, one space, and the stores behind it: the fault loop of pager and manager
 *
 * A session turns faults into pages: it takes many messages at once, orders and merges them, fetches runs of pages with many reads in flight,
 * puts them in place, and keeps each page's state in the space. What it does not know is how much memory there may be, and what
 * became of pages that were taken out: that it asks its owner (struct session_ops).
 *
 * Whoever changes a page's state owns the page in between: FILLING and LEAVING are such states. From any other a page is taken by compare and
 * exchange (session_claim()), and given back by session_release(), which wakes those that wait. FILLING may last as long as a store takes;
 * nothing of the page is in memory then. LEAVING is short, unless its owner says otherwise, and the page may be in memory, and
 * be written to. So a page that can be written is LEAVING or DIRTY, and what was written before a moment is DIRTY, RESTING or LEAVING then.
 *
 * A range's unit may be larger than the memory's page. Where a layout event cuts through a unit it becomes pages (space_refine()), so that what was
 * removed stays so. Faults inline are for memory that has no layout events: who waits inline sleeps on a state that must stay where it is.
 *
 * Faults come from uf_read(), or from a handler on the faulting thread, for which session_fault() is async-signal-safe. What that cannot
 * do at once it posts to the loop, and waits. The loop runs on threads of the session's own, or its owner drives it: session_turn().
 *
 * Locks: `gate` guards the set of ranges; who is inside has all signals blocked. session_change_begin() closes it. Nobody waits for
 * a store or for room inside, but for handlers' own short reads. Inside it no other lock is taken but the owner's, by its ops.
 */
#ifndef SESSION_SESSION_H
#define SESSION_SESSION_H

#include <pthread.h>
#include <stdbool.h>

#include <userfault/store.h>
#include <userfault/uffd.h>

#include "base/gate.h"
#include "base/hist.h"
#include "base/lock.h"
#include "session/buffers.h"
#include "space/space.h"

struct session;

/* In what order pages are touched, as far as the owner was told: it says how much to read at once. */
enum session_order { ORDER_UNKNOWN, ORDER_RANDOM, ORDER_SEQUENTIAL };

/* Where the pages of a range come from: what space_range.source points to. The owner's; must outlive the range, see session_settle(). */
struct session_source {
	struct uf_store *store; /* NULL: zeros */
	struct uf_store *aside; /* where SAVED pages are, by the same offsets; or NULL */
	bool writable;          /* pages come in write-protected, so that the first write is noticed */
	bool no_zeropage;       /* UFFDIO_ZEROPAGE does not serve this memory */
	bool inherited;    /* may have departed before its process was forked, of which nobody tells: see layout.c */
	bool comes_again;  /* what the program gives back comes from the store again, not as zeros */
	_Atomic int order; /* enum session_order */
	_Atomic bool cut;  /* store_at() has promised what was not there */
	_Atomic bool recording;        /* first touches are told to the owner, and nothing is read ahead */
	struct session_stream {        /* a sequence of touches, as far as it is known; torn updates only cost speed */
		_Atomic uint64_t next; /* where it goes on, upwards */
		_Atomic uint64_t previous; /* and downwards */
		_Atomic uint32_t bytes;    /* read at once, last time */
	} streams[4];
	_Atomic unsigned turn; /* the stream that is replaced next */
};

/* What room is asked for. */
enum session_need {
	NEED_TOUCHED, /* a page that somebody waits for */
	NEED_STREAM,  /* pages that come with it, since they are asked for next */
	NEED_AHEAD,   /* pages that nobody waits for */
};

/* Where the page of a fault came from. */
enum session_origin {
	ORIGIN_AT_HAND, /* its store had it in memory */
	ORIGIN_STORE,   /* its store had to fetch it */
	ORIGIN_ZEROS,   /* nowhere: there is no store, or the program had given the page back */
	ORIGIN_THERE,   /* it was there, or on its way, when the fault was looked at */
	ORIGINS,
};

/* What was put in place, or could not be. */
struct session_done {
	uint64_t addr, len; /* bytes; len 0: it was there */
	struct session_source *source;
	uint64_t offset;   /* in it */
	uint64_t start_ns; /* when the fault was noticed; 0: nobody asked for it */
	enum session_origin origin;
	bool write, lost;
};

struct session_ops {
	/*
	 * Room for up to `bytes` more in memory, in whole units: how many may come, 0 to `bytes`. For a page that was touched 0 means that there is
	 * no room now, and the fault is tried again once session_retry() is called or, inline, wait_room() returns.
	 */
	uint64_t (*admit)(void *arg, uint64_t bytes, uint64_t unit, enum session_need need);
	/* Bytes that were admitted and did not come. */
	void (*dismiss)(void *arg, uint64_t bytes);
	/* [signal] Waits, or not, until there may be room. Outside the gate, with nothing held. */
	void (*wait_room)(void *arg);
	/*
	 * [signal] A page that was RESTING, claimed: puts its content in place, protected if it is the source's and the source is
	 * writable. The state that it has then, or -errno; -ENOENT: it is not there any more, but in the source.
	 */
	int (*restore)(void *arg, const struct space_range *range, uint64_t addr);
	/* [signal] A first touch of a source that is being recorded. Offset in the source. */
	void (*touched)(void *arg, struct session_source *source, uint64_t offset);
	/*
	 * A store failed for good. True: the page is lost; false: try it again later. Inside the gate, with signals blocked, on a thread of the
	 * store: it waits for nothing, and calls nothing of the session; what takes longer is left to another thread.
	 */
	bool (*failed)(void *arg, const struct space_range *range, uint64_t addr, int err);
	/*
	 * A layout event, already applied to the space, with the gate closed, and stats.present is less by what it has ended; after
	 * UFFD_EVENT_FORK arg.fork.ufd is the owner's. May be NULL.
	 */
	void (*event)(void *arg, const struct uffd_msg *msg);
	/*
	 * Pages have been put in place, or are lost: for an owner who keeps a record. Inside the gate, on any thread. May be NULL.
	 */
	void (*done)(void *arg, const struct session_done *done);
	/* session_stay() and session_all_told() are about to be called, with the gate closed, for an owner who keeps a record. 0, or -errno: not now. */
	int (*stays)(void *arg, uint64_t start, uint64_t len); /* may be NULL, both */
	int (*all_told)(void *arg);
	/* In place of uf_read(), for an owner who has to note events before they take effect. With the gate closed. May be NULL. */
	ssize_t (*receive)(void *arg, struct uffd_msg *msgs, size_t count);
	/* [signal] Driven: session_turn() has something to do beside reading messages. Once, until the next turn. */
	void (*ring)(void *arg);
};

/*
 * Counted by whoever does it; read by anybody.
 *
 * present: bytes of pages that were put in place and are there still, as far as the session knows: layout events take out what they end, and
 * an owner that takes pages out subtracts them itself (the pager does not: its budget tells). It cannot know of pages that were swapped
 * out, which count, nor of those that the program gave back without an event, by MADV_FREE or where UFFD_EVENT_REMOVE was
 * not asked for; pages that came without it count neither, nor does a unit of which only a part has come.
 */
struct session_stats {
	_Atomic uint64_t present;
	_Atomic uint64_t faults, write_faults, refaults, read, ahead, waits, poisoned;
	_Atomic uint64_t origin[ORIGINS];
	_Atomic uint64_t latency_sum, latency_max;
	_Atomic uint64_t latency[HIST_BUCKETS];
};

struct session_options {
	const struct session_ops *ops;
	void *arg;
	bool inline_faults; /* they come through session_fault() */
	bool driven;        /* no threads: the owner calls session_turn() */
	bool elsewhere; /* the memory is another process's: no signal handler here can touch it, so signals are left as they are */
	bool waits; /* fetches are made by the loop itself: whoever delivers pages may have to wait for the program that is served */
	bool poisons;                    /* what is lost can be poisoned, whether its owner has asked for that or not */
	bool vanishes;                   /* pages may go without an event, as after MADV_FREE; they are zeros then */
	unsigned threads;                /* of the loop; 0: 1 */
	unsigned later_ms;               /* until what failed is tried again; 0: a second */
	struct session_buffers *buffers; /* shared with others; NULL: its own */
	struct space *space;             /* what is there from the beginning; the session's on success. NULL: nothing */
};

/* When something is looked at again. */
enum session_when {
	WHEN_SOON,
	WHEN_READ,  /* once messages have been read: what it needs is refused until then */
	WHEN_LATER, /* after session_options.later_ms */
};

/* A fault, or a part of the loop's own work, that waits for another look. */
struct session_post {
	struct session_post *next;
	uint64_t addr;
	uint64_t len; /* to be brought; 0: it is a fault */
	bool write;
	enum session_when when;
};

/* What a thread that reads messages has learnt of how they come. */
struct session_reader {
	unsigned single; /* reads in a row that brought one message at most */
	unsigned leave;  /* so many times it does not look at once whether another one has come */
};

/* A page that is touched again and again, and of which nothing is known. */
struct session_stray {
	_Atomic uint64_t page, since; /* ns: of the first of these touches */
};

/* What the loop keeps: of the thread that hears the bell, or of whoever drives it. */
struct session_kept {
	struct session_post *held, *parked, *later;
	uint64_t parked_due, later_due; /* ns; 0: nothing */
	bool read;                      /* messages were read since what is parked was looked at */
};

struct session {
	struct uf *uf;
	struct space *space;
	struct gate gate;
	pthread_mutex_t change; /* serializes changes of the set of ranges; taken before the gate is closed */
	struct session_options options;
	struct session_buffers *buffers, own_buffers;
	bool can_protect, can_poison;
	uint64_t page; /* the system's page size, bytes */

	int bell;               /* eventfd: the loop has something to do beside reading messages; driven: -1 */
	struct lock posts_lock; /* innermost; held for a few instructions, signals blocked */
	struct session_post *posts, *free_posts, *pieces;
	_Atomic uint32_t rung; /* the bell has rung and not been heard */
	/* Fetches that were begun, and have not ended; of the present phase, and of the one before. */
	_Atomic uint32_t in_flight[2]; /* futex */
	unsigned phase;                /* changes with the gate closed */
	pthread_mutex_t settling;      /* who waits for a phase to end; taken before `change` */
	int end;                       /* eventfd: readable from then on that the threads are to end */
	_Atomic bool ending;
	_Atomic bool hears; /* a thread hears the bell, and keeps what is posted: one alone, as a bell is heard once */
	struct session_kept kept;
	struct session_reader reader; /* driven: the owner's */
	_Atomic bool gone;            /* the process that is served has ended */
	/* Until it is looked again whether all has been told; 0: nobody need know. Written with the gate closed. */
	_Atomic unsigned told_ms;
	bool counts; /* pages are refused for as long as any layout event is unread, not only until one is read */
	/* Since the last layout event a page was put in place, so nothing was untold. Written inside the gate, or with it closed. */
	_Atomic bool told;
	pthread_t *threads;
	unsigned started;

	struct session_stray strays[8]; /* by their addresses */
	struct session_stats stats;
};

/*
 * session_open - begin to serve `uf`, which belongs to the session from then on, on success
 *
 * Its threads start at once (base/thread.h), unless it is driven. With inline faults they are for what handlers post.
 */
int session_open(struct session *session, struct uf *uf, const struct session_options *options);

/* Stops the threads, waits for fetches in flight, closes the object. Ranges are unregistered by that. */
void session_close(struct session *session);

/*
 * session_turn - one round of the loop, by the owner who drives it: one caller at a time, not inside the gate
 *
 * Reads messages, and looks at what was posted. `reads`: how often it may read, as long as there are messages, before others have their turn; 0: there
 * are none. Returns how many milliseconds may pass until the next turn if nothing calls for it before; -1: any time.
 */
int session_turn(struct session *session, unsigned reads);
#define SESSION_READS 8u /* of one turn where nobody else waits for one */

/*
 * session_apply - what a layout event does to a space of which every range has a source (layout.c)
 *
 * The same now, and from a record of what was. `features` of the object: which events there are. What is kept until other events are told, and those
 * whose own event is still to come, lies at addresses from SESSION_ASIDE on. 0, or -ENOMEM: perhaps done in part, to be tried again.
 */
int session_apply(struct space *space, const struct uffd_msg *msg, uint64_t features);
#define SESSION_ASIDE ((uint64_t)1 << 57)

/*
 * session_all_told - all that has happened to the memory has been told, and applied: nothing of it is kept for later any more
 *
 * Of a record it is a part, as events are. 0 or -ENOMEM, as above. session_is_owed(): whether there is anything that it would change.
 */
int session_all_told(struct space *space);
bool session_is_owed(const struct space *space);

/* space_next(), of ranges that are where they are, and not kept for later. */
static inline bool session_next(const struct space *space, uint64_t at, struct space_range *out)
{
	return space_next(space, at, out) && out->start < SESSION_ASIDE;
}

/*
 * A place that a mapping has left, and that nothing else has been told of, stays mapped when all has been told: mremap(2) with MREMAP_DONTUNMAP. What
 * is there is empty where it is private memory. session_next_stay() finds the next one from *start on, session_stay() makes it
 * zeros: a part of a record as well. Before session_all_told(), which forgets what was left.
 */
bool session_next_stay(const struct space *space, uint64_t *start, uint64_t *len);
int session_stay(struct space *space, uint64_t start, uint64_t len);

/* Whether an event may change more than what lies where it tells of. */
bool session_in_doubt(const struct space *space);

/* Changes of the set of ranges, with the space as its argument; one at a time. Not inside the gate. */
signal_mask session_change_begin(struct session *session);
void session_change_end(struct session *session, signal_mask before);

/*
 * Inside and out; between the two no wait, and no signals unless the memory is elsewhere. session_try_enter() does not wait either: false, it
 * is not inside.
 */
signal_mask session_enter(struct session *session);
bool session_try_enter(struct session *session, signal_mask *before);
void session_leave(struct session *session, signal_mask before);

/*
 * session_fault - a fault on the calling thread, in its signal handler [signal]
 *
 * Returns when the access may be repeated: 0; or -errno: the page is lost, or not ours.
 */
int session_fault(struct session *session, uint64_t addr, bool write);

/* Touches that could not be admitted are looked at again. */
void session_retry(struct session *session);

/*
 * session_bring - bring the pages of [addr, addr + len) into memory, as far as there is room, in large reads, many at a time
 *
 * Returns when the last read has begun; session_settle() waits for its end. `again`: also pages that were lost. Pages that are there or on
 * their way are passed over. 0, -ENOMEM: there is no more room.
 */
int session_bring(struct session *session, uint64_t addr, uint64_t len, bool again);

/*
 * The same for single units of one range, whose addresses are in rising order. Those that lie close together come with one read, for which
 * what lies between them is read in vain.
 */
int session_bring_set(struct session *session, const uint64_t *addrs, size_t count, uint64_t unit);

/*
 * The same for what a stream will come to next, at most 1 MiB and as one read, if that can begin at once. The first page is read too, so that
 * it is at hand, but not put in place: its touch tells that the stream goes on.
 */
void session_bring_next(struct session *session, uint64_t addr, uint64_t len);

/* Waits until every fetch that has begun before has ended, whatever begins meanwhile. Not inside the gate. */
void session_settle(struct session *session);

/*
 * A page's state. Inside the gate. [signal]
 *
 * claim    from one state to another; false: it was in another state
 * release  gives a page back that the caller has claimed, with the bits `set` added and `clear` taken, and wakes who waits for it
 */
bool session_claim(_Atomic uint8_t *state, enum space_page from, enum space_page to);
void session_release(struct session *session, _Atomic uint8_t *state, enum space_page to, unsigned set, unsigned clear);

/* The time of a fault that began at start_ns, for the statistics. [signal] */
void session_count_latency(struct session *session, uint64_t start_ns);

/* Counts `faults` faults by where their pages come from. [signal] */
void session_count_origin(struct session *session, enum session_origin origin, uint64_t faults);

/* Tells the owner. [signal] unless he wants to be told */
void session_tell(struct session *session, const struct session_done *done);

/* An address of the process that is served, as the object's functions take it. */
static inline void *pointer(uint64_t addr)
{
	return (void *)(uintptr_t)addr;
}

static inline enum space_page page_state(uint8_t byte)
{
	return byte & SPACE_STATE;
}

static inline struct session_source *source_of(const struct space_range *range)
{
	return range->source;
}

static inline _Atomic uint8_t *state_at(const struct space_range *range, uint64_t addr)
{
	return &range->state[(addr - range->start) / range->unit];
}

static inline uint64_t offset_at(const struct space_range *range, uint64_t addr)
{
	return range->offset + (addr - range->start);
}

#endif
