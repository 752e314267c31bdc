/* SPDX-License-Identifier: MIT */
/*
 * address.h - tcp://HOST:PORT and unix:PATH; an IPv6 address stands in brackets
 *
 * Functions return 0 or a descriptor, or -errno; -EINVAL: no such form. Descriptors are close-on-exec.
 */
#ifndef KV_ADDRESS_H
#define KV_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

struct address {
	struct sockaddr_storage socket;
	socklen_t len;
};

/* Looks up the host, which may take long. -ENOENT: there is no such host. */
int address_parse(struct address *address, const char *text);

/* A socket that listens and does not block. A unix socket that nobody listens on any more is replaced. */
int address_listen(const struct address *address);

/*
 * A socket that is connected and blocks; reads and writes, and connecting itself, give up after `seconds`. With `wait` false the socket does
 * not block, and with TCP may still be connecting.
 */
int address_connect(const struct address *address, bool wait, int seconds);

/* Where a socket listens, in the form of address_parse(): the port is one that was chosen if that was 0. */
void address_name(int listener, char *text, size_t size);

/* Removes what address_listen() left in the file system. */
void address_remove(const struct address *address);

#endif
