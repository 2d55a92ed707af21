// nibble study: run, measure, report, pick and compare
#include <CLI/CLI.hpp>
#include <memory>
#include <vector>

#include "apps/command.hpp"
#include "engine/error.hpp"

namespace nibble::apps {

namespace {

class Study : public Command {
 public:
  Study() {
    for (Command* c : {study_run_command(), study_measure_command(), study_report_command(), study_pick_command(),
                       study_compare_command()})
      parts_.emplace_back(c);
  }

  const char* name() const override { return "study"; }
  const char* summary() const override { return "many models compared: train them, report on them, pick one"; }
  const char* examples() const override {
    return "  nibble study run --data imagenette --out studies/a --image-size 64\n"
           "  nibble study report studies/a\n"
           "  nibble study pick studies/a --max-linear 0.15";
  }

  void declare(CLI::App& app) override {
    app.require_subcommand(0, 1);
    for (const auto& part : parts_) {
      CLI::App* sub = app.add_subcommand(part->name(), part->summary());
      sub->footer(std::string("Examples:\n") + part->examples() + part->notes());
      part->declare(*sub);
      sub->callback([this, c = part.get()] { chosen_ = c; });
    }
  }

  int run() override {
    if (chosen_ == nullptr)
      throw UsageError("study needs run, measure, report, pick or compare; see nibble study --help");
    return chosen_->run();
  }

 private:
  std::vector<std::unique_ptr<Command>> parts_;
  Command* chosen_ = nullptr;
};

}  // namespace

Command* study_command() {
  return new Study;
}

}  // namespace nibble::apps
