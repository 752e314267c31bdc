// SPDX-License-Identifier: MIT
/*
 * Which pages of a range are there. In the trap too, where the program may be in the middle of malloc(): by raw system calls alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rawsys.h"
#include "uffd/user/memory.h"

/* Looks, a millisecond apart, in which no page came back from the swap device. */
#define BRING_IN_PATIENCE 10000

/* Of `pages` pages, those that the page tables hold, or that are swapped out. */
static int present_here(const struct user_memory *memory, uint64_t start, size_t pages, uint8_t *present)
{
	size_t system_page = (size_t)sysconf(_SC_PAGESIZE), stride = memory->page_size / system_page;
	int fd = raw_open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), err = 0;
	uint64_t entries[512];

	if (fd < 0)
		return fd;
	for (size_t done = 0; done < pages && !err;) {
		size_t n = stride > 1 ? 1 : pages - done < 512 ? pages - done : 512;
		ssize_t got = raw_pread(fd, entries, n * sizeof(entries[0]),
		                        (start / system_page + done * stride) * sizeof(entries[0]));

		if (got != (ssize_t)(n * sizeof(entries[0])))
			err = got < 0 ? (int)got : -EFAULT;
		/* A guard counts as swapped out (bit 62) and is told by bit 58 (Linux 6.15). */
		for (size_t i = 0; i < n && !err; i++)
			present[done + i] |= entries[i] >> 63 || (entries[i] >> 62 && !(entries[i] >> 58 & 1));
		done += n;
	}
	raw_close(fd);
	return err;
}

/* The alias's mapping, and how much of its file is swapped out: bytes. */
struct swapped {
	uint64_t start, end, bytes;
};

/* The digits at *at, behind which it then is. */
static uint64_t take_number(const char **at, unsigned base)
{
	uint64_t number = 0;

	for (;; ++*at) {
		char c = **at;
		unsigned digit = c >= '0' && c <= '9' ? (unsigned)(c - '0') : c >= 'a' && c <= 'f' ? c - 'a' + 10u : 16;

		if (digit >= base)
			return number;
		number = number * base + digit;
	}
}

/* A line: a heading, which alone begins with two numbers, or a field. True: now all is known of a mapping. */
static bool parse_smaps(const char *line, struct swapped *swapped)
{
	static const char key[] = "Swap:";
	const char *at = line;
	uint64_t start, end;

	if (!strncmp(line, key, sizeof(key) - 1)) {
		at += sizeof(key) - 1;
		at += strspn(at, " ");
		swapped->bytes = take_number(&at, 10) * 1024;
		return true;
	}
	start = take_number(&at, 16);
	if (at == line || *at++ != '-')
		return false;
	end = take_number(&at, 16);
	if (*at == ' ')
		*swapped = (struct swapped){.start = start, .end = end};
	return false;
}

/* The first mapping that ends behind addr. 1; 0: there is none; or -errno. Of long lines the beginning counts. */
static int read_smaps(int fd, uint64_t addr, struct swapped *swapped)
{
	char line[64], buffer[1024];
	size_t len = 0;

	*swapped = (struct swapped){.end = 0};
	for (;;) {
		ssize_t got = raw_read(fd, buffer, sizeof(buffer));

		if (got <= 0)
			return (int)got;
		for (ssize_t i = 0; i < got; i++) {
			if (buffer[i] != '\n') {
				if (len < sizeof(line) - 1)
					line[len++] = buffer[i];
				continue;
			}
			line[len] = '\0';
			len = 0;
			if (parse_smaps(line, swapped) && swapped->end > addr)
				return 1;
		}
	}
}

/* 1; 0: nothing is swapped out on the whole machine, as almost always; or -errno. Reading smaps is dear. */
static int find_swapped(uint64_t addr, struct swapped *swapped)
{
	struct sysinfo info;
	int fd, found;

	if (!raw_syscall3(SYS_sysinfo, (long)&info, 0, 0) && info.freeswap == info.totalswap)
		return 0;
	fd = raw_open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fd;
	found = read_smaps(fd, addr, swapped);
	raw_close(fd);
	return found ? found : -EFAULT;
}

/* Reads one byte of each resident page, which makes a page of the swap cache one of the file, and adds none to the file. */
static int settle_resident(const struct swapped *mapping, size_t system_page)
{
	int fd = user_memory_descriptor();
	unsigned char resident[512];
	char byte;

	for (uint64_t at = mapping->start; fd >= 0 && at < mapping->end; at += sizeof(resident) * system_page) {
		size_t pages = (mapping->end - at) / system_page;
		int err;

		pages = pages < sizeof(resident) ? pages : sizeof(resident);
		err = raw_mincore(at, pages * system_page, resident);
		if (err)
			return err;
		for (size_t i = 0; i < pages; i++)
			if (resident[i] & 1)
				raw_pread(fd, &byte, 1, at + i * system_page);
	}
	return fd < 0 ? fd : 0;
}

/* mincore() takes pages of a file that are swapped out for missing ones: brings them all in. */
static int bring_in(uint64_t alias)
{
	size_t system_page = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t least = UINT64_MAX;
	struct swapped swapped;

	for (unsigned idle = 0; idle < BRING_IN_PATIENCE; idle++) {
		int err = find_swapped(alias, &swapped);

		if (err <= 0 || !swapped.bytes)
			return err < 0 ? err : 0;
		if (swapped.bytes < least) {
			least = swapped.bytes;
			idle = 0;
		} else {
			/* The swap device is at work. */
			pause_us(1000);
		}
		raw_madvise(swapped.start, swapped.end - swapped.start, MADV_WILLNEED);
		err = settle_resident(&swapped, system_page);
		if (err)
			return err;
	}
	return -EAGAIN;
}

/* Adds those that the file holds. */
static int present_in_file(const struct user_memory *memory, uint64_t at, size_t pages, uint8_t *present)
{
	size_t system_page = (size_t)sysconf(_SC_PAGESIZE), stride = memory->page_size / system_page;
	unsigned char resident[512];

	if (memory->type == UF_MEMORY_SHMEM && memory->shared) {
		int err = bring_in(at);

		if (err)
			return err;
	}
	for (size_t done = 0; done < pages;) {
		size_t n = stride > 1 ? 1 : pages - done < 512 ? pages - done : 512;
		int err = raw_mincore(at + done * memory->page_size, n * system_page, resident);

		if (err)
			return err;
		for (size_t i = 0; i < n; i++)
			present[done + i] |= resident[i] & 1;
		done += n;
	}
	return 0;
}

int user_memory_present(const struct user_memory *memory, uint64_t start, uint64_t end, uint8_t *present)
{
	size_t pages = (end - start) / memory->page_size;
	uint64_t at = start;
	int err = 0;

	memset(present, 0, pages);
	if (memory->shared)
		at = memory->alias ? (uint64_t)(uintptr_t)memory->alias + (start - memory->start) : start;
	if (!memory->shared || memory->type == UF_MEMORY_HUGETLB)
		err = present_here(memory, start, pages, present);
	/* Of hugetlbfs mincore() sees the page tables, or looks for the wrong page of the file where there are none. */
	if (!err && memory->type == UF_MEMORY_HUGETLB && at != start)
		err = present_here(memory, at, pages, present);
	else if (!err && memory->type == UF_MEMORY_SHMEM)
		err = present_in_file(memory, at, pages, present);
	return err;
}
