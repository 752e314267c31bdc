/* SPDX-License-Identifier: MIT */
/*
 * userfault/uffd.h - the userfaultfd object
 *
 * One object stands for one address space whose page faults are decided in user space: the address space of
 * the process that opened it. Ranges are registered with it, faults and layout events are read from it, and pages
 * are delivered through it. The words, structures and numbers are those of <linux/userfaultfd.h>; what is served
 * behind them is an *engine*, today the kernel's userfaultfd(2).
 *
 * Rules that hold for every function here
 *
 *   Results    Zero, or a positive count, or a negated errno value. Nothing is printed, nothing exits, and errno
 *              carries no meaning.
 *   Addresses  belong to the process that opened the object. In a process that adopted the descriptor they are
 *              names of pages over there and cannot be dereferenced here.
 *   Units      Addresses and lengths are bytes and multiples of the page size of the memory they lie in: the system's
 *              page, or the huge page of hugetlbfs memory. No page size is assumed by the library.
 *   Threads    Any number of threads may use one object at once, except that uf_close() must come last.
 *   Signals    Functions marked [signal] may be called in a signal handler, and so in a uf_handler.
 *   Wrong use  A null object is -EINVAL; a request that the object was not enabled for is -EINVAL; nothing changes then.
 *
 * Sources: the kernel's "Userfaultfd" document, and the ioctl_userfaultfd(2) manual page as finished in
 * userfault-ioctl(2), which says of every error when it comes and what to do then.
 */
#ifndef USERFAULT_UFFD_H
#define USERFAULT_UFFD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/userfaultfd.h>
#include <userfault/uapi.h>

#ifdef __cplusplus
extern "C" {
#endif

struct uf;

/* What serves the object. */
enum uf_engine {
	UF_ENGINE_AUTO,   /* uf_open(): the first that grants what is required */
	UF_ENGINE_KERNEL, /* the kernel's userfaultfd */
	UF_ENGINE_USER,   /* page faults handled wholly in user space, where the kernel's is absent or refused */
};

/* How a descriptor is had, in the order in which uf_open() tries. */
enum uf_way {
	UF_WAY_SYSCALL,     /* userfaultfd(2): needs CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd = 1 */
	UF_WAY_DEVICE,      /* /dev/userfaultfd, Linux 6.1: needs permission on the node, no capability */
	UF_WAY_USER_MODE,   /* userfaultfd(2) with UFFD_USER_MODE_ONLY, Linux 5.11: needs nothing */
	UF_WAY_USER_ENGINE, /* the kernel has no part in it, and so cannot refuse it */
	UF_WAY_COUNT,
	UF_WAY_ADOPTED = 8, /* it came as a descriptor: uf_adopt() */
};

/* uf_options.flags */
#define UF_OPEN_USER_MODE_ONLY (1u << 0) /* a touch by the kernel itself (in a system call) fails: EFAULT, or SIGBUS */
#define UF_OPEN_KERNEL_FAULTS  (1u << 1) /* refuse ways in which such touches cannot be served */
#define UF_OPEN_BLOCKING       (1u << 2) /* without O_NONBLOCK: uf_read() waits, but poll(2) reports POLLERR */
#define UF_OPEN_INHERIT        (1u << 3) /* without O_CLOEXEC */

/* A fault as the faulting thread sees it. */
struct uf_fault {
	uint64_t address; /* exact address of the access, bytes; not rounded to a page */
	uint64_t flags; /* UFFD_PAGEFAULT_FLAG_*, as far as the processor tells: WRITE is always true, WP where known */
};

/*
 * Resolves a fault on the thread that took it: no monitor and no context switch, at the price that everything it
 * calls must be async-signal-safe. Runs inside a SIGBUS handler (SA_ONSTACK, SA_NODEFER: it may itself touch pages of
 * other handled ranges). Returns 0 to repeat the access, or a negated errno value to let the signal take the way it
 * would have taken without us: the program's own SIGBUS handler, or death at that address. After an unregister anywhere, a
 * fault that was declined may be offered once more.
 *
 * Two threads may fault on one page: -EEXIST from uf_copy() means that the other one was first, and is a success.
 * The kernel's own touches (a system call's buffer) are not served in this mode; they fail with EFAULT. A poisoned page
 * is not offered to the handler, except by kernels built without CONFIG_MEMORY_FAILURE, whose signal does not tell it
 * from a missing one: a handler that poisons keeps account of it itself, or returns an error instead of poisoning.
 *
 * A handler serves the process that opened the object. A forked child finds ordinary memory in the ranges: what was missing
 * reads as zeros there; UFFD_FEATURE_EVENT_FORK cannot be had together with a handler. Anything may lie in a handled range
 * but the alternate signal stack, and the stack of a thread while it registers or unregisters with such an object.
 */
typedef int uf_handler(struct uf *uf, const struct uf_fault *fault, void *arg);

struct uf_options {
	size_t size; /* sizeof(struct uf_options): the structure grows only at its end */
	enum uf_engine engine;
	unsigned flags;      /* UF_OPEN_* */
	uint64_t required;   /* UFFD_FEATURE_*: open fails where one of them cannot be had */
	uint64_t wanted;     /* UFFD_FEATURE_*: enabled where they can be had */
	uf_handler *handler; /* or NULL: faults are read; implies UFFD_FEATURE_SIGBUS */
	void *arg;           /* for the handler */
};

/*
 * uf_open - make an object for the calling process and enable it
 *
 * opts may be NULL: every way, no feature. The ways are tried in the order of enum uf_way, and the first that grants
 * all of `required` is taken. EVENT_FORK among the wanted features is dropped silently where the kernel denies it for
 * want of CAP_SYS_PTRACE. The first open with a handler installs a SIGBUS handler, which stays, and passes on every
 * SIGBUS that is not ours to the handler that was there before; install your own before that call.
 *
 * 0            *out is the object, to be closed with uf_close()
 * -EINVAL      unknown flag or engine, contradictory flags, size too small, a handler with EVENT_FORK required
 * -E2BIG       the structure is longer than this library knows, and what is behind is not zero
 * -EOPNOTSUPP  a descriptor can be had, but none with all of `required`; or the engine is not in this build
 * -EPERM       refused: no capability, or a seccomp filter; also EVENT_FORK required without CAP_SYS_PTRACE
 * -ENOSYS      the kernel has no userfaultfd (or a filter says so)
 * -ENOMEM, -EMFILE, -ENFILE
 * When several ways fail, a lack of features in one that opened counts before refusals; otherwise the first way's error is
 * returned. uf_probe() tells all, and why.
 */
int uf_open(struct uf **out, const struct uf_options *opts);

/*
 * uf_adopt - take over a descriptor that another process opened and enabled
 *
 * It came over a unix socket (SCM_RIGHTS), by inheritance, or in a UFFD_EVENT_FORK message. Its features are learnt
 * from /proc/self/fdinfo. On success the descriptor belongs to the object; on failure it still belongs to the caller.
 *
 * 0         *out is the object
 * -EBADF    not an open descriptor
 * -ENOTTY   a descriptor of something else
 * -EINVAL   a userfaultfd that has not been enabled with UFFDIO_API
 * -ENOENT   /proc is not there, so its features cannot be learnt
 * -ENOMEM
 * A descriptor of the user engine is answered for by its owner, so also: -ESRCH, -ETIMEDOUT, -EPROTO.
 */
int uf_adopt(struct uf **out, int fd);

/*
 * uf_close - close the descriptor and free the object; NULL is allowed
 *
 * Ranges still registered are unregistered by the kernel when this was the last descriptor, also in other processes.
 * A thread that waits in a fault then goes on with a page of ZEROS: resolve or poison what waits first. With a handler,
 * no thread may touch the ranges any more.
 */
void uf_close(struct uf *uf);

/*
 * The descriptor: pollable (POLLIN when a message waits) and may be sent with SCM_RIGHTS. It stays the object's.
 * -EINVAL for a null object. [signal], but for the first call for an object of the user engine that has a handler: that starts the
 * thread which serves other processes, and fails with -EAGAIN where there can be no more threads.
 */
int uf_fd(const struct uf *uf);

/* The features that are enabled, UFFD_FEATURE_*; bits this header has no name for are passed through. [signal] */
uint64_t uf_features(const struct uf *uf);

/* The requests that the object takes, as 1 << _UFFDIO_*; those of a range come from uf_register(). [signal] */
uint64_t uf_ioctls(const struct uf *uf);

/* How the descriptor was had. [signal] */
enum uf_way uf_way(const struct uf *uf);

/*
 * uf_register - deliver faults in [addr, addr + len) here
 *
 * mode      UFFDIO_REGISTER_MODE_MISSING, _WP, _MINOR, _RWP, or several of them
 * ioctls    if not NULL: the requests this range takes, as 1 << _UFFDIO_*; depends on memory type and mode
 *
 * Registering a range again with other modes replaces the old ones; with a part of the old ones it changes nothing, so take
 * modes away by unregistering first. With a handler, the range belongs to the calling process.
 *
 * -EBUSY    another object has a part of the range
 * -EINVAL   mode zero or unknown; not aligned; length zero; nothing mapped in the range; memory that cannot be tracked
 *           in this mode (userfault-ioctl(2), "compatible")
 * -EPERM    a shared mapping of a file that the process may not write
 * -ENOMEM   too little memory, or the process is gone
 */
int uf_register(struct uf *uf, void *addr, size_t len, uint64_t mode, uint64_t *ioctls);

/*
 * uf_unregister - deliver no more faults in [addr, addr + len)
 *
 * Threads that wait there are woken and take an ordinary fault, or none. (UFFDIO_UNREGISTER by itself wakes only those
 * that wait for a missing page; this function wakes writers and minor faults too.) Write protection is lifted. Parts that
 * are not registered are passed over.
 *
 * -EINVAL   not aligned; length zero; nothing mapped in the range; incompatible memory; on newer kernels also: registered
 *           with another object
 */
int uf_unregister(struct uf *uf, void *addr, size_t len);

/*
 * The five that deliver pages: uf_copy, uf_zeropage, uf_continue, uf_move, uf_poison.
 *
 * Each page appears atomically: no thread ever sees half of one. Threads waiting for it are woken unless the mode says
 * DONTWAKE. They all answer alike, so that no outcome can be mistaken for another:
 *
 *   n > 0     n bytes are in place. When n < len, go on at addr + n: the next call tells what was in the way.
 *   -EEXIST   something is in the page's place already. It was NOT woken for: uf_wake() it if a thread may wait. Then skip
 *             it. Mostly it is the page; it may also be a mark: write protection laid on a page that is not there stops
 *             uf_poison() always, and uf_zeropage() and uf_move() in private memory, while uf_copy() replaces it.
 *   -EAGAIN   nothing was done, because the layout of the process is changing: a message waits to be read. Do not call
 *             again in place, that can never end; read the messages, let the other side run, then try again.
 *   -ENOENT   the range is not registered, not mapped any more, or spans two mappings: look it up again.
 *   -ESRCH    the process is gone. (Linux 4.11 and 4.12 say ENOSPC; it is reported as -ESRCH too.)
 *   -EINVAL   not aligned, length zero, unknown mode bit, or the wrong request for this memory
 *   -EFAULT   the source cannot be read; the page lies behind the end of its file; uf_continue: the file has no such page
 *   -ENOMEM   no memory, or none left in the cgroup or in the pool of huge pages
 *
 * All are [signal]. All but uf_move() may be called in a process that adopted the descriptor. Only threads that wait for
 * this object are woken, even if another object could deliver to the same range.
 */

/* Copies len bytes at src (of the caller, any alignment) to dst. mode: UFFDIO_COPY_MODE_DONTWAKE, _WP. */
ssize_t uf_copy(struct uf *uf, void *dst, const void *src, size_t len, uint64_t mode);

/* Makes [addr, addr + len) pages of zeros. mode: UFFDIO_ZEROPAGE_MODE_DONTWAKE. Not for hugetlbfs (-EINVAL). */
ssize_t uf_zeropage(struct uf *uf, void *addr, size_t len, uint64_t mode);

/*
 * Maps pages that the file already holds: the answer to a minor fault. mode: UFFDIO_CONTINUE_MODE_DONTWAKE, _WP.
 * Linux 5.13 for hugetlbfs, 5.14 for shmem.
 */
ssize_t uf_continue(struct uf *uf, void *addr, size_t len, uint64_t mode);

/*
 * Moves private anonymous pages from src to dst, without a copy; src is missing from then on. In the object's own process
 * only (-EINVAL elsewhere). mode: UFFDIO_MOVE_MODE_DONTWAKE, _ALLOW_SRC_HOLES. -ENOENT also: a hole in src; -EBUSY: a page
 * of src is pinned or shared since a fork; -EINVAL also: dst is not registered, or a side spans two mappings. Linux 6.8.
 */
ssize_t uf_move(struct uf *uf, void *dst, void *src, size_t len, uint64_t mode);

/*
 * Marks pages as lost: whoever touches one gets SIGBUS, never zeros; it outlives uf_close(), and ends when uf_copy() or
 * uf_continue() puts a page there, or the program gives the memory back (madvise). An answer of last resort that fails
 * closed. mode: UFFDIO_POISON_MODE_DONTWAKE. Linux 6.6.
 */
ssize_t uf_poison(struct uf *uf, void *addr, size_t len, uint64_t mode);

/*
 * uf_writeprotect - protect [addr, addr + len) against writes, or lift that
 *
 * mode      UFFDIO_WRITEPROTECT_MODE_WP protects; 0 lifts, and wakes the writers that wait; with _DONTWAKE it wakes none.
 *           The two together are -EINVAL. The range must be registered with UFFDIO_REGISTER_MODE_WP. Pages that are not
 *           there are protected only with UFFD_FEATURE_WP_UNPOPULATED, or in shared memory. [signal]
 *
 * 0, or -EAGAIN, -ENOENT, -ESRCH, -EINVAL as above. After -ENOENT a first part of the range may have been changed.
 */
int uf_writeprotect(struct uf *uf, void *addr, size_t len, uint64_t mode);

/*
 * uf_wake - wake the threads that wait in [addr, addr + len)
 *
 * After deliveries with DONTWAKE, or after -EEXIST. A thread whose page is still missing faults again, and a new
 * message comes. -EINVAL: not aligned or length zero. [signal]
 */
int uf_wake(struct uf *uf, void *addr, size_t len);

/*
 * uf_read - take up to `count` messages
 *
 * Returns how many were stored, at least 1. Each is a fault (UFFD_EVENT_PAGEFAULT) or a layout event; faults come before
 * events, whichever was first. A layout event lets the process go on as soon as it is read. UFFD_EVENT_FORK carries a new descriptor,
 * arg.fork.ufd, which belongs to the caller: hand it to uf_adopt() or close it.
 *
 * -EAGAIN   no message, or another thread resolved the fault first (never with UF_OPEN_BLOCKING)
 * -EINTR    a signal came while waiting
 * -EINVAL   count is 0, or msgs NULL
 * -EFAULT   msgs cannot be written; a message is lost then
 * [signal]
 */
ssize_t uf_read(struct uf *uf, struct uffd_msg *msgs, size_t count);

/*
 * uf_ioctl - a request as the kernel's ABI defines it, for those that have no function here
 *
 * arg points to the request's structure, which is filled in as the kernel documents. 0 or a negated errno value.
 * Ranges registered in this way are not known to a handler. [signal]
 */
int uf_ioctl(struct uf *uf, unsigned long request, void *arg);

/*
 * Probing: what there is on this machine, for this process, and why not more.
 */

/* The kinds of memory that differ in what can be done with them. */
enum uf_memory {
	UF_MEMORY_ANON,    /* private anonymous */
	UF_MEMORY_SHMEM,   /* shared anonymous, memfd, tmpfs; not System V, although the kernel's text says so */
	UF_MEMORY_HUGETLB, /* hugetlbfs */
	UF_MEMORY_COUNT,
};

/* Modes of registration, as indexes: mode = 1 << index. */
enum uf_mode { UF_MODE_MISSING, UF_MODE_WP, UF_MODE_MINOR, UF_MODE_RWP, UF_MODE_COUNT };

/* Why a way does not work. */
enum uf_obstacle {
	UF_OBSTACLE_NONE,
	UF_OBSTACLE_KERNEL,     /* built without CONFIG_USERFAULTFD, or older than the way */
	UF_OBSTACLE_SYSCTL,     /* vm.unprivileged_userfaultfd = 0, and no CAP_SYS_PTRACE in the first user namespace */
	UF_OBSTACLE_SECCOMP,    /* a seccomp filter, a device cgroup, or a sandbox that behaves like one */
	UF_OBSTACLE_NO_NODE,    /* the kernel has the device, but /dev/userfaultfd is absent or has another number */
	UF_OBSTACLE_PERMISSION, /* the node may not be opened: its owner and mode, or a mount with nodev */
	UF_OBSTACLE_OTHER,      /* see `error` */
	UF_OBSTACLE_COUNT,
};

/* Sizes of the arrays below: fixed, with room for what is to come. What has no name yet is 0. */
#define UF_WAY_ROOM    8
#define UF_MEMORY_ROOM 8
#define UF_MODE_ROOM   8

struct uf_probe_way {
	int error; /* 0 when it works; otherwise a negated errno value, and what follows `obstacle` is 0 */
	enum uf_obstacle obstacle; /* why */
	int kernel_faults;         /* 1 when touches by the kernel itself are served too */
	int fork_events;           /* 1 when EVENT_FORK is not only offered but granted (CAP_SYS_PTRACE) */
	uint64_t features;         /* available features: UFFD_FEATURE_* and what else the kernel reports */
	uint64_t ioctls;           /* requests of the object, 1 << _UFFDIO_* */
	/*
	 * Requests of a range, 1 << _UFFDIO_*, as the kernel answers when one is registered in this mode alone; 0: cannot be
	 * registered so. Linux offers MOVE for shmem too and then refuses it (-EINVAL): it serves anon only.
	 */
	uint64_t range_ioctls[UF_MEMORY_ROOM][UF_MODE_ROOM];
	uint64_t reserved[4];
};

struct uf_probe_result {
	size_t size; /* set by the caller: sizeof(struct uf_probe_result); the structure grows only at its end */
	struct uf_probe_way ways[UF_WAY_ROOM];
	int pagemap_scan; /* 1 when the PAGEMAP_SCAN ioctl is there (Linux 6.7) */
	int guard_pages;  /* 1 when MADV_GUARD_INSTALL is there (Linux 6.13) */
};

/*
 * uf_probe - try every way, and leave no trace
 *
 * Opens, enables and closes descriptors and registers scratch mappings of its own; needs no free huge page. The reasons
 * are inferred from how the ways fail together, and from /proc and /sys where they can be read.
 *
 * 0         also when no way works
 * -EINVAL   size too small; what a larger structure has beyond this one is cleared
 * -ENOMEM
 */
int uf_probe(struct uf_probe_result *result);

/*
 * Words for the above: static strings, never NULL. Names are the kernel's words in lower case, "" for a value without one.
 */
const char *uf_way_name(enum uf_way way);
const char *uf_obstacle_text(enum uf_way way, enum uf_obstacle obstacle);   /* what is in the way, one line */
const char *uf_obstacle_remedy(enum uf_way way, enum uf_obstacle obstacle); /* what would help, one line; "" for none */
const char *uf_feature_name(unsigned bit);  /* of 1 << bit: "event_fork", "missing_shmem", ... */
const char *uf_ioctl_name(unsigned number); /* of _UFFDIO_*: "copy", "zeropage", ... */
const char *uf_memory_name(enum uf_memory memory);
const char *uf_mode_name(enum uf_mode mode);

#ifdef __cplusplus
}
#endif
#endif
