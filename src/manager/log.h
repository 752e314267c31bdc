/* SPDX-License-Identifier: MIT */
/* log.h - the manager's messages: one line each on the standard error, with a priority that journald understands where that reads it */
#ifndef MANAGER_LOG_H
#define MANAGER_LOG_H

enum log_level { LOG_ERROR = 3, LOG_WARNING = 4, LOG_INFO = 6 };

/* One write(2), so that lines of several threads and processes do not mix. What is not printable becomes '?'. */
void say(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * The same for what strangers can cause as often as they like: at most LOG_SPARINGLY lines a second of each process, the others are
 * counted.
 */
void say_sparingly(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define LOG_SPARINGLY 50

#endif
