// The served file: packed codes and final numbers, a valid safetensors file, the same on every machine.
//
// Per layer: <layer>.weight - U8 [oc, ceil(k/2)] nibbles (4 bits; low nibble first, rows OHWI), I8 [oc, kh, kw, ic]
// (8 bits) or BF16 [oc, kh, kw, ic] - <layer>.weight_scale F32 [oc], <layer>.m and <layer>.a F32 [oc]; per quantizer
// <quantizer>.bound F32 [channels] and, once counted, <quantizer>.usage I32. Metadata: nibble.format = "served",
// nibble.version, nibble.network, nibble.classes, nibble.notes, and per quantized layer nibble.<layer>.weight =
// {"q":"s4","order":"OHWI","pack":"lo-first","shape":[...]}.
#pragma once
#include <filesystem>

#include "nn/model_file.hpp"
#include "nn/runtime/served_model.hpp"

namespace nibble {

struct ServedFileSizes {
  uint64_t file_bytes = 0;
  uint64_t weight_bytes = 0;          // all <layer>.weight tensors
  std::vector<uint64_t> layer_bytes;  // per unit: oc * ceil(k/2) for 4 bits, oc * k for 8, 2 * oc * k for bf16
};

/// ModelError for a model whose activations are to be quantized and are not yet.
void require_calibrated(const QuantizedNetwork& model);

/// Writes atomically. ModelError for uncalibrated integer models, whose activations are not quantized yet, and for
/// names that the format cannot hold; DiskError when it cannot be written. `check` sees the complete file before it
/// takes the name `path`; when it throws, what was there stays.
ServedFileSizes save_served(const std::filesystem::path& path, const ServedModel& model, const FileCheck& check = {});

/// What the file of save_served will contain, without writing it.  Cost: packs and checksums the whole model.
ServedFileSizes served_sizes(const ServedModel& model);

/// Checks everything before use; ModelError names the file and the section.
ServedModel load_served(const std::filesystem::path& path);
ServedModel load_served(const SafetensorsFile& file);

/// Bytes of one layer's weights in the file.
uint64_t served_weight_bytes(const UnitSpec& unit);

}  // namespace nibble
