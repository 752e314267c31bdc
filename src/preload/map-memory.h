/* SPDX-License-Identifier: MIT */
/*
 * map-memory.h - mappings of files that a manager serves, and what the program does to them
 *
 * A mapping of such a file is private anonymous memory, registered with this process's object and given to the manager over this process's
 * connection (map-link.h) before the program gets to know of it. Behind the last page of the file lies a mapping of an empty file, so
 * that a touch there is SIGBUS, as it is with the real one. Shared mappings are made alike: nobody can write to the store.
 *
 * These take the place of user_layout_*() (uffd/user/layout.h), which they call, and return what those return. Where nothing of ours
 * is concerned they are those, and a comparison.
 */
#ifndef PRELOAD_MAP_MEMORY_H
#define PRELOAD_MAP_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_file;

long map_mmap(uint64_t addr, size_t len, int prot, int flags, int fd, uint64_t offset);
int map_munmap(uint64_t addr, size_t len);
long map_mremap(uint64_t addr, size_t old_len, size_t new_len, int flags, uint64_t new_addr);
int map_mprotect(uint64_t addr, size_t len, int prot, int pkey);
int map_madvise(uint64_t addr, size_t len, int advice);

/*
 * A mapping for ourselves, read-only, of `len` bytes of the file from `offset` on, within its last page. Returns the address, or -errno. With
 * map_lock() held; so is map_unview().
 */
long map_view(const struct map_file *file, uint64_t offset, size_t len);
void map_unview(uint64_t addr, size_t len);

/* Around a fork, outside of user_fork_prepare() and the others. threads: as for map_link_forked(). */
void map_fork_prepare(void);
void map_fork_parent(void);
void map_fork_child(bool threads);

/*
 * Memory in which each touch is SIGBUS, as behind the end of a file. flags: MAP_FIXED and its like. Returns the address, or -errno.
 */
long map_place_void(uint64_t addr, size_t len, int prot, int flags);

#endif
