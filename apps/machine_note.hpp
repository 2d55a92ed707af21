// RUN/machine.json: where, when and how fast a run was computed; none of it enters a checkpoint.
#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

namespace nibble::apps {

struct MachineNoteArgs {
  std::filesystem::path path;
  std::string data;
  std::string decoder;
  std::string image_sizes = {};  // a hash of file sizes (RunData::sizes)
  std::string weights = {};      // the file that the run starts from; empty: none, or begun before
  std::string weights_sha256 = {};
  int64_t first_step = 0;  // where this process starts
};

/// Bytes of machine.json that are read.
constexpr uint64_t kLongestNote = uint64_t{1} << 20;

/// One entry of the list "sessions" per process that worked on the run: version, CPU, kernel level and why, threads,
/// paths, given weights and their SHA-256, UTC time of the start, first step; and, when the process ends in order, last
/// step, seconds and images/s. A process that was killed leaves its entry without an end.
class MachineNote {
 public:
  /// Adds the entry. Of an older file the last sessions are kept, as many as fit in 512 KiB, flat objects only; one
  /// that is unreadable or above 1 MiB is replaced: it is a note, not state. DiskError when it cannot be written.
  explicit MachineNote(const MachineNoteArgs& args);
  /// What differs from the session before among all that results depend on, such as "kernels of avx2 (before: amx)";
  /// empty: nothing, or there was none.
  const std::string& changed() const { return changed_; }
  struct End {
    int64_t last_step = 0;
    double images_per_second = 0;
  };
  void finish(const End& end);

 private:
  std::filesystem::path path_;
  std::string changed_;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

}  // namespace nibble::apps
