// nibble study report
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/report/study_data.hpp"
#include "apps/report/study_report.hpp"
#include "apps/study/plan.hpp"
#include "apps/study/point_json.hpp"
#include "engine/error.hpp"
#include "nn/study/study_folder.hpp"

namespace nibble::apps {

namespace {

namespace fs = std::filesystem;

class StudyReportCommand : public Command {
 public:
  const char* name() const override { return "report"; }
  const char* summary() const override { return "one HTML page about all finished points, with JSON, CSV and SVG"; }
  const char* examples() const override {
    return "  nibble study report studies/a\n  nibble study report studies/a --out a/index.html --json";
  }

  void declare(CLI::App& app) override {
    add_option(app, "STUDY", study_, "study folder, or a study.json").required();
    add_option(app, "--out", out_, "the page to write (default: STUDY/report/index.html); the data go next to it");
    add_flag(
        app, "--json", json_,
        "print one JSON object: the files written, the points, and the plan's points without a result (null: no plan)");
  }

  int run() override {
    const std::vector<PointResult> points = read_study(study_);
    const fs::path study = fs::absolute(study_).lexically_normal();
    const fs::path folder = fs::is_directory(study) ? study / "" : study.parent_path() / "";
    const fs::path out = out_.empty() ? folder / "report" / "index.html" : fs::absolute(out_);
    const std::optional<std::vector<std::string>> planned = missing_points(study, points);
    const std::vector<std::string> missing = planned.value_or(std::vector<std::string>());
    const StudyReportFiles files =
        write_study_report(points, folder.parent_path().filename().string(), missing, out,
                           out_.empty() && fs::is_directory(study) ? OtherStudy::kReplaced : OtherStudy::kRefused);
    if (const std::string uneven = uneven_images(points); !uneven.empty()) warn(uneven);
    const std::string to_come =
        missing.empty() ? "" : fmt::format(" ({} still to come)", grouped(static_cast<int64_t>(missing.size())));
    message(fmt::format("report on {}{}: {} ({} bytes), next to it study.json, points.csv, pareto.svg",
                        counted(static_cast<int64_t>(points.size()), "point"), to_come, out.string(),
                        grouped(static_cast<int64_t>(files.bytes))));
    if (json_) print_json(files, points, planned);
    return 0;
  }

 private:
  /// What the plan of a study folder has and `points` do not; none without a plan, as for a single file. A plan that
  /// cannot be read is no reason to give no report.
  static std::optional<std::vector<std::string>> missing_points(const fs::path& study,
                                                                const std::vector<PointResult>& points) {
    std::error_code ignored;
    if (!fs::is_regular_file(plan_path(study), ignored)) return std::nullopt;
    try {
      return read_plan(study).without(points);
    } catch (const Error& e) {
      warn(fmt::format("the report does not say what is still to come: {}", e.what()));
      return std::nullopt;
    }
  }

  static void print_json(const StudyReportFiles& files, const std::vector<PointResult>& points,
                         const std::optional<std::vector<std::string>>& missing) {
    nlohmann::ordered_json j;
    j["page"] = files.page.string();
    j["json"] = files.json.string();
    j["csv"] = files.csv.string();
    j["svg"] = files.svg.string();
    j["bytes"] = files.bytes;
    j["points"] = nlohmann::ordered_json::array();
    for (const PointResult& p : points) j["points"].push_back(point_json(p));
    j["missing"] = missing ? nlohmann::ordered_json(*missing) : nlohmann::ordered_json();
    print_object(j);
  }

  std::string study_, out_;
  bool json_ = false;
};

}  // namespace

Command* study_report_command() {
  return new StudyReportCommand;
}

}  // namespace nibble::apps
