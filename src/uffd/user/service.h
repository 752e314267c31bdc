/* SPDX-License-Identifier: MIT */
/*
 * service.h - how a process that has the descriptor becomes a monitor of its owner
 *
 * The owner has a service thread for each object. It listens at the other end of the bell, which every holder of the descriptor can
 * send to:
 *
 *	SERVICE_RING     make the bell readable
 *	SERVICE_ATTACH   with two descriptors: a socket on which the answer and all requests go, and a memfd, sealed against
 *	                 shrinking, through which the bytes of UFFDIO_COPY travel (the *staging* memory)
 *
 * A request is carried out by the service thread as if the owner had made it, so a monitor needs no access to the owner's memory, and
 * the owner maps nothing that could be taken away. When the last bell is closed, the thread ends the object.
 */
#ifndef UFFD_USER_SERVICE_H
#define UFFD_USER_SERVICE_H

#include "uffd/user/object.h"

/* The name that the rope is bound to begins so, behind the zero of the abstract name space: it tells what a descriptor is. */
#define SERVICE_NAME "userfault/"

#define SERVICE_RING   1
#define SERVICE_ATTACH 2

/* A request beside UFFDIO_*: the descriptor that an unread UFFD_EVENT_FORK speaks of, by the number in arg[0]; it comes with the answer. */
#define SERVICE_CHILD 1

#define STAGING_SIZE ((size_t)1 << 20)

/* The answer to SERVICE_ATTACH, with the memfd of the pending table when err is 0. */
struct service_attached {
	int32_t err;
	uint64_t features;
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

/* Names the rope. 0 or -errno. */
int user_service_name(struct user_object *object);

/* Starts the thread, which runs with all signals blocked. 0 or -errno. */
int user_service_start(struct user_object *object);

/* In the child of a fork: closes what a copy of the parent's service holds. Its thread is not here. */
void user_service_forget(struct user_object *object);

#endif
