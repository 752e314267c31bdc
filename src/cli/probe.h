/* SPDX-License-Identifier: MIT */
/*
 * probe.h - what `userfault probe` found, and its two forms
 */
#ifndef CLI_PROBE_H
#define CLI_PROBE_H

#include <userfault/uffd.h>

#include "cli/machine.h"

struct findings {
	struct uf_probe_result probe;
	int open_error;       /* of uf_open() without options: 0 or a negated errno value */
	enum uf_way open_way; /* the way it took, when it could */
	struct machine machine;
};

/* "EPERM"; the number where the C library has no name for it. A static string, good until the next call. */
const char *error_name(int error);

/* The kernel's name of bit `bit`, or "bit N" where there is none yet. name_of: uf_feature_name or uf_ioctl_name. */
const char *bit_name(const char *(*name_of)(unsigned), unsigned bit);

void probe_print_text(const struct findings *findings);

/* 0, or -1 where memory ran out. */
int probe_print_json(const struct findings *findings);

#endif
