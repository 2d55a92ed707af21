// Profiler: named zones on the threads that run them; a table of totals and a Chrome trace.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace nibble {

/// What one zone name cost since start_profiler(), summed over all threads.
struct ZoneTotal {
  std::string name;
  int64_t count = 0;
  double seconds = 0;       // wall time inside the zone, zones inside it included
  double self_seconds = 0;  // the same without the zones inside it on the same thread
};

/// Forgets what was recorded and records from now on.
void start_profiler();
/// Records no more zones; those still open when it is called are dropped. What was recorded stays readable.
void stop_profiler();

/// Totals per name, the largest self time first (ties by name). May be called while zones run.
std::vector<ZoneTotal> zone_table();

/// Writes the recorded zones as Chrome trace events (chrome://tracing, Perfetto): one complete event ("ph": "X") a
/// zone, one row a thread. A thread keeps its first 2^20 zones (24 bytes each); the rest count in the table only, and
/// "droppedZones" says how many there are.
/// Errors   DiskError when the file cannot be written.
void write_chrome_trace(const std::string& path);

namespace profiler_detail {
inline std::atomic<bool> recording{false};
}

/// Measures the scope it lives in. Off: one relaxed load. On: two clock readings and one uncontended lock, about 100
/// ns, so zones belong around operations, not inside kernels. The name must be a string literal: its address is kept.
///
///   Zone zone("conv2d_forward");
class Zone {
 public:
  template <size_t n>
  explicit Zone(const char (&name)[n]) {
    if (profiler_detail::recording.load(std::memory_order_relaxed)) open(name);
  }
  ~Zone() {
    if (name_ != nullptr) close();
  }
  Zone(const Zone&) = delete;
  Zone& operator=(const Zone&) = delete;

 private:
  void open(const char* name);
  void close();

  const char* name_ = nullptr;
  Zone* parent_ = nullptr;
  uint32_t run_ = 0;  // which start_profiler() it belongs to
  int64_t begin_ns_ = 0;
  int64_t inner_ns_ = 0;  // time of the zones directly inside
};

}  // namespace nibble
