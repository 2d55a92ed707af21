// nibble report
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/options.hpp"
#include "apps/report/run_report.hpp"
#include "engine/files.hpp"
#include "nn/atomic_file.hpp"

namespace nibble::apps {

namespace {

class Report : public Command {
 public:
  const char* name() const override { return "report"; }
  const char* summary() const override { return "one run as one HTML page: curves, layers, use of the codes, machine"; }
  const char* examples() const override { return "  nibble report runs/a\n  nibble report runs/a --out a.html"; }

  void declare(CLI::App& app) override {
    add_option(app, "RUN", run_, "run folder, finished or not").required();
    add_option(app, "--out", out_, "the page to write (default: RUN/report.html)");
    add_flag(app, "--json", json_, "print one JSON object: the page written, and its bytes");
    declare_threads(app, threads_);
  }

  int run() override {
    apply_threads(threads_);
    const std::filesystem::path out =
        out_.empty() ? std::filesystem::path(run_) / "report.html" : std::filesystem::path(out_);
    refuse_to_replace(out, "<!DOCTYPE html", "an HTML page");
    const std::string page = run_report(read_run(run_));
    make_folders_above(out);
    write_file_atomically(out, page);
    message(fmt::format("report: {} ({} bytes)", one_line(out.string()), grouped(static_cast<int64_t>(page.size()))));
    if (json_) print_object({{"page", out.string()}, {"bytes", page.size()}});
    return 0;
  }

 private:
  std::string run_, out_;
  bool json_ = false;
  int64_t threads_ = 0;
};

}  // namespace

Command* report_command() {
  return new Report;
}

}  // namespace nibble::apps
