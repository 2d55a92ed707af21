// nibble bench train|infer
#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/inference_probe.hpp"
#include "apps/median.hpp"
#include "apps/model_input.hpp"
#include "apps/network_arguments.hpp"
#include "apps/options.hpp"
#include "apps/profile.hpp"
#include "apps/step_probe.hpp"
#include "engine/block_cache.hpp"
#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "engine/profiler.hpp"
#include "engine/version.hpp"
#include "nn/network_json.hpp"
#include "nn/noise_images.hpp"
#include "nn/runtime/executor.hpp"

namespace nibble::apps {

namespace {

using Clock = std::chrono::steady_clock;

/// One measured phase.
struct Phase {
  std::string name;
  double median_seconds = 0, best_seconds = 0, all_seconds = 0;
  StepBests bests;
};

/// Zones are on while it measures: about 100 ns each, a few thousand per step.
Phase measure(const std::string& name, int64_t repeats, const std::function<void()>& body) {
  body();  // warm-up: allocations, page faults
  start_profiler();
  std::vector<double> times;
  StepBests bests;
  for (int64_t i = 0; i < repeats; ++i) {
    const auto began = Clock::now();
    body();
    times.push_back(std::chrono::duration<double>(Clock::now() - began).count());
    bests.mark();
  }
  stop_profiler();
  return {name, median(times), *std::min_element(times.begin(), times.end()),
          std::accumulate(times.begin(), times.end(), 0.0), std::move(bests)};
}

/// From here on the peak is a new one: of what follows, not of what was before. Where the system refuses, it stays.
void begin_peak_memory() {
  release_kept_blocks();
  std::ofstream("/proc/self/clear_refs") << '5';
}

/// Peak resident memory of the process in bytes since begin_peak_memory(), 0 where the system does not say.
int64_t peak_memory() {
  FILE* f = std::fopen("/proc/self/status", "r");
  char line[256];
  long long kib = 0;
  while (f != nullptr && std::fgets(line, sizeof line, f) != nullptr)
    if (std::sscanf(line, "VmHWM: %lld kB", &kib) == 1) break;
  if (f != nullptr) std::fclose(f);
  return static_cast<int64_t>(kib) * 1024;
}

class Bench : public Command {
 public:
  const char* name() const override { return "bench"; }
  const char* summary() const override {
    return "throughput of training or inference on this machine, synthetic input";
  }
  const char* examples() const override {
    return "  nibble bench train --precision w4a4-fl8 --batch-size 64\n"
           "  nibble bench train --image-size 64 --batch-size 32 --repeats 2 --profile --trace trace.json\n"
           "  nibble bench infer --precision w8a8 --batch-size 32 --json\n"
           "  nibble bench infer model.safetensors --batch-size 1";
  }

  void declare(CLI::App& app) override {
    app_ = &app;
    add_option(app, "WHAT", what_, "train or infer").required();
    add_option(app, "MODEL", model_,
               "run folder, checkpoint or served file to measure (infer), instead of a network of the options below");
    add_option(app, "--batch-size", options_.batch_size, "images per step or call").capture_default_str();
    add_option(app, "--shard", options_.shard, "images per shard (train)").capture_default_str();
    add_flag(app, "--low-memory", options_.low_memory,
             "shards one after another, their widest outputs made twice (train)");
    add_option(app, "--repeats", repeats_, "measured repeats of each phase").capture_default_str();
    add_flag(app, "--profile", profile_,
             "also where each phase's time goes, per kind of pass and per layer, against the peaks probed alongside");
    add_option(app, "--trace", trace_,
               "Chrome trace to write (chrome://tracing, Perfetto): what every thread did in the last phase");
    add_flag(app, "--json", json_, "print one JSON object per phase");
    declare_threads(app, threads_);
    network_.declare(app, "Network");
  }

  int run() override {
    apply_threads(threads_);
    take_network();
    if (what_ == "infer" && has_option(*app_, "--shard"))
      throw UsageError("--shard is for training: inference has none; leave it out");
    if (what_ == "infer" && options_.low_memory)
      throw UsageError("--low-memory is for training: inference keeps no more; leave it out");
    if (what_ != "train" && what_ != "infer") throw UsageError("nibble bench measures train or infer, not '{}'", what_);
    if (repeats_ < 1) throw UsageError("--repeats is {}; use at least 1", repeats_);
    if (what_ == "train") options_.validate();
    if (options_.batch_size < 1 || options_.batch_size > 65536)
      throw UsageError("--batch-size is {}; use 1 to 65536", options_.batch_size);
    if (what_ == "infer" && !is_servable(build_resnet(options_.network)))
      throw UsageError("nibble bench infer measures the served model, and fake mode is not served; use train");
    if (!trace_.empty()) {
      refuse_to_replace(trace_, kTraceBegins, "a Chrome trace");
      write_chrome_trace(trace_);  // an empty one: a file that cannot be written is known before the measurement
    }
    if (profile_) {
      bandwidth_ = measure_memory_bandwidth();
      peaks_ = measure_mac_peaks();
    }
    begin_peak_memory();
    what_ == "train" ? bench_train() : bench_infer();
    if (!trace_.empty()) write_chrome_trace(trace_);
    return 0;
  }

 private:
  /// Of the model, or of the options.
  void take_network() {
    if (model_.empty()) {
      network_.resolve();
      options_.network = network_.options;
      return;
    }
    if (what_ != "infer")
      throw UsageError("bench {} takes no MODEL; say with --arch, --width, ... what to measure", what_);
    if (network_.given()) throw UsageError("{} says what network it is; leave out the options of networks", model_);
    executor_ = load_model(model_).executor;
    if (executor_ == nullptr) throw UsageError("{} is of fake mode, which is not served; give another model", model_);
    options_.network = executor_->model().network.options;
  }

  Tensor images() const { return noise_images(options_.batch_size, options_.network.image_size); }

  /// Both phases: bf16 activations before calibration, integer codes after.
  void bench_train() {
    const Network net = build_resnet(options_.network);
    TrainOptions o = options_;
    o.lr = 1e-4;  // synthetic labels teach nothing; only the time matters
    o.calibrate_at = kNoCalibrationStep;
    Trainer trainer(make_model(net, {.seed = 0, .zero_last_gamma = true}),
                    o.trainer(kNoCalibrationStep, kNoCalibrationStep));
    const Tensor x = images();
    std::vector<int32_t> labels(static_cast<size_t>(o.batch_size));
    for (size_t i = 0; i < labels.size(); ++i)
      labels[i] = static_cast<int32_t>(static_cast<int64_t>(i) % o.network.classes);
    report(net, measure(net.quantizers.empty() ? "train" : "train before calibration", repeats_,
                        [&] { trainer.step(x, labels); }));
    if (net.quantizers.empty()) return;
    trainer.calibrate();
    begin_peak_memory();
    report(net, measure("train after calibration", repeats_, [&] { trainer.step(x, labels); }));
  }

  void bench_infer() {
    if (executor_ == nullptr) executor_ = std::make_shared<Executor>(untrained_model(options_.network));
    const Tensor x = images();
    report(executor_->model().network, measure("infer", repeats_, [&] { executor_->run(x); }));
  }

  Profile profile_of(const Phase& p) {
    peaks_ = largest(peaks_, measure_mac_peaks());
    return {.passes = zone_table(),
            .layers = labelled_zone_table(),
            .bests = p.bests,
            .steps = repeats_,
            .threads = threads(),
            .wall_seconds = p.all_seconds,
            .peaks = peaks_,
            .bandwidth = bandwidth_};
  }

  void report(const Network& net, const Phase& p) {
    const double rate = static_cast<double>(options_.batch_size) / p.median_seconds;
    if (json_) {
      nlohmann::ordered_json j;
      j["phase"] = p.name;
      j["images_per_second"] = rate;
      j["ms_per_step"] = 1000 * p.median_seconds;
      j["best_ms_per_step"] = 1000 * p.best_seconds;
      j["batch"] = options_.batch_size;
      j["image_size"] = options_.network.image_size;
      j["arch"] = options_.network.arch;
      j["width"] = options_.network.width;
      j["precision"] = options_.network.precision;
      j["classes"] = options_.network.classes;
      if (what_ == "train") j["shard"] = options_.shard;
      if (options_.low_memory) j["low_memory"] = true;
      j["granularity"] = name_of(options_.network.granularity);
      j["per_channel_by"] = name_of(options_.network.per_channel_by);
      j["quant_mode"] = name_of(options_.network.mode);
      j["quant_scheme"] = name_of(options_.network.scheme);
      j["same_padding"] = options_.network.same_padding;
      j["signed_block_input"] = options_.network.signed_block_input;
      j["bf16_weights"] = options_.network.bf16_weights;
      if (!options_.network.overrides.empty()) j["layers"] = overrides_text(options_.network.overrides);
      j["repeats"] = repeats_;
      j["version"] = build_version();
      j["cpu"] = cpu_features().brand;
      j["time"] = utc_now();
      j["isa"] = std::string(name_of(active_isa()));
      j["threads"] = threads();
      j["peak_memory_bytes"] = peak_memory();
      if (profile_) j["profile"] = profile_json(profile_of(p), net);
      print_object(j);
      return;
    }
    print(fmt::format("{}: {:.1f} img/s, {:.1f} ms (best {:.1f})  {} {} px batch {}  {}, {}, peak {} MiB", p.name, rate,
                      1000 * p.median_seconds, 1000 * p.best_seconds, network_text(options_.network),
                      options_.network.image_size, options_.batch_size, name_of(active_isa()),
                      counted(threads(), "thread"), grouped(peak_memory() >> 20)));
    if (profile_) print(profile_text(profile_of(p), net));
  }

  CLI::App* app_ = nullptr;
  std::string what_, model_, trace_;
  std::shared_ptr<Executor> executor_;  // of MODEL, or of fresh weights
  TrainOptions options_;
  NetworkArguments network_;
  int64_t repeats_ = 5, threads_ = 0;
  bool json_ = false, profile_ = false;
  MacPeaks peaks_{};
  MemoryBandwidth bandwidth_;
};

}  // namespace

Command* bench_command() {
  return new Bench;
}

}  // namespace nibble::apps
