/* SPDX-License-Identifier: MIT */
/* crc32c.h - the checksum CRC-32C (Castagnoli; iSCSI, RFC 3720), by the processor's instruction where it has one */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Goes on from `crc`, the checksum of what came before; 0 at the beginning. crc32c(0, "123456789", 9) is 0xe3069283. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t len);

/* The same without the instruction. */
uint32_t crc32c_plain(uint32_t crc, const void *bytes, size_t len);

#endif
