// Finding the finished points of a study, and refusing what is not one.
#include "nn/study/study_folder.hpp"

#include <doctest/doctest.h>

#include "engine/error.hpp"
#include "nn/atomic_file.hpp"
#include "tests/temp_dir.hpp"
#include "tests/text.hpp"

namespace {

using namespace nibble;
using nibble::testing::has;

PointResult point(const std::string& precision, double width, uint64_t seed) {
  PointResult p;
  p.name = precision + "-x" + std::to_string(width) + "-s" + std::to_string(seed);
  p.precision = precision;
  p.width = width;
  p.seed = seed;
  p.ratio = {.linear = 1, .quadratic = 1, .memory = 1};
  p.curves.evaluations = {{.step = 1, .epoch = 1, .top1 = 10, .top5 = 50, .loss = 2}};
  return p;
}

void write_result(const std::filesystem::path& study, const std::string& folder, const PointResult& p) {
  std::filesystem::create_directories(study / folder);
  write_file_atomically(result_path(study, folder), to_json(p));
}

std::string refusal(const std::filesystem::path& study) {
  try {
    read_study(study);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("a study's points are found in its folders, ordered by precision, width and seed") {
  const testing::TempDir dir;
  write_result(dir / "", "a", point("w4a4", 0.5, 1));
  write_result(dir / "", "b", point("w4a4", 0.5, 0));
  write_result(dir / "", "c", point("bf16", 1.5, 0));
  std::filesystem::create_directories(dir / "unfinished/checkpoints");
  write_file_atomically(dir / "notes.txt", "hello");
  const std::vector<PointResult> points = read_study(dir / "");
  REQUIRE(points.size() == 3);
  CHECK(points[0].precision == "bf16");
  CHECK(points[1].seed == 0);
  CHECK(points[2].seed == 1);
}

TEST_CASE("a study kept as one file is read from the file and from its folder") {
  const testing::TempDir dir;
  std::string first = to_json(point("bf16", 1, 0)), second = to_json(point("w4a4", 1, 0));
  write_file_atomically(dir / "study.json",
                        "{\"format\":\"nibble-study-1\",\"points\":[" + first + "," + second + "]}");
  CHECK(read_study(dir / "study.json").size() == 2);
  CHECK(read_study(dir / "").size() == 2);
  write_result(dir / "", "a", point("w8a8", 1, 0));
  CHECK(read_study(dir / "").size() == 1);  // what was run here wins over what was kept
}

TEST_CASE("a study whose points nest lists very deeply is read like any other") {
  const testing::TempDir dir;
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  const std::string good = to_json(point("bf16", 1, 0));
  write_file_atomically(dir / "study.json", "{\"points\":[{\"more\":" + deep + "," + good.substr(1) + "]}");
  CHECK(read_study(dir / "").size() == 1);
  write_file_atomically(dir / "study.json", "{\"points\":[" + good + "," + deep + "]}");
  CHECK(has(refusal(dir / ""), "study.json (point 2) is not the result"));
}

TEST_CASE("what is not a study is refused in one sentence that names the file") {
  const testing::TempDir dir;
  CHECK(has(refusal(dir / "none"), "there is no study"));
  CHECK(has(refusal(dir / ""), "has no finished point"));
  for (const char* text : {"", "[]", "{}", "{\"points\":7}", "{\"points\":"}) {
    write_file_atomically(dir / "study.json", text);
    CHECK(has(refusal(dir / ""), "study.json' is not a study"));
  }
  write_file_atomically(dir / "study.json", "{\"points\":[]}");
  CHECK(has(refusal(dir / ""), "has no finished point"));
  write_file_atomically(dir / "study.json", "{\"points\":[" + to_json(point("bf16", 1, 0)) + ",{}]}");
  CHECK(has(refusal(dir / ""), "study.json (point 2)"));
  write_result(dir / "", "a", point("bf16", 1, 0));
  write_file_atomically(result_path(dir / "", "a"), "{}");
  CHECK(has(refusal(dir / ""), "result.json is not the result"));
  write_result(dir / "", "a", point("bf16", 1, 0));
  write_result(dir / "", "b", point("bf16", 1, 0));
  CHECK(has(refusal(dir / ""), "two results called 'bf16"));
}
