// The writing half of safetensors.hpp: layout, header, checksums.
#include <fmt/format.h>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/error.hpp"
#include "nn/atomic_file.hpp"
#include "nn/crc32.hpp"
#include "nn/safetensors.hpp"
#include "nn/safetensors_header.hpp"
#include "nn/sha256.hpp"

namespace nibble {

namespace {

std::string_view file_dtype(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::bf16:
      return "BF16";
    case DType::s32:
      return "I32";
    case DType::s8:
      return "I8";
    case DType::u8:
      return "U8";
    case DType::s4:
    case DType::u4:
      break;
  }
  throw DTypeError("[safetensors] a 4-bit tensor has no type of its own in the file, add its packed bytes as raw U8");
}

std::string utf8_json(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    throw ModelError("[safetensors] the text {} is not UTF-8, which the file format requires", quote_name(text));
  }
}

std::string entry_json(const std::string& name, std::string_view dtype, const std::vector<int64_t>& shape,
                       uint64_t begin, uint64_t end) {
  return fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", utf8_json(name), dtype,
                     fmt::join(shape, ","), begin, end);
}

}  // namespace

void SafetensorsWriter::check_name(const std::string& name) const {
  if (name == kMetadataName || name == kHeaderChecksumTensor)
    throw ModelError("[safetensors] the tensor name {} is reserved by the file format", quote_name(name));
  if (items_.contains(name)) throw ModelError("[safetensors] the tensor {} was added twice", quote_name(name));
}

void SafetensorsWriter::add(const std::string& name, const Tensor& tensor) {
  check_name(name);
  if (!tensor.defined()) throw ModelError("[safetensors] the tensor {} is not defined", quote_name(name));
  Item item;
  item.name = name;
  item.dtype = file_dtype(tensor.dtype());
  for (int i = 0; i < tensor.shape().rank(); ++i) item.shape.push_back(tensor.dim(i));
  item.bytes = static_cast<uint64_t>(tensor.size()) * static_cast<uint64_t>(bits_of(tensor.dtype())) / 8;
  item.tensor = tensor;
  items_.emplace(name, std::move(item));
}

void SafetensorsWriter::add_raw(RawTensor tensor) {
  check_name(tensor.name);
  uint64_t bytes = 0;
  if (!tensor_bytes(tensor.dtype, tensor.shape, bytes) || bytes != tensor.bytes.size() ||
      tensor.shape.size() > kMaxSafetensorsRank)
    throw ModelError("[safetensors] {} bytes for the tensor {} do not match its {} dimensions of {}",
                     tensor.bytes.size(), quote_name(tensor.name), tensor.shape.size(), quote_name(tensor.dtype));
  Item item;
  item.name = tensor.name;
  item.dtype = std::move(tensor.dtype);
  item.shape = std::move(tensor.shape);
  item.bytes = bytes;
  item.raw = std::move(tensor.bytes);
  items_.emplace(tensor.name, std::move(item));
}

void SafetensorsWriter::set_metadata(const std::string& key, const std::string& value) {
  if (key == kIntegrityKey || key.starts_with(kTensorChecksumPrefix))
    throw ModelError("[safetensors] the metadata key {} is reserved for checksums", quote_name(key));
  metadata_[key] = value;
}

template <typename Sink>
void SafetensorsWriter::each_chunk(const Item& item, Sink&& sink) {
  if (item.bytes == 0) return;
  if (!item.tensor.defined()) return sink(std::span<const std::byte>(item.raw));
  const Tensor& t = item.tensor;
  if (t.dense()) return sink(std::span<const std::byte>(t.raw(), item.bytes));
  const size_t row = item.bytes / static_cast<uint64_t>(t.rows());
  for (int64_t r = 0; r < t.rows(); ++r)
    sink(std::span<const std::byte>(t.raw() + static_cast<size_t>(r) * t.row_bytes(), row));
}

std::vector<const SafetensorsWriter::Item*> SafetensorsWriter::layout() const {
  std::vector<const Item*> order;
  for (const auto& [name, item] : items_) order.push_back(&item);
  std::stable_sort(order.begin(), order.end(), [](const Item* a, const Item* b) {
    return safetensors_dtype_bits(a->dtype) > safetensors_dtype_bits(b->dtype);  // the map already sorted by name
  });
  return order;
}

std::vector<std::byte> SafetensorsWriter::head(const std::vector<const Item*>& order) const {
  std::map<std::string, std::string> metadata = metadata_;
  metadata[std::string(kIntegrityKey)] = kIntegrityVersion;
  for (const Item* item : order) {
    uint32_t crc = 0;
    each_chunk(*item, [&](std::span<const std::byte> bytes) { crc = crc32c(bytes, crc); });
    metadata[std::string(kTensorChecksumPrefix) + item->name] = fmt::format("{:08x}", crc);
  }
  std::string json = fmt::format("{{\"{}\":{{", kMetadataName);
  for (const auto& [key, value] : metadata) {
    if (json.back() != '{') json += ',';
    json += utf8_json(key) + ":" + utf8_json(value);
  }
  json += '}';
  uint64_t at = 0;
  for (const Item* item : order) {
    json += "," + entry_json(item->name, item->dtype, item->shape, at, at + item->bytes);
    at += item->bytes;
  }
  json += "," + entry_json(std::string(kHeaderChecksumTensor), "U8", {32}, at, at + 32) + "}";
  json.resize((json.size() + 7) / 8 * 8, ' ');
  if (json.size() > kMaxSafetensorsHeader)
    throw ModelError("[safetensors] the header would have {} bytes, above the limit of {}", json.size(),
                     kMaxSafetensorsHeader);
  std::vector<std::byte> head(8 + json.size());
  for (size_t i = 0; i < 8; ++i) head[i] = static_cast<std::byte>((json.size() >> (8 * i)) & 0xffu);
  std::transform(json.begin(), json.end(), head.begin() + 8, [](char c) { return static_cast<std::byte>(c); });
  return head;
}

template <typename Sink>
void SafetensorsWriter::emit(Sink&& sink) const {
  const std::vector<const Item*> order = layout();
  const std::vector<std::byte> first = head(order);
  sink(std::span<const std::byte>(first));
  for (const Item* item : order) each_chunk(*item, sink);
  const Sha256Digest digest = sha256(first);
  sink(std::span<const std::byte>(digest));
}

std::vector<std::byte> SafetensorsWriter::serialize() const {
  std::vector<std::byte> file;
  emit([&](std::span<const std::byte> bytes) { file.insert(file.end(), bytes.begin(), bytes.end()); });
  return file;
}

uint64_t SafetensorsWriter::bytes() const {
  uint64_t total = 0;
  emit([&](std::span<const std::byte> bytes) { total += bytes.size(); });
  return total;
}

uint64_t SafetensorsWriter::write(const std::filesystem::path& path, const FileCheck& check) const {
  AtomicFile file(path);
  emit([&](std::span<const std::byte> bytes) { file.append(bytes); });
  if (check) check(file.temporary());
  file.commit();
  return file.bytes();
}

}  // namespace nibble
