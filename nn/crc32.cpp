#include "nn/crc32.hpp"

#include <array>
#include <bit>
#include <cstring>

namespace nibble {

namespace {

static_assert(std::endian::native == std::endian::little, "the 8-byte step reads little-endian words");

using Table = std::array<std::array<uint32_t, 256>, 8>;

// tables[k][b] is the CRC of byte b followed by k zero bytes, so that eight bytes are folded in with eight lookups.
constexpr Table make_tables(uint32_t reflected_polynomial) {
  Table tables{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) != 0 ? reflected_polynomial : 0u);
    tables[0][b] = crc;
  }
  for (size_t k = 1; k < 8; ++k)
    for (size_t b = 0; b < 256; ++b) tables[k][b] = (tables[k - 1][b] >> 8) ^ tables[0][tables[k - 1][b] & 0xffu];
  return tables;
}

constexpr Table kCastagnoli = make_tables(0x82F63B78u), kZip = make_tables(0xEDB88320u);

uint32_t fold(std::span<const std::byte> bytes, uint32_t crc, const Table& tables) {
  crc = ~crc;
  const std::byte* p = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; left -= 8, p += 8) {
    uint64_t word = 0;
    std::memcpy(&word, p, 8);
    word ^= crc;
    crc = tables[7][word & 0xffu] ^ tables[6][(word >> 8) & 0xffu] ^ tables[5][(word >> 16) & 0xffu] ^
          tables[4][(word >> 24) & 0xffu] ^ tables[3][(word >> 32) & 0xffu] ^ tables[2][(word >> 40) & 0xffu] ^
          tables[1][(word >> 48) & 0xffu] ^ tables[0][word >> 56];
  }
  for (; left > 0; --left, ++p) crc = (crc >> 8) ^ tables[0][(crc ^ static_cast<uint32_t>(*p)) & 0xffu];
  return ~crc;
}

}  // namespace

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t crc) {
  return fold(bytes, crc, kCastagnoli);
}

uint32_t crc32(std::span<const std::byte> bytes, uint32_t crc) {
  return fold(bytes, crc, kZip);
}

}  // namespace nibble
