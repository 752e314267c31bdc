// SPDX-License-Identifier: MIT
#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "manager/log.h"
#include "manager/sandbox.h"

static int drop_capabilities(const struct serve_options *options)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0}, had[2];
	uint32_t kept = 1u << CAP_DAC_READ_SEARCH;

	/* A folder of somebody else's. */
	if (options->record)
		kept |= 1u << CAP_DAC_OVERRIDE;
	if (syscall(SYS_capget, &header, data))
		return -errno;
	memcpy(had, data, sizeof(had));
	data[0].effective &= kept;
	data[0].permitted &= kept;
	data[1].effective = data[1].permitted = 0;
	data[0].inheritable = data[1].inheritable = 0;
	/* Who has none may be forbidden to ask for fewer, as a unit of systemd is. */
	return !memcmp(had, data, sizeof(had)) || !syscall(SYS_capset, &header, data) ? 0 : -errno;
}

static int drop_rights(const struct serve_options *options)
{
	int err = drop_capabilities(options);

	if (!err && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)))
		err = -errno;
	return err;
}

#ifdef UF_SECCOMP
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define CACHESTAT 451

/* What is not known on this machine is passed over. */
static const char *const allowed[] = {
	/* descriptors */
	"close", "close_range", "dup", "dup2", "dup3", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait",
	"eventfd2", "fcntl", "ioctl", "pidfd_open", "pipe2", "poll", "ppoll", "pselect6", "select", "signalfd4",
	"timerfd_create", "timerfd_settime",
	/* files: stores, working sets and recordings; what the C library reads to find hosts */
	"access", "faccessat", "faccessat2", "fadvise64", "fallocate", "fchmod", "fdatasync", "fstat", "fstatfs",
	"fsync", "ftruncate", "getcwd", "getdents64", "linkat", "lseek", "newfstatat", "open", "openat", "pread64",
	"preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readlink", "readlinkat", "readv", "rename",
	"renameat", "renameat2", "stat", "lstat", "statx", "unlink", "unlinkat", "write", "writev", "io_uring_enter",
	"io_uring_register", "io_uring_setup",
	/* sockets; bind: only of netlink, by the C library */
	"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "recvfrom", "recvmmsg",
	"recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socketpair",
	/* memory */
	"brk", "madvise", "membarrier", "memfd_create", "mincore", "mlock", "mlock2", "mremap", "munlock", "munmap",
	/* threads and the worker */
	"exit", "exit_group", "futex", "get_robust_list", "getcpu", "gettid", "rseq", "sched_getaffinity",
	"sched_setaffinity", "sched_yield", "set_robust_list", "set_tid_address", "tgkill", "wait4", "waitid",
	"process_vm_readv", "seccomp",
	/* signals, time, who it is */
	"clock_getres", "clock_gettime", "clock_nanosleep", "getegid", "geteuid", "getgid", "getpid", "getppid",
	"getrandom", "getrlimit", "getrusage", "gettimeofday", "getuid", "nanosleep", "restart_syscall", "rt_sigaction",
	"rt_sigpending", "rt_sigprocmask", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "sigaltstack", "sysinfo",
	"time", "uname"};

static int allow_calls(scmp_filter_ctx filter)
{
	int err = 0;

	for (size_t i = 0; !err && i < sizeof(allowed) / sizeof(allowed[0]); i++) {
		int number = seccomp_syscall_resolve_name(allowed[i]);

		if (number != __NR_SCMP_ERROR)
			err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
	}
	/* What is in the page cache: libseccomp 2.5 has no name for it, and it has one number everywhere. */
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, CACHESTAT, 0);
	return err;
}

static int allow_sockets(scmp_filter_ctx filter)
{
	static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
	int err = 0;

	for (size_t i = 0; !err && i < sizeof(families) / sizeof(families[0]); i++)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, families[i]));
	return err;
}

static int allow_memory(scmp_filter_ctx filter)
{
	int err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
	                           SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));

	/* Modules and what they need are loaded by each worker. */
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
		                       SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_WRITE | PROT_EXEC, PROT_EXEC));
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
		                       SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	return err;
}

static int allow_tasks(scmp_filter_ctx filter)
{
	/* PR_SET_SECCOMP, for the worker's filter, which is one more: libseccomp takes it where seccomp(2) is refused. */
	static const int options[] = {PR_SET_NAME,         PR_GET_NAME,     PR_SET_NO_NEW_PRIVS,
	                              PR_GET_NO_NEW_PRIVS, PR_GET_DUMPABLE, PR_SET_SECCOMP};
	/* Its arguments lie in memory, where no filter sees them: the C library then takes the other. */
	int err = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
		                       SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
		                       SCMP_A0(SCMP_CMP_EQ, CLONE_FILES | SIGCHLD));
	/* Whether a thread of a client is there; none is signalled. */
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tkill), 1, SCMP_A1(SCMP_CMP_EQ, 0));
	/* Limits are read, not changed. */
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, SCMP_A2(SCMP_CMP_EQ, 0));
	for (size_t i = 0; !err && i < sizeof(options) / sizeof(options[0]); i++)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
		                       SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)options[i]));
	return err;
}

static int load(scmp_filter_ctx filter)
{
	/* Where the kernel can: what is refused is in the audit log. */
	seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
	return seccomp_load(filter);
}

static int filter_calls(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int err = filter ? 0 : -ENOMEM;

	if (!err)
		err = allow_calls(filter);
	if (!err)
		err = allow_sockets(filter);
	if (!err)
		err = allow_memory(filter);
	if (!err)
		err = allow_tasks(filter);
	if (!err)
		err = load(filter);
	seccomp_release(filter);
	return err;
}

static int filter_worker(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	scmp_datum_t own = (scmp_datum_t)getpid();
	int err = filter ? 0 : -ENOMEM;

	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
		                       SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_NE, own));
	/* Its own memory it reads in this way, not to be killed by a page that is lost. */
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(process_vm_readv), 1,
		                       SCMP_A0(SCMP_CMP_NE, own));
	if (!err)
		err = load(filter);
	seccomp_release(filter);
	return err;
}
#else
static int filter_calls(void)
{
	return 0;
}

static int filter_worker(void)
{
	return 0;
}
#endif

int sandbox_enter(const struct serve_options *options)
{
	int err;

	if (options->no_sandbox)
		return 0;
	err = drop_rights(options);
	if (!err)
		err = filter_calls();
	if (err)
		say(LOG_ERROR, "rights cannot be given up: %s; --no-sandbox serves with all of them", strerror(-err));
	return err;
}

int sandbox_enter_worker(const struct serve_options *options)
{
	int err = options->no_sandbox ? 0 : filter_worker();

	if (err)
		say(LOG_ERROR, "the worker's rights cannot be given up: %s", strerror(-err));
	return err;
}
