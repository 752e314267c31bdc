// SPDX-License-Identifier: MIT
#include "pager/write.h"

bool write_add(struct writing *writing, const struct space_range *range, uint64_t addr, const char *from)
{
	struct piece *last = writing->count ? &writing->pieces[writing->count - 1] : NULL;

	if (last && last->mapping == mapping_of(range) && last->addr + last->len == addr &&
	    last->from + last->len == from && last->len < COPY_BYTES) {
		last->len += range->unit;
		return true;
	}
	if (writing->count == writing->room)
		return false;
	writing->pieces[writing->count++] = (struct piece){
		.writing = writing,
		.mapping = mapping_of(range),
		.addr = addr,
		.len = range->unit,
		.unit = range->unit,
		.offset = offset_at(range, addr),
		.from = from,
	};
	return true;
}

static void written(struct uf_store_request *request)
{
	struct writing *writing = ((struct piece *)request)->writing;

	/* The last one: it may be gone before it is woken, of which the kernel only compares the address. */
	if (atomic_fetch_sub(&writing->in_flight, 1) == 1)
		futex_wake(&writing->in_flight, INT_MAX);
}

static void wait_below(struct writing *writing, uint32_t count)
{
	uint32_t left;

	while ((left = atomic_load(&writing->in_flight)) >= count)
		futex_wait(&writing->in_flight, left);
}

static struct uf_store *target_of(const struct piece *piece)
{
	return piece->mapping->flags & UF_PAGER_PRIVATE ? piece->mapping->source.aside : piece->mapping->source.store;
}

static void submit_piece(struct piece *piece)
{
	struct uf_store *store = target_of(piece);
	uint64_t size = uf_store_size(store);
	int err;

	/* What lies behind the end in the last unit has no place in the store. */
	piece->request = (struct uf_store_request){
		.action = UF_STORE_WRITE,
		.buf = (void *)piece->from,
		.len = piece->offset + piece->len > size ? size - piece->offset : piece->len,
		.offset = piece->offset,
		.done = written,
	};
	atomic_fetch_add(&piece->writing->in_flight, 1);
	err = uf_store_submit(store, &piece->request);
	if (err) {
		piece->request.result = err;
		written(&piece->request);
	}
}

int write_all(struct uf_pager *pager, struct writing *writing)
{
	int err = 0;

	for (size_t i = 0; i < writing->count; i++) {
		wait_below(writing, WRITES);
		submit_piece(&writing->pieces[i]);
	}
	wait_below(writing, 1);
	for (size_t i = 0; i < writing->count; i++) {
		struct piece *piece = &writing->pieces[i];

		if (piece->request.result)
			pager_failed(pager, target_of(piece), "write", piece->offset, piece->request.result);
		else
			atomic_fetch_add(&pager->written, piece->request.len);
		if (!err)
			err = piece->request.result;
	}
	return err;
}
