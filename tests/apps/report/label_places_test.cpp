// Where labels go: on no mark, on no error bar, on no other label, across few lines.
#include "apps/report/label_places.hpp"

#include <doctest/doctest.h>

#include <cmath>

namespace nibble::apps {
namespace {

constexpr Box kArea{0, 0, 400, 300};

std::optional<LabelPlace> place_one(LabelPlaces& places, const LabelledMark& mark) {
  return places.place({mark}).front();
}

TEST_CASE("label places: a segment meets the boxes it passes through and no others") {
  const Box box{10, 10, 20, 20};
  CHECK(Segment{0, 0, 30, 30}.meets(box));
  CHECK(Segment{15, 0, 15, 30}.meets(box));
  CHECK(Segment{30, 15, 0, 15}.meets(box));
  CHECK(Segment{12, 12, 13, 14}.meets(box));
  CHECK_FALSE(Segment{0, 0, 9, 9}.meets(box));
  CHECK_FALSE(Segment{0, 12, 12, 0}.meets(box));   // beside a corner
  CHECK_FALSE(Segment{10, 0, 10, 30}.meets(box));  // along a side
  CHECK_FALSE(Segment{25, 15, 30, 15}.meets(box));
}

TEST_CASE("label places: above the mark, below it where lines are above, and never outside the picture") {
  LabelPlaces places(kArea);
  places.take_mark(100, 100, 0);
  CHECK(place_one(places, {100, 100, 0, 30, 0})->box.y1 < 100);
  LabelPlaces lined(kArea);
  lined.take_mark(100, 100, 0);
  lined.avoid({0, 86, 400, 86}, 1);
  const std::optional<LabelPlace> below = place_one(lined, {100, 100, 0, 30, 0});
  REQUIRE(below);
  CHECK(below->box.y0 > 100);
  CHECK_FALSE(below->leader);
  LabelPlaces corner(kArea);
  corner.take_mark(3, 3, 0);
  const std::optional<LabelPlace> inside = place_one(corner, {3, 3, 0, 30, 0});
  REQUIRE(inside);
  CHECK(inside->box.inside(kArea));
  CHECK_FALSE(place_one(corner, {3, 3, 0, 900, 0}));
}

TEST_CASE("label places: a label crosses its own line rather than another's") {
  LabelPlaces places(kArea);
  places.take_mark(100, 100, 40);  // so that nothing is above or below
  places.avoid({100, 100, 200, 100}, 0);
  for (const double y : {89.0, 100.0, 111.0}) places.avoid({0, y, 100, y}, 1);
  places.avoid({100, 89, 200, 89}, 1);
  places.avoid({100, 111, 200, 111}, 1);
  const std::optional<LabelPlace> found = place_one(places, {100, 100, 40, 30, 0});
  REQUIRE(found);
  CHECK(found->box.x0 > 100);
  CHECK(std::abs((found->box.y0 + found->box.y1) / 2 - 100) < 1);
}

TEST_CASE("label places: not where the label would be read as another mark's") {
  // Above, the label would be as far from the mark over it.
  LabelPlaces places(kArea);
  places.take_mark(100, 100, 0);
  places.take_mark(100, 72, 0);
  CHECK(place_one(places, {100, 100, 0, 30, 0})->box.y0 > 100);
}

TEST_CASE("label places: a leader crosses no mark and does not lengthen its own error bar") {
  LabelPlaces places(kArea);
  places.take_mark(200, 150, 30);
  places.take({160, 110, 240, 145});  // no room beside the mark
  places.take({160, 155, 240, 190});
  places.take({160, 145, 194, 155});
  places.take({206, 145, 214, 155});
  const std::optional<LabelPlace> found = place_one(places, {200, 150, 30, 30, 0});
  REQUIRE(found == std::nullopt);  // all leaders would cross what is taken
  LabelPlaces open(kArea);
  open.take_mark(200, 150, 12);
  open.take({150, 134, 196, 166});
  open.take({204, 134, 250, 147});
  open.take({204, 153, 250, 166});
  open.take({204, 147, 210, 153});
  open.take({196, 120, 204, 138});
  open.take({196, 162, 204, 180});
  CHECK(place_one(open, {200, 150, 12, 30, 0}) == std::nullopt);  // straight up and down are the bar's directions
}

TEST_CASE("label places: labels keep off each other, and the one with the fewest places chooses first") {
  LabelPlaces places(kArea);
  std::vector<LabelledMark> marks;
  for (int i = 0; i < 6; ++i) {
    marks.push_back({60.0 + 50 * i, 150, 60, 40, i});
    places.take_mark(marks.back().x, 150, 60);
  }
  const auto found = places.place(marks);
  for (size_t i = 0; i < found.size(); ++i) {
    REQUIRE(found[i]);
    for (size_t k = 0; k < i; ++k) CHECK_FALSE(found[i]->box.meets(found[k]->box));
    for (const LabelledMark& m : marks) CHECK_FALSE(found[i]->box.meets({m.x - 3, m.y - 60, m.x + 3, m.y + 60}));
  }
  // The first mark could take any side; the second has only the place to its left, between the two.
  LabelPlaces pair(kArea);
  pair.take_mark(100, 150, 0);
  pair.take_mark(160, 150, 0);
  pair.take({140, 120, 190, 144});
  pair.take({140, 156, 190, 180});
  pair.take({166, 140, 200, 160});
  const auto two = pair.place({{100, 150, 0, 30, 0}, {160, 150, 0, 36, 1}});
  REQUIRE(two[1]);
  CHECK_FALSE(two[1]->leader);
  CHECK(two[1]->box.x1 < 160);
  CHECK(two[0].has_value());
}

}  // namespace
}  // namespace nibble::apps
