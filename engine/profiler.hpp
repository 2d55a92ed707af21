// Profiler: named zones on the threads that run them; a table of totals and a Chrome trace.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

/// The multipliers that work is done on: each has a peak of its own.
enum class MacUnit : uint8_t { kFloat, kBf16, kCode8, kCode4 };
inline constexpr size_t kMacUnits = 4;

/// What a zone has to do, as counted by its caller.
struct ZoneWork {
  int64_t macs = 0;
  MacUnit unit = MacUnit::kFloat;  // of the macs
  /// Compulsory traffic: every operand read once, every result written once, in the bytes they are stored in (padding
  /// of rows included). A lower bound of what moves: it does not include what is read again because it left the cache.
  int64_t bytes = 0;
};

/// What one zone name cost since start_profiler(), summed over all threads.
struct ZoneTotal {
  std::string name;
  std::string label;                      // layer; empty in zone_table()
  int64_t count = 0;                      // zones opened; the shares of other threads are not counted again
  double seconds = 0;                     // thread time inside the zone, zones inside it included
  double self_seconds = 0;                // the same without the zones inside it on the same thread
  int64_t bytes = 0;                      // ZoneWork::bytes, summed
  std::array<int64_t, kMacUnits> macs{};  // ZoneWork::macs by unit, summed

  int64_t all_macs() const { return macs[0] + macs[1] + macs[2] + macs[3]; }
};

/// Forgets what was recorded and records from now on.
void start_profiler();
/// Records no more zones; those still open when it is called are dropped. What was recorded stays readable.
void stop_profiler();

/// Totals per name, the largest self time first (ties by name). May be called while zones run.
std::vector<ZoneTotal> zone_table();
/// Totals per name and label of the zones that have a label, the largest self time first (ties by name, then label).
std::vector<ZoneTotal> labelled_zone_table();

/// Writes the recorded zones as Chrome trace events (chrome://tracing, Perfetto): one complete event ("ph": "X") per
/// zone, one row per thread; a label is args.label. The tasks of a loop that a thread helps with are one event unless
/// there is a gap between them. A thread keeps its first 2^20 zones (32 bytes each); the rest count in the table only,
/// and "droppedZones" says how many there are.
/// Errors   DiskError when the file cannot be written.
void write_chrome_trace(const std::string& path);
/// What its file begins with.
inline constexpr const char* kTraceBegins = "{\"displayTimeUnit\"";

namespace profiler_detail {
inline std::atomic<bool> recording{false};
}

/// Measures the scope it lives in. Off: one relaxed load. On: two clock readings and one uncontended lock, about 100
/// ns, so zones belong around operations, not inside kernels. The name must be a string literal: its address is kept.
/// The label (a layer's name) must live as long as the zone; it is copied when the zone closes.
///
///   Zone zone("conv2d_forward", layer.name);
///   zone.count([&] { return ZoneWork{.macs = shape.macs(), .unit = MacUnit::kBf16, .bytes = moved}; });
class Zone {
 public:
  template <size_t n>
  explicit Zone(const char (&name)[n], std::string_view label = {}) {
    if (profiler_detail::recording.load(std::memory_order_relaxed)) open(name, label);
  }
  ~Zone() {
    if (name_ != nullptr) close();
  }
  Zone(const Zone&) = delete;
  Zone& operator=(const Zone&) = delete;

  /// Sets the zone's counts to work(), once per zone; work is not called while the profiler is off.
  template <typename Work>
  void count(const Work& work) {
    if (name_ != nullptr) work_ = work();
  }

 private:
  friend class ZoneShare;
  Zone() = default;
  void open(const char* name, std::string_view label);
  void close();
  void record(int64_t duration) const;

  const char* name_ = nullptr;
  std::string_view label_;
  Zone* parent_ = nullptr;
  ZoneWork work_;
  uint32_t run_ = 0;  // which start_profiler() it belongs to
  bool share_ = false;
  int64_t begin_ns_ = 0;
  int64_t inner_ns_ = 0;  // time of the zones directly inside
};

/// The innermost zone of this thread while the profiler is on: what parallel_for hands to the threads that help.
const Zone* innermost_zone();

/// Time that this thread spends on a part of another thread's zone: counted under its name and label, but not as a
/// call. Does nothing on the thread whose innermost zone that is.
class ZoneShare {
 public:
  explicit ZoneShare(const Zone* of) {
    if (of != nullptr) open(*of);
  }

 private:
  void open(const Zone& of);
  Zone zone_;
};

}  // namespace nibble
