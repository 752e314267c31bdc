// SPDX-License-Identifier: MIT
/* uf_probe(): what it finds, and the reasons it gives, on machines of every kind. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <userfault/uffd.h>

#include "conditions.h"
#include "support/test.h"

static struct uf_probe_result probe(void)
{
	struct uf_probe_result result = {.size = sizeof(result)};

	CHECK_EQ(uf_probe(&result), 0);
	return result;
}

#define CHECK_WAY(result, way, expected_error, expected_obstacle)         \
	do {                                                              \
		CHECK_EQ((result).ways[way].error, expected_error);       \
		CHECK_EQ((result).ways[way].obstacle, expected_obstacle); \
	} while (0)

#define CHECK_WORKS(result, way) CHECK_WAY(result, way, 0, UF_OBSTACLE_NONE)

/* What the kernel itself says of an object, asked without the library. */
static struct uffdio_api ask_kernel(int flags)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | flags);

	CHECK(fd >= 0);
	CHECK_EQ(ioctl(fd, UFFDIO_API, &api), 0);
	close(fd);
	return api;
}

TEST(root_has_every_way,
     "The syscall, the device and user mode work for root, and the first two serve the kernel's touches.")
{
	struct uf_probe_result result;

	private_dev(0);
	make_node(userfaultfd_device(), 0600);
	result = probe();
	for (int way = 0; way < UF_WAY_COUNT; way++) {
		CHECK_WORKS(result, way);
		CHECK_EQ(result.ways[way].kernel_faults, way == UF_WAY_SYSCALL || way == UF_WAY_DEVICE);
		CHECK_EQ(result.ways[way].fork_events, 1);
	}
}

TEST(offers_what_the_kernel_offers,
     "UFFDIO_API \"will return ... all the available features of the read(2) protocol and "
     "the generic ioctl available.\"")
{
	struct uffdio_api api = ask_kernel(UFFD_USER_MODE_ONLY);
	struct uf_probe_result result = probe();

	for (int way = 0; way < UF_WAY_USER_ENGINE; way++) {
		if (result.ways[way].error)
			continue;
		CHECK_EQ(result.ways[way].features, api.features);
		CHECK_EQ(result.ways[way].ioctls, api.ioctls);
	}
	CHECK_WORKS(result, UF_WAY_USER_MODE);
}

#define REQUEST(name) ((uint64_t)1 << _UFFDIO_##name)

TEST(ranges_differ_by_memory_and_mode,
     "\"Not all ioctls will necessarily be supported for all memory types depending on the underlying virtual memory "
     "backend.\"")
{
	struct uf_probe_result result = probe();
	const struct uf_probe_way *way = &result.ways[UF_WAY_USER_MODE];
	const uint64_t(*ioctls)[UF_MODE_ROOM] = way->range_ioctls;
	uint64_t basic = REQUEST(WAKE) | REQUEST(COPY);

	CHECK_EQ(ioctls[UF_MEMORY_ANON][UF_MODE_MISSING] & (basic | REQUEST(ZEROPAGE)), basic | REQUEST(ZEROPAGE));
	CHECK_EQ(ioctls[UF_MEMORY_ANON][UF_MODE_MISSING] & REQUEST(WRITEPROTECT), 0);
	CHECK_EQ(ioctls[UF_MEMORY_ANON][UF_MODE_MINOR], 0);
	CHECK_EQ(ioctls[UF_MEMORY_SHMEM][UF_MODE_MISSING] & basic,
	         way->features & UFFD_FEATURE_MISSING_SHMEM ? basic : 0);
	CHECK_EQ(!!(ioctls[UF_MEMORY_SHMEM][UF_MODE_MINOR] & REQUEST(CONTINUE)),
	         !!(way->features & UFFD_FEATURE_MINOR_SHMEM));
	CHECK_EQ(!!(ioctls[UF_MEMORY_ANON][UF_MODE_WP] & REQUEST(WRITEPROTECT)),
	         !!(way->features & UFFD_FEATURE_PAGEFAULT_FLAG_WP));
	CHECK_EQ(!!(ioctls[UF_MEMORY_SHMEM][UF_MODE_WP] & REQUEST(WRITEPROTECT)),
	         !!(way->features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM));
}

TEST(huge_pages_need_not_be_free,
     "What can be done with hugetlbfs is told whether or not the pool has a page to spare.")
{
	struct uf_probe_result result = probe();
	const struct uf_probe_way *way = &result.ways[UF_WAY_USER_MODE];
	const uint64_t *ioctls = way->range_ioctls[UF_MEMORY_HUGETLB];

	if (!huge_page_size)
		SKIP("this kernel has no huge pages");
	CHECK_EQ(!!(ioctls[UF_MODE_MISSING] & REQUEST(COPY)), !!(way->features & UFFD_FEATURE_MISSING_HUGETLBFS));
	CHECK_EQ(!!(ioctls[UF_MODE_MINOR] & REQUEST(CONTINUE)), !!(way->features & UFFD_FEATURE_MINOR_HUGETLBFS));
	CHECK_EQ(!!(ioctls[UF_MODE_WP] & REQUEST(WRITEPROTECT)), !!(way->features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM));
	CHECK_EQ(ioctls[UF_MODE_MISSING] & (REQUEST(ZEROPAGE) | REQUEST(MOVE)), 0);
}

TEST(unprivileged_has_user_mode,
     "Without privileges the sysctl refuses the syscall, the node's mode the device; user mode works.")
{
	struct uf_probe_result result;

	private_dev(0);
	make_node(userfaultfd_device(), 0600);
	become_nobody();
	result = probe();
	if (real_sysctl() == 1)
		CHECK_WORKS(result, UF_WAY_SYSCALL);
	else
		CHECK_WAY(result, UF_WAY_SYSCALL, -EPERM, UF_OBSTACLE_SYSCTL);
	CHECK_WAY(result, UF_WAY_DEVICE, -EACCES, UF_OBSTACLE_PERMISSION);
	CHECK_WORKS(result, UF_WAY_USER_MODE);
	CHECK_EQ(result.ways[UF_WAY_USER_MODE].kernel_faults, 0);
	CHECK_EQ(result.ways[UF_WAY_USER_MODE].fork_events, 0);
	CHECK(result.ways[UF_WAY_USER_MODE].features & UFFD_FEATURE_EVENT_FORK);
}

TEST(node_with_permission_serves_everyone,
     "Whoever may open the device gets the kernel's touches served, without a capability.")
{
	struct uf_probe_result result;

	private_dev(0);
	make_node(userfaultfd_device(), 0666);
	become_nobody();
	result = probe();
	CHECK_WORKS(result, UF_WAY_DEVICE);
	CHECK_EQ(result.ways[UF_WAY_DEVICE].kernel_faults, 1);
	CHECK_EQ(result.ways[UF_WAY_DEVICE].fork_events, 0);
}

TEST(sysctl_that_allows_is_not_blamed, "EPERM although vm.unprivileged_userfaultfd is 1 comes from a filter.")
{
	struct uf_probe_result result;

	private_dev(0);
	if (real_sysctl() == 1)
		refuse_syscall(EPERM, false);
	else
		fake_sysctl("1\n");
	become_nobody();
	result = probe();
	CHECK_WAY(result, UF_WAY_SYSCALL, -EPERM, UF_OBSTACLE_SECCOMP);
}

TEST(node_missing, "The kernel has the device, but /dev has no node.")
{
	struct uf_probe_result result;

	userfaultfd_device();
	private_dev(0);
	result = probe();
	CHECK_WAY(result, UF_WAY_DEVICE, -ENOENT, UF_OBSTACLE_NO_NODE);
	CHECK_WORKS(result, UF_WAY_SYSCALL);
}

TEST(node_missing_seen_by_sys_or_proc, "Either of /proc/misc and /sys/class/misc shows that the kernel has the device.")
{
	struct uf_probe_result result;

	userfaultfd_device();
	private_dev(0);
	CHECK_EQ(mount("tmpfs", "/sys/class/misc", "tmpfs", 0, NULL), 0);
	result = probe();
	CHECK_WAY(result, UF_WAY_DEVICE, -ENOENT, UF_OBSTACLE_NO_NODE);
	CHECK_EQ(umount("/sys/class/misc"), 0);
	CHECK_EQ(mount("/dev/null", "/proc/misc", NULL, MS_BIND, NULL), 0);
	result = probe();
	CHECK_WAY(result, UF_WAY_DEVICE, -ENOENT, UF_OBSTACLE_NO_NODE);
}

TEST(node_of_another_kernel,
     "The device's number is given out at boot: a node that was made for another one leads nowhere.")
{
	struct uf_probe_result result;

	userfaultfd_device();
	private_dev(0);
	make_node(makedev(10, 0xfffff), 0600);
	result = probe();
	CHECK_WAY(result, UF_WAY_DEVICE, -ENODEV, UF_OBSTACLE_NO_NODE);
}

TEST(node_of_another_device, "A container that masks the device with another is reported with the error it gives.")
{
	struct uf_probe_result result;

	userfaultfd_device();
	private_dev(0);
	make_node(makedev(1, 3), 0666);
	result = probe();
	CHECK_WAY(result, UF_WAY_DEVICE, -ENOTTY, UF_OBSTACLE_OTHER);
}

TEST(node_on_a_mount_without_devices, "On a mount with nodev not even root may open the node.")
{
	struct uf_probe_result result;

	private_dev(MS_NODEV);
	make_node(userfaultfd_device(), 0666);
	result = probe();
	CHECK_WAY(result, UF_WAY_DEVICE, -EACCES, UF_OBSTACLE_PERMISSION);
}

static void check_filter_is_blamed(int error)
{
	struct uf_probe_result result;

	private_dev(0);
	make_node(userfaultfd_device(), 0600);
	refuse_syscall(error, false);
	result = probe();
	CHECK_WAY(result, UF_WAY_SYSCALL, -error, UF_OBSTACLE_SECCOMP);
	CHECK_WAY(result, UF_WAY_USER_MODE, -error, UF_OBSTACLE_SECCOMP);
	CHECK_WORKS(result, UF_WAY_DEVICE);
}

TEST(filter_with_eperm, "A seccomp filter that answers EPERM refuses both kinds of the syscall, and not the device.")
{
	check_filter_is_blamed(EPERM);
}

TEST(filter_with_enosys, "ENOSYS from a kernel that has the facility is a filter's.")
{
	check_filter_is_blamed(ENOSYS);
}

TEST(filter_with_eperm_and_no_privileges, "A filter is told from the sysctl also where the sysctl would refuse.")
{
	struct uf_probe_result result;

	private_dev(0);
	refuse_syscall(EPERM, false);
	become_nobody();
	result = probe();
	CHECK_WAY(result, UF_WAY_SYSCALL, -EPERM, UF_OBSTACLE_SECCOMP);
	CHECK_WAY(result, UF_WAY_USER_MODE, -EPERM, UF_OBSTACLE_SECCOMP);
}

TEST(kernel_without_the_facility, "ENOSYS, and no trace of the facility: the kernel was built without it.")
{
	struct uf_probe_result result;

	private_dev(0);
	hide_sysctl();
	hide_device_entries();
	refuse_syscall(ENOSYS, false);
	result = probe();
	CHECK_WAY(result, UF_WAY_SYSCALL, -ENOSYS, UF_OBSTACLE_KERNEL);
	CHECK_WAY(result, UF_WAY_DEVICE, -ENOENT, UF_OBSTACLE_KERNEL);
	CHECK_WAY(result, UF_WAY_USER_MODE, -ENOSYS, UF_OBSTACLE_KERNEL);
}

TEST(any_trace_of_the_facility_counts, "The sysctl alone, or the device that works, shows that ENOSYS is a filter's.")
{
	struct uf_probe_result result;

	private_dev(0);
	make_node(userfaultfd_device(), 0600);
	hide_device_entries();
	refuse_syscall(ENOSYS, false);
	CHECK_EQ(rename("/dev/userfaultfd", "/dev/away"), 0);
	result = probe();
	CHECK_WAY(result, UF_WAY_SYSCALL, -ENOSYS, UF_OBSTACLE_SECCOMP);
	CHECK_EQ(rename("/dev/away", "/dev/userfaultfd"), 0);
	hide_sysctl();
	result = probe();
	CHECK_WAY(result, UF_WAY_SYSCALL, -ENOSYS, UF_OBSTACLE_SECCOMP);
	CHECK_WORKS(result, UF_WAY_DEVICE);
}

TEST(kernel_before_user_mode, "Before Linux 5.11 UFFD_USER_MODE_ONLY is EINVAL, and EPERM still means the sysctl.")
{
	struct uf_probe_result result;

	private_dev(0);
	refuse_syscall(EINVAL, true);
	become_nobody();
	result = probe();
	CHECK_WAY(result, UF_WAY_USER_MODE, -EINVAL, UF_OBSTACLE_KERNEL);
	if (real_sysctl() == 1)
		CHECK_WORKS(result, UF_WAY_SYSCALL);
	else
		CHECK_WAY(result, UF_WAY_SYSCALL, -EPERM, UF_OBSTACLE_SYSCTL);
}

TEST(other_errors_are_passed_on, "An error of no known meaning is reported as it is.")
{
	struct uf_probe_result result;
	int lowest_free = dup(0);
	struct rlimit limit = {(rlim_t)lowest_free, (rlim_t)lowest_free};

	close(lowest_free);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	result = probe();
	CHECK_WAY(result, UF_WAY_USER_MODE, -EMFILE, UF_OBSTACLE_OTHER);
}

static unsigned count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	CHECK(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* The mappings as text, but for sizes that change by reading them. */
static void read_mappings(char *buf, size_t size)
{
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	ssize_t len = 0, n;

	CHECK(fd >= 0);
	while ((n = read(fd, buf + len, size - 1 - (size_t)len)) > 0)
		len += n;
	CHECK_EQ(n, 0);
	buf[len] = '\0';
	close(fd);
}

TEST(leaves_no_trace, "Afterwards there are no more descriptors and no other mappings than before.")
{
	static char before[65536], after[65536];
	unsigned descriptors;

	/* The first call may let the C library set up its heap. */
	probe();
	descriptors = count_descriptors();
	read_mappings(before, sizeof(before));
	probe();
	read_mappings(after, sizeof(after));
	CHECK_EQ(count_descriptors(), descriptors);
	CHECK(!strcmp(before, after));
}

TEST(size_must_fit,
     "A structure that is too small is -EINVAL and not written to; what a larger one has beyond is cleared.")
{
	struct {
		struct uf_probe_result probe;
		uint64_t later;
	} larger = {.probe.size = sizeof(larger), .later = 1};
	struct uf_probe_result result = {.size = 0, .pagemap_scan = 77};

	CHECK_EQ(uf_probe(NULL), -EINVAL);
	CHECK_EQ(uf_probe(&result), -EINVAL);
	result.size = sizeof(result) - 1;
	CHECK_EQ(uf_probe(&result), -EINVAL);
	CHECK_EQ(result.pagemap_scan, 77);
	CHECK_EQ(uf_probe(&larger.probe), 0);
	CHECK_EQ(larger.probe.size, sizeof(larger));
	CHECK_EQ(larger.later, 0);
	CHECK_WORKS(larger.probe, UF_WAY_USER_MODE);
}

TEST(opens_as_uf_open_does, "uf_open() takes the first way that was found to work.")
{
	struct uf_probe_result result = probe();
	enum uf_way expected = UF_WAY_SYSCALL;
	struct uf *uf;

	while (expected < UF_WAY_COUNT && result.ways[expected].error)
		expected++;
	CHECK_EQ(uf_open(&uf, NULL), 0);
	CHECK_EQ(uf_way(uf), expected);
	uf_close(uf);
}

TEST(every_obstacle_has_words,
     "Each reason is one line, and so is what helps; where something is in the way, neither is empty.")
{
	for (int way = -1; way <= UF_WAY_COUNT + 1; way++) {
		for (int obstacle = -1; obstacle <= UF_OBSTACLE_COUNT; obstacle++) {
			const char *text = uf_obstacle_text((enum uf_way)way, (enum uf_obstacle)obstacle);
			const char *remedy = uf_obstacle_remedy((enum uf_way)way, (enum uf_obstacle)obstacle);

			CHECK(text[0] && !strchr(text, '\n') && !strchr(remedy, '\n'));
		}
	}
	for (int way = 0; way < UF_WAY_USER_ENGINE; way++) {
		CHECK(uf_obstacle_remedy(way, UF_OBSTACLE_KERNEL)[0]);
		CHECK(uf_obstacle_remedy(way, UF_OBSTACLE_SECCOMP)[0]);
	}
	CHECK(strstr(uf_obstacle_remedy(UF_WAY_SYSCALL, UF_OBSTACLE_SYSCTL), "sysctl vm.unprivileged_userfaultfd=1"));
	CHECK(strstr(uf_obstacle_remedy(UF_WAY_DEVICE, UF_OBSTACLE_NO_NODE), "mknod /dev/userfaultfd c 10 "));
	CHECK(strstr(uf_obstacle_remedy(UF_WAY_DEVICE, UF_OBSTACLE_PERMISSION), "udev"));
}

TEST(names_are_the_kernels,
     "Bits and requests are named with the kernel's words; what has no name is the empty string.")
{
	CHECK(!strcmp(uf_feature_name(0), "pagefault_flag_wp"));
	CHECK_EQ(UFFD_FEATURE_EXACT_ADDRESS, 1 << 11);
	CHECK(!strcmp(uf_feature_name(11), "exact_address"));
	CHECK_EQ(UFFD_FEATURE_MOVE, 1 << 16);
	CHECK(!strcmp(uf_feature_name(16), "move"));
	CHECK_EQ(UFFD_FEATURE_RWP_ASYNC, 1 << 18);
	CHECK(!strcmp(uf_feature_name(18), "rwp_async"));
	CHECK(!strcmp(uf_feature_name(19), ""));
	CHECK(!strcmp(uf_feature_name(64), ""));
	CHECK(!strcmp(uf_ioctl_name(_UFFDIO_COPY), "copy"));
	CHECK(!strcmp(uf_ioctl_name(_UFFDIO_API), "api"));
	CHECK(!strcmp(uf_ioctl_name(0x20), ""));
	CHECK(!strcmp(uf_way_name(UF_WAY_USER_MODE), "user-mode"));
	CHECK(!strcmp(uf_way_name((enum uf_way)99), ""));
	CHECK(!strcmp(uf_memory_name(UF_MEMORY_HUGETLB), "hugetlb"));
	CHECK(!strcmp(uf_memory_name(UF_MEMORY_COUNT), ""));
	CHECK(!strcmp(uf_mode_name(UF_MODE_MINOR), "minor"));
	CHECK(!strcmp(uf_mode_name(UF_MODE_COUNT), ""));
}
