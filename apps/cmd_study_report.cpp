// nibble study report
#include <filesystem>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/report/study_data.hpp"
#include "apps/report/study_report.hpp"
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
    return "  nibble study report studies/a\n  nibble study report studies/a --out a/index.html";
  }

  void declare(CLI::App& app) override {
    add_option(app, "STUDY", study_, "study folder, or a study.json").required();
    add_option(app, "--out", out_, "the page to write (default: STUDY/report/index.html); the data go beside it");
  }

  int run() override {
    const std::vector<PointResult> points = read_study(study_);
    const fs::path study = fs::absolute(study_).lexically_normal();
    const fs::path folder = fs::is_directory(study) ? study / "" : study.parent_path() / "";
    const fs::path out = out_.empty() ? folder / "report" / "index.html" : fs::absolute(out_);
    if (out_.empty()) make_folder(out.parent_path());
    const uint64_t bytes = write_study_report(points, folder.parent_path().filename().string(), out);
    if (const std::string uneven = uneven_images(points); !uneven.empty()) warn(uneven);
    message(fmt::format("report on {} points: {} ({} bytes), beside it study.json, points.csv, pareto.svg",
                        points.size(), out.string(), grouped(static_cast<int64_t>(bytes))));
    return 0;
  }

 private:
  static void make_folder(const fs::path& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) throw DiskError("cannot make the folder '{}': {}", folder.string(), error.message());
  }

  std::string study_, out_;
};

}  // namespace

Command* study_report_command() {
  return new StudyReportCommand;
}

}  // namespace nibble::apps
