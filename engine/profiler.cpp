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
#include <set>
#include <string_view>
#include <utility>

#include "engine/error.hpp"

namespace nibble {

namespace {

/// Tasks that follow each other on a helping thread closer than this are one event: a loop has thousands of them.
constexpr int64_t kShareGapNs = 10'000;
constexpr size_t kMaxEvents = size_t{1} << 20;  // 32 MiB a thread: minutes of training at some thousand zones a second

struct Event {
  const char* name;
  const std::string* label;  // in the thread's labels; null: none
  int64_t begin_ns;
  int64_t duration_ns;

  int64_t end_ns() const { return begin_ns + duration_ns; }
};

struct Sum {
  int64_t count = 0;
  int64_t total_ns = 0;
  int64_t self_ns = 0;
  int64_t bytes = 0;
  std::array<int64_t, kMacUnits> macs{};

  void add(const Sum& other) {
    count += other.count;
    total_ns += other.total_ns;
    self_ns += other.self_ns;
    bytes += other.bytes;
    for (size_t u = 0; u < kMacUnits; ++u) macs[u] += other.macs[u];
  }
};

/// By address: equal names in several files, and equal labels of several threads, are merged in the table.
using Key = std::pair<const char*, const std::string*>;

/// What one thread recorded. Only that thread adds; the lock is for readers and for restarting.
struct ThreadLog {
  std::mutex mutex;
  std::vector<Event> events;
  size_t shares_end = 0;  // events.size() after the last event when it was a share, otherwise 0
  int64_t dropped = 0;
  std::set<std::string, std::less<>> labels;  // nodes do not move
  std::map<Key, Sum> sums;
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
    log->shares_end = 0;
    log->sums.clear();
    log->labels.clear();
    log->dropped = 0;
  }
  registry().start_ns.store(now_ns());
  profiler_detail::recording.store(true);
}

void stop_profiler() {
  profiler_detail::recording.store(false);
}

void Zone::open(const char* name, std::string_view label) {
  name_ = name;
  label_ = label;
  parent_ = innermost;
  innermost = this;
  run_ = registry().run.load();
  begin_ns_ = now_ns();
}

void Zone::close() {
  const int64_t duration = now_ns() - begin_ns_;
  innermost = parent_;
  if (parent_ != nullptr) parent_->inner_ns_ += duration;
  try {
    record(duration);
  } catch (const std::bad_alloc&) {  // a zone may end because there is no memory left; that error is told, not this one
  }
}

void Zone::record(int64_t duration) const {
  ThreadLog& log = this_thread();
  const std::lock_guard lock(log.mutex);
  // Under the lock: start_profiler() raises the run before it clears, so nothing of an older run slips in after that.
  if (run_ != registry().run.load() || !profiler_detail::recording.load()) return;
  const std::string* label = nullptr;
  if (!label_.empty()) {
    auto found = log.labels.find(label_);
    if (found == log.labels.end()) found = log.labels.emplace(label_).first;
    label = &*found;
  }
  const bool behind_share = share_ && log.shares_end > 0 && log.shares_end == log.events.size();
  if (behind_share && log.events.back().name == name_ && log.events.back().label == label &&
      begin_ns_ - log.events.back().end_ns() < kShareGapNs) {
    log.events.back().duration_ns += begin_ns_ + duration - log.events.back().end_ns();
  } else if (log.events.size() < kMaxEvents) {
    log.events.push_back({name_, label, begin_ns_, duration});
    log.shares_end = share_ ? log.events.size() : 0;
  } else {
    ++log.dropped;
  }
  Sum sum{.count = share_ ? 0 : 1, .total_ns = duration, .self_ns = duration - inner_ns_, .bytes = work_.bytes};
  sum.macs[static_cast<size_t>(work_.unit)] = work_.macs;
  log.sums[{name_, label}].add(sum);
}

const Zone* innermost_zone() {
  return profiler_detail::recording.load(std::memory_order_relaxed) ? innermost : nullptr;
}

void ZoneShare::open(const Zone& of) {
  if (innermost == &of || !profiler_detail::recording.load(std::memory_order_relaxed)) return;
  zone_.share_ = true;
  zone_.open(of.name_, of.label_);
}

namespace {

/// Sums per name, and per label where `by_label`; the labels live in the logs, so rows are made before they may go.
std::vector<ZoneTotal> make_table(bool by_label) {
  std::map<std::pair<std::string, std::string>, Sum> merged;
  for (const auto& log : all_logs()) {
    const std::lock_guard lock(log->mutex);
    for (const auto& [key, sum] : log->sums) {
      if (by_label && key.second == nullptr) continue;
      merged[{key.first, by_label ? *key.second : std::string()}].add(sum);
    }
  }
  std::vector<ZoneTotal> table;
  for (const auto& [names, sum] : merged)
    table.push_back({.name = names.first,
                     .label = names.second,
                     .count = sum.count,
                     .seconds = static_cast<double>(sum.total_ns) * 1e-9,
                     .self_seconds = static_cast<double>(sum.self_ns) * 1e-9,
                     .bytes = sum.bytes,
                     .macs = sum.macs});
  std::stable_sort(table.begin(), table.end(),
                   [](const ZoneTotal& a, const ZoneTotal& b) { return a.self_seconds > b.self_seconds; });
  return table;
}

}  // namespace

std::vector<ZoneTotal> zone_table() {
  return make_table(false);
}

std::vector<ZoneTotal> labelled_zone_table() {
  return make_table(true);
}

void write_chrome_trace(const std::string& path) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  const int64_t start = registry().start_ns.load();
  int64_t dropped = 0;
  size_t thread = 0;
  bool first = true;
  file << kTraceBegins << ": \"ms\", \"traceEvents\": [";
  for (const auto& log : all_logs()) {
    const std::lock_guard lock(log->mutex);
    for (const Event& event : log->events) {  // microseconds are the format's unit; three decimals keep nanoseconds
      file << fmt::format(
          "{}\n{{\"name\": {}, \"ph\": \"X\", \"pid\": 1, \"tid\": {}, \"ts\": {:.3f}, \"dur\": {:.3f}{}}}",
          first ? "" : ",", json_string(event.name), thread, static_cast<double>(event.begin_ns - start) * 1e-3,
          static_cast<double>(event.duration_ns) * 1e-3,
          event.label != nullptr ? fmt::format(", \"args\": {{\"label\": {}}}", json_string(*event.label)) : "");
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
