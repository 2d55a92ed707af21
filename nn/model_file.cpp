#include "nn/model_file.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/utf8.hpp"
#include "nn/json_text.hpp"
#include "nn/network_json.hpp"
#include "nn/safetensors_header.hpp"

namespace nibble {

namespace {

/// Of all class names: 100,000 classes of 255 bytes, the longest name of a folder, take 25 MB.
constexpr size_t kLongestClasses = size_t{32} << 20;

Tensor usage_to_tensor(const QuantizerUsage& usage) {
  const Tensor t(DType::s32, {static_cast<int64_t>(usage.codes.size()) + 1});
  const auto narrow = [](int64_t n) { return static_cast<int32_t>(std::min<int64_t>(n, INT32_MAX)); };
  std::transform(usage.codes.begin(), usage.codes.end(), t.data<int32_t>(), narrow);
  t.data<int32_t>()[usage.codes.size()] = narrow(usage.clipped);
  return t;
}

QuantizerUsage usage_from_tensor(const SafetensorsFile& file, const std::string& name, const QuantizerSpec& spec) {
  const TensorEntry& e = file.entry(name);
  const int64_t codes = spec.is_signed ? (int64_t{1} << spec.bits) - 1 : int64_t{1} << spec.bits;
  if (e.dtype != "I32" || e.shape != std::vector<int64_t>{codes + 1})
    throw ModelError("{}: tensor {} is {} {}, the network needs I32 [{}]", file.source(), name, e.dtype, e.shape_text(),
                     codes + 1);
  const Tensor t = file.tensor(name);
  QuantizerUsage usage;
  for (int64_t i = 0; i <= codes; ++i) {
    const int32_t n = t.data<int32_t>()[i];
    if (n < 0) throw ModelError("{}: tensor {} holds {}, counts are not negative", file.source(), name, n);
    if (i == codes) {
      usage.clipped = n;
      break;
    }
    usage.codes.push_back(n);
    usage.total += n;
  }
  return usage;
}

}  // namespace

Network read_network(const SafetensorsFile& file) {
  try {
    return build_resnet(network_options_from_json(file.metadata_value("nibble.network"), file.source()));
  } catch (const UsageError& e) {
    throw ModelError("{}: its network cannot be built: {}", file.source(), shortened(e.what()));
  }
}

void add_usage(SafetensorsWriter& writer, const QuantizedNetwork& model) {
  for (size_t q = 0; q < model.usage.size(); ++q)
    writer.add(model.network.quantizers[q].name + ".usage", usage_to_tensor(model.usage[q]));
}

std::vector<QuantizerUsage> read_usage(TensorReader& reader, const Network& network) {
  const SafetensorsFile& file = reader.file();
  std::vector<QuantizerUsage> usage;
  for (const QuantizerSpec& spec : network.quantizers) {
    const std::string name = spec.name + ".usage";
    if (file.find(name) == nullptr) continue;
    usage.push_back(usage_from_tensor(file, name, spec));
    reader.mark(name);
  }
  if (!usage.empty() && usage.size() != network.quantizers.size())
    throw ModelError("{}: code counts of some quantizers are missing although others have theirs", file.source());
  return usage;
}

void require_bounds(const SafetensorsFile& file, const std::string& quantizer, const std::vector<float>& bound) {
  for (const float b : bound)
    if (!(b > 0 && b <= kLargestBound))
      throw ModelError("{}: tensor {}.bound holds {}, bounds are positive and at most {}", file.source(), quantizer, b,
                       kLargestBound);
}

std::vector<std::string> read_class_names(const SafetensorsFile& file, int64_t classes) {
  std::vector<std::string> names =
      strings_from_json(file.metadata_value("nibble.classes", kLongestClasses), file.source());
  if (!names.empty() && static_cast<int64_t>(names.size()) != classes)
    throw ModelError("{}: nibble.classes has {} names, its network {} classes", file.source(), names.size(), classes);
  return names;
}

std::string strings_to_json(const std::vector<std::string>& strings) {
  return json_text(nlohmann::json(strings));
}

std::vector<std::string> strings_from_json(const std::string& text, const std::string& source) {
  try {
    return parse_json(text).get<std::vector<std::string>>();
  } catch (const nlohmann::json::exception& e) {
    throw ModelError("{}: a list of names in its header cannot be read ({})", source, shortened(e.what()));
  }
}

ModelFileKind kind_of(const SafetensorsFile& file) {
  const auto found = file.metadata().find("nibble.format");
  if (found == file.metadata().end()) return ModelFileKind::kForeign;
  if (found->second == "checkpoint") return ModelFileKind::kCheckpoint;
  if (found->second == "served") return ModelFileKind::kServed;
  throw ModelError("{}: nibble.format is {}; this program reads 'checkpoint' and 'served'", file.source(),
                   quote_name(found->second));
}

void require_version(const SafetensorsFile& file) {
  const std::string& version = file.metadata_value("nibble.version");
  if (version != kFormatVersion)
    throw ModelError(
        "{}: format version {} is not readable by this program, which reads version {}; use the nibble "
        "that made it",
        file.source(), quote_name(version), kFormatVersion);
  if (!file.integrity())
    throw ModelError("{}: the checksums of its tensors are missing; the file was rewritten by another program",
                     file.source());
}

}  // namespace nibble
