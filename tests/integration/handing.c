// SPDX-License-Identifier: MIT
/*
 * handing - a client that does what its standard input says, a line at a time, and answers each with a line
 *
 *	pid
 *	map KIND PAGES         private, shared, memfd, huge or hugememfd memory, registered; PAGES of 4 KiB. Its number
 *	connect PATH           done
 *	give TEXT              sends it with the descriptor of the object; @N stands for the address of region N, and @N+K for K bytes behind it
 *	send TEXT              the same without the descriptor
 *	answer                 the line that the manager answers; "end": it has hung up
 *	finish                 says that it has said all: shutdown(2)
 *	hangup, close          ends the connection; closes the descriptor
 *	is REGION PAGE SEED AT "yes": the page holds what page AT of that store does; "zeros", "other"; "bus": it is SIGBUS. "none": it was unmapped
 *	drop REGION PAGE COUNT MADV_DONTNEED
 *	move REGION, unmap REGION PAGE COUNT, protect REGION PAGE COUNT (read-only, which makes a mapping of its own)
 *	leave REGION           moves it, and its old place stays mapped (MREMAP_DONTUNMAP): its number as a region
 *	fork                   a child that does `is` on each further line, and ends with an empty one
 *	exec                   "done", and another program in its place
 *	numbers                those of the object and of the connection
 *	blocking               makes the descriptor blocking
 *	flood REGION PAGES     a thread that gives that many pages back and touches them, without end
 *
 * It knows libc, the kernel's userfaultfd and nothing else.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "content.h"

#define REGIONS 64
#define HUGE    (2ul << 20)

static char *regions[REGIONS];
static size_t lengths[REGIONS];
static unsigned region_count;
static int object = -1, connection = -1;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "handing: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void must(bool good, const char *what)
{
	if (!good)
		fail(what);
}

static void say(const char *line)
{
	printf("%s\n", line);
	fflush(stdout);
}

static void open_object(void)
{
	struct uffdio_api api = {.api = UFFD_API,
	                         .features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
	                                     UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP};

	object = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	must(object >= 0, "userfaultfd");
	must(!ioctl(object, UFFDIO_API, &api), "UFFDIO_API");
}

static char *map_kind(const char *kind, size_t len)
{
	bool huge = !strncmp(kind, "huge", 4);
	int shared = strcmp(kind, "private") && strcmp(kind, "huge") ? MAP_SHARED : MAP_PRIVATE, fd = -1;
	char *at;

	if (strstr(kind, "memfd")) {
		fd = memfd_create("handing", MFD_CLOEXEC | (huge ? MFD_HUGETLB : 0));
		must(fd >= 0 && !ftruncate(fd, (off_t)len), "memfd");
	}
	/* On a border of 2 MiB, and with nothing beside it that would merge with it. */
	at = mmap(NULL, len + 2 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(at != MAP_FAILED, "mmap");
	at = (char *)(((uintptr_t)at + HUGE) & ~(HUGE - 1));
	at = mmap(at, len, PROT_READ | PROT_WRITE,
	          shared | MAP_FIXED | (fd < 0 ? MAP_ANONYMOUS : 0) | (huge && fd < 0 ? MAP_HUGETLB : 0), fd, 0);
	must(at != MAP_FAILED, "mmap");
	madvise(at, len, MADV_NOHUGEPAGE);
	return at;
}

static void map(const char *kind, size_t pages)
{
	size_t len = pages * CONTENT_PAGE;
	char *at = map_kind(kind, len);
	struct uffdio_register range = {.range = {.start = (uintptr_t)at, .len = len},
	                                .mode = UFFDIO_REGISTER_MODE_MISSING};

	if (object < 0)
		open_object();
	must(!ioctl(object, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
	must(region_count < REGIONS, "regions");
	regions[region_count] = at;
	lengths[region_count] = len;
	printf("%u\n", region_count++);
	fflush(stdout);
}

static void connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (connection >= 0)
		close(connection);
	connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (connect(connection, (struct sockaddr *)&address, sizeof(address)))
		say(strerrorname_np(errno));
	else
		say("done");
}

/* With addresses for what stands for them. Static memory. */
static const char *with_addresses(const char *text)
{
	static char out[1 << 16];
	size_t used = 0;

	for (; *text && used < sizeof(out) - 32;) {
		if (*text == '@') {
			unsigned long region = strtoul(text + 1, (char **)&text, 10), behind = 0;

			must(region < region_count, "a region");
			if (*text == '+')
				behind = strtoul(text + 1, (char **)&text, 10);
			used += (size_t)sprintf(out + used, "%lu", (unsigned long)(uintptr_t)regions[region] + behind);
		} else {
			out[used++] = *text++;
		}
	}
	out[used] = '\0';
	return out;
}

static void send_text(const char *text, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec piece = {.iov_base = (char *)(uintptr_t)text, .iov_len = strlen(text)};
	struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
	struct cmsghdr *head;

	if (fd >= 0) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		head = CMSG_FIRSTHDR(&message);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(head), &fd, sizeof(int));
	}
	if (sendmsg(connection, &message, MSG_NOSIGNAL) == (ssize_t)piece.iov_len)
		say("done");
	else
		say(strerrorname_np(errno));
}

static void hear_answer(void)
{
	char line[1024];
	size_t used = 0;

	while (used < sizeof(line) - 1 && recv(connection, line + used, 1, 0) == 1 && line[used] != '\n')
		used++;
	line[used] = '\0';
	say(used ? line : "end");
}

static sigjmp_buf back;
static __thread bool floods;

static void on_bus(int number)
{
	(void)number;
	while (floods)
		pause();
	siglongjmp(back, 1);
}

static const char *compare(const char *args)
{
	unsigned region, page, seed, at;
	bool same = true, zeros = true;

	must(sscanf(args, "%u %u %u %u", &region, &page, &seed, &at) == 4, args);
	if (sigsetjmp(back, 1))
		return "bus";
	for (unsigned i = 0; i < CONTENT_WORDS; i++) {
		uint64_t word = ((volatile uint64_t *)(regions[region] + (size_t)page * CONTENT_PAGE))[i];

		same &= word == content(seed, at, i);
		zeros &= !word;
	}
	return same ? "yes" : zeros ? "zeros" : "other";
}

static void change(const char *what, const char *args)
{
	unsigned region, page = 0, count = 0;
	char *at;
	size_t len;

	must(sscanf(args, "%u %u %u", &region, &page, &count) >= 1 && region < region_count, args);
	at = regions[region] + (size_t)page * CONTENT_PAGE;
	len = (size_t)count * CONTENT_PAGE;
	if (!strcmp(what, "drop"))
		must(!madvise(at, len, MADV_DONTNEED), "madvise");
	if (!strcmp(what, "unmap"))
		must(!munmap(at, len), "munmap");
	if (!strcmp(what, "protect"))
		must(!mprotect(at, len, PROT_READ), "mprotect");
	if (!strcmp(what, "move")) {
		char *to = mmap(NULL, lengths[region], PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		must(to != MAP_FAILED, "mmap");
		must(mremap(at, lengths[region], lengths[region], MREMAP_MAYMOVE | MREMAP_FIXED, to) == to, "mremap");
		regions[region] = to;
	}
	say("done");
}

static void leave(const char *args)
{
	unsigned region = (unsigned)atoi(args);
	char *to;

	must(region < region_count && region_count < REGIONS, args);
	to = mremap(regions[region], lengths[region], lengths[region], MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	must(to != MAP_FAILED, "mremap");
	regions[region_count] = regions[region];
	lengths[region_count] = lengths[region];
	regions[region] = to;
	printf("%u\n", region_count++);
	fflush(stdout);
}

/* Its child answers in its place until it ends. */
static void fork_off(void)
{
	int status;
	pid_t pid = fork();
	char line[256];

	must(pid >= 0, "fork");
	if (pid) {
		must(waitpid(pid, &status, 0) == pid, "waitpid");
		say(status ? "killed" : "done");
		return;
	}
	printf("%d\n", getpid());
	fflush(stdout);
	/* Unbuffered: what comes next is the parent's. */
	for (;;) {
		size_t used = 0;

		while (used < sizeof(line) - 1 && read(STDIN_FILENO, line + used, 1) == 1 && line[used] != '\n')
			used++;
		line[used] = '\0';
		if (!used)
			_exit(0);
		say(compare(line));
	}
}

static unsigned flood_region, flood_pages;

static void *flood(void *arg)
{
	char *at = regions[flood_region];

	(void)arg;
	floods = true;
	for (;;) {
		madvise(at, (size_t)flood_pages * CONTENT_PAGE, MADV_DONTNEED);
		for (unsigned i = 0; i < flood_pages; i++)
			(void)*(volatile char *)(at + (size_t)i * CONTENT_PAGE);
	}
	return NULL;
}

static void start_flood(const char *args)
{
	pthread_t thread;

	must(sscanf(args, "%u %u", &flood_region, &flood_pages) == 2, args);
	must(!pthread_create(&thread, NULL, flood, NULL), "pthread_create");
	say("done");
}

static void obey(char *line)
{
	char *rest = strchr(line, ' '), kind[16];
	size_t pages;

	if (rest)
		*rest++ = '\0';
	else
		rest = line + strlen(line);
	if (!strcmp(line, "pid")) {
		printf("%d\n", getpid());
		fflush(stdout);
	} else if (!strcmp(line, "map")) {
		must(sscanf(rest, "%15s %zu", kind, &pages) == 2, rest);
		map(kind, pages);
	} else if (!strcmp(line, "numbers")) {
		printf("%d %d\n", object, connection);
		fflush(stdout);
	} else if (!strcmp(line, "connect")) {
		connect_to(rest);
	} else if (!strcmp(line, "give") || !strcmp(line, "send")) {
		send_text(with_addresses(rest), *line == 'g' ? object : -1);
	} else if (!strcmp(line, "answer")) {
		hear_answer();
	} else if (!strcmp(line, "hangup")) {
		close(connection);
		connection = -1;
		say("done");
	} else if (!strcmp(line, "finish")) {
		must(!shutdown(connection, SHUT_WR), "shutdown");
		say("done");
	} else if (!strcmp(line, "close")) {
		close(object);
		say("done");
	} else if (!strcmp(line, "is")) {
		say(compare(rest));
	} else if (!strcmp(line, "fork")) {
		fork_off();
	} else if (!strcmp(line, "exec")) {
		say("done");
		execl("/bin/sleep", "sleep", "1000", NULL);
		fail("exec");
	} else if (!strcmp(line, "blocking")) {
		must(!fcntl(object, F_SETFL, fcntl(object, F_GETFL) & ~O_NONBLOCK), "fcntl");
		say("done");
	} else if (!strcmp(line, "flood")) {
		start_flood(rest);
	} else if (!strcmp(line, "leave")) {
		leave(rest);
	} else {
		change(line, rest);
	}
}

int main(void)
{
	static char line[1 << 16];
	struct sigaction action = {.sa_handler = on_bus};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGBUS, &action, NULL);
	setvbuf(stdin, NULL, _IONBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		obey(line);
	}
	return 0;
}
