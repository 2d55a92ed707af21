// Images set aside for validation: how many, which, and the folder of both.
#include "data/validation_split.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "data/image_folder.hpp"
#include "engine/error.hpp"
#include "tests/temp_dir.hpp"

namespace nibble {
namespace {

namespace fs = std::filesystem;

/// Names alone: of class k `counts[k]` images "<class>/00000.jpg", without every `gap`-th of them.
class NamesDataset : public Dataset {
 public:
  explicit NamesDataset(const std::vector<int>& counts, int gap = 0) {
    for (size_t k = 0; k < counts.size(); ++k) {
      classes_.push_back(std::string(1, static_cast<char>('a' + k)));
      for (int i = 0; i < counts[k]; ++i)
        if (gap == 0 || i % gap != 0) names_.emplace_back(k, fmt::format("{:05}.jpg", i));
    }
  }
  int64_t size() const override { return std::ssize(names_); }
  const std::vector<std::string>& class_names() const override { return classes_; }
  int label(int64_t i) const override { return static_cast<int>(names_[static_cast<size_t>(i)].first); }
  std::string path(int64_t i) const override { return "root/" + name(i); }
  Image read(int64_t) const override { throw DataError("names alone"); }
  std::string name(int64_t i) const {
    return classes_[static_cast<size_t>(label(i))] + "/" + names_[static_cast<size_t>(i)].second;
  }

 private:
  std::vector<std::string> classes_;
  std::vector<std::pair<size_t, std::string>> names_;
};

std::vector<std::string> aside_of(const NamesDataset& images, const ValidationShare& of) {
  const std::vector<bool> aside = set_aside(images, of);
  std::vector<std::string> names;
  for (int64_t i = 0; i < images.size(); ++i)
    if (aside[static_cast<size_t>(i)]) names.push_back(images.name(i));
  return names;
}

TEST_CASE("validation split: about the share of each class, drawn by seed, class and name") {
  const NamesDataset images({4000, 2000});
  for (const double share : {0.05, 0.1, 0.5, 0.9}) {
    CAPTURE(share);
    const std::vector<std::string> names = aside_of(images, {.share = share, .seed = 3});
    const auto of_class = [&](char c) {
      return static_cast<double>(std::count_if(names.begin(), names.end(), [&](const auto& n) { return n[0] == c; }));
    };
    // Five standard deviations of a binomial count.
    CHECK(std::abs(of_class('a') - 4000 * share) < 5 * std::sqrt(4000 * share * (1 - share)));
    CHECK(std::abs(of_class('b') - 2000 * share) < 5 * std::sqrt(2000 * share * (1 - share)));
  }
  // Other seeds draw others, and a larger share has those of the smaller one.
  const std::vector<std::string> tenth = aside_of(images, {.seed = 3}), other = aside_of(images, {.seed = 4}),
                                 fifth = aside_of(images, {.share = 0.2, .seed = 3});
  CHECK(tenth != other);
  CHECK(std::includes(fifth.begin(), fifth.end(), tenth.begin(), tenth.end()));
}

TEST_CASE("validation split: images that come later leave the others on their side") {
  const std::vector<std::string> all = aside_of(NamesDataset({500, 300}), {}),
                                 some = aside_of(NamesDataset({500, 300}, 7), {});
  CHECK(some.size() < all.size());
  CHECK(std::includes(all.begin(), all.end(), some.begin(), some.end()));
}

TEST_CASE("validation split: every class has images on both sides, down to two") {
  const std::vector<int> counts = {2, 3, 5, 2, 9};
  for (const double share : {0.001, 0.5, 0.999})
    for (uint64_t seed = 0; seed < 40; ++seed) {
      const NamesDataset images(counts);
      const std::vector<bool> aside = set_aside(images, {.share = share, .seed = seed});
      std::vector<int> sides(2 * counts.size());
      for (int64_t i = 0; i < images.size(); ++i)
        ++sides[static_cast<size_t>(2 * images.label(i) + (aside[static_cast<size_t>(i)] ? 1 : 0))];
      REQUIRE(std::find(sides.begin(), sides.end(), 0) == sides.end());
    }
  CHECK_THROWS_WITH_AS(set_aside(NamesDataset({5, 1}), {}), doctest::Contains("class b has 1 image"), DataError);
  for (const double share : {0.0, 1.0, -0.1, 1.5, std::nan("")})
    CHECK_THROWS_AS(set_aside(NamesDataset({5, 5}), {.share = share}), UsageError);
}

TEST_CASE("validation split: the folder has each image once, as a link that leads to it or as its bytes") {
  const testing::TempDir dir;
  const fs::path root = dir / "photos";
  for (const char* name : {"a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg", "b/x.png"}) {
    fs::create_directories((root / name).parent_path());
    std::ofstream(root / name, std::ios::binary) << "bytes of " << name;
  }
  const ImageFolder images({.dir = root, .split = "", .decoder = Decoder::auto_});
  const std::vector<bool> aside = {true, false, false, false, true};
  for (const SplitFiles files : {SplitFiles::kLinks, SplitFiles::kCopies}) {
    const fs::path out = dir / (files == SplitFiles::kLinks ? "links" : "copies");
    write_split(images, aside, out, files);
    CHECK_FALSE(fs::exists(out.string() + ".part"));
    for (const char* name : {"val/a/1.jpg", "train/a/2.jpg", "train/a/3.jpg", "train/b/1.jpg", "val/b/x.png"}) {
      CAPTURE(name);
      CHECK(fs::is_symlink(out / name) == (files == SplitFiles::kLinks));
      std::ifstream in(out / name, std::ios::binary);
      CHECK(std::string(std::istreambuf_iterator<char>(in), {}) ==
            "bytes of " + std::string(name).substr(std::string(name).find('/') + 1));
    }
    CHECK(std::distance(fs::recursive_directory_iterator(out), {}) == 6 + 5);
    CHECK_THROWS_WITH_AS(write_split(images, aside, out, files), doctest::Contains("exists; choose another"),
                         UsageError);
  }
  fs::create_directories(dir / "begun.part");
  CHECK_THROWS_WITH_AS(write_split(images, aside, dir / "begun", SplitFiles::kLinks),
                       doctest::Contains("left by a split that was stopped; remove it"), UsageError);
}

}  // namespace
}  // namespace nibble
