// CRC-32C (Castagnoli): the checksum of every tensor in our files. CRC-32: that of zip archives.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace nibble {

/// CRC-32C of `bytes` (polynomial 0x1EDC6F41, reflected; RFC 3720 appendix B.4). To continue from earlier bytes pass
/// their CRC as `crc`: crc32c(b, crc32c(a)) == crc32c(a followed by b).
/// Finds every single flipped bit and every burst of up to 32 bits. Cost: 8 table lookups per 8 bytes, 1.5 GB/s or
/// more per core, so a checkpoint of 200 MB takes about 0.1 s (SHA-256 in portable code takes eight times that).
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t crc = 0);

/// CRC-32 (polynomial 0x04C11DB7, reflected; PKWARE's APPNOTE 4.4.7), continued in the same way.
uint32_t crc32(std::span<const std::byte> bytes, uint32_t crc = 0);

}  // namespace nibble
