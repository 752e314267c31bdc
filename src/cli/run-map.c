// SPDX-License-Identifier: MIT
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <userfault.h>

#include "base/size.h"
#include "cli/command.h"
#include "cli/run.h"
#include "preload/settings.h"

struct map {
	char path[PATH_MAX];
	char store[UF_HANDOVER_NAME_MAX + 1];
	uint64_t offset, size;
};

int run_maps_add(struct run_maps *maps, const char *text)
{
	if (maps->count == MAP_FILES_MAX)
		return usage_error("run: more than %d files to map", MAP_FILES_MAX);
	maps->texts[maps->count++] = text;
	return 0;
}

/* PATH as it will be compared: absolute, and without links where something is there. */
static int resolve(const char *given, char path[PATH_MAX])
{
	const char *slash = strrchr(given, '/'), *name = slash ? slash + 1 : given;
	char folder[PATH_MAX];
	struct stat stat_;
	int len;

	if (realpath(given, path)) {
		if (!stat(path, &stat_) && S_ISREG(stat_.st_mode))
			return strchr(path, '\n') ? fail("run: a path with a line end in it cannot be mapped") : 0;
		return fail("run: %s: not a regular file", given);
	}
	if (errno != ENOENT)
		return fail("run: %s: %s", given, strerror(errno));
	snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash - given) + 1 : 1, slash ? given : ".");
	if (!*name || !strcmp(name, ".") || !strcmp(name, "..") || !realpath(folder, path))
		return fail("run: %s: there is no folder that it could be in", given);
	len = (int)strlen(path);
	if (snprintf(folder, sizeof(folder), "%s%s%s", path, path[len - 1] == '/' ? "" : "/", name) >= PATH_MAX)
		return fail("run: %s: %s", given, strerror(ENAMETOOLONG));
	strcpy(path, folder);
	return strchr(path, '\n') ? fail("run: a path with a line end in it cannot be mapped") : 0;
}

/* PATH=STORE[@OFFSET] */
static int parse(const char *text, struct map *map)
{
	const char *equals = strrchr(text, '='), *at = equals ? strrchr(equals, '@') : NULL;
	size_t len = equals ? (at ? (size_t)(at - equals) : strlen(equals)) - 1 : 0;
	char given[PATH_MAX];

	*map = (struct map){0};
	if (!equals || equals == text || !len || len > UF_HANDOVER_NAME_MAX || (size_t)(equals - text) >= sizeof(given))
		return usage_error("run: --map %s: it is PATH=STORE or PATH=STORE@OFFSET", text);
	if (at && !size_parse(at + 1, &map->offset))
		return usage_error("run: --map %s: an offset is digits, and perhaps K, M, G or T", text);
	if (map->offset % (uint64_t)sysconf(_SC_PAGESIZE))
		return usage_error("run: --map %s: the offset is not a multiple of the page size, %ld", text,
		                   sysconf(_SC_PAGESIZE));
	memcpy(map->store, equals + 1, len);
	memcpy(given, text, (size_t)(equals - text));
	given[equals - text] = 0;
	return resolve(given, map->path);
}

static int ask_size(struct uf_handover *manager, struct map *map)
{
	char cause[256];
	int err = uf_handover_size(manager, map->store, &map->size, cause, sizeof(cause));

	if (err)
		return fail("run: store %s: %s", map->store, cause);
	if (map->offset > map->size || map->size > INT64_MAX)
		return fail("run: %s: store %s ends at %llu, before the offset", map->path, map->store,
		            (unsigned long long)map->size);
	map->size -= map->offset;
	return 0;
}

static int take(struct uf_handover *manager, const char *text, FILE *setting)
{
	struct map map;
	int status = parse(text, &map);

	if (!status)
		status = ask_size(manager, &map);
	if (!status)
		fprintf(setting, "%s\n%s\n%llu\n%llu\n", map.path, map.store, (unsigned long long)map.offset,
		        (unsigned long long)map.size);
	return status;
}

/* The program may be anywhere when it connects. */
static int resolve_socket(const char *given, char path[PATH_MAX])
{
	if (given[0] == '@')
		snprintf(path, PATH_MAX, "%s", given);
	else if (!realpath(given, path))
		return fail("run: the manager: %s: %s", given, strerror(errno));
	return strlen(path) < 108 ? 0 : fail("run: the manager: %s: the path of a socket has at most 107 bytes", path);
}

static int write_setting(const struct run_maps *maps, struct uf_handover *manager, const char *socket, FILE *setting)
{
	uint64_t number = 0;
	int status = 0;

	if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
		return fail("run: %s", strerror(errno));
	/* It has to be a time that a file can have, and that none has. */
	number = number >> 2 | (uint64_t)1 << 60;
	fprintf(setting, "%llu\n%lld\n%s\n", (unsigned long long)number, (long long)time(NULL), socket);
	for (size_t i = 0; !status && i < maps->count; i++)
		status = take(manager, maps->texts[i], setting);
	return status;
}

int run_maps_prepare(const struct run_maps *maps)
{
	char socket[PATH_MAX], cause[256], *text = NULL;
	struct uf_handover *manager;
	size_t size;
	FILE *setting;
	int status;

	if (!maps->count)
		return 0;
	status = resolve_socket(maps->manager, socket);
	if (status)
		return status;
	if (uf_handover_open(&manager, socket, cause, sizeof(cause)))
		return fail("run: the manager: %s", cause);
	setting = open_memstream(&text, &size);
	status = setting ? write_setting(maps, manager, socket, setting) : fail("run: %s", strerror(errno));
	uf_handover_close(manager);
	if (setting && fclose(setting) && !status)
		status = fail("run: %s", strerror(errno));
	if (!status && setenv(SETTING_MAP, text, 1))
		status = fail("run: %s", strerror(errno));
	free(text);
	return status;
}
