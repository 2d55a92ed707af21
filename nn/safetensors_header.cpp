#include "nn/safetensors_header.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>
#include <unordered_set>
#include <utility>

#include "engine/error.hpp"

namespace nibble {

namespace {

struct DTypeBits {
  std::string_view name;
  int bits;
};
constexpr DTypeBits kDTypes[] = {{"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},
                                 {"I8", 8},      {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E5M2FNUZ", 8}, {"F8_E4M3FNUZ", 8},
                                 {"F8_E8M0", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},        {"BF16", 16},
                                 {"I32", 32},    {"U32", 32},    {"F32", 32},    {"C64", 64},        {"F64", 64},
                                 {"I64", 64},    {"U64", 64}};

/// Receives the parser's events; returns false with `problem` set at the first thing the format does not have.
/// nlohmann's parser keeps its own stack on the heap and calls this flat, so hostile nesting cannot exhaust ours.
class HeaderEvents {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  bool null() { return fail("holds a null"); }
  bool boolean(bool) { return fail("holds a boolean"); }
  bool number_integer(number_integer_t) { return fail("holds a negative number"); }
  bool number_float(number_float_t, const string_t&) {
    return fail("holds a number that is not a 64-bit unsigned integer");
  }
  bool binary(binary_t&) { return fail("holds binary data"); }

  bool number_unsigned(number_unsigned_t value) {
    if (where_ == Where::kShape) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return fail("has a dimension above 2^63");
      if (entry_.shape.size() == kMaxSafetensorsRank) return fail("has more than 32 dimensions");
      entry_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (where_ == Where::kOffsets) {
      if (offsets_ == 2) return fail("has more than two data_offsets");
      (offsets_++ == 0 ? entry_.begin : entry_.end) = value;
      return true;
    }
    return fail("holds a number where none belongs");
  }

  bool string(string_t& value) {
    if (where_ == Where::kMetadata) {
      header.metadata[key_] = std::move(value);
      return true;
    }
    if (where_ != Where::kTensor || key_ != "dtype") return fail("holds a string where none belongs");
    if (safetensors_dtype_bits(value) == 0) return fail("has the unknown dtype " + quote_name(value));
    entry_.dtype = std::move(value);
    return true;
  }

  bool start_object(std::size_t) {
    if (where_ == Where::kStart) {
      where_ = Where::kRoot;
      return true;
    }
    if (where_ != Where::kRoot) return fail("nests objects deeper than the format does");
    if (key_ == kMetadataName) {
      where_ = Where::kMetadata;
      return true;
    }
    where_ = Where::kTensor;
    entry_ = TensorEntry{.name = key_, .dtype = {}, .shape = {}, .begin = 0, .end = 0};
    has_dtype_ = has_shape_ = has_offsets_ = false;
    return true;
  }

  bool key(string_t& value) {
    key_ = std::move(value);
    if (where_ == Where::kMetadata)
      return header.metadata.contains(key_) ? fail("has the key " + quote_name(key_) + " twice") : true;
    if (where_ == Where::kRoot) {
      section_ = key_ == kMetadataName ? std::string(kMetadataName) : "tensor " + quote_name(key_);
      return names_.insert(key_).second ? true : fail("is there twice");
    }
    bool* seen = key_ == "dtype"          ? &has_dtype_
                 : key_ == "shape"        ? &has_shape_
                 : key_ == "data_offsets" ? &has_offsets_
                                          : nullptr;
    if (seen == nullptr) return fail("has the unknown key " + quote_name(key_));
    return std::exchange(*seen, true) ? fail("has the key " + quote_name(key_) + " twice") : true;
  }

  bool end_object() {
    if (where_ == Where::kTensor) {
      if (!has_dtype_ || !has_shape_ || !has_offsets_) return fail("lacks dtype, shape or data_offsets");
      header.entries.push_back(std::move(entry_));
    }
    section_ = "header";
    where_ = where_ == Where::kRoot ? Where::kEnd : Where::kRoot;
    return true;
  }

  bool start_array(std::size_t) {
    if (where_ != Where::kTensor || key_ == "dtype") return fail("holds an array where none belongs");
    offsets_ = 0;
    where_ = key_ == "shape" ? Where::kShape : Where::kOffsets;
    return true;
  }

  bool end_array() {
    if (where_ == Where::kOffsets && offsets_ != 2) return fail("has fewer than two data_offsets");
    where_ = Where::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) {
    section_ = "header";
    return fail(fmt::format("is not valid JSON in UTF-8 (byte {} of it)", position));
  }

  SafetensorsHeader header;
  std::string problem;  // "<section> <what is wrong>", empty when all is well

 private:
  enum class Where { kStart, kRoot, kMetadata, kTensor, kShape, kOffsets, kEnd };

  bool fail(const std::string& what) {
    problem = section_ + " " + what;
    return false;
  }

  Where where_ = Where::kStart;
  std::string section_ = "header";
  std::string key_;
  TensorEntry entry_;
  int offsets_ = 0;
  bool has_dtype_ = false;
  bool has_shape_ = false;
  bool has_offsets_ = false;
  std::unordered_set<std::string> names_;
};

[[noreturn]] void refuse(const std::string& source, const std::string& problem) {
  throw ModelError("'{}' is not a valid safetensors file: {}; use another copy of it", source, problem);
}

void check_sizes(const SafetensorsHeader& header, const std::string& source) {
  for (const TensorEntry& entry : header.entries) {
    uint64_t bytes = 0;
    if (!tensor_bytes(entry.dtype, entry.shape, bytes))
      refuse(source, fmt::format("tensor {} has a shape {} of {} that overflows or does not fill whole bytes",
                                 quote_name(entry.name), entry.shape_text(), entry.dtype));
    if (entry.begin > entry.end || entry.end - entry.begin != bytes)
      refuse(source, fmt::format("tensor {} of {} bytes has the data_offsets {} and {}", quote_name(entry.name), bytes,
                                 entry.begin, entry.end));
  }
}

void check_layout(const SafetensorsHeader& header, const std::string& source) {
  uint64_t expected = 0;
  const std::string* before = nullptr;
  for (const TensorEntry& entry : header.entries) {
    if (entry.begin != expected)
      refuse(source, fmt::format("tensor {} {} {}", quote_name(entry.name),
                                 entry.begin < expected ? "overlaps" : "leaves a hole after",
                                 before == nullptr ? "the header" : "tensor " + quote_name(*before)));
    if (entry.end > header.data_bytes)
      refuse(source, fmt::format("tensor {} ends at byte {} but only {} bytes follow the header (the file is cut)",
                                 quote_name(entry.name), entry.end, header.data_bytes));
    expected = entry.end;
    before = &entry.name;
  }
  if (expected != header.data_bytes)
    refuse(source, fmt::format("{} bytes after {} belong to no tensor", header.data_bytes - expected,
                               before == nullptr ? "the header" : "the last tensor " + quote_name(*before)));
}

}  // namespace

int safetensors_dtype_bits(std::string_view dtype) {
  for (const DTypeBits& row : kDTypes)
    if (row.name == dtype) return row.bits;
  return 0;
}

bool tensor_bytes(std::string_view dtype, std::span<const int64_t> shape, uint64_t& bytes) {
  uint64_t bits = static_cast<uint64_t>(safetensors_dtype_bits(dtype));
  if (bits == 0) return false;
  for (int64_t d : shape)
    if (d < 0 || __builtin_mul_overflow(bits, static_cast<uint64_t>(d), &bits)) return false;
  bytes = bits / 8;
  return bits % 8 == 0;
}

std::string quote_name(std::string_view name) {
  constexpr size_t kLongest = 96;
  std::string text = "'";
  for (char c : name.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f)
      text += fmt::format("\\x{:02x}", byte);
    else
      text += c;
  }
  return text + (name.size() > kLongest ? "...'" : "'");
}

std::string quote_names(const std::vector<std::string>& names) {
  constexpr size_t kMost = 8;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMost); ++i) text += (i > 0 ? ", " : "") + quote_name(names[i]);
  return names.size() > kMost ? fmt::format("{} and {} others", text, names.size() - kMost) : text;
}

std::string TensorEntry::shape_text() const {
  return fmt::format("[{}]", fmt::join(shape, ","));
}

namespace {

/// What a file that begins so is, where people give it for a model; nullptr: unknown. The first 8 bytes.
const char* known_format(std::string_view begin) {
  static constexpr std::pair<std::string_view, const char*> kBegins[] = {
      {"\xff\xd8\xff", "a JPEG image"}, {"\x89PNG", "a PNG image"}, {"GGUF", "a GGUF file"},
      {"\x89HDF", "an HDF5 file"},      {"\x1f\x8b", "gzipped"},    {"\x93NUMPY", "a NumPy array"}};
  for (const auto& [bytes, what] : kBegins)
    if (begin.starts_with(bytes)) return what;
  if (begin.substr(4) == "TFL3") return "a TensorFlow Lite model";
  // Protocol buffers: field 1, a version, then field 2, the producer's name.
  if (begin[0] == 8 && begin[1] > 0 && begin[1] < 32 && begin[2] == 0x12) return "an ONNX model";
  return nullptr;
}

}  // namespace

uint64_t read_header_length(std::span<const std::byte> first, uint64_t file_bytes, const std::string& source) {
  if (file_bytes < 8 || first.size() < 8)
    refuse(source, fmt::format("header length is cut (the file has {} bytes)", file_bytes));
  uint64_t length = 0;
  for (size_t i = 0; i < 8; ++i) length |= static_cast<uint64_t>(first[i]) << (8 * i);
  constexpr uint64_t kZip = 0x04034b50;       // "PK\3\4"
  constexpr uint64_t kOldTorch = 0x0a8a0280;  // a pickle of 10 bytes, torch.save's before PyTorch 1.6
  if ((length & 0xffffffff) == kZip || (length & 0xffffffff) == kOldTorch)
    throw ModelError(
        "'{}' is a zip archive or a pickle, as PyTorch writes .pth files; nibble quantize makes a model of it, and "
        "train --weights "
        "starts from it",
        source);
  const char* format = known_format({reinterpret_cast<const char*>(first.data()), 8});
  if (length > kMaxSafetensorsHeader && format != nullptr)
    throw ModelError("'{}' is {}; give a run, a checkpoint, a served file or safetensors or .pth weights", source,
                     format);
  if (length > kMaxSafetensorsHeader)
    refuse(source, fmt::format("header length {} is above the limit of {}", length, kMaxSafetensorsHeader));
  if (length > file_bytes - 8)
    refuse(source, fmt::format("header length {} goes beyond the end of the file ({} bytes)", length, file_bytes));
  return length;
}

SafetensorsHeader parse_header(std::span<const std::byte> json, uint64_t data_bytes, const std::string& source) {
  const char* begin = reinterpret_cast<const char*>(json.data());
  const char* end = begin + json.size();
  // The first byte is checked here because the parser would skip a byte order mark; NUL because it would end there.
  if (json.empty() || *begin != '{') refuse(source, "header does not start with '{'");
  if (std::find(begin, end, '\0') != end) refuse(source, "header holds a NUL byte");
  HeaderEvents events;
  if (!nlohmann::json::sax_parse(begin, end, &events)) refuse(source, events.problem);
  SafetensorsHeader header = std::move(events.header);
  header.data_bytes = data_bytes;
  std::sort(header.entries.begin(), header.entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_sizes(header, source);
  check_layout(header, source);
  return header;
}

}  // namespace nibble
