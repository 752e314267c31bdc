// SPDX-License-Identifier: MIT
/* userfault probe, for people: 80 columns, no colours, the same on a terminal and in a file. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/probe.h"

#define FEATURE_COLUMNS 4
#define FEATURE_WIDTH   20
#define FACT_WIDTH      30
#define FEATURE_RWP_BIT 17

static void print_fact(const char *name, const char *value, const char *remark)
{
	print_wrapped(printf("  %-*s%-12s", FACT_WIDTH, name, value), remark);
}

static const char *size_text(uint64_t bytes)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	static char text[32];
	unsigned unit = 0;

	while (bytes && bytes % 1024 == 0 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		bytes /= 1024;
		unit++;
	}
	snprintf(text, sizeof(text), "%" PRIu64 " %s", bytes, units[unit]);
	return text;
}

static const char *number_text(int64_t value)
{
	static char text[32];

	if (value == UNKNOWN)
		return "unknown";
	snprintf(text, sizeof(text), "%" PRId64, value);
	return text;
}

static const char *state_of(enum uf_obstacle obstacle)
{
	switch (obstacle) {
	case UF_OBSTACLE_NONE:
		return "works";
	case UF_OBSTACLE_KERNEL:
	case UF_OBSTACLE_NO_NODE:
		return "absent";
	case UF_OBSTACLE_OTHER:
		return "fails";
	default:
		return "refused";
	}
}

/* Both are one system call, and mostly fail for one reason: it is told once. */
static bool same_refusal(const struct uf_probe_result *probe, enum uf_way way)
{
	const struct uf_probe_way *first = &probe->ways[UF_WAY_SYSCALL], *second = &probe->ways[UF_WAY_USER_MODE];

	return way == UF_WAY_USER_MODE && first->error == second->error && first->obstacle == second->obstacle;
}

static const char *serves(enum uf_way way, const struct uf_probe_way *result)
{
	if (way == UF_WAY_USER_ENGINE)
		return "serves touches by the program, and by its system calls under userfault run";
	return result->kernel_faults ? "serves touches by the program and by its system calls"
	                             : "serves touches by the program; its system calls get EFAULT";
}

static void print_way(const struct findings *findings, enum uf_way way)
{
	const struct uf_probe_way *result = &findings->probe.ways[way];
	const char *remedy = uf_obstacle_remedy(way, result->obstacle);
	char reason[256];
	int column;

	column = printf("  %-13s%-9s", uf_way_name(way), state_of(result->obstacle));
	if (!result->error) {
		print_wrapped(column, serves(way, result));
		return;
	}
	if (same_refusal(&findings->probe, way)) {
		printf("%s: as syscall\n", error_name(result->error));
		return;
	}
	snprintf(reason, sizeof(reason), "%s: %s", error_name(result->error), uf_obstacle_text(way, result->obstacle));
	print_wrapped(column, reason);
	if (remedy[0])
		print_wrapped(printf("  %-13s%-9s", "", "remedy"), remedy);
}

static void print_ways(const struct findings *findings)
{
	printf("\nWays, in the order in which uf_open() tries them\n");
	for (enum uf_way way = 0; way < UF_WAY_COUNT; way++)
		print_way(findings, way);
	printf("  %-13s", "uf_open()");
	if (findings->open_error)
		printf("fails with %s\n", error_name(findings->open_error));
	else
		printf("takes %s\n", uf_way_name(findings->open_way));
}

static bool bit_set(uint64_t mask, unsigned bit)
{
	return mask >> bit & 1;
}

static void print_features(const struct uf_probe_way *way)
{
	unsigned count = 0;
	int at = 0;

	for (unsigned bit = 0; bit < 64; bit++) {
		bool refused = bit_set(UFFD_FEATURE_EVENT_FORK, bit) && !way->fork_events;
		unsigned cell = count % FEATURE_COLUMNS;

		if (!bit_set(way->features, bit))
			continue;
		if (cell == 0)
			at = printf("%s  ", count ? "\n" : "") - (count ? 1 : 0);
		else
			at += printf("%*s", 2 + (int)cell * FEATURE_WIDTH - at, "");
		at += printf("%s%s", bit_name(uf_feature_name, bit), refused ? " *" : "");
		count++;
	}
	printf(count ? "\n" : "  none\n");
	if ((way->features & UFFD_FEATURE_EVENT_FORK) && !way->fork_events)
		printf("  * offered, but refused with EPERM: it needs CAP_SYS_PTRACE on the host\n");
}

static void print_unavailable(const struct uf_probe_way *way)
{
	char names[512] = "";
	size_t len = 0;

	for (unsigned bit = 0; bit < 64; bit++)
		if (!bit_set(way->features, bit) && uf_feature_name(bit)[0])
			len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s", len ? " " : "",
			                        uf_feature_name(bit));
	if (len)
		print_wrapped(printf("  not offered: "), names);
}

/* One row: the requests of `ioctls`, each in the column that it has in `all`. */
static void print_requests(uint64_t ioctls, uint64_t all)
{
	int gap = 0;

	if (!ioctls)
		printf("cannot be registered");
	for (unsigned bit = 0; ioctls && bit < 64; bit++) {
		const char *name = bit_name(uf_ioctl_name, bit);

		if (!bit_set(all, bit))
			continue;
		if (bit_set(ioctls, bit)) {
			printf("%*s%s", gap, "", name);
			gap = 1;
		} else {
			gap += (int)strlen(name) + 1;
		}
	}
	putchar('\n');
}

static void print_ranges(const struct uf_probe_way *way)
{
	uint64_t all = 0;

	for (int memory = 0; memory < UF_MEMORY_COUNT; memory++)
		for (int mode = 0; mode < UF_MODE_COUNT; mode++)
			all |= way->range_ioctls[memory][mode];
	for (int memory = 0; memory < UF_MEMORY_COUNT; memory++) {
		for (int mode = 0; mode < UF_MODE_COUNT; mode++) {
			/* A mode that the kernel does not know is told among the features. */
			if (mode == UF_MODE_RWP && !bit_set(way->features, FEATURE_RWP_BIT))
				continue;
			printf("  %-9s%-9s", mode ? "" : uf_memory_name(memory), uf_mode_name(mode));
			print_requests(way->range_ioctls[memory][mode], all);
		}
	}
}

/* The kernel offers the same in every way, as far as we know; then it is shown once. */
static bool same_offer(const struct uf_probe_way *a, const struct uf_probe_way *b)
{
	return !a->error && !b->error && a->features == b->features && a->ioctls == b->ioctls &&
	       a->fork_events == b->fork_events && !memcmp(a->range_ioctls, b->range_ioctls, sizeof(a->range_ioctls));
}

static bool shown_before(const struct uf_probe_result *probe, int way)
{
	for (int other = 0; other < way; other++)
		if (same_offer(&probe->ways[other], &probe->ways[way]))
			return true;
	return false;
}

static void print_offer(const struct uf_probe_result *probe, int first)
{
	const struct uf_probe_way *way = &probe->ways[first];
	char ways[64] = "";
	size_t len = 0;

	for (enum uf_way other = 0; other < UF_WAY_COUNT; other++)
		if (same_offer(way, &probe->ways[other]))
			len += (size_t)snprintf(ways + len, sizeof(ways) - len, "%s%s", len ? ", " : "",
			                        uf_way_name(other));
	printf("\nFeatures (%s): 0x%" PRIx64 "\n", ways, way->features);
	print_features(way);
	print_unavailable(way);
	printf("\nRequests of a range, by memory type and mode\n");
	print_ranges(way);
	/* Whoever believes the answer to UFFDIO_REGISTER here, gets EINVAL later. */
	if (bit_set(way->range_ioctls[UF_MEMORY_SHMEM][UF_MODE_MISSING], _UFFDIO_MOVE))
		printf("  move is offered for shmem, but then refused with EINVAL: it serves anon only\n");
}

static void print_machine(const struct findings *findings)
{
	const struct machine *machine = &findings->machine;
	bool unlimited = machine->memlock == UNKNOWN;

	printf("\nThis machine\n");
	print_fact("PAGEMAP_SCAN", findings->probe.pagemap_scan ? "yes" : "no", "which pages were written (Linux 6.7)");
	print_fact("MADV_GUARD_INSTALL", findings->probe.guard_pages ? "yes" : "no", "guard pages (Linux 6.13)");
	print_fact("vm.unprivileged_userfaultfd", number_text(machine->unprivileged_userfaultfd),
	           "1: the syscall serves everyone");
	print_fact("vm.max_map_count", number_text(machine->max_map_count), "registering a part splits a mapping");
	print_fact("RLIMIT_MEMLOCK", unlimited ? "unlimited" : size_text((uint64_t)machine->memlock),
	           "what a monitor may lock in memory");
	for (unsigned i = 0; i < machine->pool_count; i++) {
		const struct huge_pool *pool = &machine->pools[i];
		char name[64], free[64];

		snprintf(name, sizeof(name), "huge pages of %s", size_text(pool->size));
		snprintf(free, sizeof(free), "%" PRId64 " of %" PRId64, pool->free, pool->total);
		print_fact(name, free, pool->is_default ? "free (the default size)" : "free");
	}
}

void probe_print_text(const struct findings *findings)
{
	printf("userfaultfd on Linux %s, pages of %s\n", findings->machine.release,
	       size_text(findings->machine.page_size));
	print_ways(findings);
	for (int way = 0; way < UF_WAY_COUNT; way++)
		if (!findings->probe.ways[way].error && !shown_before(&findings->probe, way))
			print_offer(&findings->probe, way);
	print_machine(findings);
}
