// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "uffd/user/passing.h"

int user_pass(int socket, const void *data, size_t len, const int *fds, size_t count)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(PASS_MAX * sizeof(int))] = {0};
	struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t sent;

	if (count) {
		struct cmsghdr *header;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		header = CMSG_FIRSTHDR(&msg);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(header), fds, count * sizeof(int));
	}
	sent = sendmsg(socket, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0)
		return -errno;
	return sent == (ssize_t)len ? 0 : -EIO;
}

ssize_t user_receive(int socket, void *data, size_t len, int *fds, size_t *count)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(PASS_MAX * sizeof(int))];
	struct iovec iov = {.iov_base = data, .iov_len = len};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = CMSG_SPACE(*count * sizeof(int)),
	};
	ssize_t received = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *header;

	*count = 0;
	if (received < 0)
		return -errno;
	header = CMSG_FIRSTHDR(&msg);
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
		*count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(header), *count * sizeof(int));
	}
	return received;
}
