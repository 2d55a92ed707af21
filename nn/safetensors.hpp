// safetensors files: a strict reader, a deterministic writer, and a checksum layer inside the plain format.
//
// The file: u64 little-endian N | N bytes of JSON, padded with spaces to a multiple of 8 | the tensors, end to end.
// Our layer on top, invisible to other readers:
//   __metadata__["nibble.integrity"]     = "1"             version of the layer
//   __metadata__["nibble.crc32c.<name>"] = 8 hex digits    CRC-32C of that tensor's bytes
//   last tensor "nibble.header_checksum" = U8[32]          SHA-256 of everything before the tensors (N and the header)
// The CRCs cover every tensor, the SHA covers the header with the CRCs in it, and a flip inside the SHA itself is a
// mismatch; so no byte of the file is outside. A file with a part of the layer is damaged, never "foreign".
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/function_ref.hpp"
#include "engine/tensor.hpp"

namespace nibble {

struct SafetensorsHeader;  // safetensors_header.hpp

/// Longest header that is read or written; the format's own reader has the same limit.
inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;
/// Most dimensions of a tensor in a file (NumPy's limit); Tensor itself has at most Shape::kMaxRank.
inline constexpr size_t kMaxSafetensorsRank = 32;

/// One tensor of a file as its header describes it.
struct TensorEntry {
  std::string name;
  std::string dtype;           // the format's name: F32, BF16, U8, I8, I32, I64, ...
  std::vector<int64_t> shape;  // outermost first; empty: one element
  uint64_t begin = 0;          // bytes from the start of the tensor area
  uint64_t end = 0;

  uint64_t bytes() const { return end - begin; }
  std::string shape_text() const;
};

/// Bits of one element of a safetensors dtype, 0 for an unknown name.
int safetensors_dtype_bits(std::string_view dtype);

struct RawTensor {
  std::string name;
  std::string dtype;  // the format's name
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};

struct SafetensorsOpenArgs {
  /// Refuse files without our checksums (checkpoints, served models); foreign weights have none.
  bool require_integrity = false;
  /// Refuse larger files before any allocation: 16 GiB is 50 times the training state of a ResNet-152.
  uint64_t max_bytes = uint64_t{16} << 30;
};

/// What nibble notes about a model takes a few kilobytes.
inline constexpr size_t kLongestNote = size_t{1} << 20;

/// A file read into memory and checked completely; copies share the bytes. Never executes or trusts what it reads:
/// sizes are checked before allocation and before multiplication, the header may nest three levels and no more.
/// Errors: ModelError that names the section (header length, header, tensor "..."); DiskError when reading fails;
/// UnsupportedError when there is no memory for it.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path, const SafetensorsOpenArgs& args = {});
  /// The same from memory; `source` stands for the path in error sentences.
  static SafetensorsFile parse(std::span<const std::byte> file, const std::string& source,
                               const SafetensorsOpenArgs& args = {});
  /// Tensors of another format, in this order and without metadata; `file_bytes` is the size of their file. ModelError
  /// for two of one name and for a number of bytes that does not match the shape.
  static SafetensorsFile of(std::vector<RawTensor> tensors, const std::string& source, uint64_t file_bytes);

  /// The same tensors under other names; those whose new name is empty are left out. Shares the bytes. ModelError for
  /// two of one name.
  SafetensorsFile renamed(FunctionRef<std::string(const std::string&)> new_name) const;

  /// Free-form strings of the file, without those of the checksum layer.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// The string under `key`; ModelError when there is none, or more than `longest` bytes of it: what is made of it
  /// takes many times its space (33 million empty lists of a header of 100 MB, 1.6 GB).
  const std::string& metadata_value(const std::string& key, size_t longest = kLongestNote) const;
  /// All tensors in the order of their bytes, without the header checksum.
  const std::vector<TensorEntry>& entries() const { return entries_; }
  /// nullptr when there is no such tensor.
  const TensorEntry* find(const std::string& name) const;
  /// ModelError when there is no such tensor.
  const TensorEntry& entry(const std::string& name) const;

  /// The bytes of a tensor, valid as long as a copy of this object lives; 1-byte aligned in foreign files.
  std::span<const std::byte> data(const std::string& name) const;
  /// A copy as Tensor of the same type: F32, BF16, I32, I8, U8 (BOOL becomes u8). ModelError for other types and for
  /// more than Shape::kMaxRank dimensions.
  Tensor tensor(const std::string& name) const;
  /// A copy converted to f32: F32, BF16, F16 exactly, F64 rounded to nearest. ModelError for other types.
  Tensor tensor_f32(const std::string& name) const;
  /// The same, and ModelError with the index of the first infinity or NaN.
  Tensor finite_tensor_f32(const std::string& name) const;

  /// True when the checksum layer is there (it was then verified by open).
  bool integrity() const { return integrity_; }
  uint64_t file_bytes() const { return file_bytes_; }
  const std::string& source() const { return source_; }

 private:
  SafetensorsFile() = default;
  void adopt(SafetensorsHeader header, std::span<const std::byte> head, const SafetensorsOpenArgs& args);

  std::string source_;
  std::map<std::string, std::string> metadata_;
  std::vector<TensorEntry> entries_;
  std::unordered_map<std::string, size_t> index_;
  std::shared_ptr<const Storage> data_;
  bool integrity_ = false;
  uint64_t file_bytes_ = 0;
};

/// Called with a complete file before it takes its name; throws to refuse it.
using FileCheck = std::function<void(const std::filesystem::path&)>;

/// Collects tensors and strings and writes them with the checksum layer. The bytes depend only on what was added, not
/// on the order: tensors are laid out by element size, widest first (each is then aligned to its element), then name.
class SafetensorsWriter {
 public:
  /// Shares the tensor's storage until written; rows are stored dense. ModelError for a name that is reserved or was
  /// added before; DTypeError for 4-bit tensors: their file layout is the caller's to choose, see add_raw.
  void add(const std::string& name, const Tensor& tensor);
  /// Bytes under any dtype of the format; ModelError when their number does not match the shape.
  void add_raw(RawTensor tensor);
  /// ModelError for a key of the checksum layer. A second value replaces the first.
  void set_metadata(const std::string& key, const std::string& value);

  /// The whole file in memory.
  std::vector<std::byte> serialize() const;
  /// The size of the file in bytes.
  uint64_t bytes() const;
  /// Writes the file atomically and durably (AtomicFile); returns its size in bytes. DiskError, older file untouched.
  uint64_t write(const std::filesystem::path& path, const FileCheck& check = {}) const;

 private:
  struct Item {
    std::string name;
    std::string dtype;
    std::vector<int64_t> shape;
    uint64_t bytes = 0;
    Tensor tensor;               // defined: the source
    std::vector<std::byte> raw;  // else
  };
  void check_name(const std::string& name) const;
  std::vector<const Item*> layout() const;
  std::vector<std::byte> head(const std::vector<const Item*>& order) const;
  template <typename Sink>
  static void each_chunk(const Item& item, Sink&& sink);
  template <typename Sink>
  void emit(Sink&& sink) const;

  std::map<std::string, Item> items_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace nibble
