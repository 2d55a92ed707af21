// nibble inspect
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/model_input.hpp"
#include "apps/options.hpp"
#include "engine/cpu.hpp"
#include "nn/network_json.hpp"
#include "nn/runtime/served_file.hpp"
#include "nn/runtime/verify_served.hpp"
#include "ops/kernels/table.hpp"

namespace nibble::apps {

namespace {

/// One unit as a reader sees it.
struct Row {
  std::string name, kernel;
  ConvShape shape;
  int weight_bits = 16, activation_bits = 16;
  float low_bound = 0, high_bound = 0;  // of the input's quantizer
  int64_t macs = 0;
  uint64_t bytes = 0;
  std::optional<double> zero_weights;  // share of weight codes that are 0; none: no codes to count
  QuantizerUsage usage;  // of the input's codes, from the last evaluation, or quantize; empty when there was none

  double clipped_share() const {
    return usage.total > 0 ? static_cast<double>(usage.clipped) / static_cast<double>(usage.total) : 0;
  }
  int64_t codes_used() const {
    return std::count_if(usage.codes.begin(), usage.codes.end(), [](int64_t n) { return n > 0; });
  }
  double share_of(size_t code) const {
    return usage.total > 0 ? static_cast<double>(usage.codes[code]) / static_cast<double>(usage.total) : 0;
  }
};

/// How its activations become codes; empty for a network without codes.
std::string scales_text(const Network& network) {
  if (network.quantizers.empty()) return "";
  const NetworkOptions& o = network.options;
  const bool per_channel = o.granularity == Granularity::kPerChannel, integer = o.mode == QuantMode::kInteger;
  // 8-bit and signed tensors always fold (nn/METHOD.md, section 7).
  const bool any = std::any_of(network.quantizers.begin(), network.quantizers.end(),
                               [&](const QuantizerSpec& q) { return q.by == o.per_channel_by; });
  return fmt::format(", scales {}{}{}", per_channel ? "per channel" : "per tensor",
                     per_channel && integer ? " by " + name_of(any ? o.per_channel_by : PerChannelBy::kFold) : "",
                     o.scheme == QuantScheme::kNearest ? ", codes rounded to nearest" : "");
}

/// What it does as the published model does and others do not.
std::string quirks_text(const NetworkOptions& o) {
  return fmt::format("{}{}{}", o.same_padding ? ", stride-2 layers padded as published" : "",
                     o.signed_block_input ? ", signed block inputs" : "",
                     o.bf16_weights ? ", weights rounded to bf16" : "");
}

/// What its images become, where that is not the usual: ", pixels of mean 0.5,0.5,0.5 and std 0.5,0.5,0.5".
std::string image_text(const NetworkOptions& o) {
  const NetworkOptions usual;
  std::string text;
  if (o.pixel_norm != usual.pixel_norm)
    text +=
        fmt::format(", pixels of mean {} and std {}", colours_text(o.pixel_norm.mean), colours_text(o.pixel_norm.std));
  if (o.crop_share != usual.crop_share) text += fmt::format(", crops of {} of the short side", o.crop_share);
  if (o.upright) text += ", images turned upright";
  return text;
}

/// Index of code 0: the lowest of unsigned codes, the middle of signed ones (an odd number of them).
size_t zero_code(const Row& r) {
  return r.usage.codes.size() % 2 == 1 ? r.usage.codes.size() / 2 : 0;
}

std::string kernel_name(const LayerWeights& layer) {
  if (!layer.integer()) return "bf16";
  if (layer.wide_gemm != nullptr) return "s16s14";
  if (layer.int_gemm == &layer.table->u4s4) return "u4s4";
  if (layer.int_gemm == &layer.table->u6s7) return "u6s7";
  return layer.int_gemm == &layer.table->u8s4 ? "u8s4" : "u8s8";
}

std::string product_of(const LoadedModel& m, size_t u) {
  if (m.executor != nullptr) return kernel_name(m.executor->layers()[u]);
  return m.model().input_quantizer(m.network().units[u]) != nullptr ? "fake" : "bf16";
}

/// Counts the weight codes of each unit, which the executor has packed away.
std::vector<std::optional<double>> zero_weights_of(const LoadedModel& model) {
  std::vector<std::optional<double>> shares(model.network().units.size());
  if (model.executor == nullptr) return shares;  // fake mode
  const ServedModel served = model.checkpoint ? make_served(model.checkpoint->model) : load_served(model.path);
  for (size_t u = 0; u < shares.size(); ++u) {
    const Tensor& codes = served.layers[u].codes.codes;
    if (!codes.defined()) continue;
    const auto zeros = std::count(codes.data<int8_t>(), codes.data<int8_t>() + codes.size(), int8_t{0});
    shares[u] = static_cast<double>(zeros) / static_cast<double>(codes.size());
  }
  return shares;
}

class Inspect : public Command {
 public:
  const char* name() const override { return "inspect"; }
  const char* summary() const override { return "per-layer table of a model: shapes, bits, bounds, bytes, kernels"; }
  const char* examples() const override {
    return "  nibble inspect model.safetensors\n  nibble inspect runs/a --json\n"
           "  nibble inspect model.safetensors --check    # on the machine that is to serve it";
  }

  const char* notes() const override {
    return "\n\nColumns: w zero is the share of weights whose code is 0 (the more, the more uneven the bounds that\n"
           "fold into them); clipped is the share of the layer's inputs beyond their bounds, codes how many of all\n"
           "occur, zero and top the shares of code 0 and of the highest, counted on up to 64 validation images\n"
           "before the last evaluation of its training, or by quantize on those that it took; product is the kernel, "
           "of the level that the line\n"
           "below the table names: u8s4 multiplies 8-bit activations by 4-bit weights, u6s7 and s16s14 multiply codes "
           "of 4 and 8 bits\n"
           "in fewer products, with the same sums, bf16 is not quantized, fake (--quant-mode fake) multiplies "
           "dequantized values, and its bytes are those that codes would take. Where no\n"
           "evaluation has counted the codes, their columns are '-', and --json leaves clipped_share and\n"
           "code_counts out.";
  }

  void declare(CLI::App& app) override {
    add_option(app, "MODEL", model_, "run folder, checkpoint or served file").required();
    add_flag(
        app, "--check", check_,
        "whether this machine computes the logits that the file of an integer model notes, on four images made for "
        "it; exit code 5 where it does not");
    add_flag(app, "--json", json_, "print one JSON object");
    declare_threads(app, threads_);
  }

  int run() override {
    apply_threads(threads_);
    const LoadedModel model = load_model(model_);
    if (check_) check(model);
    const std::vector<std::optional<double>> zero_weights = zero_weights_of(model);
    std::vector<Row> rows;
    for (size_t u = 0; u < model.network().units.size(); ++u) {
      rows.push_back(describe(model, u));
      rows.back().zero_weights = zero_weights[u];
    }
    if (json_)
      print_json(rows, model);
    else
      print_rows(rows, model);
    return 0;
  }

 private:
  static void check(const LoadedModel& model) {
    if (model.kind != ModelFileKind::kServed)
      throw UsageError("{} is a checkpoint, which notes no logits; --check is for the files that export writes",
                       model.path);
    if (!gives_noted_logits(*model.executor, model.path))
      throw VerificationError(
          "the model {} does not give the logits here that it gave where it was exported; please report this with "
          "`nibble doctor`'s output",
          model.path);
  }

  /// What the file says of its origin.
  static std::map<std::string, std::string> notes_of(const LoadedModel& m) {
    if (!m.checkpoint) return m.executor->model().notes;
    std::map<std::string, std::string> notes = {{"steps", std::to_string(m.checkpoint->steps_done)}};
    if (!m.decoder.empty()) notes["decoder"] = m.decoder;
    return notes;
  }

  static Row describe(const LoadedModel& m, size_t u) {
    const UnitSpec& unit = m.network().units[u];
    Row row;
    row.name = unit.name;
    row.kernel = product_of(m, u);
    row.shape = unit.shape;
    row.weight_bits = unit.precision.weight_bits;
    row.activation_bits = m.model().calibrated() ? unit.precision.activation_bits : 16;
    row.macs = unit.macs();
    row.bytes = served_weight_bytes(unit);
    if (const ActivationQuantizer* quantizer = m.model().input_quantizer(unit)) {
      const auto [low, high] = std::minmax_element(quantizer->bound.begin(), quantizer->bound.end());
      row.low_bound = *low;
      row.high_bound = *high;
      if (!m.model().usage.empty()) row.usage = m.model().usage[static_cast<size_t>(unit.quantizer)];
    }
    return row;
  }

  void print_json(const std::vector<Row>& rows, const LoadedModel& m) const {
    const NetworkOptions& o = m.network().options;
    nlohmann::ordered_json j;
    j["arch"] = o.arch;
    j["width"] = o.width;
    j["precision"] = o.precision;
    if (const std::string layers = overrides_text(o.overrides); !layers.empty()) j["overrides"] = layers;
    j["quant_mode"] = name_of(o.mode);
    j["quant_scheme"] = name_of(o.scheme);
    j["granularity"] = name_of(o.granularity);
    j["per_channel_by"] = name_of(o.per_channel_by);
    j["bf16_weights"] = o.bf16_weights;
    j["same_padding"] = o.same_padding;
    j["signed_block_input"] = o.signed_block_input;
    j["image_size"] = o.image_size;
    j["pixel_mean"] = o.pixel_norm.mean;
    j["pixel_std"] = o.pixel_norm.std;
    j["crop_share"] = o.crop_share;
    j["upright"] = o.upright;
    j["classes"] = o.classes;
    j["calibrated"] = !m.model().calibration_pending();
    j["isa"] = std::string(name_of(active_isa()));
    j["notes"] = notes_of(m);
    if (check_) j["check"] = true;  // otherwise it was refused
    j["layers"] = nlohmann::ordered_json::array();
    for (const Row& r : rows) {
      j["layers"].push_back({{"name", r.name},
                             {"input", {r.shape.h, r.shape.w, r.shape.ic}},
                             {"output", {r.shape.oh(), r.shape.ow(), r.shape.oc}},
                             {"kernel_size", r.shape.kh},
                             {"stride", r.shape.stride},
                             {"weight_bits", r.weight_bits},
                             {"activation_bits", r.activation_bits},
                             {"bound_min", r.low_bound},
                             {"bound_max", r.high_bound},
                             {"macs", r.macs},
                             {"bytes", r.bytes},
                             {"kernel", r.kernel}});
      if (r.zero_weights) j["layers"].back()["zero_weight_share"] = *r.zero_weights;
      if (r.usage.total == 0) continue;
      j["layers"].back()["clipped_share"] = r.clipped_share();
      j["layers"].back()["code_counts"] = r.usage.codes;
    }
    print_object(j);
  }

  void print_rows(const std::vector<Row>& rows, const LoadedModel& m) const {
    std::vector<std::vector<std::string>> table = {{"layer", "input", "output", "kernel", "w bits", "w zero", "a bits",
                                                    "bounds", "clipped", "codes", "zero", "top", "mega-macs", "bytes",
                                                    "product"}};
    for (const Row& r : rows)
      table.push_back({r.name, fmt::format("{}x{}x{}", r.shape.h, r.shape.w, r.shape.ic),
                       fmt::format("{}x{}x{}", r.shape.oh(), r.shape.ow(), r.shape.oc),
                       fmt::format("{}x{}/{}", r.shape.kh, r.shape.kw, r.shape.stride), std::to_string(r.weight_bits),
                       r.zero_weights ? fmt::format("{:.0f} %", 100 * *r.zero_weights) : "-",
                       std::to_string(r.activation_bits),
                       r.high_bound > 0 ? fmt::format("{:.3g}..{:.3g}", r.low_bound, r.high_bound) : "-",
                       r.usage.total > 0 ? fmt::format("{:.2f} %", 100 * r.clipped_share()) : "-",
                       r.usage.total > 0 ? fmt::format("{}/{}", r.codes_used(), r.usage.codes.size()) : "-",
                       r.usage.total > 0 ? fmt::format("{:.0f} %", 100 * r.share_of(zero_code(r))) : "-",
                       r.usage.total > 0 ? fmt::format("{:.1f} %", 100 * r.share_of(r.usage.codes.size() - 1)) : "-",
                       fmt::format("{:.2f}", static_cast<double>(r.macs) * 1e-6),
                       grouped(static_cast<int64_t>(r.bytes)), r.kernel});
    print(format_table(table));
    const NetworkOptions& o = m.network().options;
    print(fmt::format("{}, {} px{}, {} classes{}{}{}{}; kernels: {}", network_text(o), o.image_size, image_text(o),
                      o.classes, scales_text(m.network()), quirks_text(o),
                      is_servable(m.network()) ? "" : ", fake quantization",
                      m.model().calibration_pending() ? ", not calibrated yet" : "", name_of(active_isa())));
    for (const auto& [note, text] : notes_of(m)) print(fmt::format("{}: {}", one_line(note), one_line(text)));
    if (check_) print("check: the logits are those that the file notes");
  }

  std::string model_;
  bool check_ = false, json_ = false;
  int64_t threads_ = 0;
};

}  // namespace

Command* inspect_command() {
  return new Inspect;
}

}  // namespace nibble::apps
