#include "nn/runtime/served_file.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "engine/utf8.hpp"
#include "nn/json_text.hpp"
#include "nn/network_json.hpp"
#include "nn/safetensors_header.hpp"
#include "nn/tensor_reader.hpp"

namespace nibble {

namespace {

std::string packing_note(const UnitSpec& unit) {
  const ConvShape& s = unit.shape;
  nlohmann::ordered_json j;
  j["q"] = unit.precision.weight_bits == 4 ? "s4" : "s8";
  j["order"] = "OHWI";
  if (unit.precision.weight_bits == 4) j["pack"] = "lo-first";
  j["shape"] = {s.oc, s.kh, s.kw, s.ic};
  return json_text(j);
}

/// Rows of k codes -> rows of ceil(k/2) bytes.
Tensor pack_rows(const Tensor& codes, int64_t oc, int64_t k) {
  const Tensor out(DType::u8, {oc, (k + 1) / 2});
  parallel_for(oc,
               [&](int64_t o) { kernels::active().ew.pack_s4(codes.data<int8_t>() + o * k, k, out.row<uint8_t>(o)); });
  return out;
}

Tensor unpack_rows(const Tensor& packed, const ConvShape& s) {
  const Tensor out(DType::s8, {s.oc, s.kh, s.kw, s.ic});
  const int64_t k = s.k();
  parallel_for(
      s.oc, [&](int64_t o) { kernels::active().ew.unpack_s4(packed.row<uint8_t>(o), k, out.data<int8_t>() + o * k); });
  return out;
}

Tensor to_bf16_tensor(const Tensor& w) {
  const Tensor out(DType::bf16, w.shape());
  for (int64_t i = 0; i < w.size(); ++i) out.data<bf16>()[i] = to_bf16(w.data<float>()[i]);
  return out;
}

void expect(TensorReader& reader, const std::string& name, const char* dtype, const std::vector<int64_t>& shape) {
  const TensorEntry& e = reader.file().entry(name);
  if (e.dtype != dtype || e.shape != shape)
    throw ModelError("{}: tensor {} is {} {}, the network needs {} [{}]", reader.file().source(), name, e.dtype,
                     e.shape_text(), dtype, fmt::join(shape, ","));
  reader.mark(name);
}

std::vector<float> read_floats(TensorReader& reader, const std::string& name, int64_t n) {
  expect(reader, name, "F32", {n});
  return reader.floats(name, n);
}

void read_weights(TensorReader& reader, const UnitSpec& unit, ServedLayer& layer) {
  const SafetensorsFile& file = reader.file();
  const ConvShape& s = unit.shape;
  const std::string name = unit.name + ".weight";
  if (unit.precision.weight_bits == 16) {
    expect(reader, name, "BF16", {s.oc, s.kh, s.kw, s.ic});
    layer.weights = file.finite_tensor_f32(name);
    return;
  }
  layer.codes.bits = unit.precision.weight_bits;
  const std::string& note = file.metadata_value("nibble." + name);
  if (note != packing_note(unit))
    throw ModelError("{}: nibble.{} is {}, the network needs {}", file.source(), name, quote_name(note),
                     packing_note(unit));
  if (unit.precision.weight_bits == 4) {
    expect(reader, name, "U8", {s.oc, (s.k() + 1) / 2});
    layer.codes.codes = unpack_rows(file.tensor(name), s);
  } else {
    expect(reader, name, "I8", {s.oc, s.kh, s.kw, s.ic});
    layer.codes.codes = file.tensor(name);
  }
  layer.codes.scale = read_floats(reader, unit.name + ".weight_scale", s.oc);
  for (float v : layer.codes.scale)
    if (!(v > 0))
      throw ModelError("{}: tensor {}.weight_scale holds {}, scales are positive", file.source(), unit.name, v);
}

/// Everything that the file holds; file_bytes is not known yet.
struct Contents {
  SafetensorsWriter writer;
  ServedFileSizes sizes;
};

Contents contents_of(const ServedModel& model) {
  const Network& net = model.network;
  require_calibrated(model);
  Contents contents;
  auto& [writer, sizes] = contents;
  writer.set_metadata("nibble.format", "served");
  writer.set_metadata("nibble.version", kFormatVersion);
  writer.set_metadata("nibble.network", network_options_to_json(net.options));
  writer.set_metadata("nibble.classes", strings_to_json(model.class_names));
  writer.set_metadata("nibble.notes", json_text(nlohmann::json(model.notes)));
  for (size_t u = 0; u < net.units.size(); ++u) {
    const UnitSpec& unit = net.units[u];
    const ServedLayer& layer = model.layers[u];
    const std::string name = unit.name + ".weight";
    if (unit.precision.weight_bits == 16) {
      writer.add(name, to_bf16_tensor(layer.weights));
    } else {
      writer.set_metadata("nibble." + name, packing_note(unit));
      writer.add(unit.name + ".weight_scale", vector_tensor(layer.codes.scale));
      writer.add(name, unit.precision.weight_bits == 4 ? pack_rows(layer.codes.codes, unit.shape.oc, unit.shape.k())
                                                       : layer.codes.codes);
    }
    writer.add(unit.name + ".m", vector_tensor(layer.affine.m));
    writer.add(unit.name + ".a", vector_tensor(layer.affine.a));
    sizes.layer_bytes.push_back(served_weight_bytes(unit));
    sizes.weight_bytes += sizes.layer_bytes.back();
  }
  for (size_t q = 0; q < model.quantizers.size(); ++q)
    writer.add(net.quantizers[q].name + ".bound", vector_tensor(model.quantizers[q].bound));
  add_usage(writer, model);
  return contents;
}

}  // namespace

void require_calibrated(const QuantizedNetwork& model) {
  if (model.calibration_pending())
    throw ModelError(
        "the model is not calibrated yet: its activations are still bf16, so there is no integer model to "
        "export; train past --calibrate-at first");
}

uint64_t served_weight_bytes(const UnitSpec& unit) {
  const uint64_t oc = static_cast<uint64_t>(unit.shape.oc), k = static_cast<uint64_t>(unit.shape.k());
  if (unit.precision.weight_bits == 4) return oc * ((k + 1) / 2);
  return oc * k * (unit.precision.weight_bits == 8 ? 1 : 2);
}

ServedFileSizes save_served(const std::filesystem::path& path, const ServedModel& model, const FileCheck& check) {
  Contents contents = contents_of(model);
  contents.sizes.file_bytes = contents.writer.write(path, check);
  return contents.sizes;
}

ServedFileSizes served_sizes(const ServedModel& model) {
  Contents contents = contents_of(model);
  contents.sizes.file_bytes = contents.writer.bytes();
  return contents.sizes;
}

ServedModel load_served(const std::filesystem::path& path) {
  return load_served(SafetensorsFile::open(path));
}

ServedModel load_served(const SafetensorsFile& file) {
  if (kind_of(file) != ModelFileKind::kServed)
    throw ModelError("{} is not a served model; make one with nibble export", file.source());
  require_version(file);
  const FloatModeScope mode;
  ServedModel model;
  model.network = read_network(file);
  if (!is_servable(model.network))
    throw ModelError("{}: its network multiplies dequantized values (quant_mode fake), which is never served",
                     file.source());
  model.class_names = read_class_names(file, model.network.options.classes);
  try {
    model.notes = parse_json(file.metadata_value("nibble.notes")).get<std::map<std::string, std::string>>();
  } catch (const nlohmann::json::exception& e) {
    throw ModelError("{}: nibble.notes cannot be read ({})", file.source(), shortened(e.what()));
  }
  TensorReader reader(file);
  for (const UnitSpec& unit : model.network.units) {
    ServedLayer& layer = model.layers.emplace_back();
    read_weights(reader, unit, layer);
    layer.affine.m = read_floats(reader, unit.name + ".m", unit.shape.oc);
    layer.affine.a = read_floats(reader, unit.name + ".a", unit.shape.oc);
  }
  for (const QuantizerSpec& spec : model.network.quantizers) {
    const std::vector<float> bound = read_floats(reader, spec.name + ".bound", spec.channels);
    require_bounds(file, spec.name, bound);
    model.quantizers.push_back(
        make_activation_quantizer(bound, spec.bits, spec.is_signed, factor_form(spec), spec.scheme));
  }
  model.usage = read_usage(reader, model.network);
  reader.require_all_seen();
  return model;
}

}  // namespace nibble
