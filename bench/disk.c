// SPDX-License-Identifier: MIT
/*
 * What figures on files need: a folder on a disk, a file in it, and a group of processes with a limit to its memory. Folder and group are
 * gone at the end, however that comes: a process that outlives the others by a moment removes them.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define TMPFS 0x01021994 /* of <linux/magic.h> */
#define PIECE ((size_t)4 << 20)

static struct {
	char folder[256], group[512];
	bool made, numbered, unified;
	pid_t remover;
	int alive; /* a pipe that ends when the last of us has ended */
} disk;

/*
 * At the end.
 */

static void remove_folder(void)
{
	DIR *folder = opendir(disk.folder);
	struct dirent *entry;

	while (folder && (entry = readdir(folder)))
		unlinkat(dirfd(folder), entry->d_name, 0);
	if (folder)
		closedir(folder);
	rmdir(disk.folder);
}

/* Those that have just died are in it for a moment more. */
static void remove_group(void)
{
	for (int tries = 0; disk.group[0] && rmdir(disk.group) && errno == EBUSY && tries < 1000; tries++)
		usleep(10000);
}

static _Noreturn void remove_at_end(int end)
{
	char byte;

	setsid();
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	while (read(end, &byte, 1) < 0 && errno == EINTR)
		;
	remove_folder();
	remove_group();
	_exit(0);
}

static bool start_remover(void)
{
	int ends[2];

	fflush(NULL);
	if (pipe2(ends, O_CLOEXEC))
		return false;
	disk.remover = fork();
	if (disk.remover == 0) {
		close(ends[1]);
		remove_at_end(ends[0]);
	}
	close(ends[0]);
	disk.alive = ends[1];
	return disk.remover > 0;
}

void disk_end(void)
{
	if (disk.remover <= 0)
		return;
	close(disk.alive);
	waitpid(disk.remover, NULL, 0);
}

/*
 * Groups: of the memory controller's own hierarchy, or of the unified one.
 */

static bool find_mount(const char *type, const char *option, char *at, size_t size)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	struct mntent *entry;
	bool found = false;

	while (mounts && !found && (entry = getmntent(mounts))) {
		found = !strcmp(entry->mnt_type, type) && (!option || hasmntopt(entry, option));
		if (found)
			snprintf(at, size, "%s", entry->mnt_dir);
	}
	if (mounts)
		endmntent(mounts);
	return found;
}

/* The path of our own group: of the controller's, or of the unified hierarchy (NULL). */
static bool own_group(const char *controller, char *path, size_t size)
{
	FILE *groups = fopen("/proc/self/cgroup", "re");
	char line[512], *names, *at;
	bool found = false;

	while (groups && !found && fgets(line, sizeof(line), groups)) {
		line[strcspn(line, "\n")] = '\0';
		names = strchr(line, ':');
		at = names ? strchr(names + 1, ':') : NULL;
		if (!at)
			continue;
		*at++ = '\0';
		found = controller ? !strcmp(names + 1, controller) : names[1] == '\0';
		if (found)
			snprintf(path, size, "%s", strcmp(at, "/") != 0 ? at : "");
	}
	if (groups)
		fclose(groups);
	return found;
}

static bool file_has(const char *folder, const char *name, const char *word)
{
	char path[600], line[256] = "";
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (!fgets(line, sizeof(line), file))
		line[0] = '\0';
	fclose(file);
	return strstr(line, word);
}

/* The group in which ours can be made. Of the unified hierarchy the nearest above us that hands the controller on. */
static bool find_parent(char *parent, size_t size)
{
	char mount[128], path[256];

	if (find_mount("cgroup", "memory", mount, sizeof(mount)) && own_group("memory", path, sizeof(path))) {
		snprintf(parent, size, "%s%s", mount, path);
		if (access(parent, W_OK))
			snprintf(parent, size, "%s", mount);
		return !access(parent, W_OK);
	}
	if (!find_mount("cgroup2", NULL, mount, sizeof(mount)) || !own_group(NULL, path, sizeof(path)))
		return false;
	disk.unified = true;
	for (;;) {
		snprintf(parent, size, "%s%s", mount, path);
		if (file_has(parent, "cgroup.subtree_control", "memory") && !access(parent, W_OK))
			return true;
		if (!path[0])
			return false;
		*strrchr(path, '/') = '\0';
	}
}

static int write_to(const char *name, const char *text)
{
	char path[600];
	int fd, failed;

	snprintf(path, sizeof(path), "%s/%s", disk.group, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	failed = write(fd, text, strlen(text)) < 0;
	close(fd);
	return failed ? -1 : 0;
}

void bench_limit_memory(size_t bytes)
{
	char text[32];

	snprintf(text, sizeof(text), "%zu", bytes);
	must_libc(write_to(disk.unified ? "memory.max" : "memory.limit_in_bytes", text), "the limit of a memory group");
	/* Where there is swap: what is measured is not its speed. */
	write_to(disk.unified ? "memory.swap.max" : "memory.swappiness", "0");
	must_libc(write_to("cgroup.procs", "0"), "to join a memory group");
}

/*
 * Files.
 */

const char *bench_path(const char *name)
{
	static char path[320];

	snprintf(path, sizeof(path), "%s/%s", disk.folder, name);
	return path;
}

static void number_pages(char *piece, uint64_t first, size_t page)
{
	for (size_t at = 0; at < PIECE; at += page) {
		uint64_t number = NUMBER(first + at / page), *words = (uint64_t *)(piece + at);

		words[0] = number;
		/* Nothing that a disk might leave out. */
		for (size_t i = 1; i < page / 8; i++)
			words[i] = words[i - 1] * 0x5851f42d4c957f2du + 0x14057b7ef767814fu;
	}
}

static bool make_numbered(size_t page)
{
	int fd = open(bench_path("numbered"), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	char *piece = aligned_alloc(page, PIECE);
	bool good = fd >= 0 && piece;

	for (size_t at = 0; good && at < (size_t)FILE_MIB << 20; at += PIECE) {
		number_pages(piece, at / page, page);
		good = write(fd, piece, PIECE) == (ssize_t)PIECE;
	}
	good = good && !fsync(fd);
	if (fd >= 0)
		close(fd);
	free(piece);
	return good;
}

/* How many pages of it are in the page cache. */
static size_t cached_pages(int fd, size_t len, size_t page)
{
	unsigned char *present = malloc(len / page);
	void *at = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
	size_t count = 0;

	if (!present || at == MAP_FAILED || mincore(at, len, present))
		bench_refuse("mincore: %s", strerror(errno));
	for (size_t i = 0; i < len / page; i++)
		count += present[i] & 1;
	munmap(at, len);
	free(present);
	return count;
}

void bench_drop_cache(const struct bench *bench, const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat info;
	size_t cached, pages;

	must_libc(fd, path);
	must_libc(fstat(fd, &info), "fstat");
	must_libc(fsync(fd), "fsync");
	must(-posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), "fadvise");
	pages = (size_t)info.st_size / bench->page;
	cached = cached_pages(fd, (size_t)info.st_size, bench->page);
	close(fd);
	if (cached > pages / 100)
		bench_refuse("%zu of %zu pages stay in the page cache", cached, pages);
}

void bench_warm_cache(const char *path, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *piece = malloc(PIECE);

	must_libc(fd, path);
	for (size_t at = 0; at < len; at += PIECE)
		must_libc(pread(fd, piece, PIECE, (off_t)at), "pread");
	free(piece);
	close(fd);
}

/*
 * Before the rounds.
 */

static const char *chosen_folder(void)
{
	const char *folder = getenv("TMPDIR");

	return folder && *folder ? folder : "/var/tmp";
}

static bool make_folder(char *reason, size_t size)
{
	const char *in = chosen_folder();
	struct statfs system;
	char parent[400];

	if (disk.made)
		return true;
	if (statfs(in, &system) || system.f_type == TMPFS) {
		snprintf(reason, size, "%s is no folder on a disk: TMPDIR tells which to take", in);
		return false;
	}
	snprintf(disk.folder, sizeof(disk.folder), "%s/userfault-bench-%d", in, (int)getpid());
	/* Named before they are made, so that the remover knows them. */
	if (find_parent(parent, sizeof(parent)))
		snprintf(disk.group, sizeof(disk.group), "%s/userfault-bench-%d", parent, (int)getpid());
	disk.made = start_remover() && !mkdir(disk.folder, 0700);
	if (!disk.made)
		snprintf(reason, size, "%s: %s", disk.folder, strerror(errno));
	return disk.made;
}

bool disk_prepare(const struct figure *figure, size_t page, char *reason, size_t size)
{
	if (!make_folder(reason, size))
		return false;
	if (figure->needs == LIMIT && !disk.group[0]) {
		snprintf(reason, size, "needs a memory group of its own (cgroups), and may make none");
		return false;
	}
	if (figure->needs == LIMIT && mkdir(disk.group, 0755) && errno != EEXIST) {
		snprintf(reason, size, "%s: %s", disk.group, strerror(errno));
		return false;
	}
	if (!disk.numbered && !make_numbered(page)) {
		snprintf(reason, size, "a file of %d MiB in %s: %s", FILE_MIB, disk.folder, strerror(errno));
		return false;
	}
	disk.numbered = true;
	return true;
}
