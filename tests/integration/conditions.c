// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <userfault/uapi.h>

#include "conditions.h"
#include "support/test.h"

#define MISC_MAJOR 10

static const char sysctl_path[] = "/proc/sys/vm/unprivileged_userfaultfd";

static void private_mounts(void)
{
	static bool done;

	if (done)
		return;
	if (geteuid() != 0)
		SKIP("needs root, for a mount namespace");
	if (unshare(CLONE_NEWNS)) {
		CHECK_EQ(errno, EPERM);
		SKIP("needs CAP_SYS_ADMIN, for a mount namespace");
	}
	/* Without this, what is mounted here could show up outside. */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		CHECK_EQ(errno, EINVAL);
		SKIP("the root directory is not a mount point, as in a chroot");
	}
	done = true;
}

static void mount_tmpfs(const char *at, unsigned long flags)
{
	private_mounts();
	if (mount("tmpfs", at, "tmpfs", flags, "mode=0755"))
		FAIL("cannot mount on %s: %s", at, strerror(errno));
}

void hide_folder(const char *path)
{
	mount_tmpfs(path, 0);
}

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");

	CHECK(file);
	fputs(text, file);
	CHECK_EQ(fclose(file), 0);
}

/* Lets the file `at` show `text`, by way of a file in a file system of its own. */
static void cover_file(const char *at, const char *text)
{
	static const char cover[] = "/mnt/cover";

	mount_tmpfs("/mnt", 0);
	write_file(cover, text);
	CHECK_EQ(mount(cover, at, NULL, MS_BIND, NULL), 0);
	CHECK_EQ(umount2("/mnt", MNT_DETACH), 0);
}

static void make_device(const char *path, dev_t device, mode_t mode)
{
	CHECK_EQ(mknod(path, S_IFCHR, device), 0);
	/* whatever the umask */
	CHECK_EQ(chmod(path, mode), 0);
}

void private_dev(unsigned long mount_flags)
{
	mount_tmpfs("/dev", mount_flags);
	make_device("/dev/null", makedev(1, 3), 0666);
}

/* Returns the number of the misc device, 0 for none; the other lines go to `others` if that is not NULL. */
static unsigned read_misc(char *others, size_t size)
{
	FILE *misc = fopen("/proc/misc", "re");
	unsigned number, device = 0;
	char name[64];
	size_t len = 0;

	CHECK(misc);
	while (fscanf(misc, "%u %63s", &number, name) == 2) {
		if (!strcmp(name, "userfaultfd"))
			device = number;
		else if (others)
			len += (size_t)snprintf(others + len, size - len, "%3u %s\n", number, name);
	}
	fclose(misc);
	return device;
}

dev_t userfaultfd_device(void)
{
	unsigned number = read_misc(NULL, 0);

	if (!number)
		SKIP("this kernel has no /dev/userfaultfd (Linux 6.1)");
	return makedev(MISC_MAJOR, number);
}

void make_node(dev_t device, mode_t mode)
{
	make_device("/dev/userfaultfd", device, mode);
}

void hide_sysctl(void)
{
	mount_tmpfs("/proc/sys/vm", 0);
}

void hide_device_entries(void)
{
	char others[4096] = "";

	read_misc(others, sizeof(others));
	cover_file("/proc/misc", others);
	mount_tmpfs("/sys/class/misc", 0);
}

void fake_sysctl(const char *value)
{
	cover_file(sysctl_path, value);
}

int real_sysctl(void)
{
	FILE *file = fopen(sysctl_path, "re");
	int value = -1;

	if (!file)
		return -1;
	CHECK_EQ(fscanf(file, "%d", &value), 1);
	fclose(file);
	return value;
}

void become_nobody(void)
{
	if (geteuid() != 0)
		return;
	CHECK_EQ(setgroups(0, NULL), 0);
	CHECK_EQ(setresgid(NOBODY, NOBODY, NOBODY), 0);
	CHECK_EQ(setresuid(NOBODY, NOBODY, NOBODY), 0);
}

void refuse_syscall(int error, bool user_mode_only)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	struct scmp_arg_cmp with_flag = SCMP_A0(SCMP_CMP_MASKED_EQ, UFFD_USER_MODE_ONLY, UFFD_USER_MODE_ONLY);

	CHECK(filter);
	CHECK_EQ(seccomp_rule_add_array(filter, SCMP_ACT_ERRNO((uint16_t)error), SCMP_SYS(userfaultfd), user_mode_only,
	                                &with_flag),
	         0);
	CHECK_EQ(seccomp_load(filter), 0);
	seccomp_release(filter);
}

const char *copy_for_nobody(const char *path, const char *name)
{
	static bool mounted;
	static char copy[2][128];
	static unsigned turn;
	int from, to;
	struct stat st;

	if (!mounted)
		mount_tmpfs("/mnt", 0);
	mounted = true;
	turn = !turn;
	snprintf(copy[turn], sizeof(copy[turn]), "/mnt/%s", name);
	from = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(from >= 0);
	to = open(copy[turn], O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	CHECK(to >= 0);
	CHECK_EQ(fchmod(to, 0755), 0);
	CHECK_EQ(fstat(from, &st), 0);
	for (off_t done = 0; done < st.st_size;)
		CHECK(sendfile(to, from, &done, (size_t)(st.st_size - done)) > 0);
	close(from);
	close(to);
	return copy[turn];
}
