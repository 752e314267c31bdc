/* SPDX-License-Identifier: MIT */
/*
 * client.h - the connection behind userfault/handover.h, for those who cannot allocate
 *
 * handover_connect() and uf_handover_size(), _give() make raw system calls and allocate nothing, so they may be used in the child of a fork
 * of a program with threads. The structure is the caller's then, who closes `fd` in place of uf_handover_close().
 */
#ifndef HANDOVER_CLIENT_H
#define HANDOVER_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include <userfault/handover.h>

struct uf_handover {
	int fd;
	bool broken;     /* requests and answers can no longer be told apart */
	uint64_t number; /* of the last message */
};

int handover_connect(struct uf_handover *handover, const char *socket_path, char *cause, size_t cause_size);

#endif
