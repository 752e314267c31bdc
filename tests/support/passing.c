// SPDX-License-Identifier: MIT
#include <string.h>
#include <sys/socket.h>

#include "support/passing.h"
#include "support/test.h"

union control {
	struct cmsghdr align;
	char space[CMSG_SPACE(sizeof(int))];
};

void send_with_fd(int socket, const void *data, size_t len, int fd)
{
	union control control = {0};
	struct iovec iov = {(void *)(uintptr_t)data, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		struct cmsghdr *head;

		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
		head = CMSG_FIRSTHDR(&msg);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(head), &fd, sizeof(fd));
	}
	CHECK_EQ(sendmsg(socket, &msg, MSG_NOSIGNAL), len);
}

int receive_with_fd(int socket, void *data, size_t len)
{
	union control control = {0};
	struct iovec iov = {data, len};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space),
	};
	struct cmsghdr *head;
	int fd = -1;

	CHECK_EQ(recvmsg(socket, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC), len);
	head = CMSG_FIRSTHDR(&msg);
	if (head && head->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(head), sizeof(fd));
	return fd;
}
