// SPDX-License-Identifier: MIT
/* The table of figures, and which of them to measure. */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"

static const struct figure figures[] = {
	{"fault.kernel.thread", "us", fault_thread, bare_thread, NEAR, .tail = true},
	{"fault.kernel.thread.far", "us", fault_thread, bare_thread, FAR},
	{"fault.kernel.thread.spin", "us", fault_thread, bare_thread, SPIN},
	{"fault.kernel.inline", "us", fault_inline, bare_inline, NEAR},
	{"fault.kernel.follow", "us", fault_follow, fault_scheduled, MOVED},
	{"fault.kernel.follow.free", "us", fault_follow, fault_scheduled, FREE},
	{"fault.user.thread", "us", user_thread, kernel_thread, NEAR, .tail = true},
	{"fault.user.thread.shared", "us", user_thread_shared, kernel_thread_shared, NEAR},
	{"fault.user.process", "us", user_process, kernel_process, NEAR, .tail = true},
	{"fault.user.process.shared", "us", user_process_shared, kernel_process_shared, NEAR},
	{"fault.user.process.spin", "us", user_process, kernel_process, SPIN, .tail = true},
	{"fault.user.process.spin.shared", "us", user_process_shared, kernel_process_shared, SPIN},
	{"fault.user.inline", "us", user_inline, bare_thread, NEAR, .tail = true},
	{"fault.user.inline.kernel", "us", user_inline, kernel_inline, NEAR},
	{"fault.user.inline.shared", "us", user_inline_shared, kernel_inline_shared, NEAR},
	{"fault.user.random1m", "us", user_random_last, user_random_first, NEAR},
	{"wp.user", "us", user_wp, bare_mprotect, NEAR},
	{"fill.copy", "GB/s", filling_copy, bare_memcpy, NEAR, .memory = FILL_MIB},
	{"fill.move", "GB/s", filling_move, bare_memcpy, NEAR, .memory = FILL_MIB},
	{"fill.zero", "GB/s", filling_zero, bare_first_touch, NEAR, .memory = FILL_MIB},
	{"dirty.scan", "ms/GiB", dirty_scan, bare_scan, NEAR, .memory = SCAN_MIB},
	{"dirty.write.async", "us", dirty_write_async, bare_mprotect, NEAR},
	{"dirty.write.sync", "us", dirty_write_sync, bare_mprotect, NEAR},
	{"cache.hit", "ns", cache_hit, file_hit, NEAR, .memory = 2 * CACHE_MIB, .needs = DISK},
	{"cache.hit.memcpy", "ns", cache_hit, memory_hit, NEAR, .memory = 2 * CACHE_MIB, .needs = DISK},
	{"pager.random.warm", "us", pager_warm_inline, bare_warm_inline, NEAR, .needs = DISK},
	{"pager.random.warm.thread", "us", pager_warm_thread, bare_warm_thread, NEAR, .needs = DISK},
	{"pager.scale.1", "us", pager_scale_1, bare_scale_1, FREE, .memory = 2 * SCALE_MIB, .needs = DISK},
	{"pager.scale.2", "us", pager_scale_2, bare_scale_2, FREE, .memory = 2 * SCALE_MIB, .needs = DISK},
	{"pager.scale.4", "us", pager_scale_4, bare_scale_4, FREE, .memory = 2 * SCALE_MIB, .needs = DISK},
	{"pager.scale.8", "us", pager_scale_8, bare_scale_8, FREE, .memory = 2 * SCALE_MIB, .needs = DISK},
	{"pager.random.cold", "us", pager_cold, mmap_cold, FREE, .memory = MEMORY_MIB, .needs = LIMIT},
	{"pager.random.cold.8", "us", pager_cold_8, mmap_cold_8, FREE, .memory = MEMORY_MIB, .needs = LIMIT},
	{"pager.seq.cold", "GB/s", pager_sequential, mmap_sequential, FREE, .memory = MEMORY_MIB, .needs = LIMIT},
	{"pager.sort", "s", pager_sort, mmap_sort, FREE, .memory = KEYS_MIB, .needs = LIMIT},
	{"pager.workingset", "ms", pager_replay, pager_on_demand, FREE, .memory = SET_MIB, .needs = DISK},
	{"manager.latency", "us", manager_fault, bare_process, NEAR, .tail = true},
	{"manager.latency.far", "us", manager_fault, bare_process, FAR, .tail = true},
	{"manager.handover", "us", manager_handover, bare_handover, NEAR, .tail = true},
	{"manager.clients.10", "us", manager_clients_10, manager_clients_1, NEAR},
	{"manager.clients.100", "us", manager_clients_100, manager_clients_1, NEAR},
	{"manager.clients.1000", "us", manager_clients_1000, manager_clients_1, NEAR},
	{"manager.memory", "B/page", manager_memory, manager_page_tables, NEAR},
	{"manager.restore", "ms", manager_restore, manager_no_prefetch, FREE, .memory = FILE_MIB, .needs = DISK},
	{"manager.restore.warm", "ms", manager_restore_warm, manager_no_prefetch_warm, FREE, .memory = FILE_MIB,
         .needs = DISK},
	{"migrate.throughput", "GB/s", migrate_postcopy, raw_tcp_throughput, FREE, .memory = 2 * MIGRATE_MIB},
	{"migrate.throughput.precopy", "GB/s", migrate_precopy, raw_tcp_throughput, FREE, .memory = 2 * MIGRATE_MIB},
	{"migrate.throughput.one", "GB/s", migrate_postcopy_one, raw_tcp_throughput, FREE, .memory = 2 * MIGRATE_MIB},
	{"migrate.throughput.checksum", "GB/s", migrate_checksum, raw_tcp_throughput, FREE, .memory = 2 * MIGRATE_MIB},
	{"migrate.request", "us", migrate_request, bare_request, FREE, .tail = true, .memory = 2 * MIGRATE_MIB},
	{"migrate.request.one", "us", migrate_request_one, bare_request, FREE, .tail = true, .memory = 2 * MIGRATE_MIB},
	{"migrate.stopped", "ms", migrate_stopped, raw_tcp_time, FREE, .memory = BUSY_MIB},
	{"migrate.stall", "ms", migrate_stall, raw_tcp_time, FREE, .memory = BUSY_MIB},
	{"migrate.total", "ms", migrate_total, raw_tcp_time, FREE, .memory = BUSY_MIB},
	{"pager.workingset.memcpy", "ms", pager_replay, bare_copy_set, FREE, .memory = SET_MIB, .needs = DISK},
};

#define COUNT (sizeof(figures) / sizeof(figures[0]))

/* The rows of one figure: itself, and its tail. */
struct rows {
	bool median, tail;
};

static const char *tail_name(const struct figure *figure, char *buf, size_t size)
{
	snprintf(buf, size, "%s.p99", figure->name);
	return buf;
}

static bool is_family(const char *name, const char *only)
{
	size_t len = strlen(only);

	return !strncmp(name, only, len) && (name[len] == '.' || name[len] == '\0');
}

/* A name that is a row's means that row alone; otherwise it is a family's: all that begins with it, up to a dot. */
static bool select_rows(const char *only, struct rows *selected)
{
	bool any = false;
	char name[64];

	for (size_t i = 0; i < COUNT; i++) {
		selected[i].median = !strcmp(figures[i].name, only);
		selected[i].tail = figures[i].tail && !strcmp(tail_name(&figures[i], name, sizeof(name)), only);
		any |= selected[i].median || selected[i].tail;
	}
	if (any)
		return true;
	for (size_t i = 0; i < COUNT; i++) {
		bool member = is_family(figures[i].name, only);

		selected[i] = (struct rows){.median = member, .tail = member && figures[i].tail};
		any |= member;
	}
	return any;
}

static int list_names(const char *unknown)
{
	char name[64];

	fprintf(stderr, "bench: no figure or family named '%s'; there are:", unknown);
	for (size_t i = 0; i < COUNT; i++) {
		fprintf(stderr, " %s", figures[i].name);
		if (figures[i].tail)
			fprintf(stderr, " %s", tail_name(&figures[i], name, sizeof(name)));
	}
	fprintf(stderr, "\n");
	return 2;
}

static int usable_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);
}

/* Measures a figure and reports its rows. False when it could not run. */
static bool run(const struct figure *figure, struct rows rows, struct report *report)
{
	struct result result;
	char reason[256], name[64];

	if (!measure(figure, &result, reason, sizeof(reason))) {
		printf("%-28s cannot run: %s\n", figure->name, reason);
		return false;
	}
	if (rows.median)
		report_row(report, figure->name, figure->unit, result.value, result.baseline, result.ratio_low,
		           result.ratio_high, result.rounds);
	if (rows.tail)
		report_row(report, tail_name(figure, name, sizeof(name)), figure->unit, result.tail,
		           result.tail_baseline, result.tail_low, result.tail_high, result.rounds);
	return true;
}

static int usage(void)
{
	fprintf(stderr, "usage: bench [--only NAME] [--json PATH]\n");
	return 2;
}

int main(int argc, char **argv)
{
	const char *only = NULL, *path = "bench.json";
	struct rows selected[COUNT];
	struct report *report;
	unsigned measured = 0, failed = 0;

	for (int i = 1; i < argc; i += 2) {
		if (i + 1 < argc && !strcmp(argv[i], "--only"))
			only = argv[i + 1];
		else if (i + 1 < argc && !strcmp(argv[i], "--json"))
			path = argv[i + 1];
		else
			return usage();
	}
	for (size_t i = 0; i < COUNT; i++)
		selected[i] = (struct rows){.median = true, .tail = figures[i].tail};
	if (only && !select_rows(only, selected))
		return list_names(only);

	report = report_new();
	if (!report)
		return 1;
	for (size_t i = 0; i < COUNT; i++) {
		if (!selected[i].median && !selected[i].tail)
			continue;
		if (figures[i].place != NEAR && usable_cpus() < 2)
			printf("%-28s left out: it needs two CPUs, and there is one\n", figures[i].name);
		else if (run(&figures[i], selected[i], report))
			measured++;
		else
			failed++;
	}
	disk_end();
	if (report_write(report, path))
		return 1;
	return failed || !measured ? 1 : 0;
}
