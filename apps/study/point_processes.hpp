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
  int code = 0;           // its exit code, or 128 + the number of the signal that ended it
  std::string last_line;  // of what it said on stderr, not shown yet
};

/// Every process is the leader of a group of its own, so that Ctrl-C reaches this one alone, which hands it on: two
/// signals would stop a run at once. They save and stop where this process dies, however that happens.
class PointProcesses {
 public:
  PointProcesses() = default;
  /// Those that are left are asked to save and stop, and waited for.
  ~PointProcesses();
  PointProcesses(const PointProcesses&) = delete;
  PointProcesses& operator=(const PointProcesses&) = delete;

  /// Runs this program with `arguments`. `slot` comes back with its end. To be called by the main thread: they stop
  /// when the thread that started them ends. DiskError when the system has no process or pipe left.
  void start(const std::string& point, int slot, const std::vector<std::string>& arguments);
  size_t running() const { return all_.size(); }
  /// Shows their lines, the point's name before each, hands on a request to save (SIGUSR1) and the first one to stop,
  /// and returns when one has ended. At least one must be running.
  EndedProcess wait();
  /// Asks all to save and stop, once.
  void stop();

 private:
  struct Process {
    std::string point;
    int slot = 0;
    pid_t id = 0;
    FileDescriptor said;  // the reading end of its stderr
    std::string rest, last_line;
  };
  void send(int signal_number) const;
  /// Takes what it said; false when it has closed its stderr: it has ended, or is about to.
  static bool listen(Process& process);

  std::vector<Process> all_;
  bool stopped_ = false;
};

}  // namespace nibble::apps
