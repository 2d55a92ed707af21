// Names of classes from files, in the forms that go round.
#include "apps/class_names.hpp"

#include <doctest/doctest.h>

#include "engine/error.hpp"
#include "tests/apps/program.hpp"
#include "tests/error_of.hpp"
#include "tests/temp_dir.hpp"
#include "tests/text.hpp"

namespace nibble::apps {
namespace {

using testing::error_of;
using testing::has;
using Names = std::vector<std::string>;

Names parsed(const std::string& text) {
  return parse_class_names(text, "file");
}

TEST_CASE("class names: lines, a JSON list, and numbered objects as they go round with ImageNet's models") {
  CHECK(parsed("tench\ngreat white shark\r\n\n") == Names{"tench", "great white shark"});
  CHECK(parsed("\xef\xbb\xbf"
               "a\nb") == Names{"a", "b"});
  CHECK(parsed("n01440764 tench, Tinca tinca\n") == Names{"n01440764 tench, Tinca tinca"});
  CHECK(parsed(R"(["a", "b c"])") == Names{"a", "b c"});
  CHECK(parsed(R"({"1": "b", "0": "a"})") == Names{"a", "b"});
  CHECK(parsed(R"({"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]})") ==
        Names{"n01440764 tench", "n01443537 goldfish"});
  CHECK(parsed("\n [\"a\"]") == Names{"a"});
  CHECK(parsed("").empty());
}

TEST_CASE("class names: what is no name is refused with its place") {
  const auto refused = [](const std::string& text) {
    CAPTURE(text);
    CHECK_THROWS_AS(parsed(text), UsageError);
    return error_of([&] { parsed(text); });
  };
  CHECK(refused("a\n\nb") == "file: the name in line 2 is empty; write a name of UTF-8 text for every class");
  CHECK(has(refused("a\n\xff"), "line 2 is not UTF-8"));
  CHECK(has(refused(R"(["a", ""])"), "class 1 is empty"));
  CHECK(has(refused(R"(["a", 1])"), "class 1 is no name"));
  CHECK(has(refused(R"({"0": ["n01440764"]})"), "class 0 is no name"));
  CHECK(has(refused(R"({"0": ["n01440764", "tench", "fish"]})"), "class 0 is no name"));
  CHECK(has(refused(R"({"0": "a", "2": "b"})"), "has 2 classes but none of number 1"));
  CHECK(has(refused("[\"a\""), "begins as JSON does"));
  CHECK(has(refused("{"), "begins as JSON does"));
  CHECK(has(refused(std::string(200'000, '\n')), "has more than 100000 lines"));
}

TEST_CASE("class names: as many as the model has classes, of a file that is there") {
  const testing::TempDir dir;
  testing::write_text((dir / "names.txt").string(), "a\nb\n");
  CHECK(read_class_names(dir / "names.txt", 2) == Names{"a", "b"});
  CHECK(has(error_of([&] { read_class_names(dir / "names.txt", 3); }), "names.txt has 2 names, the model 3 classes"));
  CHECK_THROWS_AS(read_class_names(dir / "none.txt", 2), DiskError);
}

}  // namespace
}  // namespace nibble::apps
