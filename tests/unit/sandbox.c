// SPDX-License-Identifier: MIT
/* What a manager that was taken over could still do. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "manager/sandbox.h"
#include "support/test.h"

static const struct serve_options options;

static void enter(void)
{
	CHECK_EQ(sandbox_enter(&options), 0);
}

static void enter_worker(void)
{
	enter();
	CHECK_EQ(sandbox_enter_worker(&options), 0);
}

#define REFUSED(call)                   \
	do {                            \
		errno = 0;              \
		CHECK((call) == -1);    \
		CHECK_EQ(errno, EPERM); \
	} while (0)

/* As a unit of systemd is, that has no capabilities and may make none of the calls that change them, nor seccomp(2). */
static void be_confined(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {0};
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

	CHECK_EQ(syscall(SYS_capset, &header, none), 0);
	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	CHECK_EQ(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(capset), 0), 0);
	CHECK_EQ(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(seccomp), 0), 0);
	CHECK_EQ(seccomp_load(filter), 0);
	seccomp_release(filter);
	REFUSED(syscall(SYS_capset, &header, none));
	REFUSED(syscall(SYS_seccomp, 0, 1, NULL));
}

TEST(confined_already, "Where there is little left to be given up, and little allowed, it is given up all the same.")
{
	int status;
	pid_t pid;

	if (getenv("CONFINED")) {
		enter_worker();
		REFUSED(kill(getppid(), 0));
		return;
	}
	/* Once more, as another program: the library remembers how it could load filters. */
	pid = fork();
	if (!pid) {
		setenv("CONFINED", "1", 1);
		dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
		be_confined();
		execl("/proc/self/exe", "unit-sandbox", "confined_already", NULL);
		_exit(125);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

TEST(no_program_is_started, "execve and execveat are refused.")
{
	char *const none[] = {NULL};

	enter();
	REFUSED(execve("/bin/true", none, none));
	REFUSED(syscall(SYS_execveat, AT_FDCWD, "/bin/true", none, none, 0));
}

TEST(no_other_process_is_reached,
     "It traces nobody, writes to nobody's memory, and signals nobody; it may ask who is there.")
{
	char byte = 0;
	struct iovec piece = {.iov_base = &byte, .iov_len = 1};
	pid_t parent = getppid();

	enter_worker();
	REFUSED(ptrace(PTRACE_SEIZE, parent, NULL, NULL));
	REFUSED(syscall(SYS_process_vm_writev, parent, &piece, 1ul, &piece, 1ul, 0ul));
	REFUSED(syscall(SYS_process_vm_readv, parent, &piece, 1ul, &piece, 1ul, 0ul));
	REFUSED(kill(parent, 0));
	REFUSED(syscall(SYS_tgkill, parent, parent, 0));
	REFUSED(syscall(SYS_tkill, parent, SIGURG));
	CHECK_EQ(syscall(SYS_tkill, parent, 0), 0);
}

TEST(its_own_memory_is_read, "A worker reads its own memory in a way that a lost page does not kill.")
{
	char from = 'x', to = 0;
	struct iovec local = {.iov_base = &to, .iov_len = 1}, remote = {.iov_base = &from, .iov_len = 1};

	enter_worker();
	CHECK_EQ(syscall(SYS_process_vm_readv, getpid(), &local, 1ul, &remote, 1ul, 0ul), 1);
	CHECK_EQ(to, 'x');
}

TEST(no_memory_is_written_and_executed, "Nor does any become executable.")
{
	void *memory;

	enter();
	CHECK(mmap(NULL, page_size, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
	CHECK_EQ(errno, EPERM);
	memory = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	REFUSED(mprotect(memory, page_size, PROT_READ | PROT_EXEC));
}

TEST(no_strange_sockets, "Sockets are of unix, IP, and what the C library asks the kernel's addresses by.")
{
	enter();
	REFUSED(socket(AF_PACKET, SOCK_RAW, 0));
	REFUSED(socket(AF_VSOCK, SOCK_STREAM, 0));
	CHECK(socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
}

TEST(the_system_is_not_changed, "No mount, no module, no clock, no other user, no name space, no limit.")
{
	enter();
	REFUSED(syscall(SYS_mount, "none", "/mnt", "tmpfs", 0ul, NULL));
	REFUSED(syscall(SYS_init_module, NULL, 0ul, ""));
	REFUSED(syscall(SYS_settimeofday, NULL, NULL));
	REFUSED(syscall(SYS_setuid, 0));
	REFUSED(unshare(CLONE_NEWUSER));
	REFUSED(syscall(SYS_bpf, 0, NULL, 0));
	REFUSED(syscall(SYS_prlimit64, 0, 7, "0123456789abcdef", NULL));
	REFUSED(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

static void *nothing(void *arg)
{
	return arg;
}

TEST(threads_are_started, "A worker has threads, and no children.")
{
	pthread_t thread;

	enter_worker();
	CHECK_EQ(pthread_create(&thread, NULL, nothing, NULL), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	REFUSED(fork());
}

TEST(rights_are_gone, "No capability but to read whatever file, no core dump, nothing to be won by a program.")
{
	enter();
	CHECK_EQ(prctl(PR_GET_DUMPABLE), 0);
	CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
}
