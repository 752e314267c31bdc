// SPDX-License-Identifier: MIT
/*
 * refused PROGRAM [ARGUMENT...] - a program, and all that it starts, as in a container whose profile refuses userfaultfd(2)
 *
 * The system call, and the request by which /dev/userfaultfd makes a descriptor, fail with EPERM. It takes no privilege.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <userfault/uapi.h>

#define LOAD(field)   BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define SKIP(n, word) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(word), 0, n)
#define RETURN(what)  BPF_STMT(BPF_RET | BPF_K, what)

/* Programs of another word size, whose numbers are others, are not meant: they could not be served anyway. */
static struct sock_filter filter[] = {
	LOAD(nr),
	SKIP(1, SYS_userfaultfd),
	RETURN(SECCOMP_RET_ERRNO | EPERM),
	SKIP(3, SYS_ioctl),
	LOAD(args[1]), /* the lower half, which is all that the kernel looks at; both machines are little-endian */
	SKIP(1, USERFAULTFD_IOC_NEW),
	RETURN(SECCOMP_RET_ERRNO | EPERM),
	RETURN(SECCOMP_RET_ALLOW),
};

int main(int argc, char **argv)
{
	const struct sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};

	if (argc < 2) {
		fprintf(stderr, "usage: refused PROGRAM [ARGUMENT...]\n");
		return 2;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
		fprintf(stderr, "refused: the kernel takes no filter: %s\n", strerror(errno));
		return 125;
	}
	execvp(argv[1], argv + 1);
	fprintf(stderr, "refused: %s: %s\n", argv[1], strerror(errno));
	return errno == ENOENT ? 127 : 126;
}
