/* SPDX-License-Identifier: MIT */
/* address.h - where the two sides find each other: tcp://HOST:PORT, unix:PATH, fd:N, fd:N,M */
#ifndef MIGRATE_ADDRESS_H
#define MIGRATE_ADDRESS_H

#define ADDRESS_CONNECTIONS 2

/*
 * Connected sockets: as many as an fd: has, otherwise `count`, one after the other. Returns how many; -EINVAL: no such form; -ENOTCONN: it
 * cannot be connected, which takes `timeout_ms` at most; -ECANCELED: `wake` became readable. Signals do not disturb it.
 */
int address_connect(const char *address, int fds[ADDRESS_CONNECTIONS], unsigned count, unsigned timeout_ms, int wake);

/* The descriptors of an fd: how many; -EINVAL: not one. They are the callee's. */
int address_descriptors(const char *address, int fds[ADDRESS_CONNECTIONS]);

/* Closes them, where nothing is to come of it. */
void address_discard(const char *address);

/* A socket that listens, or -errno; and its address in our form, to be freed. */
int address_listen(const char *address, char **actual);

/* Removes what address_listen() has left in a file system. */
void address_forget(const char *actual);

#endif
