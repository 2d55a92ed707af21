// What every command shares: its parsed line, where output goes, and the list of all commands.
#pragma once
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace nibble::apps {

/// One command: declares its options on `app` and returns what runs after parsing. The returned object owns the
/// options.
class Command {
 public:
  virtual ~Command() = default;
  virtual const char* name() const = 0;
  virtual const char* summary() const = 0;
  /// Shown below the options; whole lines a user can paste.
  virtual const char* examples() const = 0;
  /// Lines below the examples that explain the output; begins with an empty one.
  virtual const char* notes() const { return ""; }
  virtual void declare(CLI::App& app) = 0;
  /// Returns an exit code; errors are thrown.
  virtual int run() = 0;
};

Command* train_command();
Command* eval_command();
Command* export_command();
Command* quantize_command();
Command* predict_command();
Command* inspect_command();
Command* report_command();
Command* cost_command();
Command* bench_command();
Command* study_command();
Command* study_run_command();  // parts of study
Command* study_measure_command();
Command* study_report_command();
Command* study_pick_command();
Command* study_compare_command();
Command* split_command();
Command* synth_command();
Command* doctor_command();

}  // namespace nibble::apps
