// How long a study still takes.
#include "apps/study/study_progress.hpp"

#include <doctest/doctest.h>

namespace nibble::apps {
namespace {

TEST_CASE("points in turn take the sum of their times, several at a time what the last to end takes") {
  CHECK(StudyProgress({10, 0, 20, 30}, 1).seconds_left(5) == doctest::Approx(60));
  CHECK(StudyProgress({10, 20, 30}, 2).seconds_left(0) == doctest::Approx(40));  // 10 and 30 alongside 20
  CHECK(StudyProgress({10, 20, 30}, 3).seconds_left(0) == doctest::Approx(30));
  CHECK(StudyProgress({10, 20, 30}, 9).seconds_left(0) == doctest::Approx(30));
  CHECK(StudyProgress({}, 2).seconds_left(7) == 0);
}

TEST_CASE("what points really took tells how long the others will take; points that failed tell nothing") {
  StudyProgress progress({10, 20, 30, 40}, 2);
  progress.began(0, 100);
  progress.began(1, 100);
  CHECK(progress.seconds_left(105) == doctest::Approx(55));  // free in 5 and 15 s: 5 + 30, then 15 + 40
  progress.ended(0, 115, true);  // 15 instead of 10; 25 for 20 with the 10 that count anyway
  progress.began(2, 115);
  // Point 1 has 10 s to go, point 2 has 37.5, point 3 takes 50.
  CHECK(progress.seconds_left(115) == doctest::Approx(60));
  progress.ended(1, 116, false);
  progress.began(3, 116);
  CHECK(progress.seconds_left(116) == doctest::Approx(50));
  CHECK(progress.seconds_left(300) == 0);  // late is not negative
  progress.ended(2, 160, true);
  progress.ended(3, 176, true);
  CHECK(progress.seconds_left(176) == 0);
}

TEST_CASE("a point resumed at its last step does not set the pace, one of an hour does") {
  StudyProgress resumed({0.02, 3600}, 1);
  resumed.began(0, 0);
  resumed.ended(0, 1.2, true);
  CHECK(resumed.seconds_left(1.2) == doctest::Approx(3600).epsilon(0.15));
  StudyProgress whole({3600, 3600}, 1);
  whole.began(0, 0);
  whole.ended(0, 7200, true);
  CHECK(whole.seconds_left(7200) == doctest::Approx(7200).epsilon(0.01));
}

TEST_CASE("a quiet study has no estimates, and its points may begin and end all the same") {
  StudyProgress progress({}, 2);
  progress.began(3, 1);
  progress.ended(3, 2, true);
  CHECK(progress.seconds_left(3) == 0);
}

}  // namespace
}  // namespace nibble::apps
