// SPDX-License-Identifier: MIT
/*
 * A program that learns which of its pages were written as the kernel's document has it: UFFD_FEATURE_WP_ASYNC and PAGEMAP_SCAN. It knows nothing
 * of the library. Prints what it has done; exits with 1 and a line when something is not as it should be.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <userfault/uapi.h>

#include "base/pagemap.h"

/* Of more than 512 regions Linux says that the walk ended behind the 512th, when it has told all of them. */
#define PAGES   800
#define WRITTEN (PAGES / 2) /* every second one */

static size_t page_size;
static int pagemap;
static char *memory;
static struct page_region regions[PAGES];
static struct pm_scan_arg scan;

static void check(int holds, const char *what)
{
	if (holds)
		return;
	printf("%s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t address(size_t page)
{
	return (uintptr_t)memory + page * page_size;
}

static void watch(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_WP};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	check(uffd >= 0, "userfaultfd");
	check(!ioctl(uffd, UFFDIO_API, &api), "UFFDIO_API");
	memory = mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(memory != MAP_FAILED, "mmap");
	madvise(memory, PAGES * page_size, MADV_NOHUGEPAGE);
	memset(memory, 1, PAGES * page_size);
	reg.range.start = address(0);
	reg.range.len = PAGES * page_size;
	check(!ioctl(uffd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	check(pagemap >= 0, "pagemap");
}

/* For all written pages; the caller changes what it wants otherwise, and says do_scan(). */
static void prepare(void)
{
	scan = (struct pm_scan_arg){
		.size = sizeof(scan),
		.start = address(0),
		.end = address(PAGES),
		.vec = (uintptr_t)regions,
		.vec_len = PAGES,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	memset(regions, 0, sizeof(regions));
}

static int do_scan(void)
{
	return ioctl(pagemap, PAGEMAP_SCAN, &scan);
}

static int fails_with(int error)
{
	return do_scan() == -1 && errno == error;
}

/* What is asked for in a wrong way. */
static void refusals(void)
{
	prepare();
	scan.size--;
	check(fails_with(EINVAL), "another size");
	prepare();
	scan.flags = 1 << 2;
	check(fails_with(EINVAL), "an unknown flag");
	prepare();
	scan.return_mask |= (uint64_t)1 << 40;
	check(fails_with(EINVAL), "an unknown category");
	prepare();
	scan.start++;
	check(fails_with(EINVAL), "an odd start");
	prepare();
	scan.vec = 0;
	check(fails_with(EINVAL), "a length without a vector");
	prepare();
	scan.end = scan.start - page_size;
	check(fails_with(EFAULT), "an end before the start");
	prepare();
	scan.vec = 4096;
	check(fails_with(EFAULT), "a vector that is nowhere");
}

/* Protects everything, and wants to be told nothing. */
static void protect_all(void)
{
	prepare();
	scan.vec = scan.vec_len = 0;
	scan.category_mask = 0;
	scan.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC;
	check(do_scan() == 0 && scan.walk_end == scan.end, "protect all");
	prepare();
	check(do_scan() == 0 && scan.walk_end == scan.end, "nothing was written");
}

static void write_every_second(void)
{
	for (size_t i = 0; i < PAGES; i += 2)
		memory[i * page_size]++;
}

static void check_regions(int count, size_t first)
{
	for (int i = 0; i < count; i++)
		check(regions[i].start == address(first + 2 * (size_t)i) &&
		              regions[i].end == regions[i].start + page_size &&
		              regions[i].categories == PAGE_IS_WRITTEN,
		      "a region");
}

/* However many there are, all that have a place are told at once; and where the rest begins. */
static void limits(void)
{
	prepare();
	check(do_scan() == WRITTEN && scan.walk_end == scan.end, "all");
	check_regions(WRITTEN, 0);
	prepare();
	scan.vec_len = 300;
	check(do_scan() == 300 && scan.walk_end == address(600), "as many as there are places for");
	check_regions(300, 0);
	check(!regions[300].end, "behind the vector");
	prepare();
	scan.max_pages = 7;
	check(do_scan() == 7 && scan.walk_end == address(14), "some pages");
	prepare();
	scan.max_pages = WRITTEN;
	check(do_scan() == WRITTEN && scan.walk_end == scan.end, "just as many pages as there are");
	prepare();
	scan.start = address(2);
	scan.end = scan.start + 1;
	check(do_scan() == 1 && scan.walk_end == address(3), "a part of a page");
	check_regions(1, 2);
	prepare();
	scan.category_mask = 0;
	scan.category_inverted = scan.category_anyof_mask = PAGE_IS_WRITTEN;
	scan.return_mask = PAGE_IS_PRESENT;
	check(do_scan() == WRITTEN && regions[0].start == address(1) && regions[0].categories == PAGE_IS_PRESENT,
	      "what was not written");
}

/* What has been told is protected again, and nothing else. */
static void in_parts(void)
{
	prepare();
	scan.vec_len = 100;
	scan.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC;
	check(do_scan() == 100, "a part");
	prepare();
	check(do_scan() == WRITTEN - 100, "the rest");
	check_regions(WRITTEN - 100, 200);
	memory[0]++;
	check(do_scan() == WRITTEN - 99 && regions[0].start == address(0), "once more");
}

int main(void)
{
	page_size = (size_t)sysconf(_SC_PAGESIZE);
	watch();
	refusals();
	protect_all();
	write_every_second();
	limits();
	in_parts();
	printf("all as documented\n");
	return 0;
}
