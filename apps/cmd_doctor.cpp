// nibble doctor
#include <sys/sysinfo.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/command.hpp"
#include "apps/console.hpp"
#include "apps/options.hpp"
#include "data/image_folder.hpp"
#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "engine/rng.hpp"
#include "nn/train_options.hpp"

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
  int64_t total = 0, available = 0;  // bytes of the machine
  int64_t limit = 0;                 // what this process may use: the machine's, or less in a container
};

Memory memory_of_machine() {
  struct sysinfo info = {};
  sysinfo(&info);
  Memory m{.total = static_cast<int64_t>(info.totalram) * info.mem_unit};
  std::ifstream in("/proc/meminfo");
  std::string key;
  for (int64_t kib = 0; in >> key >> kib; in.ignore(256, '\n'))
    if (key == "MemAvailable:") m.available = kib * 1024;
  m.limit = m.total;
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream cgroup(path);  // "max" is no number: no limit
    if (int64_t bytes = 0; cgroup >> bytes && bytes > 0) m.limit = std::min(m.limit, bytes);
  }
  return m;
}

/// Images a second of one training step of a small network, measured now: the honest base of every estimate.
double probe_training_rate(const std::string& precision) {
  TrainOptions o;
  o.network.arch = "resnet26";
  o.network.width = 0.25;
  o.network.precision = precision;
  o.network.image_size = 64;
  o.network.classes = 10;
  o.batch_size = 32;
  o.shard = 16;
  o.lr = 1e-4;
  o.calibrate_at = 1;
  Trainer trainer(make_model(build_resnet(o.network), {.seed = 0, .zero_last_gamma = true}), o.trainer(100, 100));
  const Tensor x(DType::u8, {o.batch_size, 64, 64, 3});
  Rng rng(0, rng_purpose::kTest);
  for (int64_t i = 0; i < x.size(); ++i) x.data<uint8_t>()[i] = static_cast<uint8_t>(rng.next_u32() >> 24);
  const std::vector<int32_t> labels(static_cast<size_t>(o.batch_size), 1);
  trainer.step(x, labels);  // the calibration step and the first touch of all memory
  double best = 1e9;
  for (int i = 0; i < 3; ++i) {
    const auto began = Clock::now();
    trainer.step(x, labels);
    best = std::min(best, std::chrono::duration<double>(Clock::now() - began).count());
  }
  return static_cast<double>(o.batch_size) / best;
}

double decode_rate(const std::string& dir) {
  const ImageFolder images({.dir = dir, .split = "train", .decoder = Decoder::auto_});
  const auto began = Clock::now();
  int64_t done = 0, at = 0;
  while (std::chrono::duration<double>(Clock::now() - began).count() < 1.0 && at < images.size()) {
    try {
      images.read(at);
      ++done;
    } catch (const DataError&) {  // bad images are the run's business, not the probe's
    }
    ++at;
  }
  return static_cast<double>(done) / std::chrono::duration<double>(Clock::now() - began).count();
}

class Doctor : public Command {
 public:
  const char* name() const override { return "doctor"; }
  const char* summary() const override { return "what this machine is, which kernels run, what speed to expect"; }
  const char* examples() const override { return "  nibble doctor\n  nibble doctor --data imagenette --json"; }

  void declare(CLI::App& app) override {
    app.add_option("--data", data_, "image folder to measure decoding on");
    app.add_flag("--json", json_, "print one JSON object");
    declare_threads(app, threads_);
  }

  int run() override {
    apply_threads(threads_);
    const Memory memory = memory_of_machine();
    nlohmann::ordered_json j;
    j["version"] = NIBBLE_VERSION;
    j["cpu"] = cpu_features().brand;
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
    if (!data_.empty()) j["decode_images_per_second_per_thread"] = decode_rate(data_);
    j["probe_train_images_per_second"] = {{"bf16", probe_training_rate("bf16")},
                                          {"w8a8", probe_training_rate("w8a8")},
                                          {"w4a4-fl8", probe_training_rate("w4a4-fl8")}};
    if (json_) {
      print(j.dump());
      return 0;
    }
    print(fmt::format("cpu      {}", cpu_features().brand));
    print(fmt::format("kernels  {}; runnable: {}", isa_explanation(), fmt::join(levels, ", ")));
    print(fmt::format("cores    {} online, {} available to this process, {} threads", sysconf(_SC_NPROCESSORS_ONLN),
                      available_cores(), threads()));
    print(fmt::format("memory   {} MiB, {} MiB allowed, {} MiB available; transparent huge pages: {}",
                      memory.total >> 20, memory.limit >> 20, memory.available >> 20,
                      j["huge_pages"].get<std::string>()));
    print(fmt::format("decoder  {}{}", j["decoder"].get<std::string>(),
                      data_.empty() ? ""
                                    : fmt::format(", {:.0f} images/s a thread",
                                                  j["decode_images_per_second_per_thread"].get<double>())));
    const auto& probe = j["probe_train_images_per_second"];
    print(fmt::format("training probe (resnet26 x0.25, 64 px): bf16 {:.0f}, w8a8 {:.0f}, w4a4-fl8 {:.0f} img/s",
                      probe["bf16"].get<double>(), probe["w8a8"].get<double>(), probe["w4a4-fl8"].get<double>()));
    print("for a network of your choice: nibble bench train --arch resnet50 --width 1 --image-size 224");
    return 0;
  }

 private:
  std::string data_;
  int64_t threads_ = 0;
  bool json_ = false;
};

}  // namespace

Command* doctor_command() {
  return new Doctor;
}

}  // namespace nibble::apps
