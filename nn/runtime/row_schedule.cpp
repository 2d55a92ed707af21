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
    schedule_.map_rows.assign(network.units.size(), {});
    schedule_.pooled_rows.assign(network.units.size(), {});
    for (size_t u = 0; u < network.units.size(); ++u) schedule_.map_of.push_back(u);
    for (size_t u = begin; u < end; ++u)
      if (overwrites_shortcut(u)) schedule_.map_of[u] = schedule_.map_of[static_cast<size_t>(unit(u).shortcut - 1)];
  }

  RowSchedule run() {
    cut_segments();
    for (size_t s = 0; s < ends_.size(); ++s) compute_segment(s);
    return std::move(schedule_);
  }

 private:
  const UnitSpec& unit(size_t u) const { return net_.units[u]; }
  int64_t map_rows(size_t u) const { return unit(u).shape.oh(); }
  Reader pool_of(size_t u) const {
    const PoolShape& pool = *unit(u).max_pool;
    return {pool.window, pool.stride, pool.pad_before};
  }
  int64_t output_rows(size_t u) const { return unit(u).output_side(); }
  Reader reader_of(size_t u) const {
    const ConvShape& s = unit(u).shape;
    return {s.kh, s.stride, s.pad_before};
  }

  /// Whether unit u may write each row over that of its shortcut: whatever else reads the shortcut reads the same row,
  /// and earlier, because u depends on it.
  bool overwrites_shortcut(size_t u) const {
    const int value = unit(u).shortcut;
    if (value <= kImageValue || !schedule_.contains(static_cast<size_t>(value - 1))) return false;
    if (unit(static_cast<size_t>(value - 1)).max_pool || unit(u).max_pool) return false;
    for (size_t r = 0; r < net_.units.size(); ++r) {
      if (r != u && unit(r).shortcut == value) return false;
      const Reader reader = reader_of(r);
      if (unit(r).input == value && (r > u || reader.size > 1 || reader.step > 1)) return false;
    }
    return true;
  }

  bool read_outside(size_t u) const {
    const int value = static_cast<int>(u) + 1;
    for (size_t r = schedule_.end; r < net_.units.size(); ++r)
      if (unit(r).input == value || unit(r).shortcut == value) return true;
    return false;
  }

  /// Units between places that only one value passes, as long as such values have equally many rows: the stem and the
  /// first stage, and every further stage.
  void cut_segments() {
    size_t last_cut = schedule_.end;
    for (size_t u = schedule_.begin; u < schedule_.end; ++u) {
      if (u + 1 < schedule_.end && !passed_by_one_value(u)) continue;
      if (last_cut < schedule_.end && output_rows(last_cut) != output_rows(u)) ends_.push_back(last_cut + 1);
      last_cut = u;
    }
    ends_.push_back(schedule_.end);
  }

  /// Whether what follows unit u reads nothing of all before it but the output of u.
  bool passed_by_one_value(size_t u) const {
    for (size_t r = u + 1; r < schedule_.end; ++r)
      for (int value : {unit(r).input, unit(r).shortcut})
        if (value != kNoValue && value <= static_cast<int>(u)) return false;
    return true;
  }

  /// All rows of a segment, as many of its last unit at a time as make a strip. One after another, segments have their
  /// maps and weights in the cache by turns: strips through all of ResNet-50's first two stages took 2 % longer.
  void compute_segment(size_t s) {
    const size_t last = ends_[s] - 1;
    const int64_t rows = output_rows(last);
    const int64_t width = std::max<int64_t>(1, unit(last).output_side());
    int64_t strip = std::max<int64_t>(1, strip_points_ / width);
    // Rows of the largest Winograd tiles of 3x3 layers (ops/winograd.hpp). A part of a tile costs as much as all of it:
    // strips of five rows have 1.2 (tiles of two rows) or 1.6 times the tiles of whole maps. First strips have a row
    // more for every 3x3 layer that follows; rounding these, too, gave 1.00 to 1.02 times the speed (Zen 5, w8a8) and
    // needs up to eight rows more of every map.
    constexpr int64_t kTileRows = 4;
    if (strip_points_ >= width) strip = round_up(strip, kTileRows);
    for (int64_t target = std::min(rows, strip);; target = std::min(rows, target + strip)) {
      advance(s, target, target == rows);
      if (target == rows) return;
    }
  }

  void advance(size_t s, int64_t target, bool to_the_end) {
    const size_t begin = s == 0 ? schedule_.begin : ends_[s - 1], end = ends_[s];
    std::vector<int64_t> needed(net_.units.size(), 0), map_needed(needed);
    needed[end - 1] = target;
    for (size_t u = end; u-- > begin;) {
      if (to_the_end && read_outside(u)) needed[u] = output_rows(u);
      map_needed[u] = unit(u).max_pool ? pool_of(u).needed(needed[u], map_rows(u)) : needed[u];
      ask(needed, unit(u).input, reader_of(u).needed(map_needed[u], unit(u).shape.h));
      ask(needed, unit(u).shortcut, map_needed[u]);
    }
    for (size_t u = begin; u < end; ++u) {
      if (!unit(u).max_pool) {
        compute(u, false, map_needed[u], live_of_map(u), filled_of_map(u));
        continue;
      }
      const int64_t live = std::min(done_[u], pool_of(u).first(pooled_[u]));
      compute(u, false, map_needed[u], {live, live, live}, done_[u]);
      compute(u, true, needed[u], live_output(u, pooled_[u]), pooled_[u]);
    }
  }

  void ask(std::vector<int64_t>& needed, int value, int64_t rows) const {
    if (value <= kImageValue || !schedule_.contains(static_cast<size_t>(value - 1))) return;
    int64_t& n = needed[static_cast<size_t>(value - 1)];
    n = std::max(n, rows);
  }

  /// First row of u's output, of which there are `done`, that later units have not finished with, or `done`.
  PerReading live_output(size_t u, int64_t done) const {
    const int value = static_cast<int>(u) + 1;
    int64_t input = done, shortcut = done;
    for (size_t r = u + 1; r < schedule_.end; ++r) {
      if (unit(r).input == value) input = std::min(input, reader_of(r).first(done_[r]));
      if (unit(r).shortcut == value) shortcut = std::min(shortcut, done_[r]);
    }
    return {input, shortcut, std::min(input, shortcut)};
  }

  /// First row of the map of u's output that anything still reads or any of the units that share it writes next.
  PerReading live_of_map(size_t u) const {
    PerReading live{done_[u], done_[u], done_[u]};
    for (size_t m = schedule_.begin; m < schedule_.end; ++m) {
      if (schedule_.map_of[m] != schedule_.map_of[u]) continue;
      const PerReading of_member = live_output(m, done_[m]);
      for (size_t i = 0; i < live.size(); ++i) live[i] = std::min(live[i], of_member[i]);
    }
    return live;
  }
  int64_t filled_of_map(size_t u) const {
    int64_t filled = 0;
    for (size_t m = schedule_.begin; m < schedule_.end; ++m)
      if (schedule_.map_of[m] == schedule_.map_of[u]) filled = std::max(filled, done_[m]);
    return filled;
  }

  void compute(size_t u, bool pool, int64_t until, const PerReading& live, int64_t filled) {
    int64_t& done = pool ? pooled_[u] : done_[u];
    if (until <= done) return;
    schedule_.steps.push_back({.unit = u, .pool = pool, .begin = done, .end = until, .live = live, .filled = filled});
    PerReading& most = (pool ? schedule_.pooled_rows : schedule_.map_rows)[schedule_.map_of[u]];
    for (size_t i = 0; i < most.size(); ++i) most[i] = std::max(most[i], std::max(until, filled) - live[i]);
    done = until;
  }

  const Network& net_;
  int64_t strip_points_;
  std::vector<size_t> ends_;            // of the segments
  std::vector<int64_t> done_, pooled_;  // rows computed so far, of the convolutions and of the pools
  RowSchedule schedule_;
};

}  // namespace

RowSchedule make_row_schedule(const Network& network, size_t begin, size_t end, int64_t strip_points) {
  if (begin >= end) return {};
  return Scheduler(network, begin, end, strip_points).run();
}

}  // namespace nibble
