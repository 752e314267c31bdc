/* SPDX-License-Identifier: MIT */
/* folder.h - a folder for a program's tests, which is gone when the program ends, however the tests do */
#ifndef TESTS_SUPPORT_FOLDER_H
#define TESTS_SUPPORT_FOLDER_H

/* Its path, which is short enough for sockets in it. */
const char *test_folder(void);

/* The path of `name` in it, where nothing is yet. Static memory, of the next eight calls too. */
const char *in_folder(const char *name);

#endif
