/* SPDX-License-Identifier: MIT */
/* recordings.h - the page about one or several recordings */
#ifndef REPORT_RECORDINGS_H
#define REPORT_RECORDINGS_H

#include <stdio.h>

#include "report/recording.h"

/* `names` are what the recordings are called on the page: of their files. 0, -ENOMEM, or an error of the file. */
int report_recordings(FILE *file, const struct recording_data *data, const char *const *names, size_t count);

#endif
