/* SPDX-License-Identifier: MIT */
/*
 * engine.h - the engine under test, and all that the tests know about it
 *
 * The tests speak to the object through the uf_* functions and poll(2) only; what an engine offers they learn from its
 * answer to UFFDIO_API. A new engine is one line of the table in engine.c.
 */
#ifndef CONFORMANCE_ENGINE_H
#define CONFORMANCE_ENGINE_H

#include <stdbool.h>

#include <userfault/uffd.h>

/* An object that UFFDIO_API has not seen. open_flags: O_NONBLOCK or 0. */
struct uf *object_raw(int open_flags);

/* uf_open() on the engine under test, whether or not uf_open() offers it. */
int object_open(struct uf **out, const struct uf_options *opts);

/* An object with exactly these features. Skips the test when the engine does not offer them. */
struct uf *object(uint64_t features);

/* What the engine answers to UFFDIO_API. */
uint64_t offered(void);

/* Skips the test unless all of them are offered. */
void need(uint64_t features);

/*
 * Whether the kernel's userfaultfd is what is tested: for the few tests of what it does by its own nature, which is told in
 * docs/conformance.md, and not of what the texts say.
 */
bool on_the_kernel(void);

/* Skips the test unless accesses by the kernel itself, in a system call, are served. */
void need_kernel_faults(void);

/* Options for uf_open() that lead to the engine under test. */
struct uf_options options(uint64_t required);

/* read(2) on the object with room for `size` bytes: for sizes that are no number of messages. */
ssize_t read_bytes(struct uf *uf, void *buf, size_t size);

/* UFFDIO_API with these features, on an object_raw(). */
int enable(struct uf *uf, uint64_t features);

/* What poll(2) reports for POLLIN, at once. */
int poll_now(struct uf *uf);

/* Waits for a message and takes it. */
struct uffd_msg next_message(struct uf *uf);

/* The same; it must be a fault in the page of `size` bytes at addr, with these flags. */
void expect_fault(struct uf *uf, const void *addr, size_t size, uint64_t flags);

/* No message waits. */
void expect_silence(struct uf *uf);

/* True when the page at addr is missing; it is there afterwards. */
bool take_missing(struct uf *uf, void *addr);

#endif
