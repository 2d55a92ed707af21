// The row schedule: every row once and in order, never before what it reads, never after that was given up.
#include "nn/runtime/row_schedule.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>

namespace nibble {
namespace {

struct Progress {
  std::vector<int64_t> map, pooled;         // rows computed
  std::vector<PerReading> map_live, live;   // rows before these were given up: of the convolution, of the output map
  std::vector<std::vector<size_t>> writer;  // per map, the unit whose row it holds
};

int64_t output_rows(const Network& net, size_t u) {
  const UnitSpec& unit = net.units[u];
  return unit.max_pool ? (unit.shape.oh() + unit.max_pool->pad_before + 1 - 3) / 2 + 1 : unit.shape.oh();
}

/// Rows [first, last] of `value`, cut to the map, must exist, be kept, and not be overwritten.
void check_readable(const Network& net, const RowSchedule& schedule, const Progress& p, int value, ReadAs as,
                    int64_t first, int64_t last) {
  if (value <= kImageValue) return;
  const size_t u = static_cast<size_t>(value - 1), map = schedule.map_of[u];
  const int64_t rows = output_rows(net, u), done = net.units[u].max_pool ? p.pooled[u] : p.map[u];
  first = std::max<int64_t>(0, first);
  last = std::min(last, rows - 1);
  CHECK(last < done);
  CHECK(first >= p.live[map][static_cast<size_t>(as)]);
  CHECK(first >= p.live[map][static_cast<size_t>(ReadAs::kEither)]);
  bool own = true;
  for (int64_t row = first; row <= last && row < done; ++row) own &= p.writer[map][static_cast<size_t>(row)] == u;
  CHECK(own);
}

void check_schedule(const NetworkOptions& options, size_t end, int64_t strip_points) {
  const Network net = build_resnet(options);
  const RowSchedule schedule = make_row_schedule(net, 0, end, strip_points);
  Progress p;
  for (auto* v : {&p.map, &p.pooled}) v->assign(net.units.size(), 0);
  for (auto* v : {&p.map_live, &p.live}) v->assign(net.units.size(), {});
  for (size_t u = 0; u < net.units.size(); ++u)
    p.writer.emplace_back(static_cast<size_t>(output_rows(net, u)), net.units.size());
  for (const RowStep& step : schedule.steps) {
    const UnitSpec& unit = net.units[step.unit];
    INFO(options.arch << " at " << options.image_size << " px, " << end << " units, strips of " << strip_points << ": "
                      << unit.name << (step.pool ? " pool " : " ") << step.begin << ".." << step.end);
    int64_t& done = step.pool ? p.pooled[step.unit] : p.map[step.unit];
    CHECK(step.begin == done);
    REQUIRE(step.end > step.begin);
    const bool output = step.pool || !unit.max_pool;
    const size_t map = schedule.map_of[step.unit];
    PerReading& live = (output ? p.live : p.map_live)[map];
    for (size_t i = 0; i < live.size(); ++i) {
      CHECK(step.live[i] <= step.begin);
      CHECK(step.live[i] >= live[i]);
      CHECK(std::max(step.end, step.filled) - step.live[i] <=
            (step.pool ? schedule.pooled_rows : schedule.map_rows)[map][i]);
    }
    live = step.live;
    if (output) {
      // What lies after the row that is written next and is not yet overwritten has to survive a move of the window.
      int64_t filled = 0;
      for (size_t m = 0; m < end; ++m)
        if (schedule.map_of[m] == map) filled = std::max(filled, net.units[m].max_pool ? p.pooled[m] : p.map[m]);
      CHECK(step.filled == filled);
    }
    if (step.pool) {
      const int64_t pad = unit.max_pool->pad_before;
      CHECK(std::min((step.end - 1) * 2 - pad + 2, unit.shape.oh() - 1) < p.map[step.unit]);
      CHECK(std::max<int64_t>(0, step.begin * 2 - pad) >= p.map_live[map][0]);
    } else {
      const ConvShape& s = unit.shape;
      check_readable(net, schedule, p, unit.input, ReadAs::kInput, step.begin * s.stride - s.pad_before,
                     (step.end - 1) * s.stride - s.pad_before + s.kh - 1);
      check_readable(net, schedule, p, unit.shortcut, ReadAs::kShortcut, step.begin, step.end - 1);
    }
    done = step.end;
    if (output)
      for (int64_t row = step.begin; row < step.end; ++row) p.writer[map][static_cast<size_t>(row)] = step.unit;
  }
  CHECK((net.units[end - 1].max_pool ? p.pooled : p.map)[end - 1] == output_rows(net, end - 1));
  for (size_t u = 0; u < end; ++u)
    for (size_t r = end; r < net.units.size(); ++r)
      if (net.units[r].input == static_cast<int>(u) + 1 || net.units[r].shortcut == static_cast<int>(u) + 1)
        CHECK((net.units[u].max_pool ? p.pooled : p.map)[u] == output_rows(net, u));
}

}  // namespace

TEST_CASE("the row schedule computes every row once, after what it reads and before that is given up") {
  for (const char* arch : {"resnet26", "resnet50"})
    for (int64_t size : {32, 47, 64, 97, 224})
      for (bool same : {false, true}) {
        NetworkOptions options;
        options.arch = arch;
        options.width = 0.25;
        options.image_size = size;
        options.same_padding = same;
        const size_t convolutions = build_resnet(options).units.size() - 1;
        for (int64_t points : {1, 50, 256, 1'000'000})
          for (size_t end : {size_t{1}, size_t{5}, size_t{11}, convolutions}) check_schedule(options, end, points);
      }
}

TEST_CASE("a row schedule of no units has no steps") {
  const Network net = build_resnet({});
  CHECK(make_row_schedule(net, 0, 0, 256).steps.empty());
  CHECK(!make_row_schedule(net, 0, 0, 256).contains(0));
}

TEST_CASE("strips are whole tiles of four rows, where a row is no longer than a strip") {
  for (const auto& [size, points, rows] :
       std::vector<std::array<int64_t, 3>>{{320, 448, 8}, {224, 448, 8}, {320, 50, 1}}) {
    NetworkOptions options;
    options.image_size = size;
    const RowSchedule schedule = make_row_schedule(build_resnet(options), 0, 11, points);
    const size_t last = 10;  // of the first stage
    int64_t begin = 0;
    for (const RowStep& step : schedule.steps) {
      if (step.unit != last) continue;
      CHECK(step.begin == begin);
      CHECK(step.end == std::min(begin + rows, size / 4));
      begin = step.end;
    }
    CHECK(begin == size / 4);
  }
}

TEST_CASE("the blocks of a stage share a map, and the row schedule keeps a few of its rows") {
  NetworkOptions options;  // ResNet-50 x1, 224 px: the stem, three blocks of 56 rows, four of 28
  const Network net = build_resnet(options);
  const RowSchedule schedule = make_row_schedule(net, 0, 24, 224);  // four rows of the first stage, eight of the second
  for (size_t block_output : {4, 7, 10}) CHECK(schedule.map_of[block_output] == 1);
  for (size_t block_output : {14, 17, 20, 23}) CHECK(schedule.map_of[block_output] == 11);
  for (size_t u = 1; u < 10; ++u) CHECK(schedule.map_rows[u][static_cast<size_t>(ReadAs::kShortcut)] <= 8);
  for (size_t u = 11; u < 23; ++u)  // except for what reads the stage before, of which all rows exist
    if (u != 12) CHECK(schedule.map_rows[u][static_cast<size_t>(ReadAs::kShortcut)] <= 12);
  CHECK(schedule.map_rows[1][static_cast<size_t>(ReadAs::kInput)] == 56);
  CHECK(schedule.map_rows[0][0] <= 16);
}

}  // namespace nibble
