// nibble cost
#include <nlohmann/json.hpp>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/inference_probe.hpp"
#include "apps/network_arguments.hpp"
#include "apps/options.hpp"
#include "nn/cost.hpp"
#include "nn/runtime/served_file.hpp"

namespace nibble::apps {

namespace {

class CostCommand : public Command {
 public:
  const char* name() const override { return "cost"; }
  const char* summary() const override { return "the three cost models of a network, in total and per layer"; }
  const char* examples() const override {
    return "  nibble cost --width 1 --precision w4a4-fl8\n"
           "  nibble cost --precision w4a4-fl8 --max-linear 0.15\n"
           "  nibble cost --precision w4a4-fl8 --image-size 224 --measure";
  }

  void declare(CLI::App& app) override {
    app_ = &app;
    network_.declare(app, "Network");
    add_option(app, "--max-linear", max_linear_,
               "answer the largest width, in steps of 0.01 from 0.05 to 8, whose linear cost ratio is at most this");
    add_flag(app, "--measure", measure_, "add what the models leave out: bytes of the served file, ms per image here");
    declare_threads(app, threads_);
    add_flag(app, "--json", json_, "print one JSON object");
  }

  int run() override {
    apply_threads(threads_);
    if (has_option(*app_, "--max-linear") && has_option(*app_, "--width"))
      throw UsageError("--max-linear answers a width and takes none; leave out --width or --max-linear");
    network_.resolve();
    if (measure_ && !is_servable(build_resnet(network_.options)))
      throw UsageError(
          "--measure builds the served model, which a network of --quant-mode fake does not have; leave "
          "one of them out");
    const bool wanted = has_option(*app_, "--max-linear");
    if (wanted) network_.options.width = width_for_linear(network_.options, max_linear_);
    const Cost cost = cost_of(build_resnet(network_.options));
    const CostRatio ratio = cost_ratio(cost.total, reference_cost(network_.options));
    if (measure_) measure();
    if (json_)
      print_json(cost, ratio);
    else
      print_table(cost, ratio);
    return 0;
  }

 private:
  /// On fresh weights: neither bytes nor time depend on what a network has learnt.
  void measure() {
    const ServedModel model = untrained_model(network_.options);
    served_bytes_ = served_sizes(model).file_bytes;
    Executor executor(model);
    latency_ = measure_latency(executor, network_.options.image_size);
  }

  void print_json(const Cost& cost, const CostRatio& ratio) const {
    nlohmann::ordered_json j;
    j["arch"] = network_.options.arch;
    j["width"] = network_.options.width;
    j["precision"] = network_.options.precision;
    if (const std::string layers = overrides_text(network_.options.overrides); !layers.empty()) j["overrides"] = layers;
    j["image_size"] = network_.options.image_size;
    j["classes"] = network_.options.classes;
    j["macs"] = cost.total.macs;
    j["weights"] = cost.total.weights;
    j["linear"] = cost.total.linear;
    j["quadratic"] = cost.total.quadratic;
    j["memory_bits"] = cost.total.memory_bits;
    j["ratio"] = {{"linear", ratio.linear}, {"quadratic", ratio.quadratic}, {"memory", ratio.memory}};
    if (measure_)
      j["measured"] = {{"served_bytes", served_bytes_},
                       {"batch1_ms", latency_.batch1_ms},
                       {"batch32_ms_per_image", latency_.batch32_ms_per_image},
                       {"threads", latency_.threads},
                       {"isa", latency_.isa},
                       {"cpu", latency_.cpu}};
    j["layers"] = nlohmann::ordered_json::array();
    for (const LayerCost& l : cost.layers)
      j["layers"].push_back({{"name", l.name},
                             {"macs", l.macs},
                             {"weights", l.weights},
                             {"weight_bits", l.weight_bits},
                             {"activation_bits", l.activation_bits},
                             {"linear", l.linear},
                             {"quadratic", l.quadratic},
                             {"memory_bits", l.memory_bits}});
    print_object(j);
  }

  void print_table(const Cost& cost, const CostRatio& ratio) const {
    std::vector<std::vector<std::string>> rows = {
        {"layer", "w bits", "a bits", "macs", "weights", "linear", "quadratic", "memory bits"}};
    for (const LayerCost& l : cost.layers)
      rows.push_back({l.name, std::to_string(l.weight_bits), std::to_string(l.activation_bits), grouped(l.macs),
                      grouped(l.weights), grouped(l.linear), grouped(l.quadratic), grouped(l.memory_bits)});
    const CostSums& t = cost.total;
    rows.push_back({"total", "", "", grouped(t.macs), grouped(t.weights), grouped(t.linear), grouped(t.quadratic),
                    grouped(t.memory_bits)});
    print(format_table(rows));
    print(
        fmt::format("{}, {} px, {} classes: {:.6f} of the linear, {:.6f} of the quadratic and {:.6f} of the memory "
                    "cost of the same network in bf16 at width 1",
                    network_text(network_.options), network_.options.image_size, network_.options.classes, ratio.linear,
                    ratio.quadratic, ratio.memory));
    if (has_option(*app_, "--max-linear"))
      print(fmt::format("--max-linear {}: the widest {} is --width {}", max_linear_,
                        network_.options.width < kMostWidth ? "that fits" : "there is, which fits,",
                        network_.options.width));
    if (measure_)
      print(fmt::format(
          "served file {} bytes; {:.2f} ms for one image, {:.2f} ms per image in a batch of 32 ({}, {}, {})",
          grouped(static_cast<int64_t>(served_bytes_)), latency_.batch1_ms, latency_.batch32_ms_per_image, latency_.cpu,
          latency_.isa, counted(latency_.threads, "thread")));
  }

  CLI::App* app_ = nullptr;
  NetworkArguments network_;
  double max_linear_ = 0;
  bool json_ = false, measure_ = false;
  int64_t threads_ = 0;
  uint64_t served_bytes_ = 0;
  Latency latency_;
};

}  // namespace

Command* cost_command() {
  return new CostCommand;
}

}  // namespace nibble::apps
