// nibble cost
#include <nlohmann/json.hpp>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/config_file.hpp"
#include "apps/console.hpp"
#include "apps/inference_probe.hpp"
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
    fields_ = network_fields(options_, texts_);
    declare_fields(app, fields_, "Network");
    add_option(app, "--classes", options_.classes, "classes of the model").capture_default_str();
    add_option(app, "--max-linear", max_linear_,
               "answer the largest width, in steps of 0.01 from 0.05 to 8, whose linear cost ratio is at most this");
    add_option(app, "--config", config_, "TOML file with these options and per-layer precisions");
    add_flag(app, "--measure", measure_, "add what the models leave out: bytes of the served file, ms an image here");
    declare_threads(app, threads_);
    add_flag(app, "--json", json_, "print one JSON object");
  }

  int run() override {
    apply_threads(threads_);
    if (has_option(*app_, "--max-linear") && has_option(*app_, "--width"))
      throw UsageError("--max-linear answers a width and takes none; leave --width or --max-linear away");
    if (!config_.empty()) read_file_options();
    resolve_texts(texts_, options_);
    if (measure_ && !is_servable(build_resnet(options_)))
      throw UsageError(
          "--measure builds the served model, which a network of --quant-mode fake does not have; leave one of them "
          "away");
    const bool wanted = has_option(*app_, "--max-linear");
    if (wanted) options_.width = width_for_linear(options_, max_linear_);
    const Cost cost = cost_of(build_resnet(options_));
    const CostRatio ratio = cost_ratio(cost.total, reference_cost(options_));
    if (measure_) measure();
    if (json_)
      print_json(cost, ratio);
    else
      print_table(cost, ratio);
    return 0;
  }

 private:
  /// A config of a training run serves as it is: its other keys are known and do not matter here.
  void read_file_options() {
    TrainOptions ignored;
    ignored.limit_classes = -1;  // stays where the file says nothing
    std::vector<OptionField> fields = fields_;
    for (const OptionField& f : training_fields(ignored)) fields.push_back(f);
    fields.push_back({"data", "", &ignored.data});
    read_config(config_, fields, given_fields(*app_, fields_), options_.overrides);
    if (has_option(*app_, "--classes")) return;
    if (ignored.limit_classes > 0) options_.classes = ignored.limit_classes;
    if (ignored.limit_classes == 0)
      warn(fmt::format(
          "{} says classes = 0 (all of the data set, however many): this counts the {} of ImageNet; use --classes N",
          config_, grouped(options_.classes)));
  }

  /// On fresh weights: neither bytes nor time depend on what a network has learnt.
  void measure() {
    const ServedModel model = untrained_model(options_);
    served_bytes_ = served_sizes(model).file_bytes;
    Executor executor(model);
    latency_ = measure_latency(executor, options_.image_size);
  }

  void print_json(const Cost& cost, const CostRatio& ratio) const {
    nlohmann::ordered_json j;
    j["arch"] = options_.arch;
    j["width"] = options_.width;
    j["precision"] = options_.precision;
    j["image_size"] = options_.image_size;
    j["classes"] = options_.classes;
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
    print(fmt::format(
        "{} x{} {}, {} px, {} classes: {:.6f} of the linear, {:.6f} of the quadratic and {:.6f} of the memory "
        "cost of the same network in bf16 at width 1",
        options_.arch, options_.width, options_.precision, options_.image_size, options_.classes, ratio.linear,
        ratio.quadratic, ratio.memory));
    if (has_option(*app_, "--max-linear"))
      print(fmt::format("--max-linear {}: the widest that fits is --width {}", max_linear_, options_.width));
    if (measure_)
      print(
          fmt::format("served file {} bytes; {:.2f} ms for one image, {:.2f} ms an image in a batch of 32 ({}, {}, {})",
                      grouped(static_cast<int64_t>(served_bytes_)), latency_.batch1_ms, latency_.batch32_ms_per_image,
                      latency_.cpu, latency_.isa, counted(latency_.threads, "thread")));
  }

  CLI::App* app_ = nullptr;
  NetworkOptions options_;
  NetworkTexts texts_;
  std::vector<OptionField> fields_;
  std::string config_;
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
