#include "nn/import/torch_file.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine/error.hpp"
#include "nn/import/pickle.hpp"
#include "nn/import/zip_archive.hpp"
#include "nn/safetensors_header.hpp"

namespace nibble {

namespace {

using Kind = PickleValue::Kind;

constexpr size_t kLongestPickle = size_t{32} << 20;  // that of a ResNet-152 with its momentum takes 0.2 MB

constexpr const char* kBigEndian = "it was saved on a big-endian machine; save it again on a little-endian one";

/// A pickle of protocol 2 with the number 0x1950a86a20f9469cfc6c: how files before PyTorch 1.6 begin.
constexpr uint8_t kOldMagic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};

bool is_old_torch_file(std::span<const std::byte> first) {
  return first.size() >= sizeof(kOldMagic) && std::memcmp(first.data(), kOldMagic, sizeof(kOldMagic)) == 0;
}

[[noreturn]] void refuse_torch_file(const std::string& source, const std::string& what) {
  throw ModelError("'{}': {}", source, what);
}

/// The safetensors name of the elements of a storage class; empty: it has none.
std::string dtype_of(const std::string& storage_class) {
  static const std::map<std::string, std::string> kTypes = {
      {"torch.FloatStorage", "F32"},     {"torch.DoubleStorage", "F64"}, {"torch.HalfStorage", "F16"},
      {"torch.BFloat16Storage", "BF16"}, {"torch.LongStorage", "I64"},   {"torch.IntStorage", "I32"},
      {"torch.ShortStorage", "I16"},     {"torch.CharStorage", "I8"},    {"torch.ByteStorage", "U8"},
      {"torch.BoolStorage", "BOOL"}};
  const auto found = kTypes.find(storage_class);
  return found == kTypes.end() ? "" : found->second;
}

/// What a reference of the pickle says of a storage.
struct StorageId {
  std::string key, dtype;
  uint64_t elements = 0;
};

struct TorchTensor {
  StorageId storage;
  int64_t offset = 0;
  std::vector<int64_t> shape, stride;  // in elements
};

/// The pickle of a file, read as torch.load would.
class StateDict {
 public:
  /// `key`: of the state_dict in a checkpoint; empty: it is found.
  StateDict(const Pickle& pickle, const std::string& source, const std::string& key)
      : pickle_(pickle), source_(source) {
    find(key);
  }

  const std::string& key() const { return key_; }
  const std::vector<std::string>& others() const { return others_; }

  /// The storages that tensors refer to, each once.
  std::map<std::string, StorageId> storages() const {
    std::map<std::string, StorageId> all;
    for (const PickleRef ref : pickle_.references())
      if (const std::optional<StorageId> id = storage_of(pickle_[ref])) all.emplace(id->key, *id);
    return all;
  }

  /// Names and tensors in the file's order; of equal names the last counts, as in Python.
  std::vector<std::pair<std::string, TorchTensor>> tensors() const {
    std::vector<std::pair<std::string, TorchTensor>> all;
    std::unordered_map<std::string, size_t> places;
    each_item(*dict_, [&](const std::string& name, const PickleValue& value) {
      std::optional<TorchTensor> tensor = tensor_of(value, name);
      if (!tensor) return;
      const auto [place, added] = places.try_emplace(name, all.size());
      if (added)
        all.emplace_back(name, std::move(*tensor));
      else
        all[place->second].second = std::move(*tensor);
    });
    return all;
  }

 private:
  template <typename Visit>
  void each_item(const PickleValue& dict, Visit visit) const {
    const size_t first = dict.kind == Kind::kCall ? 2 : 0;
    for (size_t i = first; i + 1 < dict.items.size(); i += 2)
      if (const PickleValue& key = pickle_[dict.items[i]]; key.kind == Kind::kText)
        visit(key.text, pickle_[dict.items[i + 1]]);
  }

  bool is_call_of(const PickleValue& v, std::string_view callable) const {
    return v.kind == Kind::kCall && pickle_[v.items[0]].kind == Kind::kGlobal && pickle_[v.items[0]].text == callable;
  }
  bool is_dict(const PickleValue& v) const { return v.kind == Kind::kDict || is_call_of(v, "collections.OrderedDict"); }
  bool is_tensor(const PickleValue& v) const {
    return v.kind == Kind::kCall && pickle_[v.items[0]].kind == Kind::kGlobal &&
           pickle_[v.items[0]].text.starts_with("torch._utils._rebuild_");
  }
  bool has_tensors(const PickleValue& dict) const {
    bool any = false;
    each_item(dict, [&](const std::string&, const PickleValue& v) { any = any || is_tensor(v); });
    return any;
  }

  /// The value that the dictionary has under the key, if that is a dictionary; the last of equal keys, as in Python.
  const PickleValue* dict_in(const PickleValue& dict, std::string_view key) const {
    const PickleValue* found = nullptr;
    each_item(dict, [&](const std::string& name, const PickleValue& v) {
      if (name == key) found = is_dict(v) ? &v : nullptr;
    });
    return found;
  }

  std::string keys_of(const PickleValue& dict) const {
    std::string keys;
    each_item(dict, [&](const std::string& key, const PickleValue&) {
      if (keys.size() < 200) keys += (keys.empty() ? "" : ", ") + quote_name(key);
    });
    return keys.empty() ? "nothing" : keys;
  }

  /// Sets dict_: the dictionary with the model's tensors, which is the file's own or one in it.
  void find(const std::string& key) {
    const PickleValue& root = pickle_.root();
    if (!is_dict(root))
      refuse_torch_file(source_,
                        "it holds a whole model or other objects of Python, which are code; save model.state_dict()");
    if (!key.empty()) return take(key);
    dict_ = &root;
    if (has_tensors(root)) return;
    each_item(root, [&](const std::string& name, const PickleValue& v) {
      if (is_dict(v) && has_tensors(v)) others_.push_back(name);
    });
    for (const char* known : {"state_dict", "model_state_dict", "model"})
      if (key_.empty() && std::find(others_.begin(), others_.end(), known) != others_.end()) key_ = known;
    if (key_.empty() && others_.size() == 1) key_ = others_.front();
    if (key_.empty() && !others_.empty())
      refuse_torch_file(source_, fmt::format("it has tensors as {}; choose with --weights-key", quote_names(others_)));
    if (key_.empty())
      refuse_torch_file(source_,
                        fmt::format("it has no tensors, nor a 'state_dict', 'model_state_dict' or 'model' with "
                                    "some (it has {}); save model.state_dict()",
                                    keys_of(root)));
    std::erase(others_, key_);
    dict_ = dict_in(root, key_);
  }

  void take(const std::string& path) {
    const PickleValue* dict = &pickle_.root();
    for (size_t at = 0; at <= path.size();) {
      const size_t end = std::min(path.find('/', at), path.size());
      const std::string part = path.substr(at, end - at);
      const PickleValue* inner = dict_in(*dict, part);
      if (inner == nullptr)
        refuse_torch_file(
            source_, fmt::format("it has no dictionary {}{}, only {}; choose another --weights-key", quote_name(part),
                                 at > 0 ? " in " + quote_name(path.substr(0, at - 1)) : "", keys_of(*dict)));
      dict = inner;
      at = end + 1;
    }
    if (!has_tensors(*dict))
      refuse_torch_file(source_, fmt::format("{} has no tensors, only {}; choose another --weights-key",
                                             quote_name(path), keys_of(*dict)));
    key_ = path;
    dict_ = dict;
  }

  std::optional<StorageId> storage_of(const PickleValue& v) const {
    if (v.kind != Kind::kReference) return std::nullopt;
    const PickleValue& id = pickle_[v.items[0]];
    if (id.kind != Kind::kTuple || id.items.size() < 5 || pickle_[id.items[0]].text != "storage") return std::nullopt;
    const PickleValue &type = pickle_[id.items[1]], &key = pickle_[id.items[2]], &count = pickle_[id.items[4]];
    if (type.kind != Kind::kGlobal || key.kind != Kind::kText || count.kind != Kind::kInt || count.number < 0)
      return std::nullopt;
    if (id.items.size() > 5 && pickle_[id.items[5]].kind != Kind::kNone) return std::nullopt;  // a view of another one
    return StorageId{key.text, dtype_of(type.text), static_cast<uint64_t>(count.number)};
  }

  std::vector<int64_t> numbers_of(const PickleValue& v, const std::string& name) const {
    std::vector<int64_t> all;
    for (const PickleRef ref : v.items)
      if (const PickleValue& n = pickle_[ref]; n.kind == Kind::kInt && n.number >= 0) all.push_back(n.number);
    if (v.kind != Kind::kTuple || all.size() != v.items.size() || all.size() > kMaxSafetensorsRank)
      refuse_torch_file(source_, fmt::format("tensor {} has a shape or stride that is none", quote_name(name)));
    return all;
  }

  /// None: the value is no tensor. Parameters are tensors in a wrapper.
  std::optional<TorchTensor> tensor_of(const PickleValue& value, const std::string& name) const {
    const PickleValue* v = &value;
    if (is_call_of(*v, "torch._utils._rebuild_parameter")) {
      const PickleValue& arguments = pickle_[v->items[1]];
      if (arguments.items.empty()) refuse_torch_file(source_, fmt::format("parameter {} is empty", quote_name(name)));
      v = &pickle_[arguments.items[0]];
    }
    if (!is_tensor(*v)) return std::nullopt;
    const PickleValue& arguments = pickle_[v->items[1]];
    const bool known =
        is_call_of(*v, "torch._utils._rebuild_tensor_v2") || is_call_of(*v, "torch._utils._rebuild_tensor");
    if (!known || arguments.kind != Kind::kTuple || arguments.items.size() < 4)
      refuse_torch_file(source_,
                        fmt::format("tensor {} is made by {}, which is not known here; save it as a plain tensor",
                                    quote_name(name), quote_name(pickle_[v->items[0]].text)));
    const std::optional<StorageId> storage = storage_of(pickle_[arguments.items[0]]);
    const PickleValue& offset = pickle_[arguments.items[1]];
    if (!storage || offset.kind != Kind::kInt || offset.number < 0)
      refuse_torch_file(source_, fmt::format("tensor {} has no storage that can be read", quote_name(name)));
    return TorchTensor{.storage = *storage,
                       .offset = offset.number,
                       .shape = numbers_of(pickle_[arguments.items[2]], name),
                       .stride = numbers_of(pickle_[arguments.items[3]], name)};
  }

  const Pickle& pickle_;
  const std::string& source_;
  const PickleValue* dict_ = nullptr;
  std::string key_;
  std::vector<std::string> others_;
};

bool is_row_major(const TorchTensor& t) {
  int64_t expected = 1;
  for (size_t d = t.shape.size(); d-- > 0; expected *= t.shape[d])
    if (t.shape[d] != 1 && t.stride[d] != expected) return false;
  return true;
}

/// The bytes of a tensor's elements, dense. Its elements lie within its storage, and are at most as many.
std::vector<std::byte> dense(const TorchTensor& t, std::span<const std::byte> storage, const std::string& source,
                             const std::string& name) {
  const auto beyond = [&] {
    refuse_torch_file(source, fmt::format("tensor {} reaches beyond its storage; use another copy", quote_name(name)));
  };
  if (t.storage.dtype.empty())
    refuse_torch_file(source,
                      fmt::format("tensor {} is of a type that cannot be used here; store it as float32, float16, "
                                  "bfloat16 or float64",
                                  quote_name(name)));
  const auto element = static_cast<uint64_t>(safetensors_dtype_bits(t.storage.dtype)) / 8;
  uint64_t bytes = 0;
  if (t.shape.size() != t.stride.size() || !tensor_bytes(t.storage.dtype, t.shape, bytes)) beyond();
  if (storage.size() / element < t.storage.elements) beyond();
  if (bytes > t.storage.elements * element)
    refuse_torch_file(source, fmt::format("tensor {} repeats what it stores; save it contiguous", quote_name(name)));
  std::vector<std::byte> result(bytes);
  if (bytes == 0) return result;
  // The last element's place: no product can overflow that stays within the storage.
  uint64_t last = static_cast<uint64_t>(t.offset);
  for (size_t d = 0; d < t.shape.size(); ++d) {
    const auto steps = static_cast<uint64_t>(t.shape[d] - 1), stride = static_cast<uint64_t>(t.stride[d]);
    if (last >= t.storage.elements || (steps > 0 && stride > (t.storage.elements - 1 - last) / steps)) beyond();
    last += steps * stride;
  }
  if (last >= t.storage.elements) beyond();
  auto at = static_cast<uint64_t>(t.offset);
  if (is_row_major(t)) {
    std::memcpy(result.data(), storage.data() + at * element, bytes);
    return result;
  }
  std::vector<int64_t> index(t.shape.size(), 0);
  for (uint64_t to = 0; to < bytes; to += element) {
    std::memcpy(result.data() + to, storage.data() + at * element, element);
    for (size_t d = t.shape.size(); d-- > 0;) {
      at += static_cast<uint64_t>(t.stride[d]);
      if (++index[d] < t.shape[d]) break;
      at -= static_cast<uint64_t>(t.stride[d]) * static_cast<uint64_t>(t.shape[d]);
      index[d] = 0;
    }
  }
  return result;
}

using Storages = std::map<std::string, std::span<const std::byte>>;

TorchWeights collect(const StateDict& dict, const Storages& storages, uint64_t file_bytes, const std::string& source) {
  std::vector<RawTensor> all;
  uint64_t total = 0;
  for (const auto& [name, t] : dict.tensors()) {
    const auto storage = storages.find(t.storage.key);
    if (storage == storages.end())
      refuse_torch_file(source, fmt::format("the storage of tensor {} is missing; use another copy", quote_name(name)));
    all.push_back({name, t.storage.dtype, t.shape, dense(t, storage->second, source, name)});
    total += all.back().bytes.size();
    // Tied weights are in a file once; no model has all of its own twice.
    if (total / 2 > file_bytes)
      refuse_torch_file(source, "its tensors share their bytes many times; no state_dict does");
  }
  return {SafetensorsFile::of(std::move(all), source, file_bytes), dict.key(), dict.others()};
}

TorchWeights read_archive(std::span<const std::byte> file, const std::string& source, const std::string& key) {
  constexpr std::string_view kPickle = "/data.pkl";
  const ZipArchive archive(file, source);
  std::string folder;
  for (const auto& [name, entry] : archive.entries())
    if (name.ends_with(kPickle) && name.find('/') + kPickle.size() == name.size())
      folder = name.substr(0, name.find('/') + 1);
  if (folder.empty()) refuse_torch_file(source, "it is a zip archive, but none of PyTorch: it has no data.pkl");
  if (archive.has(folder + "byteorder")) {
    const std::span<const std::byte> order = archive.read(folder + "byteorder");
    if (std::string_view(reinterpret_cast<const char*>(order.data()), order.size()) != "little")
      refuse_torch_file(source, kBigEndian);
  }
  const std::span<const std::byte> bytes = archive.read(folder + "data.pkl");
  if (bytes.size() > kLongestPickle) refuse_torch_file(source, "its data.pkl is longer than that of any model");
  const Pickle pickle(bytes, source);
  const StateDict dict(pickle, source, key);
  Storages storages;
  for (const auto& [name, t] : dict.tensors())
    if (!storages.contains(t.storage.key))
      storages.emplace(t.storage.key, archive.read(folder + "data/" + t.storage.key));
  return collect(dict, storages, file.size(), source);
}

uint64_t little_endian(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
  return value;
}

/// `machine`: a dictionary about the machine that saved the file.
void refuse_big_endian(const Pickle& machine, const std::string& source) {
  const std::vector<PickleRef>& items = machine.root().items;
  for (size_t i = 0; i + 1 < items.size(); i += 2)
    if (machine[items[i]].text == "little_endian" && machine[items[i + 1]].number == 0)
      refuse_torch_file(source, kBigEndian);
}

/// Five pickles (magic number, version, machine, the object, the keys of its storages), then the storages: a count of
/// elements each, and the elements.
TorchWeights read_old_file(std::span<const std::byte> file, const std::string& source, const std::string& key) {
  size_t at = 0;
  const auto next = [&] {
    const Pickle pickle(file.subspan(at, std::min(file.size() - at, kLongestPickle)), source);
    at += pickle.bytes();
    return pickle;
  };
  next();  // the magic number
  if (next().root().number != 1001) refuse_torch_file(source, "it is of a version of torch.save not known here");
  refuse_big_endian(next(), source);
  const Pickle object = next(), keys = next();
  const StateDict dict(object, source, key);
  const std::map<std::string, StorageId> ids = dict.storages();
  Storages storages;
  for (const PickleRef ref : keys.root().items) {
    const auto id = ids.find(keys[ref].text);
    if (id == ids.end() || id->second.dtype.empty())
      refuse_torch_file(source, "it has a storage of no known type; use another copy");
    const auto element = static_cast<uint64_t>(safetensors_dtype_bits(id->second.dtype)) / 8;
    if (file.size() - at < 8) refuse_torch_file(source, "it is cut; use another copy");
    const uint64_t elements = little_endian(file.subspan(at, 8));
    at += 8;
    if (elements != id->second.elements || elements > (file.size() - at) / element)
      refuse_torch_file(source,
                        fmt::format("the storage {} is cut or of another size than its tensors say; use another copy",
                                    quote_name(id->first)));
    storages.emplace(id->first, file.subspan(at, elements * element));
    at += elements * element;
  }
  return collect(dict, storages, file.size(), source);
}

}  // namespace

bool is_torch_file(std::span<const std::byte> first) {
  return is_zip(first) || is_old_torch_file(first);
}

TorchWeights read_torch_file(std::span<const std::byte> file, const std::string& source, const std::string& key) {
  if (is_zip(file)) return read_archive(file, source, key);
  if (is_old_torch_file(file)) return read_old_file(file, source, key);
  throw ModelError("'{}' is no file of torch.save", source);
}

}  // namespace nibble
