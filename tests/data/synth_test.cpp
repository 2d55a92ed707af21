// The procedural data set: reproducible bytes, real files, balanced classes.
#include "data/synth.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>

#include "data/image_folder.hpp"
#include "engine/error.hpp"
#include "tests/data/images.hpp"
#include "tests/temp_dir.hpp"

namespace nibble {
namespace {

using testing::hash_of;
using testing::TempDir;

std::vector<uint8_t> drawn(int size, uint64_t seed, SynthSplit split, int label, int64_t number) {
  std::vector<uint8_t> out(static_cast<size_t>(3 * size * size));
  draw_synthetic(size, seed, split, label, number, out.data());
  return out;
}

TEST_CASE("synthetic pixels and their JPEG files are the same bytes on every machine") {
  uint64_t pixels = 0, files = 0;
  for (int label = 0; label < 10; ++label) {
    const std::vector<uint8_t> rgb = drawn(64, 0, SynthSplit::train, label, label);
    pixels ^= hash_of(rgb) * static_cast<uint64_t>(2 * label + 1);
    files ^= hash_of(encode_jpeg(rgb, 64, 64, 90)) * static_cast<uint64_t>(2 * label + 1);
  }
  CHECK(pixels == 0x9e9e714b1af19ee0ull);
  CHECK(files == 0x5ddde2d17be66a26ull);
}

TEST_CASE("every argument changes the picture") {
  const std::vector<uint8_t> a = drawn(32, 0, SynthSplit::train, 1, 0);
  CHECK(a == drawn(32, 0, SynthSplit::train, 1, 0));
  CHECK(a != drawn(32, 1, SynthSplit::train, 1, 0));
  CHECK(a != drawn(32, 0, SynthSplit::val, 1, 0));
  CHECK(a != drawn(32, 0, SynthSplit::train, 2, 0));
  CHECK(a != drawn(32, 0, SynthSplit::train, 1, 1));
}

TEST_CASE("mean colours do not tell the classes apart") {
  constexpr int kImages = 60, kSize = 24;
  std::vector<double> mean(10);
  for (int label = 0; label < 10; ++label)
    for (int i = 0; i < kImages; ++i)
      for (const uint8_t v : drawn(kSize, 0, SynthSplit::train, label, i))
        mean[static_cast<size_t>(label)] += v / (kImages * 3.0 * kSize * kSize);
  // An image's mean varies by at most 25 levels (a plain shape, bright or dark, on a quarter of the area), so the mean
  // of 60 varies by 3.3; four of those are 13.
  for (const double m : mean) CHECK(std::abs(m - 127.5) < 13.0);
}

TEST_CASE("a written folder is an ImageFolder of real JPEG files, and writing it again changes nothing") {
  const TempDir dir;
  const SyntheticFolderArgs args{.dir = dir / "set", .train_per_class = 3, .val_per_class = 2, .size = 32, .seed = 4};
  const SyntheticFolderCounts counts = write_synthetic_folder(args);
  CHECK(counts.train == 30);
  CHECK(counts.val == 20);
  CHECK(counts.classes == 10);
  const ImageFolder train({.dir = args.dir, .split = "train"}), val({.dir = args.dir, .split = "val"});
  CHECK(train.size() == 30);
  CHECK(val.size() == 20);
  CHECK(train.class_names() == synthetic_class_names());
  CHECK(std::is_sorted(train.class_names().begin(), train.class_names().end()));
  const SyntheticDataset same({.split = SynthSplit::train, .per_class = 3, .size = 32, .seed = 4});
  REQUIRE(same.size() == train.size());
  for (int64_t i = 0; i < train.size(); ++i) {
    CHECK(train.label(i) == same.label(i));
    const Image image = train.read(i), drawn_again = same.read(i);
    CHECK(image.warning.empty());
    CHECK(read_file(train.path(i)) == encode_jpeg({drawn_again.pixels.get(), drawn_again.bytes()}, 32, 32, 90));
  }
  const std::vector<uint8_t> before = read_file(train.path(7));
  write_synthetic_folder(args);
  CHECK(read_file(train.path(7)) == before);
}

TEST_CASE("images of another seed or size and someone's own are not replaced, half an image of ours is") {
  const TempDir dir;
  const SyntheticFolderArgs args{.dir = dir / "set", .train_per_class = 1, .val_per_class = 1, .size = 16, .seed = 3};
  write_synthetic_folder(args);
  const std::filesystem::path last = args.dir / "val/striped_disk/00000.jpg";
  const std::vector<uint8_t> image = read_file(last);
  SyntheticFolderArgs other_seed = args, other_size = args, more = args;
  other_seed.seed = 4;
  other_size.size = 32;
  CHECK_THROWS_WITH_AS(write_synthetic_folder(other_seed), doctest::Contains("not the image that"), DataError);
  CHECK_THROWS_WITH_AS(write_synthetic_folder(other_size), doctest::Contains("not the image that"), DataError);
  CHECK(read_file(last) == image);
  more.train_per_class = 2;
  const auto long_ago = std::filesystem::last_write_time(last) - std::chrono::hours(1);
  std::filesystem::last_write_time(last, long_ago);
  CHECK(write_synthetic_folder(more).train == 20);
  CHECK(std::filesystem::last_write_time(last) == long_ago);  // not rewritten
  std::filesystem::resize_file(last, 100);
  write_synthetic_folder(more);
  CHECK(read_file(last) == image);
  std::ofstream(last) << "mine";
  std::filesystem::remove(args.dir / "train/plain_disk/00001.jpg");
  CHECK_THROWS_WITH_AS(write_synthetic_folder(more), doctest::Contains(last.c_str()), DataError);
  CHECK_FALSE(std::filesystem::exists(args.dir / "train/plain_disk/00001.jpg"));  // nothing is written before that
}

TEST_CASE("what is in the way in either split is refused before anything is written") {
  const TempDir dir;
  const SyntheticFolderArgs args{.dir = dir / "set", .train_per_class = 1, .val_per_class = 1, .size = 16, .seed = 0};
  const auto entries = [&](const char* extension) {
    int count = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(args.dir))
      count += *extension == 0 || entry.path().extension() == extension;
    return count;
  };
  for (const char* other : {"train/tench", "val/tench", "val/striped_disk/mine"}) {
    CAPTURE(other);
    std::filesystem::create_directories(args.dir / other);
    const int before = entries("");
    CHECK_THROWS_WITH_AS(write_synthetic_folder(args), doctest::Contains("is in the way"), DataError);
    CHECK(entries("") == before);
    std::filesystem::remove_all(args.dir);
  }
  write_synthetic_folder(args);
  CHECK(entries(".jpg") == 20);
}

TEST_CASE("foreign files in the way and impossible arguments are refused") {
  const TempDir dir;
  SyntheticFolderArgs args{.dir = dir.path(), .train_per_class = 1, .val_per_class = 1, .size = 16, .seed = 0};
  write_synthetic_folder(args);
  std::ofstream(dir / "train/striped_disk/mine.txt") << "x";
  CHECK_THROWS_AS(write_synthetic_folder(args), DataError);
  args.size = 8;
  CHECK_THROWS_AS(write_synthetic_folder(args), UsageError);
  args.size = 16;
  args.val_per_class = 0;
  CHECK_THROWS_AS(write_synthetic_folder(args), UsageError);
  args.val_per_class = 1;
  args.dir = "/proc/nibble";
  CHECK_THROWS_AS(write_synthetic_folder(args), DiskError);
}

}  // namespace
}  // namespace nibble
