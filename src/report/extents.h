/* SPDX-License-Identifier: MIT */
/* extents.h - the second half of an analysis: which parts of the address space there are, and what happened in them */
#ifndef REPORT_EXTENTS_H
#define REPORT_EXTENTS_H

#include "report/analysis.h"

/* Fills in what is over addresses; what is over time is there. 0, or -ENOMEM. */
int extents_make(struct analysis *analysis);

/* The bin of time that a moment falls into. */
size_t analysis_bin(const struct analysis *analysis, uint64_t ns);

#endif
