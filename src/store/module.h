/* SPDX-License-Identifier: MIT */
/*
 * module.h - what needs another library lies in shared objects of its own, loaded when first asked for
 *
 * libuserfault-store-NAME.so, sought in $USERFAULT_MODULES (not by privileged programs), beside this library, in userfault/ there, and
 * where the project was installed. It exports uf_store_module_version, which must be ours, as the two share more than the public
 * headers, and what its user looks for.
 */
#ifndef STORE_MODULE_H
#define STORE_MODULE_H

#include "store/store.h"

struct store_module {
	const char *name;
	const char *builds; /* the Debian package with which it is built; the build option is `name` */
	const char *runs;   /* and the one without which it does not load */
};

/* The address of a symbol. NULL, and the cause with the remedy: no such module, or not a fitting one. It is never unloaded. */
void *store_module_find(const struct store_module *module, const char *symbol, struct uf_store_cause *cause);

extern const struct store_module store_module_uring;

/* A store_opener, by the symbol uf_store_module_open, that gets the whole URI. */
int store_open_nbd(struct store_opened *opened, const char *uri, unsigned flags, struct uf_store_cause *cause);

/* In each module. */
#define STORE_MODULE                                 \
	extern const char uf_store_module_version[]; \
	__attribute__((visibility("default"))) const char uf_store_module_version[] = UF_VERSION

#endif
