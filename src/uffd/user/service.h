/* SPDX-License-Identifier: MIT */
/*
 * service.h - how a process that has the descriptor becomes a monitor of its owner
 *
 * The owner has a service thread for each object. It listens at the other end of the bell, which every holder of the descriptor can
 * send to:
 *
 *	SERVICE_RING     make the bell readable
 *	SERVICE_ATTACH   with three descriptors: a socket on which the answer and all requests go; a memfd, sealed against
 *	                 shrinking, through which the bytes of UFFDIO_COPY travel (the *staging* memory); and one that the monitor has
 *	                 mapped and can write to for as long as it lives (its *life*)
 *
 * A monitor has gone when its socket is closed, or when nobody has mapped its life. The second counts where it shared its descriptors with
 * another process that outlives it. It is looked at when another one attaches, and then until nobody that has gone holds an event.
 *
 * The bell bears a *mark*, its owner by fcntl(2)'s F_SETOWN_EX: first the process that made it, and then, as a thread, the service thread. When
 * that has ended the kernel says 0 to everybody who could see it (pid_namespaces(7)). So a monitor knows that nobody will answer, though another
 * one may hold the rope: also after execve(2), and before anybody has waited for the process. Kernels before Linux 5.12 without that correction
 * name the dead all the same, and then it is not known. A bell without a mark is taken for one whose owner has gone.
 *
 * A request is carried out by the service thread as if the owner had made it, so a monitor needs no access to the owner's memory, and
 * the owner maps nothing that could be taken away. When the last bell is closed, the thread ends the object.
 */
#ifndef UFFD_USER_SERVICE_H
#define UFFD_USER_SERVICE_H

#include "uffd/user/object.h"

/*
 * The name that the bell is bound to, behind the zero of the abstract name space: this, a random number, a slash, and the features that were
 * enabled when it was bound, both in 16 hexadecimal digits. It tells what a descriptor is, and which, also when its owner is gone.
 */
#define SERVICE_NAME     "userfault/"
#define SERVICE_NAME_LEN (sizeof(SERVICE_NAME) - 1 + 16 + 1 + 16)

/* The name of a descriptor, ended by a zero. False: it is not one of the user engine. */
bool user_service_name_of(int fd, char name[SERVICE_NAME_LEN + 1]);

#define SERVICE_RING   1
#define SERVICE_ATTACH 2

/* A request beside UFFDIO_*: the descriptor that an unread UFFD_EVENT_FORK speaks of, by the number in arg[0]; it comes with the answer. */
#define SERVICE_CHILD 1

/* Bytes of one UFFDIO_COPY to another process: not less than a huge page, which only comes as a whole. */
#define STAGING_SIZE ((size_t)2 << 20)

/*
 * The answer to SERVICE_ATTACH; when err is 0, with the memfd of the pending table, and with the rope: while the monitor holds it too, the
 * bell does not end with the owner, but stays silent, as the kernel's descriptor does.
 */
struct service_attached {
	int32_t err;
	uint64_t features;
	uint32_t tray;   /* the monitor's own (pending.h) */
	uint32_t reader; /* its number there */
};

/* UFFDIO_* with its structure; for UFFDIO_COPY the source is an offset into the staging memory. */
struct service_request {
	uint64_t request;
	uint64_t arg[8];
};

struct service_answer {
	int32_t err;
	uint64_t arg[8];
};

/* Names a bell, of an object with these features. 0 or -errno. */
int user_service_name(int bell, uint64_t features);

/* The mark of a bell that has just been made, by its maker. 0 or -errno. */
int user_service_mark(int bell);

/* Nobody will answer at the other end, although it may be open. False: somebody may, or it cannot be known. */
bool user_service_is_gone(int bell);

/*
 * Starts the thread (base/thread.h), unless there is one, and marks the bell with it. 0 or -errno. Until then what other processes send waits in
 * the bell. Takes the space's lock.
 */
int user_service_ensure(struct user_object *object);

/* The same in the child of a fork, with the space's lock held and no other thread; the bell still open. */
int user_service_start_in_child(struct user_object *object);

/* In the child of a fork: closes what a copy of the parent's service holds. Its thread is not here. */
void user_service_forget(struct user_object *object);

#endif
