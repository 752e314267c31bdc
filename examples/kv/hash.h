/* SPDX-License-Identifier: MIT */
/*
 * hash.h - SipHash-2-4: with a secret key, whoever chooses the bytes cannot choose where they fall
 */
#ifndef KV_HASH_H
#define KV_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash_bytes(const uint64_t key[2], const void *data, size_t len);

#endif
