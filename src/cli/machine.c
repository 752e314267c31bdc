// SPDX-License-Identifier: MIT
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/huge.h"
#include "cli/machine.h"

#define POOLS_DIR "/sys/kernel/mm/hugepages"

static int64_t read_number(const char *path)
{
	FILE *file = fopen(path, "re");
	long long value;

	if (!file)
		return UNKNOWN;
	if (fscanf(file, "%lld", &value) != 1)
		value = UNKNOWN;
	fclose(file);
	return value;
}

static int64_t read_pool_number(unsigned long long kib, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), POOLS_DIR "/hugepages-%llukB/%s", kib, name);
	return read_number(path);
}

static int by_size(const void *a, const void *b)
{
	const struct huge_pool *left = a, *right = b;

	return (left->size > right->size) - (left->size < right->size);
}

static void read_pools(struct machine *machine)
{
	uint64_t default_size = huge_page_bytes();
	DIR *dir = opendir(POOLS_DIR);
	struct dirent *entry;
	unsigned long long kib;

	while (dir && machine->pool_count < MAX_POOLS && (entry = readdir(dir))) {
		struct huge_pool *pool = &machine->pools[machine->pool_count];
		int64_t reserved;

		if (sscanf(entry->d_name, "hugepages-%llukB", &kib) != 1)
			continue;
		reserved = read_pool_number(kib, "resv_hugepages");
		pool->size = kib * 1024;
		pool->total = read_pool_number(kib, "nr_hugepages");
		pool->free = read_pool_number(kib, "free_hugepages");
		if (reserved > 0 && reserved <= pool->free)
			pool->free -= reserved;
		pool->is_default = pool->size == default_size;
		machine->pool_count++;
	}
	if (dir)
		closedir(dir);
	qsort(machine->pools, machine->pool_count, sizeof(machine->pools[0]), by_size);
}

void machine_read(struct machine *machine)
{
	struct rlimit memlock;
	struct utsname name;

	memset(machine, 0, sizeof(*machine));
	if (!uname(&name))
		snprintf(machine->release, sizeof(machine->release), "%s", name.release);
	machine->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	read_pools(machine);
	machine->unprivileged_userfaultfd = read_number("/proc/sys/vm/unprivileged_userfaultfd");
	machine->max_map_count = read_number("/proc/sys/vm/max_map_count");
	machine->memlock = UNKNOWN;
	if (!getrlimit(RLIMIT_MEMLOCK, &memlock) && memlock.rlim_cur != RLIM_INFINITY)
		machine->memlock = (int64_t)memlock.rlim_cur;
}
