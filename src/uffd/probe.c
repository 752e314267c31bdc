// SPDX-License-Identifier: MIT
/* Probing: every way is tried, and a refusal is traced to its cause. Contracts: <userfault/uffd.h>. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/advice.h"
#include "base/cleanup.h"
#include "base/huge.h"
#include "base/pagemap.h"
#include "base/rawsys.h"
#include "uffd/engine.h"

#define OPEN_FLAGS (O_CLOEXEC | O_NONBLOCK)

/*
 * The features that say which memory can be registered in which mode. Enabled before ranges are tried, as the kernel's
 * document asks; no other is, since WP_ASYNC, for one, changes what may be registered.
 */
#define MEMORY_FEATURES                                                                                 \
	(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MISSING_SHMEM | \
	 UFFD_FEATURE_MINOR_HUGETLBFS | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

static const char sysctl_path[] = "/proc/sys/vm/unprivileged_userfaultfd";

/* The beginning of a file of /proc, as a string: empty when it cannot be read. */
static void read_start(const char *path, char *buf, size_t size)
{
	_cleanup_fd int fd = raw_open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : raw_read(fd, buf, size - 1);

	buf[len > 0 ? len : 0] = '\0';
}

static bool exists(const char *path)
{
	return raw_syscall3(SYS_faccessat, AT_FDCWD, (long)path, F_OK) == 0;
}

static bool kernel_has_device(void)
{
	char misc[4096];

	if (exists("/sys/class/misc/userfaultfd"))
		return true;
	read_start("/proc/misc", misc, sizeof(misc));
	return strstr(misc, " userfaultfd\n");
}

static bool kernel_has_facility(const struct uf_probe_result *probe)
{
	return !probe->ways[UF_WAY_DEVICE].error || exists(sysctl_path) || kernel_has_device();
}

/* Whether the kernel would let anybody have this way, so that it cannot be the kernel who refused it. */
static bool sysctl_allows(void)
{
	char value[16];

	read_start(sysctl_path, value, sizeof(value));
	return strtol(value, NULL, 10) > 0;
}

static enum uf_obstacle diagnose_syscall(const struct uf_probe_result *probe, enum uf_way way)
{
	int user_mode = probe->ways[UF_WAY_USER_MODE].error;

	switch (probe->ways[way].error) {
	case -ENOSYS:
		return kernel_has_facility(probe) ? UF_OBSTACLE_SECCOMP : UF_OBSTACLE_KERNEL;
	case -EINVAL:
		return way == UF_WAY_USER_MODE ? UF_OBSTACLE_KERNEL : UF_OBSTACLE_OTHER;
	case -EPERM:
		/*
		 * A filter refuses the call by its number, the sysctl only without the flag; a kernel that is too old for
		 * the flag says so, and so was asked.
		 */
		if (way == UF_WAY_SYSCALL && (!user_mode || user_mode == -EINVAL) && !sysctl_allows())
			return UF_OBSTACLE_SYSCTL;
		return UF_OBSTACLE_SECCOMP;
	default:
		return UF_OBSTACLE_OTHER;
	}
}

static enum uf_obstacle diagnose_device(int err)
{
	switch (err) {
	case -ENOENT:
	case -ENODEV: /* a node with the number of no device, or of another kernel's */
	case -ENXIO:
		return kernel_has_device() ? UF_OBSTACLE_NO_NODE : UF_OBSTACLE_KERNEL;
	case -EACCES:
		return UF_OBSTACLE_PERMISSION;
	case -EPERM:
	case -ENOSYS: /* no driver answers so */
		return UF_OBSTACLE_SECCOMP;
	default:
		return UF_OBSTACLE_OTHER;
	}
}

static enum uf_obstacle diagnose(const struct uf_probe_result *probe, enum uf_way way)
{
	int err = probe->ways[way].error;

	if (!err)
		return UF_OBSTACLE_NONE;
	if (way == UF_WAY_USER_ENGINE)
		return UF_OBSTACLE_OTHER;
	return way == UF_WAY_DEVICE ? diagnose_device(err) : diagnose_syscall(probe, way);
}

/* One page of each memory type; NULL for a type that this machine does not have. */
struct scratch {
	void *page[UF_MEMORY_COUNT];
	size_t size[UF_MEMORY_COUNT];
};

static void scratch_unmap(struct scratch *scratch)
{
	for (int memory = 0; memory < UF_MEMORY_COUNT; memory++)
		if (scratch->page[memory])
			munmap(scratch->page[memory], scratch->size[memory]);
}

static int scratch_map(struct scratch *scratch)
{
	static const int flags[UF_MEMORY_COUNT] = {
		[UF_MEMORY_ANON] = MAP_PRIVATE,
		[UF_MEMORY_SHMEM] = MAP_SHARED,
		/* Shared, since minor faults are; without a reservation, since then it needs no free huge page. */
		[UF_MEMORY_HUGETLB] = MAP_SHARED | MAP_HUGETLB | MAP_NORESERVE,
	};

	for (int memory = 0; memory < UF_MEMORY_COUNT; memory++) {
		size_t size = memory == UF_MEMORY_HUGETLB ? huge_page_bytes() : (size_t)sysconf(_SC_PAGESIZE);
		void *page = size ? mmap(NULL, size, PROT_READ | PROT_WRITE, flags[memory] | MAP_ANONYMOUS, -1, 0)
		                  : MAP_FAILED;

		scratch->size[memory] = size;
		scratch->page[memory] = page == MAP_FAILED ? NULL : page;
	}
	return scratch->page[UF_MEMORY_ANON] && scratch->page[UF_MEMORY_SHMEM] ? 0 : -ENOMEM;
}

static const struct uf_engine_ops *engine_of(enum uf_way way)
{
	return way == UF_WAY_USER_ENGINE ? &uf_engine_user : &uf_engine_kernel;
}

static int open_enabled(struct uf **out, enum uf_way way, uint64_t features)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	struct uf *uf;
	int err;

	err = uf_engine_open(&uf, engine_of(way), way, OPEN_FLAGS);
	if (err)
		return err;
	err = uf_ioctl(uf, UFFDIO_API, &api);
	if (err) {
		uf_close(uf);
		return err;
	}
	*out = uf;
	return 0;
}

static int probe_ranges(struct uf_probe_way *result, enum uf_way way, const struct scratch *scratch)
{
	struct uf *uf;
	int err;

	err = open_enabled(&uf, way, result->features & MEMORY_FEATURES);
	if (err)
		return err;
	for (int memory = 0; memory < UF_MEMORY_COUNT; memory++) {
		void *page = scratch->page[memory];
		size_t size = scratch->size[memory];

		for (int mode = 0; page && mode < UF_MODE_COUNT; mode++)
			if (!uf_register(uf, page, size, (uint64_t)1 << mode, &result->range_ioctls[memory][mode]))
				uf_unregister(uf, page, size);
	}
	uf_close(uf);
	return 0;
}

/* Every process is offered fork events; who may have them shows only when they are enabled. */
static int probe_fork_events(struct uf_probe_way *result, enum uf_way way)
{
	struct uf *uf;
	int err;

	if (!(result->features & UFFD_FEATURE_EVENT_FORK))
		return 0;
	err = open_enabled(&uf, way, UFFD_FEATURE_EVENT_FORK);
	if (err)
		return err == -EPERM ? 0 : err;
	result->fork_events = 1;
	uf_close(uf);
	return 0;
}

static int probe_way(struct uf_probe_way *result, enum uf_way way, const struct scratch *scratch)
{
	int err;

	err = uf_engine_available(engine_of(way), way, OPEN_FLAGS, &result->features, &result->ioctls);
	if (!err)
		err = probe_ranges(result, way, scratch);
	if (!err)
		err = probe_fork_events(result, way);
	if (err)
		memset(result, 0, sizeof(*result));
	else
		result->kernel_faults = way == UF_WAY_SYSCALL || way == UF_WAY_DEVICE;
	result->error = err;
	return err;
}

static int has_pagemap_scan(void *page, size_t size)
{
	struct page_region region;
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.start = (uint64_t)(uintptr_t)page,
		.end = (uint64_t)(uintptr_t)page + size,
		.vec = (uint64_t)(uintptr_t)&region,
		.vec_len = 1,
		.category_mask = PAGE_IS_PRESENT,
		.return_mask = PAGE_IS_PRESENT,
	};
	_cleanup_fd int pagemap = raw_open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	return pagemap >= 0 && raw_ioctl(pagemap, PAGEMAP_SCAN, &scan) >= 0;
}

/* What every caller has. */
#define RESULT_SIZE_0 (offsetof(struct uf_probe_result, guard_pages) + sizeof(int))

int uf_probe(struct uf_probe_result *result)
{
	size_t size = result ? result->size : 0;
	struct uf_probe_result full = {0}, *probe = &full;
	struct scratch scratch;
	int err;

	if (size < RESULT_SIZE_0)
		return -EINVAL;

	err = scratch_map(&scratch);
	for (enum uf_way way = 0; !err && way < UF_WAY_COUNT; way++)
		if (probe_way(&probe->ways[way], way, &scratch) == -ENOMEM)
			err = -ENOMEM;
	if (!err) {
		void *page = scratch.page[UF_MEMORY_ANON];
		size_t len = scratch.size[UF_MEMORY_ANON];

		for (enum uf_way way = 0; way < UF_WAY_COUNT; way++)
			probe->ways[way].obstacle = diagnose(probe, way);
		probe->pagemap_scan = has_pagemap_scan(page, len);
		probe->guard_pages = !madvise(page, len, MADV_GUARD_INSTALL);
	}
	scratch_unmap(&scratch);
	memset(result, 0, size);
	memcpy(result, probe, size < sizeof(*probe) ? size : sizeof(*probe));
	result->size = size;
	return err;
}

#define WAY(name)   (1u << UF_WAY_##name)
#define EITHER_CALL (WAY(SYSCALL) | WAY(USER_MODE))
#define ANY_WAY     (EITHER_CALL | WAY(DEVICE) | WAY(USER_ENGINE))

/* What is in the way, and what helps: the first line that fits. */
static const struct advice {
	unsigned ways;
	enum uf_obstacle obstacle;
	const char *text;
	const char *remedy;
} advices[] = {
	{WAY(SYSCALL), UF_OBSTACLE_KERNEL,
         "the kernel has no userfaultfd: built without CONFIG_USERFAULTFD, or a sandbox such as gVisor",
         "run on a Linux kernel, 4.3 or later, built with CONFIG_USERFAULTFD=y"},
	{WAY(DEVICE), UF_OBSTACLE_KERNEL,
         "the kernel has no such device: older than Linux 6.1, or built without CONFIG_USERFAULTFD",
         "run on a Linux kernel, 6.1 or later, built with CONFIG_USERFAULTFD=y"},
	{WAY(USER_MODE), UF_OBSTACLE_KERNEL,
         "the kernel has no UFFD_USER_MODE_ONLY: older than Linux 5.11, or built without CONFIG_USERFAULTFD",
         "run on a Linux kernel, 5.11 or later, built with CONFIG_USERFAULTFD=y"},
	{WAY(SYSCALL), UF_OBSTACLE_SYSCTL,
         "vm.unprivileged_userfaultfd is 0, and the process has no CAP_SYS_PTRACE on the host",
         "run as root of the host or with its CAP_SYS_PTRACE, or set as root: sysctl vm.unprivileged_userfaultfd=1"},
	{EITHER_CALL, UF_OBSTACLE_SECCOMP, "a seccomp filter or a sandbox; container runtimes install one by default",
         "allow userfaultfd in the container's seccomp profile (docker, podman: --security-opt seccomp=PROFILE), or "
         "pass the device (--device /dev/userfaultfd)"},
	{WAY(DEVICE), UF_OBSTACLE_SECCOMP, "a device cgroup, a seccomp filter or a sandbox",
         "allow the device (docker, podman: --device /dev/userfaultfd; systemd: DeviceAllow=/dev/userfaultfd rw)"},
	{WAY(DEVICE), UF_OBSTACLE_NO_NODE,
         "the kernel has the device, but /dev/userfaultfd is not there, or has another number",
         "pass --device /dev/userfaultfd to the container, or, as root: mknod /dev/userfaultfd c 10 MINOR, where MINOR "
         "is the number beside userfaultfd in /proc/misc"},
	{WAY(DEVICE), UF_OBSTACLE_PERMISSION,
         "this user may not open /dev/userfaultfd (or it is on a mount with nodev)",
         "as root: setfacl -m u:USER:rw /dev/userfaultfd, or, to last, a udev rule: KERNEL==\"userfaultfd\", "
         "GROUP=\"GROUP\", MODE=\"0660\""},
	{ANY_WAY, UF_OBSTACLE_NONE, "nothing", ""},
};

static const struct advice *find_advice(enum uf_way way, enum uf_obstacle obstacle)
{
	static const struct advice other = {.text = "an error that is none of the usual refusals", .remedy = ""};

	for (size_t i = 0; i < sizeof(advices) / sizeof(advices[0]); i++)
		if (way < UF_WAY_COUNT && (advices[i].ways & (1u << way)) && advices[i].obstacle == obstacle)
			return &advices[i];
	return &other;
}

const char *uf_obstacle_text(enum uf_way way, enum uf_obstacle obstacle)
{
	return find_advice(way, obstacle)->text;
}

const char *uf_obstacle_remedy(enum uf_way way, enum uf_obstacle obstacle)
{
	return find_advice(way, obstacle)->remedy;
}

#define NAME_OF(names, index)                                                                          \
	({                                                                                             \
		size_t _index = (size_t)(index);                                                       \
		_index < sizeof(names) / sizeof((names)[0]) && (names)[_index] ? (names)[_index] : ""; \
	})

const char *uf_way_name(enum uf_way way)
{
	static const char *const names[] = {
		[UF_WAY_SYSCALL] = "syscall",         [UF_WAY_DEVICE] = "device",   [UF_WAY_USER_MODE] = "user-mode",
		[UF_WAY_USER_ENGINE] = "user-engine", [UF_WAY_ADOPTED] = "adopted",
	};

	return NAME_OF(names, way);
}

const char *uf_feature_name(unsigned bit)
{
	static const char *const names[] = {
		"pagefault_flag_wp",
		"event_fork",
		"event_remap",
		"event_remove",
		"missing_hugetlbfs",
		"missing_shmem",
		"event_unmap",
		"sigbus",
		"thread_id",
		"minor_hugetlbfs",
		"minor_shmem",
		"exact_address",
		"wp_hugetlbfs_shmem",
		"wp_unpopulated",
		"poison",
		"wp_async",
		"move",
		"rwp",
		"rwp_async",
	};

	return NAME_OF(names, bit);
}

const char *uf_ioctl_name(unsigned number)
{
	static const char *const names[] = {
		[_UFFDIO_REGISTER] = "register",
		[_UFFDIO_UNREGISTER] = "unregister",
		[_UFFDIO_WAKE] = "wake",
		[_UFFDIO_COPY] = "copy",
		[_UFFDIO_ZEROPAGE] = "zeropage",
		[_UFFDIO_MOVE] = "move",
		[_UFFDIO_WRITEPROTECT] = "writeprotect",
		[_UFFDIO_CONTINUE] = "continue",
		[_UFFDIO_POISON] = "poison",
		[_UFFDIO_RWPROTECT] = "rwprotect",
		[_UFFDIO_SET_MODE] = "set_mode",
		[_UFFDIO_API] = "api",
	};

	return NAME_OF(names, number);
}

const char *uf_memory_name(enum uf_memory memory)
{
	static const char *const names[] = {
		[UF_MEMORY_ANON] = "anon",
		[UF_MEMORY_SHMEM] = "shmem",
		[UF_MEMORY_HUGETLB] = "hugetlb",
	};

	return NAME_OF(names, memory);
}

const char *uf_mode_name(enum uf_mode mode)
{
	static const char *const names[] = {
		[UF_MODE_MISSING] = "missing",
		[UF_MODE_WP] = "wp",
		[UF_MODE_MINOR] = "minor",
		[UF_MODE_RWP] = "rwp",
	};

	return NAME_OF(names, mode);
}
