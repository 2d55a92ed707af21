// nibble inspect
#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/command.hpp"
#include "apps/console.hpp"
#include "apps/model_input.hpp"
#include "nn/runtime/served_file.hpp"
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
};

std::string kernel_name(const LayerWeights& layer) {
  const kernels::Table& t = kernels::active();
  if (!layer.integer()) return "bf16";
  if (layer.int_gemm == &t.u4s4) return "u4s4";
  return layer.int_gemm == &t.u8s4 ? "u8s4" : "u8s8";
}

class Inspect : public Command {
 public:
  const char* name() const override { return "inspect"; }
  const char* summary() const override { return "per-layer table of a model: shapes, bits, bounds, bytes, kernels"; }
  const char* examples() const override { return "  nibble inspect model.safetensors\n  nibble inspect runs/a --json"; }

  void declare(CLI::App& app) override {
    app.add_option("MODEL", model_, "run folder, checkpoint or served file")->required();
    app.add_flag("--json", json_, "print one JSON object");
  }

  int run() override {
    const LoadedModel model = load_model(model_);
    if (model.executor == nullptr)
      throw UnsupportedError("{} was trained with --quant-mode fake and has no integer layers to inspect", model.path);
    const ServedModel& served = model.executor->model();
    std::vector<Row> rows;
    for (size_t u = 0; u < served.network.units.size(); ++u) rows.push_back(describe(*model.executor, u));
    if (json_)
      print_json(rows, served);
    else
      print_rows(rows, served);
    return 0;
  }

 private:
  static Row describe(const Executor& executor, size_t u) {
    const ServedModel& served = executor.model();
    const UnitSpec& unit = served.network.units[u];
    Row row{.name = unit.name, .kernel = kernel_name(executor.layers()[u]), .shape = unit.shape};
    row.weight_bits = unit.precision.weight_bits;
    row.activation_bits = served.calibrated() ? unit.precision.activation_bits : 16;
    row.macs = unit.macs();
    row.bytes = served_weight_bytes(unit);
    if (unit.quantizer >= 0 && served.calibrated()) {
      const auto& bound = served.quantizers[static_cast<size_t>(unit.quantizer)].bound;
      const auto [low, high] = std::minmax_element(bound.begin(), bound.end());
      row.low_bound = *low;
      row.high_bound = *high;
    }
    return row;
  }

  void print_json(const std::vector<Row>& rows, const ServedModel& served) const {
    nlohmann::ordered_json j;
    j["arch"] = served.network.options.arch;
    j["width"] = served.network.options.width;
    j["precision"] = served.network.options.precision;
    j["image_size"] = served.network.options.image_size;
    j["classes"] = served.network.options.classes;
    j["calibrated"] = served.calibrated();
    j["layers"] = nlohmann::ordered_json::array();
    for (const Row& r : rows)
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
    print(j.dump());
  }

  static void print_rows(const std::vector<Row>& rows, const ServedModel& served) {
    std::vector<std::vector<std::string>> table = {
        {"layer", "input", "output", "kernel", "w bits", "a bits", "bounds", "mega-macs", "bytes", "product"}};
    for (const Row& r : rows)
      table.push_back({r.name, fmt::format("{}x{}x{}", r.shape.h, r.shape.w, r.shape.ic),
                       fmt::format("{}x{}x{}", r.shape.oh(), r.shape.ow(), r.shape.oc),
                       fmt::format("{}x{}/{}", r.shape.kh, r.shape.kw, r.shape.stride), std::to_string(r.weight_bits),
                       std::to_string(r.activation_bits),
                       r.high_bound > 0 ? fmt::format("{:.3g}..{:.3g}", r.low_bound, r.high_bound) : "-",
                       fmt::format("{:.2f}", static_cast<double>(r.macs) * 1e-6),
                       grouped(static_cast<int64_t>(r.bytes)), r.kernel});
    print(format_table(table));
    print(fmt::format("{} x{} {}, {} px, {} classes{}", served.network.options.arch, served.network.options.width,
                      served.network.options.precision, served.network.options.image_size,
                      served.network.options.classes,
                      served.calibrated() || served.network.quantizers.empty() ? "" : ", not calibrated yet"));
  }

  std::string model_;
  bool json_ = false;
};

}  // namespace

Command* inspect_command() {
  return new Inspect;
}

}  // namespace nibble::apps
