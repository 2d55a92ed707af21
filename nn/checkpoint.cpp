#include "nn/checkpoint.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <charconv>

#include "engine/parallel.hpp"
#include "nn/import/weights_file.hpp"
#include "nn/network_json.hpp"
#include "nn/safetensors_header.hpp"
#include "nn/tensor_reader.hpp"

namespace nibble {

namespace {

/// [oc, kh, kw, ic] -> [oc, ic, kh, kw]; a linear layer becomes [oc, ic].
Tensor to_oihw(const Tensor& w, bool linear) {
  const int64_t oc = w.dim(0), kh = w.dim(1), kw = w.dim(2), ic = w.dim(3);
  if (linear) return w.reshape({oc, ic});
  const Tensor out(DType::f32, {oc, ic, kh, kw});
  parallel_for(oc, [&](int64_t o) {
    const float* from = w.data<float>() + o * kh * kw * ic;
    float* to = out.data<float>() + o * kh * kw * ic;
    for (int64_t t = 0; t < kh * kw; ++t)
      for (int64_t i = 0; i < ic; ++i) to[i * kh * kw + t] = from[t * ic + i];
  });
  return out;
}

Tensor to_ohwi(const Tensor& w, const ConvShape& s) {
  const Tensor out(DType::f32, {s.oc, s.kh, s.kw, s.ic});
  const int64_t taps = s.taps();
  parallel_for(s.oc, [&](int64_t o) {
    const float* from = w.data<float>() + o * taps * s.ic;
    float* to = out.data<float>() + o * taps * s.ic;
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t i = 0; i < s.ic; ++i) to[t * s.ic + i] = from[i * taps + t];
  });
  return out;
}

/// Calls visit(name, tensor, is_kernel) for every parameter of a unit, with its name in files.
template <typename Parameters, typename Visit>
void each_parameter(const UnitSpec& unit, Parameters& p, const Visit& visit) {
  visit(unit.name + ".weight", p.weights, true);
  if (unit.norm_name.empty()) {
    visit(unit.name + ".bias", p.bias, false);
  } else {
    visit(unit.norm_name + ".weight", p.gamma, false);
    visit(unit.norm_name + ".bias", p.beta, false);
  }
}

template <typename Parameters, typename Visit>
void each_statistic(const UnitSpec& unit, Parameters& p, const Visit& visit) {
  if (unit.norm_name.empty()) return;
  visit(unit.norm_name + ".running_mean", p.running_mean);
  visit(unit.norm_name + ".running_var", p.running_variance);
}

Tensor read_kernel(TensorReader& reader, const std::string& name, const UnitSpec& unit) {
  const ConvShape& s = unit.shape;
  const std::vector<int64_t> expected =
      unit.kind == UnitKind::kLinear ? std::vector<int64_t>{s.oc, s.ic} : std::vector<int64_t>{s.oc, s.ic, s.kh, s.kw};
  const SafetensorsFile& file = reader.file();
  const TensorEntry& e = file.entry(name);
  if (e.shape != expected)
    throw ModelError("{}: tensor {} is {}, the network needs [{}]; was it made with another arch or width?",
                     file.source(), name, e.shape_text(), fmt::join(expected, ","));
  reader.mark(name);
  return to_ohwi(file.finite_tensor_f32(name), s);
}

void read_unit(TensorReader& reader, const UnitSpec& unit, const std::string& prefix, UnitParameters& p) {
  each_parameter(unit, p, [&](const std::string& name, Tensor& t, bool is_kernel) {
    t = is_kernel ? read_kernel(reader, prefix + name, unit) : reader.vector(prefix + name, unit.shape.oc);
  });
}

void read_statistics(TensorReader& reader, const SafetensorsFile& file, const UnitSpec& unit, UnitParameters& p) {
  each_statistic(unit, p, [&](const std::string& name, Tensor& t) { t = reader.vector(name, unit.shape.oc); });
  if (!p.running_variance.defined()) return;
  for (int64_t c = 0; c < unit.shape.oc; ++c)
    if (p.running_variance.data<float>()[c] < 0)
      throw ModelError("{}: tensor {}.running_var holds {}, variances are not negative", file.source(), unit.norm_name,
                       p.running_variance.data<float>()[c]);
}

void read_calibration(TensorReader& reader, const SafetensorsFile& file, const QuantizerSpec& spec, Calibration& c) {
  c.mean_of_max = reader.floats(spec.name + ".mean_of_max", spec.channels);
  c.weight = reader.floats(spec.name + ".ema_weight", spec.channels);
  for (const float m : c.mean_of_max)
    if (m < 0)
      throw ModelError("{}: tensor {}.mean_of_max holds {}, maxima are not negative", file.source(), spec.name, m);
  for (const float w : c.weight)
    if (!(w >= 0 && w <= 1))
      throw ModelError("{}: tensor {}.ema_weight holds {}, weights lie between 0 and 1", file.source(), spec.name, w);
  if (file.find(spec.name + ".bound") == nullptr) return;
  c.bound = reader.floats(spec.name + ".bound", spec.channels);
  require_bounds(file, spec.name, c.bound);
}

/// Why the head of given weights is of no use for these classes; empty: it is usable. Files from elsewhere name no
/// classes.
std::string why_not_this_head(const SafetensorsFile& file, const UnitSpec& head,
                              const std::vector<std::string>& class_names) {
  const TensorEntry* e = file.find(head.name + ".weight");
  if (e == nullptr) {
    for (const TensorEntry& other : file.entries())
      if (other.name.starts_with(head.name + ".") && other.name.ends_with(".weight"))
        return fmt::format("{} has no {}.weight but {} and others", file.source(), head.name, quote_name(other.name));
    return fmt::format("{} has no {}.weight", file.source(), head.name);
  }
  if (e->shape.empty() || e->shape.front() != head.shape.oc)
    return fmt::format("{} has {} classes, not {}", file.source(), e->shape.empty() ? 0 : e->shape.front(),
                       head.shape.oc);
  if (class_names.empty() || kind_of(file) != ModelFileKind::kCheckpoint) return "";
  const std::vector<std::string> names = read_class_names(file, head.shape.oc);
  return names.empty() || names == class_names ? "" : fmt::format("the classes of {} have other names", file.source());
}

/// Every tensor of a resnet50 is also in a resnet101: what is left over in the stages tells them apart.
void require_no_deeper_network(const TensorReader& reader, const Network& network) {
  for (const TensorEntry& e : reader.file().entries())
    if (e.name.starts_with("layer") && e.name.ends_with(".weight") && !reader.has_seen(e.name))
      throw ModelError("{} has {}, which {} lacks: it is another network's; give the --arch it was made for",
                       reader.file().source(), quote_name(e.name), network.options.arch);
}

/// A bias of a convolution, say, would be left out of the model without a word. The head may be fresh.
void require_no_foreign_tensors(const TensorReader& reader, const Network& network) {
  if (kind_of(reader.file()) != ModelFileKind::kForeign) return;  // a checkpoint has momentum and bounds, too
  const std::string head = network.units.back().name + ".";
  for (const TensorEntry& e : reader.file().entries())
    if (!reader.has_seen(e.name) && !e.name.ends_with(".num_batches_tracked") && !e.name.starts_with(head))
      throw ModelError(
          "{} has {}, which torchvision's {} lacks: the model would not be what it was; fold it into the "
          "layers there are, or remove it if it has no part in the model",
          reader.file().source(), quote_name(e.name), network.options.arch);
}

void refuse_basic_blocks(const SafetensorsFile& file) {
  const auto is_third = [](const TensorEntry& e) { return e.name.ends_with(".conv3.weight"); };
  if (file.find("layer1.0.conv2.weight") != nullptr &&
      std::none_of(file.entries().begin(), file.entries().end(), is_third))
    throw ModelError(
        "{} is a network of basic blocks, such as ResNet-18 and 34; give one of bottlenecks (resnet50, resnet101, "
        "resnet152)",
        file.source());
}

/// Bounds are written all at once: a file with some of them is damaged, and would otherwise count as not calibrated.
void require_all_bounds_or_none(const SafetensorsFile& file, const Model& model) {
  const std::vector<Calibration>& all = model.calibration;
  const auto bare = std::find_if(all.begin(), all.end(), [](const Calibration& c) { return c.bound.empty(); });
  if (bare == all.end() || std::all_of(all.begin(), all.end(), [](const Calibration& c) { return c.bound.empty(); }))
    return;
  throw ModelError("{}: tensor {}.bound is missing although other quantizers have theirs", file.source(),
                   model.network.quantizers[static_cast<size_t>(bare - all.begin())].name);
}

int64_t parse_steps(const SafetensorsFile& file) {
  const std::string& text = file.metadata_value("nibble.steps");
  int64_t steps = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), steps);
  if (error != std::errc() || end != text.data() + text.size() || steps < 0)
    throw ModelError("{}: nibble.steps is {}, not a step number", file.source(), quote_name(text));
  return steps;
}

}  // namespace

uint64_t save_checkpoint(const std::filesystem::path& path, const Model& model, const Gradients& momentum,
                         int64_t steps_done, const std::string& run, const std::vector<std::string>& class_names) {
  SafetensorsWriter writer;
  writer.set_metadata("nibble.format", "checkpoint");
  writer.set_metadata("nibble.version", kFormatVersion);
  writer.set_metadata("nibble.network", network_options_to_json(model.network.options));
  writer.set_metadata("nibble.steps", std::to_string(steps_done));
  writer.set_metadata("nibble.run", run);
  writer.set_metadata("nibble.classes", strings_to_json(class_names));
  for (size_t u = 0; u < model.units.size(); ++u) {
    const UnitSpec& unit = model.network.units[u];
    const bool linear = unit.kind == UnitKind::kLinear;
    for (const bool is_momentum : {false, true}) {
      each_parameter(unit, is_momentum ? momentum.units[u] : model.units[u],
                     [&](const std::string& name, const Tensor& t, bool is_kernel) {
                       writer.add((is_momentum ? "momentum." : "") + name, is_kernel ? to_oihw(t, linear) : t);
                     });
    }
    each_statistic(unit, model.units[u], [&](const std::string& name, const Tensor& t) { writer.add(name, t); });
  }
  for (size_t q = 0; q < model.calibration.size(); ++q) {
    const std::string& name = model.network.quantizers[q].name;
    const Calibration& c = model.calibration[q];
    writer.add(name + ".mean_of_max", vector_tensor(c.mean_of_max));
    writer.add(name + ".ema_weight", vector_tensor(c.weight));
    if (!c.bound.empty()) writer.add(name + ".bound", vector_tensor(c.bound));
  }
  add_usage(writer, model);
  return writer.write(path);
}

Checkpoint load_checkpoint(const std::filesystem::path& path) {
  return load_checkpoint(SafetensorsFile::open(path));
}

Checkpoint load_checkpoint(const SafetensorsFile& file) {
  if (kind_of(file) != ModelFileKind::kCheckpoint)
    throw ModelError("{} is not a checkpoint; give a file from a run's checkpoints folder", file.source());
  require_version(file);
  Checkpoint c;
  c.model.network = read_network(file);
  c.steps_done = parse_steps(file);
  c.run = file.metadata_value("nibble.run");
  c.class_names = read_class_names(file, c.model.network.options.classes);
  TensorReader reader(file);
  for (const UnitSpec& unit : c.model.network.units) {
    UnitParameters p, m;
    read_unit(reader, unit, "", p);
    read_unit(reader, unit, "momentum.", m);
    read_statistics(reader, file, unit, p);
    c.model.units.push_back(std::move(p));
    c.momentum.units.push_back(std::move(m));
  }
  for (const QuantizerSpec& spec : c.model.network.quantizers)
    read_calibration(reader, file, spec, c.model.calibration.emplace_back());
  require_all_bounds_or_none(file, c.model);
  c.model.usage = read_usage(reader, c.model.network);
  reader.require_all_seen();
  rebuild_quantizers(c.model);
  return c;
}

GivenWeights load_torchvision_weights(const std::filesystem::path& path, Model& model,
                                      const std::vector<std::string>& class_names, const WeightsChoice& choice) {
  const Weights weights = open_weights(path, choice);
  const SafetensorsFile& file = weights.file;
  if (kind_of(file) == ModelFileKind::kServed)
    throw ModelError("{} is a served model, whose weights are codes; give the checkpoint it was exported from",
                     file.source());
  refuse_basic_blocks(file);
  TensorReader reader(file);
  GivenWeights given;
  given.note = weights.note;
  std::vector<UnitParameters> units;  // the model changes only when all of them are there
  for (size_t u = 0; u < model.units.size(); ++u) {
    const UnitSpec& unit = model.network.units[u];
    units.push_back(model.units[u]);
    if (unit.kind == UnitKind::kLinear) {
      given.because = why_not_this_head(file, unit, class_names);
      if (!given.because.empty()) {
        given.fresh = unit.name;
        continue;
      }
    }
    read_unit(reader, unit, "", units.back());
    read_statistics(reader, file, unit, units.back());
  }
  require_no_deeper_network(reader, model.network);
  require_no_foreign_tensors(reader, model.network);
  given.tensors = reader.seen();
  model.units = std::move(units);
  return given;
}

}  // namespace nibble
