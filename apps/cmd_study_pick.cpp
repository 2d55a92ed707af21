// nibble study pick
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/study/pick.hpp"
#include "engine/error.hpp"
#include "nn/study/curves.hpp"
#include "nn/study/study_folder.hpp"

namespace nibble::apps {

namespace {

class StudyPickCommand : public Command {
 public:
  const char* name() const override { return "pick"; }
  const char* summary() const override { return "the most accurate model under a budget, and what was given up"; }
  const char* examples() const override {
    return "  nibble study pick studies/a --max-linear 0.15\n"
           "  nibble study pick studies/a --max-bytes 5e6 --max-ms 4 --json";
  }
  const char* notes() const override {
    return "\n\nModels are compared by top1: the published metric (the best epoch of the curve smoothed over five "
           "epochs),\nas the mean over the seeds. The file that is named is one training's, after its last step: "
           "top1_last is its own\naccuracy, the one that nibble eval gives.\n\n"
           "--json: a model is all seeds of one precision and width: name (of its first training), precision, width, "
           "seeds (their\nnumber), top1 (mean, percent), top1_error (its standard error), top1_last (of the training "
           "named), linear_ratio,\nquadratic_ratio, memory_ratio, served_bytes, ms (0: not measured). The one picked "
           "has model and result (files;\nempty: not there), given_up, best_of_all, next_better (null: none) and "
           "points (all under the budget) as well.";
  }

  void declare(CLI::App& app) override {
    add_option(app, "STUDY", study_, "study folder, or a study.json").required();
    add_option(app, "--max-linear", budget_.linear, "linear cost, as a ratio to bf16 at width 1");
    add_option(app, "--max-quadratic", budget_.quadratic, "quadratic cost, as a ratio to bf16 at width 1");
    add_option(app, "--max-memory", budget_.memory, "memory cost, as a ratio to bf16 at width 1");
    add_option(app, "--max-bytes", budget_.bytes, "bytes of the served file");
    add_option(app, "--max-ms", budget_.ms,
               "milliseconds of one image per call, on the machine that measured the study");
    add_flag(app, "--json", json_, "print one JSON object");
  }

  int run() override {
    if (budget_.empty()) throw UsageError("pick needs a budget; give --max-linear, --max-bytes, --max-ms or another");
    const std::pair<const char*, std::optional<double>> limits[] = {{"--max-linear", budget_.linear},
                                                                    {"--max-quadratic", budget_.quadratic},
                                                                    {"--max-memory", budget_.memory},
                                                                    {"--max-bytes", budget_.bytes},
                                                                    {"--max-ms", budget_.ms}};
    for (const auto& [option, limit] : limits)
      if (limit && !(*limit > 0 && *limit < 1e15))
        throw UsageError("{} is {}; use a number above 0 and below 1e15", option, *limit);
    const std::vector<PointResult> points = read_study(study_);
    const std::vector<StudyGroup> groups = group_points(points);
    const Pick pick = pick_best(groups, budget_);
    if (const std::string uneven = uneven_images(points); !uneven.empty()) warn(uneven);
    if (const TimesOf times = times_of(points); budget_.ms && !times.machines.empty() && !times.compare())
      warn(fmt::format(
          "the times of '{}' were not measured in one sitting; nibble study measure {} times all models in turn",
          study_, shell_quoted(study_)));
    if (json_)
      print_json(pick);
    else
      print_text(pick);
    return 0;
  }

 private:
  /// Its path, when the study's folder has the file.
  static std::string if_there(const std::filesystem::path& file) {
    std::error_code ignored;
    return std::filesystem::is_regular_file(file, ignored) ? file.string() : "";
  }
  /// The folder of the points: STUDY may be its study.json.
  std::filesystem::path folder() const {
    std::error_code ignored;
    const std::filesystem::path study(study_);
    return std::filesystem::is_directory(study, ignored) ? study : study.parent_path();
  }
  std::string model_of(const StudyGroup& g) const { return if_there(served_path(folder() / g.first().name)); }
  std::string result_of(const StudyGroup& g) const { return if_there(result_path(folder(), g.first().name)); }

  static nlohmann::ordered_json describe(const StudyGroup& g) {
    const PointResult& p = g.first();
    return {{"name", p.name},
            {"precision", g.precision},
            {"width", g.width},
            {"seeds", g.points.size()},
            {"top1", g.top1.value},
            {"top1_error", g.top1.error},
            {"top1_last", p.last.top1},
            {"linear_ratio", p.ratio.linear},
            {"quadratic_ratio", p.ratio.quadratic},
            {"memory_ratio", p.ratio.memory},
            {"served_bytes", p.served_bytes},
            {"ms", g.latency_ms}};
  }

  static std::string line(const StudyGroup& g) {
    return fmt::format("{}: top1 {:.2f} +- {:.2f}, {}", g.name(), g.top1.value, g.top1.error, costs_text(g));
  }

  void print_json(const Pick& pick) const {
    nlohmann::ordered_json j = describe(*pick.best);
    j["model"] = model_of(*pick.best);
    j["result"] = result_of(*pick.best);
    j["given_up"] = pick.best_of_all->top1.value - pick.best->top1.value;
    j["best_of_all"] = describe(*pick.best_of_all);
    j["next_better"] = pick.next_better != nullptr ? describe(*pick.next_better) : nlohmann::ordered_json();
    j["points"] = nlohmann::ordered_json::array();  // all that the budget allows, the best first
    for (const StudyGroup* g : pick.allowed) j["points"].push_back(describe(*g));
    print_object(j);
  }

  void print_text(const Pick& pick) const {
    const StudyGroup &best = *pick.best, &all = *pick.best_of_all;
    print(line(best));
    const bool smoothed = is_smoothed(best.first().curves.evaluations, best.first().best);
    print(fmt::format("top1 of {} after its last step{}: {:.2f} (above: the best {}{})", best.first().name,
                      best.first().served_bytes > 0 ? ", as its file has it" : "", best.first().last.top1,
                      smoothed ? "epoch, smoothed" : "evaluation",
                      best.points.size() > 1 ? fmt::format(", mean of {} seeds", best.points.size()) : ""));
    const double lost = all.top1.value - best.top1.value;
    if (pick.next_better == nullptr) {
      print("nothing was given up: no model of the study is more accurate");
    } else {
      const double error = std::hypot(best.top1.error, all.top1.error);
      print(fmt::format("given up: {:.2f} points to {} ({})", lost, all.name(),
                        lost <= 2 * error ? "within two standard errors" : "beyond two standard errors"));
      print("next better, " + line(*pick.next_better));
    }
    if (const std::string result = result_of(best); !result.empty()) print("result: " + result);
    if (const std::string model = model_of(best); !model.empty())
      print(fmt::format("next: nibble predict {} IMAGE", shell_quoted(model)));
  }

  std::string study_;
  Budget budget_;
  bool json_ = false;
};

}  // namespace

Command* study_pick_command() {
  return new StudyPickCommand;
}

}  // namespace nibble::apps
