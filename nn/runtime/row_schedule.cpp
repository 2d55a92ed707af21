#include "nn/runtime/row_schedule.hpp"

#include <algorithm>

namespace nibble {

namespace {

/// A map read by windows of `size` rows, `step` apart, that begin `pad` rows before the first.
struct Reader {
  int64_t size = 1, step = 1, pad = 0;

  /// Rows of the map that the first `rows` windows need, as far as there are any.
  int64_t needed(int64_t rows, int64_t map) const {
    return rows == 0 ? 0 : std::clamp<int64_t>((rows - 1) * step - pad + size, 0, map);
  }
  /// First row that windows from `row` on read.
  int64_t first(int64_t row) const { return std::max<int64_t>(0, row * step - pad); }
};

class Scheduler {
 public:
  Scheduler(const Network& network, size_t begin, size_t end, int64_t strip_points)
      : net_(network), strip_points_(strip_points), done_(network.units.size()), pooled_(network.units.size()) {
    schedule_.begin = begin;
    schedule_.end = end;
    schedule_.map_rows.assign(network.units.size(), 0);
    schedule_.pooled_rows.assign(network.units.size(), 0);
  }

  RowSchedule run() {
    const size_t last = schedule_.end - 1;
    const int64_t rows = output_rows(last), width = net_.units[last].shape.ow() / (net_.units[last].max_pool ? 2 : 1);
    const int64_t strip = std::max<int64_t>(1, strip_points_ / std::max<int64_t>(1, width));
    for (int64_t target = std::min(strip, rows);; target = std::min(rows, target + strip)) {
      advance(target, target == rows);
      if (target == rows) return std::move(schedule_);
    }
  }

 private:
  const UnitSpec& unit(size_t u) const { return net_.units[u]; }
  int64_t map_rows(size_t u) const { return unit(u).shape.oh(); }
  Reader pool_of(size_t u) const { return {3, 2, stem_pool_pad(net_.options, map_rows(u))}; }
  int64_t output_rows(size_t u) const {
    const int64_t h = map_rows(u);
    return unit(u).max_pool ? (h + pool_of(u).pad + 1 - 3) / 2 + 1 : h;
  }
  Reader reader_of(size_t u) const {
    const ConvShape& s = unit(u).shape;
    return {s.kh, s.stride, s.pad_before};
  }

  bool read_outside(size_t u) const {
    const int value = static_cast<int>(u) + 1;
    for (size_t r = schedule_.end; r < net_.units.size(); ++r)
      if (unit(r).input == value || unit(r).shortcut == value) return true;
    return false;
  }

  void advance(int64_t target, bool to_the_end) {
    std::vector<int64_t> needed(net_.units.size(), 0), map_needed(needed);
    needed[schedule_.end - 1] = target;
    for (size_t u = schedule_.end; u-- > schedule_.begin;) {
      if (to_the_end && read_outside(u)) needed[u] = output_rows(u);
      map_needed[u] = unit(u).max_pool ? pool_of(u).needed(needed[u], map_rows(u)) : needed[u];
      ask(needed, unit(u).input, reader_of(u).needed(map_needed[u], unit(u).shape.h));
      ask(needed, unit(u).shortcut, map_needed[u]);
    }
    for (size_t u = schedule_.begin; u < schedule_.end; ++u) {
      const bool pooled = unit(u).max_pool;
      compute(u, false, map_needed[u], done_[u], schedule_.map_rows[u],
              pooled ? pool_of(u).first(pooled_[u]) : first_read(u));
      if (pooled) compute(u, true, needed[u], pooled_[u], schedule_.pooled_rows[u], first_read(u));
    }
  }

  void ask(std::vector<int64_t>& needed, int value, int64_t rows) const {
    if (value <= kImageValue || !schedule_.contains(static_cast<size_t>(value - 1))) return;
    int64_t& n = needed[static_cast<size_t>(value - 1)];
    n = std::max(n, rows);
  }

  /// First row of the unit's output that units behind it have not finished with.
  int64_t first_read(size_t u) const {
    const int value = static_cast<int>(u) + 1;
    int64_t first = output_rows(u);
    for (size_t r = u + 1; r < schedule_.end; ++r) {
      if (unit(r).input == value) first = std::min(first, reader_of(r).first(done_[r]));
      if (unit(r).shortcut == value) first = std::min(first, done_[r]);
    }
    return first;
  }

  void compute(size_t u, bool pool, int64_t until, int64_t& done, int64_t& most, int64_t first) {
    if (until <= done) return;
    const int64_t live = std::min(first, done);
    schedule_.steps.push_back({.unit = u, .pool = pool, .begin = done, .end = until, .live = live});
    most = std::max(most, until - live);
    done = until;
  }

  const Network& net_;
  int64_t strip_points_;
  std::vector<int64_t> done_, pooled_;  // rows computed so far, of the convolutions and of the pools
  RowSchedule schedule_;
};

}  // namespace

RowSchedule make_row_schedule(const Network& network, size_t begin, size_t end, int64_t strip_points) {
  if (begin >= end) return {};
  return Scheduler(network, begin, end, strip_points).run();
}

}  // namespace nibble
