#include "nn/safetensors.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "engine/error.hpp"
#include "nn/crc32.hpp"
#include "nn/input_file.hpp"
#include "nn/safetensors_header.hpp"
#include "nn/sha256.hpp"

namespace nibble {

static_assert(std::endian::native == std::endian::little, "tensors are copied from little-endian files as they are");

namespace {

[[noreturn]] void refuse_damaged(const std::string& source, const std::string& what) {
  throw ModelError("'{}' is damaged: {}; use another copy or an older checkpoint", source, what);
}

/// True when any part of the checksum layer is in the header.
bool has_integrity(const SafetensorsHeader& header) {
  const auto is_checksum = [](const auto& item) { return item.first.starts_with(kTensorChecksumPrefix); };
  const auto is_header_checksum = [](const TensorEntry& entry) { return entry.name == kHeaderChecksumTensor; };
  return header.metadata.contains(std::string(kIntegrityKey)) ||
         std::any_of(header.metadata.begin(), header.metadata.end(), is_checksum) ||
         std::any_of(header.entries.begin(), header.entries.end(), is_header_checksum);
}

/// Verifies the header against the last tensor, then removes that tensor from the list.
void verify_header(SafetensorsHeader& header, std::span<const std::byte> head, const std::byte* data,
                   const std::string& source) {
  const std::string name(kHeaderChecksumTensor);
  const TensorEntry* last = header.entries.empty() ? nullptr : &header.entries.back();
  const bool present = last != nullptr && last->name == name && last->dtype == "U8" && last->bytes() == 32;
  if (!present) refuse_damaged(source, "header has checksums but no last tensor '" + name + "' of U8[32]");
  const Sha256Digest digest = sha256(head);
  if (std::memcmp(digest.data(), data + last->begin, digest.size()) != 0)
    refuse_damaged(source, "header does not match its SHA-256 in tensor '" + name + "'");
  const auto version = header.metadata.find(std::string(kIntegrityKey));
  if (version == header.metadata.end() || version->second != kIntegrityVersion)
    throw ModelError("'{}' has checksums of version {}, this build knows version {}; read it with a newer build",
                     source, version == header.metadata.end() ? "'none'" : quote_name(version->second),
                     kIntegrityVersion);
  header.entries.pop_back();
}

/// Verifies every tensor against its CRC and removes the layer's strings from the metadata.
void verify_tensors(SafetensorsHeader& header, const std::byte* data, const std::string& source) {
  for (const TensorEntry& entry : header.entries) {
    const auto stored = header.metadata.find(std::string(kTensorChecksumPrefix) + entry.name);
    if (stored == header.metadata.end())
      refuse_damaged(source, "tensor " + quote_name(entry.name) + " has no checksum in the header");
    const std::string actual = fmt::format("{:08x}", crc32c({data + entry.begin, entry.bytes()}));
    if (stored->second != actual)
      refuse_damaged(source, fmt::format("tensor {} does not match its checksum (it has {}, the header says {})",
                                         quote_name(entry.name), actual, quote_name(stored->second)));
    header.metadata.erase(stored);
  }
  header.metadata.erase(std::string(kIntegrityKey));
  for (const auto& [key, value] : header.metadata)
    if (key.starts_with(kTensorChecksumPrefix))
      refuse_damaged(source, "header has the checksum " + quote_name(key) + " of a tensor that is not there");
}

Shape to_shape(const TensorEntry& entry, const std::string& source) {
  const std::vector<int64_t>& d = entry.shape;
  switch (d.size()) {
    case 0:
      return {};
    case 1:
      return {d[0]};
    case 2:
      return {d[0], d[1]};
    case 3:
      return {d[0], d[1], d[2]};
    case 4:
      return {d[0], d[1], d[2], d[3]};
    default:
      throw ModelError("'{}': tensor {} has {} dimensions, at most {} are supported", source, quote_name(entry.name),
                       d.size(), Shape::kMaxRank);
  }
}

std::optional<DType> to_dtype(std::string_view dtype) {
  if (dtype == "F32") return DType::f32;
  if (dtype == "BF16") return DType::bf16;
  if (dtype == "I32") return DType::s32;
  if (dtype == "I8") return DType::s8;
  if (dtype == "U8" || dtype == "BOOL") return DType::u8;
  return std::nullopt;
}

/// IEEE half to single, exact: denormals included, NaN payload kept.
float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 31u;
  const uint32_t mantissa = h & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

template <typename From, typename Convert>
void convert_to_f32(std::span<const std::byte> from, float* to, Convert&& convert) {
  for (size_t i = 0; i < from.size() / sizeof(From); ++i) {
    From value{};
    std::memcpy(&value, from.data() + i * sizeof(From), sizeof(From));
    to[i] = convert(value);
  }
}

}  // namespace

void SafetensorsFile::adopt(SafetensorsHeader header, std::span<const std::byte> head,
                            const SafetensorsOpenArgs& args) {
  integrity_ = has_integrity(header);
  if (integrity_) {
    verify_header(header, head, data_->data(), source_);
    verify_tensors(header, data_->data(), source_);
  } else if (args.require_integrity) {
    throw ModelError("'{}' has no checksums, so it was not written by nibble; give a checkpoint or exported model",
                     source_);
  }
  metadata_ = std::move(header.metadata);
  entries_ = std::move(header.entries);
  for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path, const SafetensorsOpenArgs& args) {
  SafetensorsFile result;
  result.source_ = path.string();
  InputFile input(path);
  result.file_bytes_ = input.bytes();
  require_model_size(input.bytes(), result.source_, args.max_bytes);
  std::vector<std::byte> head(std::min<uint64_t>(8, input.bytes()));
  input.read(head);
  const uint64_t length = read_header_length(head, input.bytes(), result.source_);
  head.resize(8 + length);
  input.read(std::span(head).subspan(8));
  SafetensorsHeader header = parse_header(std::span(head).subspan(8), input.bytes() - 8 - length, result.source_);
  const std::shared_ptr<Storage> data = allocate_for_file(header.data_bytes, result.source_);
  input.read({data->data(), header.data_bytes});
  result.data_ = data;
  result.adopt(std::move(header), head, args);
  return result;
}

SafetensorsFile SafetensorsFile::parse(std::span<const std::byte> file, const std::string& source,
                                       const SafetensorsOpenArgs& args) {
  SafetensorsFile result;
  result.source_ = source;
  result.file_bytes_ = file.size();
  require_model_size(file.size(), source, args.max_bytes);
  const uint64_t length = read_header_length(file, file.size(), source);
  const std::span<const std::byte> head = file.first(8 + length);
  SafetensorsHeader header = parse_header(head.subspan(8), file.size() - head.size(), source);
  const std::shared_ptr<Storage> data = allocate_for_file(header.data_bytes, source);
  if (header.data_bytes > 0) std::memcpy(data->data(), file.data() + head.size(), header.data_bytes);
  result.data_ = data;
  result.adopt(std::move(header), head, args);
  return result;
}

SafetensorsFile SafetensorsFile::of(std::vector<RawTensor> tensors, const std::string& source, uint64_t file_bytes) {
  SafetensorsFile result;
  result.source_ = source;
  result.file_bytes_ = file_bytes;
  uint64_t end = 0;
  for (const RawTensor& t : tensors) {
    uint64_t bytes = 0;
    if (!tensor_bytes(t.dtype, t.shape, bytes) || bytes != t.bytes.size() ||
        !result.index_.emplace(t.name, result.entries_.size()).second)
      throw ModelError("'{}': tensor {} is there twice or of another size than its shape", source, quote_name(t.name));
    result.entries_.push_back({t.name, t.dtype, t.shape, end, end + bytes});
    end += bytes;
  }
  const std::shared_ptr<Storage> data = allocate_for_file(end, source);
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::vector<std::byte> bytes = std::move(tensors[i].bytes);  // freed behind its copy
    if (!bytes.empty()) std::memcpy(data->data() + result.entries_[i].begin, bytes.data(), bytes.size());
  }
  result.data_ = data;
  return result;
}

SafetensorsFile SafetensorsFile::renamed(FunctionRef<std::string(const std::string&)> new_name) const {
  SafetensorsFile result = *this;
  result.entries_.clear();
  result.index_.clear();
  for (const TensorEntry& e : entries_) {
    TensorEntry& named = result.entries_.emplace_back(e);
    named.name = new_name(e.name);
    if (named.name.empty())
      result.entries_.pop_back();
    else if (!result.index_.emplace(named.name, result.entries_.size() - 1).second)
      throw ModelError("'{}': two tensors would both be {}; rename one", source_, quote_name(named.name));
  }
  return result;
}

const std::string& SafetensorsFile::metadata_value(const std::string& key, size_t longest) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end())
    throw ModelError("'{}' lacks the metadata {}; it is not a file of the kind asked for", source_, quote_name(key));
  if (found->second.size() > longest)
    throw ModelError("'{}' has {} bytes of metadata {}, where at most {} make sense; it was not written by nibble",
                     source_, found->second.size(), quote_name(key), longest);
  return found->second;
}

const TensorEntry* SafetensorsFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

const TensorEntry& SafetensorsFile::entry(const std::string& name) const {
  const TensorEntry* found = find(name);
  if (found == nullptr)
    throw ModelError("'{}' lacks the tensor {}; it holds another architecture or is not complete", source_,
                     quote_name(name));
  return *found;
}

std::span<const std::byte> SafetensorsFile::data(const std::string& name) const {
  const TensorEntry& found = entry(name);
  return {data_->data() + found.begin, found.bytes()};
}

Tensor SafetensorsFile::tensor(const std::string& name) const {
  const TensorEntry& found = entry(name);
  const std::optional<DType> dtype = to_dtype(found.dtype);
  if (!dtype)
    throw ModelError("'{}': tensor {} is {}, which cannot be used here; store it as F32, BF16, I32, I8 or U8", source_,
                     quote_name(name), found.dtype);
  Tensor result(*dtype, to_shape(found, source_));
  if (found.bytes() > 0) std::memcpy(result.raw(), data_->data() + found.begin, found.bytes());
  return result;
}

Tensor SafetensorsFile::tensor_f32(const std::string& name) const {
  const TensorEntry& found = entry(name);
  Tensor result(DType::f32, to_shape(found, source_));
  const std::span<const std::byte> from = data(name);
  auto* to = result.data<float>();
  if (found.dtype == "F32")
    convert_to_f32<float>(from, to, [](float v) { return v; });
  else if (found.dtype == "BF16")
    convert_to_f32<uint16_t>(from, to, [](uint16_t v) { return to_float(bf16{v}); });
  else if (found.dtype == "F16")
    convert_to_f32<uint16_t>(from, to, half_to_float);
  else if (found.dtype == "F64")
    convert_to_f32<double>(from, to, [](double v) { return static_cast<float>(v); });
  else
    throw ModelError("'{}': tensor {} is {}, not a float type; store it as F32, BF16, F16 or F64", source_,
                     quote_name(name), found.dtype);
  return result;
}

Tensor SafetensorsFile::finite_tensor_f32(const std::string& name) const {
  Tensor result = tensor_f32(name);
  const auto* values = result.data<float>();
  for (int64_t i = 0; i < result.size(); ++i)
    if (!std::isfinite(values[i]))
      throw ModelError(
          "'{}': element {} of tensor {} is {}, not a finite number; use weights from before they diverged", source_, i,
          quote_name(name), values[i]);
  return result;
}

}  // namespace nibble
