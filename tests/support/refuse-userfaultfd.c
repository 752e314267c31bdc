// SPDX-License-Identifier: MIT
/*
 * refuse-userfaultfd [--errno EPERM|ENOSYS] [--allow-device] -- PROGRAM [ARGUMENT...]
 *
 * Runs PROGRAM, and all that it starts, as if in a container that refuses userfaultfd: userfaultfd(2) and the request of
 * /dev/userfaultfd fail with the errno given (EPERM by default), and opening the device fails with EPERM. With
 * --allow-device only userfaultfd(2) fails.
 *
 * A seccomp filter cannot see the path that is opened. So it stops every open and asks this process, the supervisor,
 * which looks at the path, resolves it as the asking thread would, and refuses what leads to the device, by whatever
 * name; PROGRAM runs in a child. The supervisor ends with the last process that has the filter, and with PROGRAM's exit
 * status: 128 + N for signal N; 125 when it failed itself, 126 or 127 when PROGRAM could not be run. Signals sent to it
 * reach PROGRAM.
 *
 * This is a tool for tests and no boundary of security: the path may change after it was looked at, and before the
 * kernel goes on to open it. Needs Linux 5.9, which reports the end of the last process.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/limits.h>
#include <linux/seccomp.h>
#include <seccomp.h>

#include <userfault/uapi.h>

enum { EXIT_OWN_FAILURE = 125, EXIT_CANNOT_RUN = 126, EXIT_NOT_FOUND = 127 };

#define MISC_MAJOR 10

/* Linux 5.19: an open that is being looked at is interrupted by fatal signals only, and so does not fail with EINTR. */
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

/* Linux 6.6: asking and answering are a switch from one process to the other, on one processor. */
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS      SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#endif

struct options {
	int error;
	bool allow_device;
	char **command;
};

struct supervisor {
	int listener;
	int signals;
	dev_t device; /* /dev/userfaultfd; 0 when the kernel has none, and then nothing need be refused */
	pid_t child;  /* 0 once it has ended */
	int status;   /* and then its exit status */
	struct seccomp_notif *request;
	struct seccomp_notif_resp *response;
	struct seccomp_notif_sizes sizes;
};

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "refuse-userfaultfd: %s: %s\n", what, strerror(errno));
	_exit(EXIT_OWN_FAILURE);
}

static _Noreturn void usage(void)
{
	fprintf(stderr, "usage: refuse-userfaultfd [--errno EPERM|ENOSYS] [--allow-device] -- PROGRAM [ARGUMENT...]\n");
	_exit(EXIT_OWN_FAILURE);
}

static struct options parse(char **argv)
{
	struct options options = {.error = EPERM};

	for (argv++; *argv && strcmp(*argv, "--"); argv++) {
		if (!strcmp(*argv, "--allow-device")) {
			options.allow_device = true;
		} else if (!strcmp(*argv, "--errno") && argv[1]) {
			argv++;
			if (!strcmp(*argv, "ENOSYS"))
				options.error = ENOSYS;
			else if (strcmp(*argv, "EPERM"))
				usage();
		} else {
			usage();
		}
	}
	if (!argv[0] || !argv[1])
		usage();
	options.command = argv + 1;
	return options;
}

static void add_rule(scmp_filter_ctx filter, uint32_t action, int call, unsigned count, struct scmp_arg_cmp arg)
{
	int err = seccomp_rule_add_array(filter, action, call, count, &arg);

	if (err) {
		errno = -err;
		die("cannot make the filter");
	}
}

/* The filter as the kernel takes it, to be loaded in the child: libseccomp 2.5 knows too few of the flags. */
static struct sock_fprog make_filter(const struct options *options)
{
	const struct scmp_arg_cmp none = {0};
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int file = memfd_create("filter", MFD_CLOEXEC);
	struct sock_fprog program;
	struct stat st;

	if (!filter || file < 0)
		die("cannot make the filter");
	add_rule(filter, SCMP_ACT_ERRNO((uint16_t)options->error), SCMP_SYS(userfaultfd), 0, none);
	if (!options->allow_device) {
		add_rule(filter, SCMP_ACT_ERRNO((uint16_t)options->error), SCMP_SYS(ioctl), 1,
		         SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffff, USERFAULTFD_IOC_NEW));
		add_rule(filter, SCMP_ACT_NOTIFY, SCMP_SYS(open), 0, none);
		add_rule(filter, SCMP_ACT_NOTIFY, SCMP_SYS(openat), 0, none);
		add_rule(filter, SCMP_ACT_NOTIFY, SCMP_SYS(openat2), 0, none);
	}
	if (seccomp_export_bpf(filter, file) || fstat(file, &st))
		die("cannot make the filter");
	seccomp_release(filter);
	program.len = (unsigned short)((size_t)st.st_size / sizeof(struct sock_filter));
	program.filter = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, file, 0);
	if (program.filter == MAP_FAILED)
		die("cannot make the filter");
	close(file);
	return program;
}

static int load_filter(const struct sock_fprog *program, unsigned long flags)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, program);
}

static int load_filter_with_listener(const struct sock_fprog *program)
{
	int listener = load_filter(program, SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);

	if (listener < 0 && errno == EINVAL)
		listener = load_filter(program, SECCOMP_FILTER_FLAG_NEW_LISTENER);
	return listener;
}

static _Noreturn void run(char **command)
{
	execvp(command[0], command);
	fprintf(stderr, "refuse-userfaultfd: cannot run %s: %s\n", command[0], strerror(errno));
	_exit(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN);
}

static int send_fd(int socket, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec data = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	return sendmsg(socket, &message, 0) == 1 ? 0 : -1;
}

/* -1 when the other side ended without sending. */
static int receive_fd(int socket)
{
	char byte, control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec data = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *header;
	int fd;

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_type != SCM_RIGHTS)
		return -1;
	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

static dev_t find_device(void)
{
	FILE *misc = fopen("/proc/misc", "re");
	unsigned number, device = 0;
	char name[64];

	while (misc && fscanf(misc, "%u %63s", &number, name) == 2)
		if (!strcmp(name, "userfaultfd"))
			device = number;
	if (misc)
		fclose(misc);
	return device ? makedev(MISC_MAJOR, device) : 0;
}

/* Reads the string at `address` of another process. A page at a time, since the next one may not be there. */
static bool read_path(pid_t pid, uint64_t address, char path[PATH_MAX])
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), first = page - address % page;
	struct iovec local = {path, PATH_MAX}, remote[2];
	ssize_t len;

	if (first > PATH_MAX)
		first = PATH_MAX;
	remote[0] = (struct iovec){(void *)(uintptr_t)address, first};
	remote[1] = (struct iovec){(void *)(uintptr_t)(address + first), PATH_MAX - first};
	len = process_vm_readv(pid, &local, 1, remote, 2, 0);
	return len > 0 && memchr(path, '\0', (size_t)len);
}

/* Opens what the thread's path starts from, and moves *path on to what is left of it. */
static int open_start(pid_t pid, int dirfd, char **path)
{
	static const char *const selves[] = {"proc/self/", "proc/thread-self/"};
	char start[64];

	if (**path != '/') {
		if (dirfd == AT_FDCWD)
			snprintf(start, sizeof(start), "/proc/%d/cwd", pid);
		else
			snprintf(start, sizeof(start), "/proc/%d/fd/%d", pid, dirfd);
		return open(start, O_PATH | O_CLOEXEC);
	}
	*path += strspn(*path, "/");
	snprintf(start, sizeof(start), "/proc/%d/root", pid);
	/* Our own self is not the one that is meant. */
	for (size_t i = 0; i < sizeof(selves) / sizeof(selves[0]); i++) {
		if (!strncmp(*path, selves[i], strlen(selves[i]))) {
			*path += strlen(selves[i]);
			snprintf(start, sizeof(start), "/proc/%d", pid);
		}
	}
	if (!**path)
		*path = strcpy(*path - 1, ".");
	return open(start, O_PATH | O_CLOEXEC);
}

static bool leads_to_device(pid_t pid, int dirfd, char *path, dev_t device)
{
	int start = open_start(pid, dirfd, &path), end;
	struct stat st = {0};

	if (start < 0)
		return false;
	end = openat(start, path, O_PATH | O_CLOEXEC);
	close(start);
	if (end < 0)
		return false;
	if (fstat(end, &st))
		st.st_mode = 0;
	close(end);
	return S_ISCHR(st.st_mode) && st.st_rdev == device;
}

static bool must_refuse(const struct seccomp_notif *request, dev_t device)
{
	bool has_dirfd = request->data.nr != SCMP_SYS(open);
	int dirfd = has_dirfd ? (int)request->data.args[0] : AT_FDCWD;
	char path[PATH_MAX];

	if (!device || !read_path((pid_t)request->pid, request->data.args[has_dirfd], path))
		return false;
	return leads_to_device((pid_t)request->pid, dirfd, path, device);
}

static void answer_one(struct supervisor *self)
{
	bool refuse;

	memset(self->request, 0, self->sizes.seccomp_notif);
	memset(self->response, 0, self->sizes.seccomp_notif_resp);
	if (ioctl(self->listener, SECCOMP_IOCTL_NOTIF_RECV, self->request)) {
		/* ENOENT: the thread that asked was interrupted or killed. */
		if (errno == ENOENT || errno == EINTR)
			return;
		die("cannot receive a notification");
	}
	refuse = must_refuse(self->request, self->device);
	self->response->id = self->request->id;
	self->response->error = refuse ? -EPERM : 0;
	self->response->flags = refuse ? 0 : SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	if (ioctl(self->listener, SECCOMP_IOCTL_NOTIF_SEND, self->response) && errno != ENOENT)
		die("cannot answer a notification");
}

static void reap(struct supervisor *self)
{
	int status;

	if (!self->child || waitpid(self->child, &status, WNOHANG) != self->child)
		return;
	self->child = 0;
	self->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void take_signal(struct supervisor *self)
{
	struct signalfd_siginfo info;

	if (read(self->signals, &info, sizeof(info)) != sizeof(info))
		die("cannot read a signal");
	if (info.ssi_signo == SIGCHLD) {
		reap(self);
		return;
	}
	/* What the terminal sends reaches PROGRAM by itself. */
	if (info.ssi_code > 0)
		return;
	if (!self->child)
		_exit(128 + (int)info.ssi_signo);
	kill(self->child, (int)info.ssi_signo);
}

/* Answers until the last process with the filter is gone; until Linux 6.11 our child counts until it is reaped. */
static void answer_all(struct supervisor *self)
{
	struct pollfd fds[] = {{self->listener, POLLIN, 0}, {self->signals, POLLIN, 0}};

	while (self->child || !(fds[0].revents & POLLHUP)) {
		if (poll(fds, 2, -1) < 0)
			die("cannot wait");
		if (fds[0].revents & POLLIN)
			answer_one(self);
		if (fds[1].revents & POLLIN)
			take_signal(self);
	}
}

static int supervise(struct supervisor *self)
{
	if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &self->sizes))
		die("cannot learn the size of notifications");
	self->request = malloc(self->sizes.seccomp_notif);
	self->response = malloc(self->sizes.seccomp_notif_resp);
	if (!self->request || !self->response)
		die("no memory");
	/* Only to be faster: an older kernel does without. */
	ioctl(self->listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
	answer_all(self);
	free(self->request);
	free(self->response);
	return self->status;
}

static _Noreturn void be_child(const struct options *options, const struct sock_fprog *filter, int socket,
                               const sigset_t *mask, pid_t supervisor)
{
	int listener;

	/* Without the supervisor every open would fail. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != supervisor)
		_exit(EXIT_OWN_FAILURE);
	sigprocmask(SIG_SETMASK, mask, NULL);
	listener = load_filter_with_listener(filter);
	if (listener < 0)
		die("the kernel has no seccomp user notification, or another supervisor has it");
	if (send_fd(socket, listener))
		die("cannot pass the listener on");
	close(listener);
	run(options->command);
}

static void block_signals(sigset_t *blocked, sigset_t *before)
{
	static const int signals[] = {SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

	sigemptyset(blocked);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaddset(blocked, signals[i]);
	/* An inherited SIG_IGN would take the exit status away. */
	signal(SIGCHLD, SIG_DFL);
	sigprocmask(SIG_BLOCK, blocked, before);
}

int main(int argc, char **argv)
{
	struct options options = parse(argv);
	struct sock_fprog filter = make_filter(&options);
	struct supervisor self = {.device = find_device()};
	pid_t supervisor = getpid();
	sigset_t blocked, before;
	int sockets[2], status;

	(void)argc;
	if (options.allow_device) {
		if (load_filter(&filter, 0))
			die("cannot load the filter");
		run(options.command);
	}
	block_signals(&blocked, &before);
	self.signals = signalfd(-1, &blocked, SFD_CLOEXEC);
	if (self.signals < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("cannot begin");
	self.child = fork();
	if (self.child < 0)
		die("cannot fork");
	if (!self.child) {
		close(sockets[0]);
		be_child(&options, &filter, sockets[1], &before, supervisor);
	}
	close(sockets[1]);
	self.listener = receive_fd(sockets[0]);
	if (self.listener >= 0)
		return supervise(&self);
	waitpid(self.child, &status, 0);
	return EXIT_OWN_FAILURE;
}
