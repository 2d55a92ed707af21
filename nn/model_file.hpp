// What both kinds of model file, checkpoint and served, say in the same way: kind, version, network, names of the
// classes, bounds and code counts.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "nn/quantized_network.hpp"
#include "nn/safetensors.hpp"
#include "nn/tensor_reader.hpp"

namespace nibble {

inline constexpr const char* kFormatVersion = "1";

enum class ModelFileKind { kCheckpoint, kServed, kForeign };
/// By content: nibble.format in the metadata. ModelError for a nibble.format that this version does not know.
ModelFileKind kind_of(const SafetensorsFile& file);
/// Throws ModelError unless the file is of this format's version.
void require_version(const SafetensorsFile& file);

/// The network that nibble.network describes; ModelError when it cannot be built.
Network read_network(const SafetensorsFile& file);

/// What make_activation_quantizer asks of bounds, refused with a ModelError that names file and tensor.
void require_bounds(const SafetensorsFile& file, const std::string& quantizer, const std::vector<float>& bound);

/// Code counts, <quantizer>.usage I32 [codes + 1], the clipped count last. For all quantizers or none: ModelError
/// otherwise, and for tensors that cannot be counts.
void add_usage(SafetensorsWriter& writer, const QuantizedNetwork& model);
std::vector<QuantizerUsage> read_usage(TensorReader& reader, const Network& network);

/// JSON array of strings and back; ModelError naming `source`.
std::string strings_to_json(const std::vector<std::string>& strings);
std::vector<std::string> strings_from_json(const std::string& text, const std::string& source);
/// nibble.classes: one name per class, or none at all; ModelError.
std::vector<std::string> read_class_names(const SafetensorsFile& file, int64_t classes);

}  // namespace nibble
