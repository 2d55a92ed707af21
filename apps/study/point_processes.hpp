// Processes of this program, each at work on a point of a study, what they say, and how they end.
#pragma once
#include <sys/types.h>

#include <string>
#include <vector>

#include "engine/files.hpp"

namespace nibble::apps {

struct EndedProcess {
  std::string point;
  int slot = 0;
  int code = 0;       // its exit code, or 128 + the number of the signal that ended it
  std::string error;  // the sentence after the last "error: " that it said
};

/// Their lines are shown with the point's name before them, except for their errors. They are in this process's group,
/// so that Ctrl-C and Ctrl-Z reach them; they save and stop where this process dies, however that happens.
class PointProcesses {
 public:
  PointProcesses() = default;
  /// Those that are left are asked to save and stop, and waited for.
  ~PointProcesses();
  PointProcesses(const PointProcesses&) = delete;
  PointProcesses& operator=(const PointProcesses&) = delete;

  /// Runs this program with `arguments`. `slot` comes back with its end. To be called from the main thread: they stop
  /// when the thread that started them ends. Error when the system has no process or pipe left.
  void start(const std::string& point, int slot, const std::vector<std::string>& arguments);
  size_t running() const { return all_.size(); }
  /// Shows what they say, passes on a request to save (SIGUSR1) and the first one to stop, and returns when one has
  /// ended. At least one must be running.
  EndedProcess wait();
  /// Asks all to save and stop, once.
  void stop();

 private:
  struct Process {
    std::string point;
    int slot = 0;
    pid_t id = 0;
    FileDescriptor said;      // the reading end of its stderr
    std::string rest, error;  // rest: of a line that has not ended
  };
  void send(int signal_number) const;
  static void show(Process& process, std::string line);
  /// Takes what it said; false when it has closed its stderr: it has ended, or is about to.
  static bool listen(Process& process);

  std::vector<Process> all_;
  bool stopped_ = false;
};

}  // namespace nibble::apps
