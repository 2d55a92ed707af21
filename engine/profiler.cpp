#include "engine/profiler.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "engine/error.hpp"

namespace nibble {

namespace {

constexpr size_t kMaxEvents = size_t{1} << 20;  // 24 MiB a thread: minutes of training at some thousand zones a second

struct Event {
  const char* name;
  int64_t begin_ns;
  int64_t duration_ns;
};

struct Sum {
  int64_t count = 0;
  int64_t total_ns = 0;
  int64_t self_ns = 0;
};

/// What one thread recorded. Only that thread adds; the lock is for readers and for starting anew.
struct ThreadLog {
  std::mutex mutex;
  std::vector<Event> events;
  int64_t dropped = 0;
  std::unordered_map<const char*, Sum> sums;  // by address: equal names in several files are merged in the table
};

struct Registry {
  std::mutex mutex;
  std::vector<std::shared_ptr<ThreadLog>> logs;  // in the order in which threads opened their first zone
  std::atomic<uint32_t> run{0};
  std::atomic<int64_t> start_ns{0};
};

Registry& registry() {
  static Registry* all = new Registry;  // never destroyed: pool threads may close zones while the process exits
  return *all;
}

int64_t now_ns() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

ThreadLog& this_thread() {
  thread_local const std::shared_ptr<ThreadLog> log = [] {
    auto mine = std::make_shared<ThreadLog>();
    const std::lock_guard lock(registry().mutex);
    registry().logs.push_back(mine);  // shared: it outlives the thread
    return mine;
  }();
  return *log;
}

thread_local Zone* innermost = nullptr;

std::vector<std::shared_ptr<ThreadLog>> all_logs() {
  const std::lock_guard lock(registry().mutex);
  return registry().logs;
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace

void start_profiler() {
  profiler_detail::recording.store(false);
  registry().run.fetch_add(1);  // zones that are open now will not be recorded
  for (const auto& log : all_logs()) {
    const std::lock_guard lock(log->mutex);
    log->events.clear();
    log->sums.clear();
    log->dropped = 0;
  }
  registry().start_ns.store(now_ns());
  profiler_detail::recording.store(true);
}

void stop_profiler() {
  profiler_detail::recording.store(false);
}

void Zone::open(const char* name) {
  name_ = name;
  parent_ = innermost;
  innermost = this;
  run_ = registry().run.load();
  begin_ns_ = now_ns();
}

void Zone::close() {
  const int64_t duration = now_ns() - begin_ns_;
  innermost = parent_;
  if (parent_ != nullptr) parent_->inner_ns_ += duration;
  ThreadLog& log = this_thread();
  const std::lock_guard lock(log.mutex);
  // Under the lock: start_profiler() raises the run before it clears, so nothing of an older run slips in after that.
  if (run_ != registry().run.load() || !profiler_detail::recording.load()) return;
  if (log.events.size() < kMaxEvents) {
    log.events.push_back({name_, begin_ns_, duration});
  } else {
    ++log.dropped;
  }
  Sum& sum = log.sums[name_];
  ++sum.count;
  sum.total_ns += duration;
  sum.self_ns += duration - inner_ns_;
}

std::vector<ZoneTotal> zone_table() {
  std::map<std::string_view, Sum> merged;
  for (const auto& log : all_logs()) {
    const std::lock_guard lock(log->mutex);
    for (const auto& [name, sum] : log->sums) {
      Sum& all = merged[name];
      all.count += sum.count;
      all.total_ns += sum.total_ns;
      all.self_ns += sum.self_ns;
    }
  }
  std::vector<ZoneTotal> table;
  for (const auto& [name, sum] : merged)
    table.push_back({std::string(name), sum.count, static_cast<double>(sum.total_ns) * 1e-9,
                     static_cast<double>(sum.self_ns) * 1e-9});
  std::stable_sort(table.begin(), table.end(),
                   [](const ZoneTotal& a, const ZoneTotal& b) { return a.self_seconds > b.self_seconds; });
  return table;
}

void write_chrome_trace(const std::string& path) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  const int64_t start = registry().start_ns.load();
  int64_t dropped = 0;
  size_t thread = 0;
  bool first = true;
  file << "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [";
  for (const auto& log : all_logs()) {
    const std::lock_guard lock(log->mutex);
    for (const Event& event : log->events) {  // microseconds are the format's unit; three decimals keep nanoseconds
      file << fmt::format(
          "{}\n{{\"name\": {}, \"ph\": \"X\", \"pid\": 1, \"tid\": {}, \"ts\": {:.3f}, \"dur\": {:.3f}}}",
          first ? "" : ",", json_string(event.name), thread, static_cast<double>(event.begin_ns - start) * 1e-3,
          static_cast<double>(event.duration_ns) * 1e-3);
      first = false;
    }
    dropped += log->dropped;
    ++thread;
  }
  file << fmt::format("\n], \"otherData\": {{\"droppedZones\": {}}}}}\n", dropped);
  file.close();
  if (!file)
    throw DiskError("the trace could not be written to '{}' ({}); name a file in a folder that exists and has space",
                    path, std::strerror(errno));
}

}  // namespace nibble
