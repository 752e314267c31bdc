/* SPDX-License-Identifier: MIT */
/*
 * tls.h - TLS for connections, by a module with GnuTLS: libuserfault-store-tls.so, found as those of stores are (store/module.h)
 *
 * The side that connects is the client.
 */
#ifndef MIGRATE_TLS_H
#define MIGRATE_TLS_H

#include <userfault/migrate.h>

#include "migrate/stream.h"

#define TLS_CAUSE 256

struct tls_settings;

/* What the module exports, as uf_migrate_tls_module. */
struct tls_module {
	const char *version; /* UF_VERSION */
	/* Reads what `from` names. -EINVAL, or why a file cannot be used; the cause for people. */
	int (*open)(struct tls_settings **out, const struct uf_migrate_tls *from, bool server, char cause[TLS_CAUSE]);
	void (*close)(struct tls_settings *settings);
	/*
	 * A connection on stream->fd, as an object of its own. Nothing is sent yet.
	 */
	int (*begin)(struct stream_tls **out, const struct tls_settings *settings, int fd);
	/* The next step: 0: done; -EAGAIN: when something can be received; -EINTR: soon; -EACCES: the peer is not who it should be; -ENOTCONN. */
	int (*greet)(struct stream_tls *tls, char cause[TLS_CAUSE]);
};

/* `from` may be NULL: *out is, then. -EOPNOTSUPP: no module. */
int tls_open(struct tls_settings **out, const struct uf_migrate_tls *from, bool server, char cause[TLS_CAUSE]);
void tls_close(struct tls_settings *settings);

/* Makes a fresh stream one with TLS, if there are settings. -EACCES, or as streams. */
int tls_greet(const struct tls_settings *settings, struct stream *stream, char cause[TLS_CAUSE]);

#endif
