// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rawsys.h"
#include "placement.h"

void follow_init(struct follow *follow)
{
	*follow = (struct follow){.stat = -1, .cpu = -1};
}

/* Field 39 of /proc/TID/stat; fields are counted from the closing bracket of the name, which is field 2. */
static int processor_of(int stat)
{
	char buf[1024], *at;
	ssize_t len = raw_pread(stat, buf, sizeof(buf) - 1, 0);

	if (len < 0)
		return (int)len;
	buf[len] = '\0';
	at = strrchr(buf, ')');
	for (int field = 2; at && field < 39; field++)
		at = strchr(at + 1, ' ');
	return at ? atoi(at + 1) : -EINVAL;
}

static int start_following(struct follow *follow, uint32_t tid)
{
	char path[32];
	int stat;

	snprintf(path, sizeof(path), "/proc/%u/stat", tid);
	stat = raw_open(path, O_RDONLY | O_CLOEXEC);
	if (stat < 0)
		return stat;
	if (follow->stat >= 0)
		raw_close(follow->stat);
	follow->stat = stat;
	follow->tid = tid;
	follow->credit = FOLLOW_INTERVAL;
	return 0;
}

static int move_to(struct follow *follow, int cpu)
{
	cpu_set_t set;

	if (cpu < 0 || cpu == follow->cpu)
		return cpu;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		return -errno;
	follow->cpu = cpu;
	return cpu;
}

int follow_thread(struct follow *follow, uint32_t tid)
{
	if (tid == follow->tid) {
		if (follow->credit < FOLLOW_INTERVAL)
			follow->credit++;
		if (++follow->seen < FOLLOW_INTERVAL)
			return follow->cpu;
	} else if (follow->credit) {
		follow->credit--;
		return follow->cpu;
	} else {
		int err = start_following(follow, tid);

		if (err)
			return err;
	}
	follow->seen = 0;
	return move_to(follow, processor_of(follow->stat));
}
