// Zones: what is counted, how self time is split, what the trace file holds.
#include "engine/profiler.hpp"

#include <doctest/doctest.h>

#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "engine/error.hpp"
#include "engine/parallel.hpp"
#include "tests/near.hpp"

namespace {

using namespace nibble;
using nibble::testing::relative;
using namespace std::chrono_literals;

std::optional<ZoneTotal> find(const std::string& name) {
  for (const ZoneTotal& total : zone_table())
    if (total.name == name) return total;
  return std::nullopt;
}

struct Running {
  Running() { start_profiler(); }
  ~Running() { stop_profiler(); }
};

std::string temporary(const std::string& name) {
  return (std::filesystem::temp_directory_path() / (name + std::to_string(::getpid()))).string();
}

}  // namespace

TEST_CASE("zones record nothing while the profiler is off") {
  start_profiler();
  stop_profiler();
  { Zone zone("off"); }
  CHECK(zone_table().empty());
}

TEST_CASE("zones count calls and split self time from the zones inside") {
  const Running running;
  for (int i = 0; i < 3; ++i) {
    Zone outer("outer");
    std::this_thread::sleep_for(2ms);
    Zone inner("inner");
    std::this_thread::sleep_for(4ms);
  }
  const auto outer = find("outer"), inner = find("inner");
  REQUIRE(outer);
  REQUIRE(inner);
  CHECK(outer->count == 3);
  CHECK(inner->count == 3);
  CHECK(inner->seconds >= 0.012);
  CHECK(inner->self_seconds == inner->seconds);
  CHECK(outer->seconds >= 0.018);
  CHECK(outer->self_seconds == doctest::Approx(outer->seconds - inner->seconds).epsilon(1e-6));
}

TEST_CASE("starting again forgets old zones and drops those still open") {
  start_profiler();
  { Zone zone("old"); }
  {
    Zone zone("open across the start");
    start_profiler();
  }
  { Zone zone("new"); }
  stop_profiler();
  const auto table = zone_table();
  REQUIRE(table.size() == 1);
  CHECK(table[0].name == "new");
}

TEST_CASE("zones of all threads are summed, those of ended threads too") {
  set_threads(3);
  const Running running;
  parallel_for(100, [](int64_t) { Zone zone("pool"); });
  std::thread([] { Zone zone("ended"); }).join();
  REQUIRE(find("pool"));
  CHECK(find("pool")->count == 100);
  REQUIRE(find("ended"));
  CHECK(find("ended")->count == 1);
  set_threads(0);
}

TEST_CASE("labelled zones are told apart by their labels, and summed under their name") {
  start_profiler();
  {
    const std::string gone = "layer1.0.conv1";  // the label is needed no longer than the zone
    Zone zone("work", gone);
    zone.count([] { return ZoneWork{.macs = 10, .unit = MacUnit::kCode8, .bytes = 3}; });
  }
  for (int i = 0; i < 2; ++i) {
    Zone zone("work", "fc");
    zone.count([] { return ZoneWork{.macs = 5, .unit = MacUnit::kBf16, .bytes = 7}; });
  }
  std::thread([] { Zone zone("work", "fc"); }).join();
  { Zone zone("other"); }
  stop_profiler();
  const auto work = find("work");
  REQUIRE(work);
  CHECK(work->label.empty());
  CHECK(work->count == 4);
  CHECK(work->bytes == 17);
  CHECK(work->macs == std::array<int64_t, kMacUnits>{0, 10, 10, 0});
  CHECK(work->all_macs() == 20);
  std::vector<ZoneTotal> rows = labelled_zone_table();
  REQUIRE(rows.size() == 2);  // "other" has no label
  if (rows[0].label != "fc") std::swap(rows[0], rows[1]);
  CHECK(rows[0].label == "fc");
  CHECK(rows[0].count == 3);
  CHECK(rows[0].macs[static_cast<size_t>(MacUnit::kBf16)] == 10);
  CHECK(rows[1].label == "layer1.0.conv1");
  CHECK(rows[1].count == 1);
  CHECK(rows[1].bytes == 3);
  CHECK(rows[0].self_seconds + rows[1].self_seconds == relative(work->self_seconds, 1e-9));
}

TEST_CASE("work is not counted while the profiler is off") {
  stop_profiler();
  bool asked = false;
  Zone zone("off", "label");
  zone.count([&] {
    asked = true;
    return ZoneWork{};
  });
  CHECK(!asked);
}

TEST_CASE("a zone has the time of all threads that help in its loops, and is one call") {
  set_threads(3);
  start_profiler();
  {
    Zone outer("outer", "a layer");
    parallel_for(60, [](int64_t i) {
      if (i % 2 == 0) {
        std::this_thread::sleep_for(2ms);
      } else {
        Zone inner("inner");
        std::this_thread::sleep_for(2ms);
      }
    });
  }
  stop_profiler();
  set_threads(0);
  const auto outer = find("outer"), inner = find("inner");
  REQUIRE(outer);
  REQUIRE(inner);
  CHECK(outer->count == 1);
  CHECK(inner->count == 30);
  CHECK(inner->self_seconds >= 0.060);
  CHECK(outer->seconds >=
        0.120);  // whichever threads ran the 60 tasks; the wall time of three threads is a third of it
  CHECK(outer->self_seconds >= 0.060);
  CHECK(outer->self_seconds == doctest::Approx(outer->seconds - inner->seconds).epsilon(1e-6));
  REQUIRE(labelled_zone_table().size() == 1);
  CHECK(labelled_zone_table()[0].count == 1);
}

TEST_CASE("tasks that follow each other on a helping thread are one event of the trace, and all counted") {
  const std::string path = temporary("nibble_shares_");
  start_profiler();
  {
    Zone outer("outer", "a layer");
    std::thread([&] {
      for (int i = 0; i < 2000; ++i) ZoneShare share(&outer);
      for (int i = 0; i < 3; ++i) Zone zone("own");
    }).join();
  }
  stop_profiler();
  write_chrome_trace(path);
  const auto trace = nlohmann::json::parse(std::ifstream(path));
  std::filesystem::remove(path);
  std::map<std::string, int> events;
  for (const auto& event : trace.at("traceEvents")) ++events[event.at("name")];
  CHECK(events["own"] == 3);  // zones of its own stay separate
  CHECK(events["outer"] >= 2);
  CHECK(events["outer"] < 1000);  // a gap now and then, when the thread is interrupted
  REQUIRE(find("outer"));
  CHECK(find("outer")->count == 1);
}

TEST_CASE("the Chrome trace is JSON with one complete event per zone, inner zones inside outer ones") {
  const std::string path = temporary("nibble_trace_");
  start_profiler();
  {
    Zone outer("outer \"quoted\\\n");
    Zone inner("inner", "a \"label\"");
    std::this_thread::sleep_for(1ms);
  }
  std::thread([] { Zone zone("elsewhere"); }).join();
  stop_profiler();
  write_chrome_trace(path);
  const auto trace = nlohmann::json::parse(std::ifstream(path));
  std::filesystem::remove(path);
  const auto& events = trace.at("traceEvents");
  REQUIRE(events.size() == 3);
  std::set<int> rows;
  nlohmann::json outer, inner;
  for (const auto& event : events) {
    CHECK(event.at("ph") == "X");
    rows.insert(event.at("tid").get<int>());
    if (event.at("name") == "outer \"quoted\\\n") outer = event;
    if (event.at("name") == "inner") inner = event;
  }
  CHECK(rows.size() == 2);
  REQUIRE(!outer.is_null());
  REQUIRE(!inner.is_null());
  const double begin = outer.at("ts"), end = begin + outer.at("dur").get<double>();
  constexpr double kRounding = 0.002;  // two values of three decimals each
  CHECK(inner.at("ts").get<double>() >= begin);
  CHECK(inner.at("ts").get<double>() + inner.at("dur").get<double>() <= end + kRounding);
  CHECK(inner.at("dur").get<double>() >= 1000);
  CHECK(inner.at("args").at("label") == "a \"label\"");
  CHECK(!outer.contains("args"));
  CHECK(trace.at("otherData").at("droppedZones") == 0);
}

TEST_CASE("a trace that cannot be written is a DiskError that names the file") {
  try {
    write_chrome_trace("/nonexistent-folder/trace.json");
    FAIL("no error");
  } catch (const DiskError& error) {
    CHECK(std::string(error.what()).find("/nonexistent-folder/trace.json") != std::string::npos);
  }
}
