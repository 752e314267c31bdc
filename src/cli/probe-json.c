// SPDX-License-Identifier: MIT
/* userfault probe --json. The keys are documented in userfault-probe(1) and are only ever added to. */
#include <stdio.h>

#include <jansson.h>

#include "cli/probe.h"

static const char *const obstacle_keys[UF_OBSTACLE_COUNT] = {
	[UF_OBSTACLE_NONE] = "none",       [UF_OBSTACLE_KERNEL] = "kernel",   [UF_OBSTACLE_SYSCTL] = "sysctl",
	[UF_OBSTACLE_SECCOMP] = "seccomp", [UF_OBSTACLE_NO_NODE] = "no_node", [UF_OBSTACLE_PERMISSION] = "permission",
	[UF_OBSTACLE_OTHER] = "other",
};

/* Like the others they can be written after a dot, as in .ways.user_mode. */
static const char *const way_keys[UF_WAY_COUNT] = {
	[UF_WAY_SYSCALL] = "syscall",
	[UF_WAY_DEVICE] = "device",
	[UF_WAY_USER_MODE] = "user_mode",
	[UF_WAY_USER_ENGINE] = "user_engine",
};

static json_t *names_of(uint64_t mask, const char *(*name_of)(unsigned))
{
	json_t *names = json_array();

	for (unsigned bit = 0; bit < 64; bit++)
		if (mask >> bit & 1)
			json_array_append_new(names, json_string(bit_name(name_of, bit)));
	return names;
}

static json_t *ranges_of(const struct uf_probe_way *way)
{
	json_t *ranges = json_object();

	for (int memory = 0; memory < UF_MEMORY_COUNT; memory++) {
		json_t *modes = json_object();

		for (int mode = 0; mode < UF_MODE_COUNT; mode++) {
			uint64_t ioctls = way->range_ioctls[memory][mode];

			json_object_set_new(modes, uf_mode_name(mode),
			                    ioctls ? names_of(ioctls, uf_ioctl_name) : json_null());
		}
		json_object_set_new(ranges, uf_memory_name(memory), modes);
	}
	return ranges;
}

/*
 * Features are a mask as well as names. A bit 63, should it ever come, makes the number negative: the integers of JSON
 * libraries are signed. Requests have only names, since UFFDIO_API is bit 63 of theirs.
 */
static json_t *works(const struct uf_probe_way *way)
{
	return json_pack("{sb sb sb s{sI so} so so}", "works", 1, "kernel_faults", way->kernel_faults, "fork_events",
	                 way->fork_events, "features", "mask", (json_int_t)way->features, "names",
	                 names_of(way->features, uf_feature_name), "ioctls", names_of(way->ioctls, uf_ioctl_name),
	                 "ranges", ranges_of(way));
}

static json_t *does_not_work(const struct uf_probe_way *result, enum uf_way way)
{
	return json_pack("{sb ss ss ss ss}", "works", 0, "error", error_name(result->error), "obstacle",
	                 obstacle_keys[result->obstacle], "reason", uf_obstacle_text(way, result->obstacle), "remedy",
	                 uf_obstacle_remedy(way, result->obstacle));
}

static json_t *ways_of(const struct uf_probe_result *probe)
{
	json_t *ways = json_object();

	for (enum uf_way way = 0; way < UF_WAY_COUNT; way++) {
		const struct uf_probe_way *result = &probe->ways[way];

		json_object_set_new(ways, way_keys[way], result->error ? does_not_work(result, way) : works(result));
	}
	return ways;
}

static json_t *pools_of(const struct machine *machine)
{
	json_t *pools = json_array();

	for (unsigned i = 0; i < machine->pool_count; i++) {
		const struct huge_pool *pool = &machine->pools[i];

		json_array_append_new(pools, json_pack("{sI sI sI sb}", "size", (json_int_t)pool->size, "total",
		                                       (json_int_t)pool->total, "free", (json_int_t)pool->free,
		                                       "default", pool->is_default));
	}
	return pools;
}

static json_t *known(int64_t value)
{
	return value == UNKNOWN ? json_null() : json_integer(value);
}

static json_t *limits_of(const struct machine *machine)
{
	return json_pack("{so so so}", "unprivileged_userfaultfd", known(machine->unprivileged_userfaultfd),
	                 "max_map_count", known(machine->max_map_count), "memlock", known(machine->memlock));
}

int probe_print_json(const struct findings *findings)
{
	const struct machine *machine = &findings->machine;
	const char *open_way = findings->open_error ? NULL : way_keys[findings->open_way];
	json_t *root;

	root = json_pack("{ss ss sI ss? so sb sb so so}", "version", UF_VERSION, "kernel", machine->release,
	                 "page_size", (json_int_t)machine->page_size, "open", open_way, "ways",
	                 ways_of(&findings->probe), "pagemap_scan", findings->probe.pagemap_scan, "guard_pages",
	                 findings->probe.guard_pages, "huge_pages", pools_of(machine), "limits", limits_of(machine));
	if (!root)
		return -1;
	json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
	return 0;
}
