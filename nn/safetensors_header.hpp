// The header of a safetensors file: strict JSON with known keys, and the layout it promises.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/safetensors.hpp"

namespace nibble {

/// Names of the checksum layer (see safetensors.hpp).
inline constexpr std::string_view kHeaderChecksumTensor = "nibble.header_checksum";
inline constexpr std::string_view kIntegrityKey = "nibble.integrity";
inline constexpr std::string_view kIntegrityVersion = "1";
inline constexpr std::string_view kTensorChecksumPrefix = "nibble.crc32c.";
inline constexpr std::string_view kMetadataName = "__metadata__";

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::vector<TensorEntry> entries;  // in the order of their bytes, contiguous from 0
  uint64_t data_bytes = 0;
};

/// N of a file of `file_bytes` whose first bytes are `first` (at least min(8, file_bytes) of them); ModelError
/// "header length" when it is cut, above kMaxSafetensorsHeader or beyond the file.
uint64_t read_header_length(std::span<const std::byte> first, uint64_t file_bytes, const std::string& source);

/// Parses the JSON and checks that the tensors fill `data_bytes` bytes without hole or overlap. ModelError otherwise.
SafetensorsHeader parse_header(std::span<const std::byte> json, uint64_t data_bytes, const std::string& source);

/// Bytes that `shape` of `dtype` takes; false when the product overflows, a sub-byte type does not fill whole bytes or
/// the dtype is unknown.
bool tensor_bytes(std::string_view dtype, std::span<const int64_t> shape, uint64_t& bytes);

/// A name from a file for an error sentence: quoted, control and non-ASCII bytes escaped, at most 96 characters.
std::string quote_name(std::string_view name);
/// "'a', 'b'"; of more than eight "..., 'h' and 12 others".
std::string quote_names(const std::vector<std::string>& names);

}  // namespace nibble
