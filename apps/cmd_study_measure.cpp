// nibble study measure
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/options.hpp"
#include "apps/report/study_data.hpp"
#include "apps/report/study_report.hpp"
#include "apps/signals.hpp"
#include "apps/study/plan.hpp"
#include "apps/study/timing.hpp"
#include "engine/error.hpp"
#include "nn/atomic_file.hpp"
#include "nn/folder_lock.hpp"
#include "nn/study/study_folder.hpp"

namespace nibble::apps {

namespace {

namespace fs = std::filesystem;

class StudyMeasureCommand : public Command {
 public:
  const char* name() const override { return "measure"; }
  const char* summary() const override {
    return "time all finished points in turn, here and now, and keep the times in their results";
  }
  const char* examples() const override {
    return "  nibble study measure studies/a                        # then: nibble study report studies/a\n"
           "  nibble study measure studies/a --rounds 15 --threads 2";
  }

  void declare(CLI::App& app) override {
    add_option(app, "STUDY", study_, "study folder, or a study.json: the new times replace those in it").required();
    add_option(app, "--rounds", rounds_, "times that every model has its turn").capture_default_str();
    declare_threads(app, threads_);
    add_flag(app, "--json", json_, "print one JSON object");
  }

  int run() override {
    if (rounds_ < 1 || rounds_ > 10000) throw UsageError("--rounds is {}; use 1 to 10000", rounds_);
    apply_threads(threads_);
    install_signal_handlers();
    const StudySource source = find_study(study_);
    refuse_report_of_study(source.file);
    std::unique_ptr<FolderLock> lock;
    if (source.file.empty()) lock = std::make_unique<FolderLock>(study_, "working on the study");
    std::vector<PointResult> points = read_study(study_);
    if (!source.file.empty()) group_points(points);  // the file cannot be written with points that do not compare
    std::vector<TimedNetwork> networks = networks_of(points);
    if (networks.empty())
      throw UsageError("no point of '{}' is of a model that can be served; fake quantization is not", study_);
    if (const std::string uneven = uneven_images(points); !uneven.empty()) warn(uneven);
    time_in_turn(networks, rounds_);
    store(source, points, networks);
    if (json_)
      print_json(networks);
    else
      print_table(networks);
    return 0;
  }

 private:
  /// A report's own study.json is rewritten by the next report, and times kept only in it are then lost.
  static void refuse_report_of_study(const fs::path& file) {
    std::error_code none;
    const fs::path study = fs::absolute(file, none).lexically_normal().parent_path().parent_path();
    if (!file.empty() && fs::exists(plan_path(study), none))
      throw UsageError("{} belongs to the report of the study '{}', which the next report replaces; measure the study",
                       file.string(), study.string());
  }

  static void store(const StudySource& source, std::vector<PointResult>& points,
                    const std::vector<TimedNetwork>& networks) {
    keep_times(source.results, networks);
    if (source.file.empty()) return;
    take_times(points, networks);
    write_file_atomically(source.file, study_json(points));
  }

  static void print_json(const std::vector<TimedNetwork>& networks) {
    nlohmann::ordered_json j;
    const Latency& any = networks.front().latency;
    j["sitting"] = any.sitting;
    j["cpu"] = any.cpu;
    j["isa"] = any.isa;
    j["threads"] = any.threads;
    j["points"] = nlohmann::ordered_json::array();
    for (const TimedNetwork& n : networks)
      for (const std::string& point : n.points)
        j["points"].push_back({{"name", point},
                               {"batch1_ms", n.latency.batch1_ms},
                               {"batch32_ms_per_image", n.latency.batch32_ms_per_image}});
    print_object(j);
  }

  void print_table(const std::vector<TimedNetwork>& networks) const {
    std::vector<std::vector<std::string>> rows = {{"model", "ms, one image", "ms per image, batch 32"}};
    for (const TimedNetwork& n : networks)
      rows.push_back({fmt::format("{} x{}", n.options.precision, n.options.width),
                      fmt::format("{:.2f}", n.latency.batch1_ms),
                      fmt::format("{:.2f}", n.latency.batch32_ms_per_image)});
    print(format_table(rows));
    const Latency& any = networks.front().latency;
    print(fmt::format("medians of {} in turn on {}, {}, {}; next: nibble study report {}", counted(rounds_, "round"),
                      any.cpu, any.isa, counted(any.threads, "thread"), shell_quoted(study_)));
  }

  std::string study_;
  int64_t rounds_ = 7, threads_ = 0;
  bool json_ = false;
};

}  // namespace

Command* study_measure_command() {
  return new StudyMeasureCommand;
}

}  // namespace nibble::apps
