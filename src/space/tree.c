// SPDX-License-Identifier: MIT
#include <errno.h>

#include "base/rawsys.h"
#include "space/tree.h"

#define FIRST_CAPACITY 46 /* a page */
#define MAX_CAPACITY   (1u << 31)

static size_t bytes_of(uint32_t capacity)
{
	size_t bytes = capacity * sizeof(struct space_node);

	return (bytes + 4095) & ~(size_t)4095;
}

static int resize(struct space_tree *tree, uint32_t capacity)
{
	long at;

	if (tree->nodes)
		at = raw_mremap((uint64_t)(uintptr_t)tree->nodes, bytes_of(tree->capacity), bytes_of(capacity),
		                MREMAP_MAYMOVE);
	else
		at = (long)(uintptr_t)raw_map_own(bytes_of(capacity));
	if (!at || raw_failed(at))
		return -ENOMEM;
	tree->nodes = (struct space_node *)at;
	tree->capacity = capacity;
	return 0;
}

int space_tree_reserve(struct space_tree *tree, uint32_t more)
{
	uint64_t need = 1 + (uint64_t)tree->count + more + SPACE_TREE_SPARE, capacity = tree->capacity;

	if (need <= capacity)
		return 0;
	capacity = capacity ? 2 * capacity : FIRST_CAPACITY;
	while (capacity < need)
		capacity *= 2;
	return capacity > MAX_CAPACITY ? -ENOMEM : resize(tree, (uint32_t)capacity);
}

/* To half, once a quarter would do. It stays as it is where the kernel refuses. */
static void shrink(struct space_tree *tree)
{
	if (tree->capacity > FIRST_CAPACITY && 1 + tree->count + SPACE_TREE_SPARE <= tree->capacity / 4)
		resize(tree, tree->capacity / 2);
}

void space_tree_free(struct space_tree *tree)
{
	raw_unmap(tree->nodes, bytes_of(tree->capacity));
	*tree = (struct space_tree){0};
}

size_t space_tree_memory(const struct space_tree *tree)
{
	return bytes_of(tree->capacity);
}

uint32_t space_tree_next(const struct space_tree *tree, uint64_t addr)
{
	uint32_t at = tree->root, next = 0;

	while (at) {
		const struct space_node *node = &tree->nodes[at];

		if (space_range_end(&node->range) <= addr) {
			at = node->child[1];
		} else {
			next = at;
			at = node->range.start <= addr ? 0 : node->child[0];
		}
	}
	return next;
}

/* Where the tree refers to the node of the range that starts there. */
static uint32_t *link_to(struct space_tree *tree, uint64_t start)
{
	uint32_t *link = &tree->root;

	while (tree->nodes[*link].range.start != start)
		link = &tree->nodes[*link].child[tree->nodes[*link].range.start < start];
	return link;
}

static void attach(struct space_tree *tree, uint32_t index)
{
	struct space_node *nodes = tree->nodes, *node = &nodes[index];
	uint32_t *link = &tree->root, *side[2] = {&node->child[0], &node->child[1]}, rest;

	while (*link && nodes[*link].priority >= node->priority)
		link = &nodes[*link].child[nodes[*link].range.start < node->range.start];
	rest = *link;
	*link = index;
	/* What it displaces goes below it, to the one side or the other: along one path, each node with one of its children. */
	while (rest) {
		bool above = nodes[rest].range.start > node->range.start;

		*side[above] = rest;
		side[above] = &nodes[rest].child[!above];
		rest = *side[above];
	}
	*side[0] = *side[1] = 0;
}

static void detach(struct space_tree *tree, uint32_t index)
{
	struct space_node *nodes = tree->nodes;
	uint32_t *link = link_to(tree, nodes[index].range.start);
	uint32_t below = nodes[index].child[0], above = nodes[index].child[1];

	while (below && above) {
		if (nodes[below].priority > nodes[above].priority) {
			*link = below;
			link = &nodes[below].child[1];
			below = *link;
		} else {
			*link = above;
			link = &nodes[above].child[0];
			above = *link;
		}
	}
	*link = below ? below : above;
}

/* xorshift32: what lies below what depends on no address, so no order of addresses makes a deep tree. */
static uint32_t next_random(struct space_tree *tree)
{
	uint32_t x = tree->random ? tree->random : 2463534242u;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return tree->random = x;
}

uint32_t space_tree_add(struct space_tree *tree, const struct space_range *range)
{
	uint32_t index = ++tree->count;

	tree->nodes[index] = (struct space_node){.range = *range, .priority = next_random(tree)};
	attach(tree, index);
	return index;
}

void space_tree_remove(struct space_tree *tree, uint32_t index)
{
	uint32_t last = tree->count;

	detach(tree, index);
	if (index != last) {
		*link_to(tree, tree->nodes[last].range.start) = index;
		tree->nodes[index] = tree->nodes[last];
	}
	tree->count--;
	shrink(tree);
}

void space_tree_shift(struct space_tree *tree, uint32_t index, uint64_t start)
{
	detach(tree, index);
	tree->nodes[index].range.start = start;
	attach(tree, index);
}
