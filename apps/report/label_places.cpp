#include "apps/report/label_places.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace nibble::apps {

namespace {

constexpr double kHalfHeight = 6;  // of a label
constexpr double kMarkRadius = 6;  // with the air around it
constexpr double kHalfBar = 3;     // of an error bar, with its ends

// What a place costs, in the steps by which the next of the eight places is worse than the one before it.
constexpr double kOwnLine = 4, kOtherLine = 12;
constexpr double kOtherMarkNearer = 20;  // the label would be read as that mark's
constexpr double kPerUnit = 0.5;         // of a leader's length

Box around(double x, double y, double width) {
  return {x - width / 2, y - kHalfHeight, x + width / 2, y + kHalfHeight};
}

double distance(const Box& box, double x, double y) {
  return std::hypot(std::max({box.x0 - x, x - box.x1, 0.0}), std::max({box.y0 - y, y - box.y1, 0.0}));
}

bool is_of(const Box& taken, const LabelledMark& mark) {
  return mark.x > taken.x0 && mark.x < taken.x1 && mark.y > taken.y0 && mark.y < taken.y1;
}

}  // namespace

/// Liang and Barsky's clipping: the part of the line between the box's four sides is not empty.
bool Segment::meets(const Box& b) const {
  double from = 0, to = 1;
  const auto clip = [&](double step, double room) {  // step * t <= room
    if (step == 0) return room > 0;
    (step < 0 ? from : to) = step < 0 ? std::max(from, room / step) : std::min(to, room / step);
    return from < to;
  };
  const double dx = x1 - x0, dy = y1 - y0;
  return clip(-dx, x0 - b.x0) && clip(dx, b.x1 - x0) && clip(-dy, y0 - b.y0) && clip(dy, b.y1 - y0);
}

void LabelPlaces::take_mark(double x, double y, double reach) {
  marks_.push_back({x, y, x, y});
  take({x - kMarkRadius, y - kMarkRadius, x + kMarkRadius, y + kMarkRadius});
  if (reach > kMarkRadius) bars_.push_back({x - kHalfBar, y - reach, x + kHalfBar, y + reach});
}

bool LabelPlaces::free(const Box& box) const {
  const auto meets = [&](const Box& t) { return t.meets(box); };
  return std::none_of(taken_.begin(), taken_.end(), meets) && std::none_of(bars_.begin(), bars_.end(), meets);
}

std::vector<LabelPlace> LabelPlaces::beside(const LabelledMark& m) const {
  const double side = m.width / 2;
  std::vector<LabelPlace> places;
  for (const auto& [dx, dy] : {std::pair{0.0, -14.0},
                               {0.0, 14.0},
                               {side + 9, 0.0},
                               {-side - 9, 0.0},
                               {side + 6, -11.0},
                               {-side - 6, -11.0},
                               {side + 6, 11.0},
                               {-side - 6, 11.0}})
    places.push_back({around(m.x + dx, m.y + dy, m.width)});
  return places;
}

/// 22 to 58 units away. The leader ends where the label begins: at its side, or at its middle where it is more above
/// than to the side.
std::vector<LabelPlace> LabelPlaces::apart(const LabelledMark& m) const {
  constexpr int kDirections = 16;
  std::vector<LabelPlace> places;
  for (double length = 22; length <= 58; length += 6) {
    for (int i = 0; i < kDirections; ++i) {
      const double angle = 2 * std::numbers::pi * i / kDirections;
      const double dx = length * std::cos(angle), dy = length * std::sin(angle);
      if (std::abs(dx) < kHalfBar && m.reach > kMarkRadius) continue;  // it would be taken for a longer error bar
      const bool to_side = std::abs(dx) > std::abs(dy);
      const Box box = around(m.x + dx + (to_side ? std::copysign(m.width / 2 + 2, dx) : 0),
                             m.y + dy + (to_side ? 0 : std::copysign(kHalfHeight + 1, dy)), m.width);
      const double start = kMarkRadius / length;
      places.push_back({box, Segment{m.x + dx * start, m.y + dy * start, m.x + dx, m.y + dy}});
    }
  }
  return places;
}

bool LabelPlaces::possible(const LabelledMark& mark, const LabelPlace& place) const {
  if (!place.box.inside(area_) || !free(place.box)) return false;
  return !place.leader || std::none_of(taken_.begin(), taken_.end(),
                                       [&](const Box& t) { return !is_of(t, mark) && place.leader->meets(t); });
}

double LabelPlaces::cost(const LabelledMark& mark, const LabelPlace& place) const {
  double sum = 0;
  for (const Line& line : lines_) {
    const double one = line.owner == mark.owner ? kOwnLine : kOtherLine;
    if (line.segment.meets(place.box)) sum += one;
  }
  if (place.leader) {
    for (const Box& bar : bars_)
      if (!is_of(bar, mark) && place.leader->meets(bar)) sum += kOtherLine;
    return sum + kPerUnit * std::hypot(place.leader->x1 - place.leader->x0, place.leader->y1 - place.leader->y0);
  }
  const double own = distance(place.box, mark.x, mark.y);
  for (const Box& m : marks_)
    if ((m.x0 != mark.x || m.y0 != mark.y) && distance(place.box, m.x0, m.y0) <= own + 1) sum += kOtherMarkNearer;
  return sum;
}

std::optional<LabelPlace> LabelPlaces::best(const LabelledMark& mark, const std::vector<LabelPlace>& places) const {
  std::optional<LabelPlace> found;
  double lowest = 0, order = 0;
  for (const LabelPlace& place : places) {
    if (!place.leader) ++order;
    if (!possible(mark, place)) continue;
    const double all = cost(mark, place) + order;
    if (found && all >= lowest) continue;
    found = place;
    lowest = all;
  }
  return found;
}

std::vector<std::optional<LabelPlace>> LabelPlaces::place(const std::vector<LabelledMark>& marks) {
  std::vector<std::pair<int64_t, size_t>> order;  // by the number of places that are free before any label stands
  for (size_t i = 0; i < marks.size(); ++i) {
    const std::vector<LabelPlace> all = beside(marks[i]);
    order.emplace_back(
        std::count_if(all.begin(), all.end(), [&](const LabelPlace& p) { return possible(marks[i], p); }), i);
  }
  std::sort(order.begin(), order.end());
  std::vector<std::optional<LabelPlace>> result(marks.size());
  for (const bool near : {true, false}) {
    for (const auto& [places, i] : order) {
      if (result[i]) continue;
      result[i] = best(marks[i], near ? beside(marks[i]) : apart(marks[i]));
      if (!result[i]) continue;
      take(result[i]->box);
    }
  }
  return result;
}

}  // namespace nibble::apps
