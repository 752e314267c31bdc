/* SPDX-License-Identifier: MIT */
/*
 * userfault/migrate.h - a running program moves to another process, and its memory follows
 *
 * The source has a program and its memory; the destination is the same program, started elsewhere, with empty memory of the same shape.
 *
 *	precopy    none, or several passes: memory is sent while the program runs at the source
 *	stop       the program stops there, and hands over its small state: milliseconds
 *	postcopy   the program runs at the destination; pages that it touches and that are not there yet are asked for, and all others follow
 *
 *	source                                              destination
 *	uf_source_open(&source, regions, 1, &options);      uf_destination_open(&destination, regions, 1, &options);
 *	                                                    uf_destination_listen(destination, "tcp://0.0.0.0:7070");
 *	uf_source_run(source, "tcp://there:7070");          uf_destination_run(destination, NULL);
 *	  options.stop(): stops, returns its state   ---->    options.start(): goes on from that state
 *	returns 0: nothing is needed here any more          returns 0: all memory is here
 *
 * Both calls last as long as the migration: give each a thread that does nothing else. When the connection breaks nothing is lost. Both
 * sides keep what they have, the program goes on wherever it runs (threads that touch what is missing wait), and the same call, made again,
 * goes on from there, as often as need be.
 *
 * Who owns the program
 *
 *   The source, until it has been told that the destination is ready, and then gives the program away (it *commits*). From then on the
 *   destination, and the source must not let the program run again. When the connection breaks just there, the source cannot know whether the
 *   destination has begun: it is *in doubt*, and stays stopped, until uf_source_run() has asked. So there are never two, and as long as
 *   the two can be connected again there is always one. What fails or is cancelled before ends at the source: resume() is called if
 *   stop() was, and the program goes on as if nothing had been. A source that dies after it has committed takes with it what is missing at
 *   the destination: uf_destination_abandon().
 *
 * Results, and structures that grow, are as in <userfault/uffd.h>. Of the functions on one object, all but *_run(), *_listen() and
 * *_close() may be called from any number of threads, also while one is in *_run(), and from callbacks; none in signal handlers. What
 * goes over the wire is in userfault-migrate(5).
 */
#ifndef USERFAULT_MIGRATE_H
#define USERFAULT_MIGRATE_H

#include <userfault/uffd.h>

#ifdef __cplusplus
extern "C" {
#endif

struct uf_source;
struct uf_destination;

#define UF_MIGRATE_REGIONS    256               /* as many at most */
#define UF_MIGRATE_NAME       63                /* bytes of a region's name, at most */
#define UF_MIGRATE_STATE_SIZE ((size_t)1 << 24) /* bytes of a program's state, at most */

/* uf_migrate_region.flags */
#define UF_MIGRATE_SHARED \
	(1u << 0) /* shared memory: of a memfd, of tmpfs, or shared anonymous; otherwise it is private anonymous */
#define UF_MIGRATE_FIXED (1u << 1) /* there are pointers into it: it must lie at the same address on both sides */

/*
 * Memory that moves. Both sides name the same regions in the same order, with the same lengths, and FIXED or not. Address and length are multiples
 * of the system's page, which must be of one size on both. No huge pages of hugetlbfs, and no private mappings of files.
 */
struct uf_migrate_region {
	const char *name; /* the two agree by it: 1 to UF_MIGRATE_NAME bytes. Copied */
	void *addr;
	size_t len; /* bytes */
	unsigned flags;
};

enum uf_migrate_phase {
	UF_MIGRATE_WAITING,  /* no peer yet */
	UF_MIGRATE_PRECOPY,  /* memory is sent while the program runs at the source */
	UF_MIGRATE_STOPPED,  /* it runs nowhere: stopped at the source, not yet begun at the destination */
	UF_MIGRATE_POSTCOPY, /* it runs at the destination */
	UF_MIGRATE_COMPLETE, /* all memory is at the destination */
	UF_MIGRATE_CANCELED, /* the program stays at the source */
	UF_MIGRATE_LOST,     /* destination: the source was given up, what was missing is poisoned */
};

enum uf_migrate_owner {
	UF_OWNER_SOURCE,      /* the program runs there, or is stopped there and may go on there */
	UF_OWNER_DESTINATION, /* it has begun there */
	UF_OWNER_IN_DOUBT,    /* at the source only: it has committed and has not been answered. It must not run here */
};

/* Counts since the object was opened; bytes where it says so. Those marked [s] are the source's alone, [d] the destination's. */
struct uf_migrate_statistics {
	size_t size; /* set by the caller: sizeof(struct uf_migrate_statistics) */
	enum uf_migrate_phase phase;
	int connected;        /* 1 while there is a connection */
	unsigned passes;      /* of precopy, that were begun */
	unsigned connections; /* how often the two were connected: 1 when nothing broke */
	uint64_t total;       /* bytes of all regions */
	uint64_t remaining;   /* [s] bytes to be sent; [d] bytes that are not here */
	uint64_t precopy,
		postcopy;   /* bytes of pages sent or received before the stop, and after it; without zero pages */
	uint64_t zero;      /* bytes of pages that were sent or received as "zeros" */
	uint64_t requested; /* of `postcopy`, bytes of pages that were asked for */
	uint64_t
		repeated; /* [s] bytes of pages that had been sent before: written to since then, or lost with a connection */
	uint64_t discarded; /* bytes of pages that were sent, and written to at the source before it stopped */
	uint64_t wire;      /* bytes sent and received in all */
	uint64_t faults;    /* [d] touches of missing pages */
	uint64_t requests;  /* messages that ask for pages */
	uint64_t poisoned;  /* [d] bytes */
	uint64_t
		stopped_ns; /* [s] from the call of stop() to the answer that the destination has begun; or to resume() */
	uint64_t total_ns; /* from the first connection until complete, or until now */
	/* [d] From the message of a fault to its page being in place: ns, to within 5 % */
	uint64_t latency_p50, latency_p99, latency_max;
	/* latency[i]: faults that took less than 2^i ns, and not less than 2^(i-1) */
	uint64_t latency[48];
	char last_error[256]; /* "" for none */
};

/*
 * Authentication and encryption by TLS 1.3, of both sides or of none; it needs the module (Debian's libgnutls30). Either certificates,
 * which both sides must have from the same authority, or a key that both know. The connections are refused otherwise.
 */
struct uf_migrate_tls {
	size_t size; /* sizeof(struct uf_migrate_tls): the structure grows only at its end */
	const char *ca, *cert,
		*key;     /* paths of PEM files: who may sign the peer's certificate; one's own, and its key */
	const char *name; /* that the peer's certificate must have; NULL: any that `ca` has signed */
	const char *psk;  /* or: the path of a file with one line, IDENTITY:KEY in hexadecimal digits */
};

/* Flags of both sides' options. */
#define UF_MIGRATE_CHECKSUM \
	(1u << 0) /* CRC-32C over all pages and all state, if one side asks for it. Headers have one always */
#define UF_MIGRATE_ONE_CONNECTION \
	(1u << 1) /* source: pages that are asked for go among all others. Slower; for where two cannot be had */

struct uf_source_options {
	size_t size; /* sizeof(struct uf_source_options): the structure grows only at its end */
	unsigned flags;
	/* Of precopy at most; 0: none, and then nothing needs to be tracked. One that a broken connection interrupts is gone on with */
	unsigned passes;
	/*
	 * The passes end early when less than so many bytes were written to during one (0: 1 MiB), or more than three quarters of what
	 * was during the one before: they do not get ahead of the program.
	 */
	uint64_t enough;
	/*
	 * Bytes a second for what was not asked for, at least 65536; 0: no limit. Pages of zeros are no bytes. Up to 128 KiB go at once, and a
	 * peer's timeout must be longer than the pause after them.
	 */
	uint64_t bandwidth;
	unsigned timeout_ms;              /* a peer that is silent for so long is lost; 0: 30000 */
	enum uf_engine engine;            /* for dirty tracking, as for uf_dirty_open() */
	const struct uf_migrate_tls *tls; /* NULL: none. Copied */
	/*
	 * Stops the program, and gives its state, which must stay as it is until uf_source_run() returns or resume() is called. When it returns,
	 * nobody may write to the regions any more: neither threads nor the kernel on their behalf (reads in flight, KVM), but
	 * after resume(). 0, or -errno: it cannot stop now, and must be running; uf_source_run() ends with that. NULL: already stopped, and
	 * no state. A destination to which nothing is said for its timeout takes the source for lost.
	 */
	int (*stop)(void *arg, const void **state, size_t *len);
	/* The program goes on here. Called once for each stop() that returned 0 and did not end in a commit. */
	void (*resume)(void *arg);
	/*
	 * Told at each change of phase or of the connection, and about ten times a second between. On the thread of uf_source_run(), which waits for
	 * it. May be NULL.
	 */
	void (*progress)(void *arg, const struct uf_migrate_statistics *stats);
	/* Told of what fails, one line each; may be NULL. On any thread: it must not wait. */
	void (*failed)(void *arg, const char *cause);
	void *arg;
};

/*
 * uf_source_open - of what is to be moved; nothing happens to it yet
 *
 * opts must be there. All of the memory must be: none that a userfaultfd of the program has still to bring, as a migration that goes on
 * here does; what was never touched is taken for zeros. From uf_source_run() until it has returned 0 the program may not map anything else in
 * its place; and where uf_dirty_open() has the method "sync" it may not give pages back (madvise(2)) while there are passes.
 * -EINVAL   no region, or too many; a name that is empty, too long, or there twice; not aligned; regions that overlap; unknown flag;
 *           shared memory that is not said to be, or a mapping of a file that is not shared; a
 *           `resume` without a `stop`, or the other way round; a bandwidth that is too small
 * -E2BIG    as uf_open()
 * -EOPNOTSUPP  TLS, and its module is not there
 * -ENOMEM, and what the files of `tls` say when they cannot be used
 */
int uf_source_open(struct uf_source **out, const struct uf_migrate_region *regions, size_t count,
                   const struct uf_source_options *opts);

/*
 * uf_source_run - connect, and move; or go on after a connection has broken
 *
 * address   tcp://HOST:PORT, with an IPv6 address in brackets; unix:PATH; or fd:N or fd:N,M: stream sockets that are connected
 *           already, which belong to the library from the call on and are closed. With one of them there is one connection
 *
 * 0             complete: all is at the destination, and the program runs there
 * -ENOTCONN     the connection could not be made, or broke, or the peer was silent for too long; or it is not the destination that has what
 *               was sent. Call again to go on, or to send it all to that one. Before the commit the program runs here meanwhile
 * -ECANCELED    uf_source_cancel(), or the destination does not want it: the program stays here. Called again it begins anew
 * -EPROTONOSUPPORT  the two do not agree about version, features, page size or regions
 * -EPROTO, -EBADMSG  the peer said what it may not say; a checksum was wrong. As with -ENOTCONN it may be called again
 * -EBUSY        the destination has, or may still be given, the program of another source
 * -EACCES       TLS: the peer is not who it should be. (That we are not, the peer says too late in TLS 1.3 to be told from -ENOTCONN)
 * -EINVAL       no such form of address
 * -EFAULT       a part of the memory went away just when it was sent. What may not be read is otherwise a SIGSEGV, as where the program
 *               reads it itself
 * -EALREADY     complete already
 * Also what stop() returns, and what uf_dirty_open() and uf_dirty_track() answer, if there are to be passes.
 * What came of it in terms of ownership is told by uf_source_owner().
 */
int uf_source_run(struct uf_source *source, const char *address);

/*
 * uf_source_cancel - the program stays here
 *
 * 0: uf_source_run() returns -ECANCELED soon, and a running destination is told; or when it is called next. -EALREADY: too late, the source
 * has committed.
 */
int uf_source_cancel(struct uf_source *source);

enum uf_migrate_owner uf_source_owner(const struct uf_source *source);

/*
 * uf_source_reclaim - for the source in doubt: the caller knows that the destination did not begin and never will
 *
 * For instance because its process has ended, and its start() had not been called. The program goes on here: resume() is called before this
 * returns. Wrong knowledge means two programs that are both the one. Not while uf_source_run() is running. -EALREADY: not in doubt.
 */
int uf_source_reclaim(struct uf_source *source);

/* 0, or -EINVAL: stats->size is not that of a structure. */
int uf_source_stats(const struct uf_source *source, struct uf_migrate_statistics *stats);

/* Ends dirty tracking and frees the object; the memory is left alone. NULL is allowed. */
void uf_source_close(struct uf_source *source);

struct uf_destination_options {
	size_t size; /* sizeof(struct uf_destination_options): the structure grows only at its end */
	unsigned flags;
	enum uf_engine engine; /* as for uf_open() */
	unsigned open_flags;   /* UF_OPEN_USER_MODE_ONLY, UF_OPEN_KERNEL_FAULTS: as for uf_open() */
	unsigned timeout_ms;   /* a peer that is silent for so long is lost; 0: 30000 */
	/* When the program runs here and the source has been lost for so long: as uf_destination_abandon(). 0: never by itself */
	unsigned abandon_ms;
	const struct uf_migrate_tls *tls; /* NULL: none. Copied */
	/*
	 * Looks at the state before the source commits, while the program is stopped: may refuse it (-errno), and then the program goes on at
	 * the source. It must not touch the regions. It may be called again with another state. May be NULL.
	 */
	int (*prepare)(void *arg, const void *state, size_t len);
	/*
	 * The program begins here: it owns the regions from now on. Called once, on the thread of uf_destination_run(), which goes on when it
	 * returns; pages come all the same. `state` is valid until it returns. Over fd: it should not touch the regions: if a connection broke
	 * meanwhile, a new one is had only when it has returned.
	 */
	void (*start)(void *arg, const void *state, size_t len);
	/* As for the source; of changes that follow one another at once, it is told of the last. */
	void (*progress)(void *arg, const struct uf_migrate_statistics *stats);
	void (*failed)(void *arg, const char *cause);
	void *arg;
};

/*
 * uf_destination_open - empty memory that waits for a program
 *
 * What is in the regions is thrown away, and until start() is called nobody may touch them. They are taken out of huge pages
 * (MADV_NOHUGEPAGE), which stays. From start() until uf_destination_run() has returned 0 the program may read and write them as it
 * likes, but not give them back or change how they are mapped (madvise(2), munmap(2), mremap(2)), and they do not go to the child of a
 * fork: a touch there is SIGSEGV.
 *
 * System calls of the program may use missing memory where the kernel's userfaultfd is had with full rights. Otherwise (UF_OPEN_USER_MODE_ONLY,
 * the user engine) they fail with EFAULT there: touch it before.
 *
 * As uf_source_open(), and what uf_open() answers. -EINVAL also: start is NULL; memory to which no single pages can be delivered.
 */
int uf_destination_open(struct uf_destination **out, const struct uf_migrate_region *regions, size_t count,
                        const struct uf_destination_options *opts);

/*
 * uf_destination_listen - wait for sources at an address: tcp://HOST:PORT or unix:PATH
 *
 * Port 0: any that is free; uf_destination_address() tells which. A socket that lies at PATH and nobody listens on is replaced; it is removed
 * at the end. What bind(2) and its like answer; -EINVAL: no such form of address; -EALREADY: it listens.
 */
int uf_destination_listen(struct uf_destination *destination, const char *address);

/* Where it listens, in the form of uf_source_run(). 0; -ENOTCONN: it does not; -ENAMETOOLONG. */
int uf_destination_address(const struct uf_destination *destination, char *address, size_t size);

/*
 * uf_destination_run - receive a program and its memory
 *
 * connected   NULL: whoever connects to where it listens. Peers that do not fit are refused, told of by failed(), and it waits for the
 *             next; so it does after a connection has broken. It ends when all is done, or cancelled, or abandoned
 *             or fd:N, fd:N,M: sockets as for uf_source_run(), of which one break is the end
 *
 * 0             complete: all memory is here and ordinary memory again
 * -ENOTCONN     (fd:) the connection broke, or was another source's, which has heard what became of its program. Call again to go on. After
 *               start() the program runs on meanwhile
 * -ECANCELED    by uf_destination_cancel() or by the source, before start(). Called again it waits for a new one. A
 *               source that was in doubt then hears of it when it asks: of the last 16 cancellations
 * -EHOSTDOWN    the source was given up, and what was missing is poisoned
 * -EPROTONOSUPPORT, -EPROTO, -EBADMSG, -EACCES  (fd:) as for uf_source_run()
 * -EINVAL       no such form of address; NULL and it does not listen
 * -EFAULT       a part of the memory cannot be written to; the source has been told
 * -EMFILE, -ENFILE, -ENOMEM  no connection can be accepted now. Call again
 * -EALREADY     complete, or given up, already
 */
int uf_destination_run(struct uf_destination *destination, const char *connected);

/*
 * uf_destination_cancel - the program shall not come here
 *
 * 0: uf_destination_run() returns -ECANCELED soon, or when it is called next. -EALREADY: too late, it has begun here.
 */
int uf_destination_cancel(struct uf_destination *destination);

/*
 * uf_destination_abandon - the source is gone for good
 *
 * Every page that is not here is poisoned: threads that wait for one, and all that touch one later, get SIGBUS; never zeros. What is here
 * stays. uf_destination_run() returns -EHOSTDOWN. Where pages cannot be poisoned (before Linux 6.6) those threads wait for ever, and it
 * returns -EOPNOTSUPP; so it is with those that cannot be for another reason, which it returns. -EAGAIN: the program has not begun here: uf_destination_cancel(). -EALREADY: complete.
 */
int uf_destination_abandon(struct uf_destination *destination);

/* UF_OWNER_DESTINATION once start() is called; UF_OWNER_SOURCE before. */
enum uf_migrate_owner uf_destination_owner(const struct uf_destination *destination);

/* The engine that serves the faults, or will. */
enum uf_engine uf_destination_engine(const struct uf_destination *destination);

/* As uf_source_stats(). */
int uf_destination_stats(const struct uf_destination *destination, struct uf_migrate_statistics *stats);

/*
 * Frees the object; NULL is allowed. If the program runs here and memory is missing, as uf_destination_abandon(). Before start() the
 * regions are left empty.
 */
void uf_destination_close(struct uf_destination *destination);

#ifdef __cplusplus
}
#endif

#endif
