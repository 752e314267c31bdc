/* SPDX-License-Identifier: MIT */
/*
 * heap.h - an allocator whose whole state lies in the memory that it manages
 *
 * The heap begins with its own description and names everything by offsets from there. So a copy of its bytes is a heap that works, at
 * whatever address it lies: that is what lets it migrate to another process.
 *
 * Up to 2 KiB an allocation is an object of a slab: 16 KiB cut into equal pieces, of one of 24 sizes. What is larger is a run of 4 KiB pages.
 * A slab that is empty becomes a run of free pages again, and free runs join their neighbours. What is said of pages stands in an array at the
 * start of the heap, never in free pages; pages that were never used are never touched, and so are zero and travel as nothing.
 *
 * For one thread. No function here makes a system call.
 */
#ifndef KV_HEAP_H
#define KV_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap;

/* Bytes from the start of the heap; 0 is none. */
typedef uint64_t heap_ref;

#define HEAP_MIN_SIZE (1ULL << 20)
#define HEAP_MAX_SIZE (1ULL << 43)

/*
 * heap_init - makes memory into an empty heap
 *
 * memory  aligned to 4 KiB; what it held is lost, though not overwritten
 * size    bytes, a multiple of 4 KiB from HEAP_MIN_SIZE to HEAP_MAX_SIZE
 */
struct heap *heap_init(void *memory, uint64_t size);

/* The heap that lies in memory, or NULL if there is none of this version and size. Looks at the first page only. */
struct heap *heap_attach(void *memory, uint64_t size);

/* Memory of at least `size` bytes, aligned to 16, whose content is undefined. 0: size is 0, or there is no room. */
heap_ref heap_alloc(struct heap *heap, uint64_t size);

/* 0 is allowed. */
void heap_free(struct heap *heap, heap_ref ref);

/* How many bytes may be used of what heap_alloc() returned: what was asked for, or somewhat more. */
uint64_t heap_usable(const struct heap *heap, heap_ref ref);

/* Bytes of the whole heap, and of those that are allocated, as heap_usable() counts them. */
uint64_t heap_size(const struct heap *heap);
uint64_t heap_used(const struct heap *heap);

/* One reference that the heap keeps for its user; 0 at first. */
heap_ref heap_root(const struct heap *heap);
void heap_set_root(struct heap *heap, heap_ref root);

static inline void *heap_at(const struct heap *heap, heap_ref ref)
{
	return (char *)(uintptr_t)heap + ref;
}

/* Whether everything that the heap says of itself agrees; for tests, it looks at every page's description. */
bool heap_check(const struct heap *heap);

#endif
