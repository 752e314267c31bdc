/* SPDX-License-Identifier: MIT */
/*
 * migrate.h - the server's heap moves to another process, or comes from one
 *
 * migrate.c shows how a program is made to migrate with <userfault/migrate.h>.
 */
#ifndef KV_MIGRATE_H
#define KV_MIGRATE_H

#include <stdint.h>

#include <userfault.h>

#include "buffer.h"
#include "table.h"

struct migration;
struct server;

/* Of the heap that lies, or will lie, at memory. -ENOMEM */
int migration_open(struct migration **out, void *memory, uint64_t size, enum uf_engine engine);

/* The server that is stopped and begun; before anything else. */
void migration_serve(struct migration *migration, struct server *server);

/* Waits in the background for a heap to come to an address, and prints which. 0, or -errno with a cause. */
int migration_arrive(struct migration *migration, const char *uri, char *cause, size_t size);

/* For struct server_options. */
int migration_depart(void *migration, const struct slice args[4], char *cause, size_t size);
void migration_describe(void *migration, struct buffer *text);

/*
 * When the server has ended. A heap that is on its way is let go where that can be: it is cancelled before it has been given away, and afterwards
 * waited for, since the other process needs what is still here. NULL is allowed.
 */
void migration_close(struct migration *migration);

#endif
