/* SPDX-License-Identifier: MIT */
/*
 * tree.h - the ranges of a space, in order
 *
 * A treap: a search tree by address and a heap by random priority, so that a path is a few times log2(n) nodes whatever is done to it.
 * The nodes lie in one array without gaps, and name each other by index: a copy of the array is a copy of the tree.
 *
 * The array is a mapping of its own, since the heap may be registered. Only space_tree_reserve() can fail. A search writes nothing,
 * calls nothing and needs no stack: it may be made in a signal handler while nobody changes the tree.
 */
#ifndef SPACE_TREE_H
#define SPACE_TREE_H

#include "space/space.h"

struct space_block;

struct space_node {
	struct space_range range;
	struct space_block *block; /* that range.state lies in */
	uint32_t child[2];         /* what lies below range.start, and above it; 0: nothing */
	uint32_t priority;         /* none below has a higher one */
};

/* All zeros: an empty one. */
struct space_tree {
	struct space_node *nodes; /* [1] to [count]: nobody has index 0 */
	uint32_t root, count, capacity;
	uint32_t random;
};

/* What an operation may have too many for a moment: there is always room for so many, so that taking ranges away does not fail. */
#define SPACE_TREE_SPARE 4

/* Room for so many more. -ENOMEM */
int space_tree_reserve(struct space_tree *tree, uint32_t more);

void space_tree_free(struct space_tree *tree);
size_t space_tree_memory(const struct space_tree *tree);

/* The index of the first range that ends behind addr; 0: none. */
uint32_t space_tree_next(const struct space_tree *tree, uint64_t addr);

/* A node with this range, for which there is room and which lies where no other is. Its block is the caller's to set. */
uint32_t space_tree_add(struct space_tree *tree, const struct space_range *range);

/* The last node takes the index of the one that goes. */
void space_tree_remove(struct space_tree *tree, uint32_t index);

/* To where no other is. Indices stay. */
void space_tree_shift(struct space_tree *tree, uint32_t index, uint64_t start);

static inline uint64_t space_range_end(const struct space_range *range)
{
	return range->start + range->len;
}

#endif
