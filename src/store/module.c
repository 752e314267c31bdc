// SPDX-License-Identifier: MIT
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "module-dir.h"
#include "store/module.h"

/* The folder of the library, or of the program that it is part of. Empty: nobody knows. */
static void find_own_folder(char folder[PATH_MAX])
{
	Dl_info info;
	char *end;

	folder[0] = '\0';
	if (!dladdr((void *)find_own_folder, &info) || strlen(info.dli_fname) >= PATH_MAX)
		return;
	end = strrchr(strcpy(folder, info.dli_fname), '/');
	if (end)
		*end = '\0';
	else
		folder[0] = '\0';
}

/* Where there is one it is loaded or nothing is: a second one would hide why. */
static bool exists(char path[PATH_MAX], const char *folder, const char *within, const char *name)
{
	if (!folder || !*folder)
		return false;
	if (snprintf(path, PATH_MAX, "%s%s/libuserfault-store-%s.so", folder, within, name) >= PATH_MAX)
		return false;
	return access(path, F_OK) == 0;
}

static void *load(const struct store_module *module, struct uf_store_cause *cause)
{
	char own[PATH_MAX], path[PATH_MAX];
	void *loaded;

	find_own_folder(own);
	if (!exists(path, secure_getenv("USERFAULT_MODULES"), "", module->name) &&
	    !exists(path, own, "", module->name) && !exists(path, own, "/userfault", module->name) &&
	    !exists(path, UF_MODULE_DIR, "", module->name)) {
		store_fail(cause, 0,
		           "libuserfault-store-%s.so is not installed: build with Debian's %s, or with -D%s=enabled to "
		           "see "
		           "what is missing",
		           module->name, module->builds, module->name);
		return NULL;
	}
	loaded = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!loaded)
		store_fail(cause, 0, "its module needs Debian's %s: %s", module->runs, dlerror());
	return loaded;
}

void *store_module_find(const struct store_module *module, const char *symbol, struct uf_store_cause *cause)
{
	void *loaded = load(module, cause), *found = NULL;
	const char *version = loaded ? dlsym(loaded, "uf_store_module_version") : NULL;

	if (version && !strcmp(version, UF_VERSION))
		found = dlsym(loaded, symbol);
	if (loaded && !found)
		store_fail(cause, 0,
		           "libuserfault-store-%s.so is of version %s, this library of " UF_VERSION ": install both",
		           module->name, version ? version : "unknown");
	return found;
}

const struct store_module store_module_uring = {.name = "uring", .builds = "liburing-dev", .runs = "liburing2"};

int store_open_nbd(struct store_opened *opened, const char *uri, unsigned flags, struct uf_store_cause *cause)
{
	static const struct store_module nbd = {.name = "nbd", .builds = "libnbd-dev", .runs = "libnbd0"};
	store_opener *open;
	void *found = store_module_find(&nbd, "uf_store_module_open", cause);

	if (!found)
		return -EOPNOTSUPP;
	*(void **)&open = found;
	return open(opened, uri, flags, cause);
}
