// Zip archives of stored entries, sound or not.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "nn/crc32.hpp"

namespace nibble::testing {

struct ZipOptions {
  uint16_t method = 0, flags = 0;
  uint32_t crc_change = 0;
  std::string comment = {};
  bool in_64_bits = false;  // sizes, places and the directory in their 64-bit fields
};

inline std::string little_endian(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i));
  return text;
}

inline std::string zip_of(const std::vector<std::pair<std::string, std::string>>& entries, const ZipOptions& o = {}) {
  std::string file, directory;
  for (const auto& [name, data] : entries) {
    const uint32_t crc = crc32({reinterpret_cast<const std::byte*>(data.data()), data.size()}) ^ o.crc_change;
    const uint64_t at = file.size();
    const std::string about = little_endian(20, 2) + little_endian(o.flags, 2) + little_endian(o.method, 2) +
                              little_endian(0, 4) + little_endian(crc, 4);
    const std::string plain = little_endian(data.size(), 4) + little_endian(data.size(), 4);
    const std::string padding = little_endian(0x4246, 2) + little_endian(3, 2) + "ZZZ";  // as PyTorch aligns with
    file += little_endian(0x04034b50, 4) + about + plain + little_endian(name.size(), 2) +
            little_endian(padding.size(), 2) + name + padding + data;
    const std::string wide = little_endian(1, 2) + little_endian(24, 2) + little_endian(data.size(), 8) +
                             little_endian(data.size(), 8) + little_endian(at, 8);
    const std::string extra = padding + (o.in_64_bits ? wide : "");
    const std::string sizes = o.in_64_bits ? std::string(8, '\xff') : plain;
    directory += little_endian(0x02014b50, 4) + little_endian(20, 2) + about + sizes + little_endian(name.size(), 2) +
                 little_endian(extra.size(), 2) + little_endian(0, 2) + std::string(8, '\0') +
                 little_endian(o.in_64_bits ? 0xffffffff : at, 4) + name + extra;
  }
  const uint64_t at = file.size(), count = entries.size();
  file += directory;
  if (o.in_64_bits) {
    const uint64_t record = file.size();
    file += little_endian(0x06064b50, 4) + little_endian(44, 8) + std::string(12, '\0') + little_endian(count, 8) +
            little_endian(count, 8) + little_endian(directory.size(), 8) + little_endian(at, 8);
    file += little_endian(0x07064b50, 4) + little_endian(0, 4) + little_endian(record, 8) + little_endian(1, 4);
  }
  file += little_endian(0x06054b50, 4) + little_endian(0, 4) + little_endian(count, 2) + little_endian(count, 2) +
          little_endian(directory.size(), 4) + little_endian(o.in_64_bits ? 0xffffffff : at, 4) +
          little_endian(o.comment.size(), 2) + o.comment;
  return file;
}

}  // namespace nibble::testing
