// The row schedule: every row once and in order, never before what it reads, never after that was given up.
#include "nn/runtime/row_schedule.hpp"

#include <doctest/doctest.h>

#include <algorithm>

namespace nibble {
namespace {

struct Progress {
  std::vector<int64_t> map, pooled;     // rows computed
  std::vector<int64_t> map_live, live;  // rows before these were given up: of the convolution, of the unit's output
};

int64_t pool_pad(const Network& net, const UnitSpec& unit) {
  return stem_pool_pad(net.options, unit.shape.oh());
}

int64_t output_rows(const Network& net, size_t u) {
  const UnitSpec& unit = net.units[u];
  return unit.max_pool ? (unit.shape.oh() + pool_pad(net, unit) + 1 - 3) / 2 + 1 : unit.shape.oh();
}

/// Rows [first, last] of `value`, cut to the map, must exist.
void check_readable(const Network& net, const Progress& p, int value, int64_t first, int64_t last) {
  if (value <= kImageValue) return;
  const size_t u = static_cast<size_t>(value - 1);
  const int64_t rows = output_rows(net, u), done = net.units[u].max_pool ? p.pooled[u] : p.map[u];
  CHECK(std::min(last, rows - 1) < done);
  CHECK(std::max<int64_t>(0, first) >= p.live[u]);
}

void check_schedule(const NetworkOptions& options, size_t end, int64_t strip_points) {
  const Network net = build_resnet(options);
  const RowSchedule schedule = make_row_schedule(net, 0, end, strip_points);
  Progress p;
  for (auto* v : {&p.map, &p.pooled, &p.map_live, &p.live}) v->assign(net.units.size(), 0);
  for (const RowStep& step : schedule.steps) {
    const UnitSpec& unit = net.units[step.unit];
    INFO(options.arch << " at " << options.image_size << " px, " << end << " units, strips of " << strip_points << ": "
                      << unit.name << (step.pool ? " pool " : " ") << step.begin << ".." << step.end);
    int64_t& done = step.pool ? p.pooled[step.unit] : p.map[step.unit];
    CHECK(step.begin == done);
    REQUIRE(step.end > step.begin);
    CHECK(step.live <= step.begin);
    const bool output = step.pool || !unit.max_pool;
    int64_t& live = output ? p.live[step.unit] : p.map_live[step.unit];
    CHECK(step.live >= live);
    live = step.live;
    CHECK(step.end - step.live <= (step.pool ? schedule.pooled_rows : schedule.map_rows)[step.unit]);
    if (step.pool) {
      const int64_t pad = pool_pad(net, unit);
      CHECK(std::min((step.end - 1) * 2 - pad + 2, unit.shape.oh() - 1) < p.map[step.unit]);
      CHECK(std::max<int64_t>(0, step.begin * 2 - pad) >= p.map_live[step.unit]);
    } else {
      const ConvShape& s = unit.shape;
      check_readable(net, p, unit.input, step.begin * s.stride - s.pad_before,
                     (step.end - 1) * s.stride - s.pad_before + s.kh - 1);
      check_readable(net, p, unit.shortcut, step.begin, step.end - 1);
    }
    done = step.end;
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

TEST_CASE("the row schedule keeps a few rows of a large map") {
  NetworkOptions options;  // ResNet-50 x1, 224 px: 56 rows in the first stage
  const Network net = build_resnet(options);
  const RowSchedule schedule = make_row_schedule(net, 0, 11, 256);
  for (size_t u = 1; u < 11; ++u) CHECK(schedule.map_rows[u] <= 12);
  CHECK(schedule.map_rows[0] <= 32);
}

}  // namespace nibble
