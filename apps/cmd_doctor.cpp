// nibble doctor
#include <fmt/format.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/inference_probe.hpp"
#include "apps/loading_probe.hpp"
#include "apps/memory_forecast.hpp"
#include "apps/network_arguments.hpp"
#include "apps/options.hpp"
#include "apps/step_probe.hpp"
#include "data/loader.hpp"
#include "data/open_images.hpp"
#include "data/synth.hpp"
#include "engine/cgroup.hpp"
#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "engine/version.hpp"
#include "nn/train_options.hpp"
#include "ops/kernels/table.hpp"

namespace nibble::apps {

namespace {

using Clock = std::chrono::steady_clock;

std::string first_line(const char* path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

struct Memory {
  int64_t total = 0, available = 0;  // bytes of the machine; of them what this process may still take
  int64_t limit = 0;                 // what it may use in all: the machine's, or less in a container
};

Memory memory_of_machine() {
  struct sysinfo info = {};
  sysinfo(&info);
  Memory m{.total = static_cast<int64_t>(info.totalram) * info.mem_unit, .available = available_memory()};
  m.limit = std::min(m.total, memory_limit(own_control_groups()).value_or(m.total));
  return m;
}

/// Images per second of one training step of a small network, measured now: the honest base of every estimate.
double probe_training_rate(const std::string& precision) {
  TrainOptions o;
  o.network.arch = "resnet26";
  o.network.width = 0.25;
  o.network.precision = precision;
  o.network.image_size = 64;
  o.network.classes = 10;
  o.batch_size = 32;
  o.shard = 16;
  return 1 / probe_step(o).after;
}

constexpr int kProceduralSide = 224;

/// Images per second of one thread that decodes JPEGs from memory, drawn and packed here as `nibble synth` does.
double procedural_decode_rate() {
  std::vector<std::vector<uint8_t>> files;
  std::vector<uint8_t> pixels(size_t{3} * kProceduralSide * kProceduralSide);
  for (int label = 0; label < 4; ++label) {
    draw_synthetic(kProceduralSide, 0, SynthSplit::train, label, 0, pixels.data());
    files.push_back(encode_jpeg(pixels, kProceduralSide, kProceduralSide, 90));
  }
  const auto round = [&] {
    for (const std::vector<uint8_t>& file : files) decode(file, Decoder::auto_, "a procedural image");
  };
  round();  // a decoder's first call is slower
  const auto began = Clock::now();
  double seconds = 0, images = 0;
  do {
    round();
    images += static_cast<double>(files.size());
    seconds = std::chrono::duration<double>(Clock::now() - began).count();
  } while (seconds < 0.1);
  return images / seconds;
}

double folder_decode_rate(const std::string& dir) {
  const DatasetPtr images = open_images(dir, "train", Decoder::auto_);
  const auto began = Clock::now();
  int64_t done = 0, at = 0;
  while (std::chrono::duration<double>(Clock::now() - began).count() < 1.0 && at < images->size()) {
    try {
      images->read(at);
      ++done;
    } catch (const DataError&) {  // bad images are the run's business, not the probe's
    }
    ++at;
  }
  return static_cast<double>(done) / std::chrono::duration<double>(Clock::now() - began).count();
}

/// Decoded, cropped, resized and flipped images per second of one loader thread with no training alongside it: a step
/// that is faster than this times --loader-threads waits for its data.
double loader_rate(const std::string& dir, int size) {
  const DatasetPtr images = open_images(dir, "train", Decoder::auto_);
  const int64_t batch = std::min<int64_t>(16, images->size());
  TrainLoader loader({.dataset = images,
                      .batch_size = batch,
                      .transform = {.size = size, .min_crop = static_cast<float>(TrainOptions().min_crop)},
                      .workers = 1,
                      .prefetch = 1});
  for (int i = 0; i < 3; ++i) loader.next();  // what was made ahead
  const auto began = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - began).count(); };
  int64_t done = 0;
  for (; seconds() < 0.5; done += batch) loader.next();
  return static_cast<double>(done) / seconds();
}

class Doctor : public Command {
 public:
  const char* name() const override { return "doctor"; }
  const char* summary() const override { return "what this machine is, which kernels run, what speed to expect"; }
  const char* examples() const override {
    return "  nibble doctor\n  nibble doctor --data imagenette --json\n"
           "  nibble doctor --arch resnet50 --precision w4a4-fl8 --image-size 128 --data imagenette --epochs 10";
  }

  void declare(CLI::App& app) override {
    add_option(app, "--data", data_, "images to measure decoding on, as of train");
    add_flag(app, "--json", json_, "print one JSON object");
    declare_threads(app, threads_);
    app_ = &app;
    network_.declare(app, "Network to estimate");
    add_option(app, "--batch-size", options_.batch_size, "images per step").capture_default_str();
    add_option(app, "--shard", options_.shard, "images per shard").capture_default_str();
    add_option(app, "--epochs", options_.epochs, "length of the run to estimate, on the images of --data")
        .capture_default_str();
  }

  int run() override {
    apply_threads(threads_);
    network_.resolve();
    options_.network = network_.options;
    const bool epochs = has_option(*app_, "--epochs");
    const bool estimate =
        network_.given() || epochs || has_option(*app_, "--batch-size") || has_option(*app_, "--shard");
    if (epochs && data_.empty())
      throw UsageError("--epochs needs --data: how long a run takes depends on how many images it has");
    options_.validate();
    nlohmann::ordered_json j = facts();
    const std::string estimated = estimate ? estimate_run(j) : std::string();
    if (json_) {
      print_object(j);
      return 0;
    }
    print_facts(j);
    print(estimate ? estimated
                   : "for a network of your choice: nibble doctor --arch resnet50 --width 1 --image-size 224");
    return 0;
  }

 private:
  /// What the machine is and measures, by the names that --json gives.
  nlohmann::ordered_json facts() const {
    const Memory memory = memory_of_machine();
    nlohmann::ordered_json j;
    j["version"] = version();
    j["build"] = build_version();
    j["cpu"] = cpu_features().brand;
    kernels::active();  // probes the levels, which may change the one in use
    j["isa"] = std::string(name_of(active_isa()));
    j["isa_why"] = isa_explanation();
    std::vector<std::string> levels;
    for (Isa isa : runnable_isas()) levels.emplace_back(name_of(isa));
    j["isa_runnable"] = levels;
    j["cores_online"] = sysconf(_SC_NPROCESSORS_ONLN);
    j["cores_available"] = available_cores();
    j["threads"] = threads();
    j["memory_bytes"] = memory.total;
    j["memory_limit_bytes"] = memory.limit;
    j["memory_available_bytes"] = memory.available;
    j["huge_pages"] = first_line("/sys/kernel/mm/transparent_hugepage/enabled");
    j["decoder"] = std::string(name_of(resolve(Decoder::auto_)));
    j["decode_images_per_second_per_thread"] = data_.empty() ? procedural_decode_rate() : folder_decode_rate(data_);
    if (!data_.empty())
      for (const int size : {64, 128, 224})
        j["loader_images_per_second_per_thread"][std::to_string(size)] = loader_rate(data_, size);
    j["probe_train_images_per_second"] = {{"bf16", probe_training_rate("bf16")},
                                          {"w8a8", probe_training_rate("w8a8")},
                                          {"w4a4-fl8", probe_training_rate("w4a4-fl8")}};
    return j;
  }

  void print_facts(const nlohmann::ordered_json& j) const {
    const auto text = [&](const char* key) { return j.at(key).get<std::string>(); };
    const auto mebibytes = [&](const char* key) { return grouped(j.at(key).get<int64_t>() >> 20); };
    const auto rate = [](const nlohmann::ordered_json& number) { return rate_text(number.get<double>()); };
    print(fmt::format("cpu      {}", text("cpu")));
    print(fmt::format("kernels  {}; runnable: {}", text("isa_why"),
                      fmt::join(j.at("isa_runnable").get<std::vector<std::string>>(), ", ")));
    print(fmt::format("cores    {} online, {} available to this process, {}", j.at("cores_online").get<int64_t>(),
                      j.at("cores_available").get<int64_t>(), counted(j.at("threads").get<int64_t>(), "thread")));
    print(fmt::format("memory   {} MiB, {} MiB allowed, {} MiB available; transparent huge pages: {}",
                      mebibytes("memory_bytes"), mebibytes("memory_limit_bytes"), mebibytes("memory_available_bytes"),
                      text("huge_pages")));
    print(fmt::format(
        "decoder  {}, {} images/s per thread{}", text("decoder"), rate(j.at("decode_images_per_second_per_thread")),
        data_.empty()
            ? fmt::format(" (procedural JPEGs of {0}x{0} px in memory; --data measures yours)", kProceduralSide)
            : ""));
    if (!data_.empty()) {
      const auto& loader = j.at("loader_images_per_second_per_thread");
      print(fmt::format("loader   {} images/s per thread at 64 px, {} at 128 px, {} at 224 px (decoded and augmented)",
                        rate(loader["64"]), rate(loader["128"]), rate(loader["224"])));
    }
    const auto& probe = j.at("probe_train_images_per_second");
    print(fmt::format("training probe (resnet26 x0.25, 64 px): bf16 {}, w8a8 {}, w4a4-fl8 {} img/s",
                      rate(probe["bf16"]), rate(probe["w8a8"]), rate(probe["w4a4-fl8"])));
  }

  /// Speed of the served network asked for; empty where it has no served form (quantized, in fake mode).
  static std::string estimate_inference(const NetworkOptions& network, nlohmann::ordered_json& e) {
    if (!is_servable(build_resnet(network))) return "";
    Executor executor(untrained_model(network));
    LatencyProbe probe(executor, network.image_size);
    probe.visit_briefly();
    const Latency latency = probe.result();
    const double rate = 1000 / latency.batch32_ms_per_image;
    e["inference_batch1_ms"] = latency.batch1_ms;
    e["inference_images_per_second"] = rate;
    return fmt::format("\ninference: {} img/s in batches of 32, {:.1f} ms for a single image", rate_text(rate),
                       latency.batch1_ms);
  }

  /// Speed of the network asked for, and with --data the time of a whole run, from real steps.
  std::string estimate_run(nlohmann::ordered_json& j) const {
    const TrainOptions& o = options_;
    const PhaseSeconds image = probe_step(o);
    const NetworkOptions& n = o.network;
    const std::string layers = overrides_text(n.overrides);
    auto& e = j["estimate"];
    e = {{"arch", n.arch},
         {"width", n.width},
         {"precision", n.precision},
         {"image_size", n.image_size},
         {"batch_size", o.batch_size},
         {"shard", o.shard},
         {"images_per_second_before_calibration", 1 / image.before},
         {"images_per_second_after_calibration", 1 / image.after}};
    if (!layers.empty()) e["layers"] = layers;
    const int64_t memory = forecast_memory(o);
    e["peak_memory_bytes"] = memory;
    std::string text = fmt::format(
        "training {}, {} px, batch {} in shards of {}: {} img/s before calibration, {} after", network_text(n),
        n.image_size, o.batch_size, o.shard, rate_text(1 / image.before), rate_text(1 / image.after));
    if (data_.empty()) text += "; with --data also the time of a run";
    text += "\n" + describe_memory(memory, available_memory(), o);
    text += estimate_inference(n, e);
    if (data_.empty()) return text;
    const DatasetPtr images = open_images(data_, "train", Decoder::auto_);
    if (images->size() < o.batch_size) {
      warn(
          fmt::format("no run to estimate: '{}' has {} training images, fewer than one batch of {}; lower --batch-size",
                      data_, grouped(images->size()), o.batch_size));
      return text;
    }
    const double loading = probe_loading(*images, o);
    const PhaseSeconds loaded = with_loading(image, loading, o);
    const int64_t steps = o.epochs * (images->size() / o.batch_size);
    const bool quantizes = !build_resnet(n).quantizers.empty();
    const double batch = static_cast<double>(o.batch_size);
    const double seconds = StepPace({.total_steps = steps,
                                     .quantized_from = quantizes ? o.calibrate_step(steps) : -1,
                                     .probe = {.before = loaded.before * batch, .after = loaded.after * batch}})
                               .seconds_left(0);
    e["loading_seconds_per_image"] = loading;
    e["epochs"] = o.epochs;
    e["steps"] = steps;
    e["seconds"] = seconds;
    return text + fmt::format("\n{}: {}, {} with loading, without evaluations", counted(o.epochs, "epoch"),
                              counted(steps, "step"), duration(seconds));
  }

  CLI::App* app_ = nullptr;
  TrainOptions options_;
  NetworkArguments network_;
  std::string data_;
  int64_t threads_ = 0;
  bool json_ = false;
};

}  // namespace

Command* doctor_command() {
  return new Doctor;
}

}  // namespace nibble::apps
