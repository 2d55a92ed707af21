// ImageFolder and Subset.
#include "data/dataset.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "data/image_folder.hpp"
#include "data/relabelled.hpp"
#include "data/subset.hpp"
#include "data/synth.hpp"
#include "engine/error.hpp"
#include "tests/data/images.hpp"
#include "tests/error_of.hpp"
#include "tests/temp_dir.hpp"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing::error_of;
using testing::TempDir;

void put(const fs::path& path, const std::vector<uint8_t>& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

std::vector<uint8_t> jpeg(int width = 10, int height = 8) {
  const Image image = testing::formula_image(width, height);
  return encode_jpeg({image.pixels.get(), image.bytes()}, width, height, 90);
}

std::vector<std::string> paths(const Dataset& set) {
  std::vector<std::string> all;
  for (int64_t i = 0; i < set.size(); ++i) all.push_back(set.path(i));
  return all;
}

TEST_CASE("an image folder lists images in bytewise path order with labels of sorted class names") {
  const TempDir dir;
  for (const char* name : {"a/z.jpg", "a/B.JPEG", "a/b.PNG", "a-b/1.jpeg", "a/notes.txt", "a/.hidden.jpg", "a/jpg",
                           ".cache/x.jpg", "stray.jpg", "a/folder.jpg/inner.txt"})
    put(dir / "train" / name, jpeg());
  fs::create_symlink(dir / "train" / "a" / "z.jpg", dir / "train" / "a" / "link.jpg");
  fs::create_directory_symlink(dir / "train" / "a-b", dir / "train" / "b");
  for (const char* name : {"a/notes.md", "a/.broken.jpg", ".broken"})
    fs::create_symlink(dir / "absent", dir / "train" / name);
  fs::create_symlink(dir / "train" / "stray.jpg", dir / "train" / "link.jpg");
  const ImageFolder set({.dir = dir.path(), .split = "train"});
  CHECK(set.class_names() == std::vector<std::string>{"a", "a-b", "b"});
  const std::string root = (dir / "train").string() + "/";
  CHECK(paths(set) == std::vector<std::string>{root + "a-b/1.jpeg", root + "a/B.JPEG", root + "a/b.PNG",
                                               root + "a/link.jpg", root + "a/z.jpg", root + "b/1.jpeg"});
  CHECK(set.label(0) == 1);
  CHECK(set.label(4) == 0);
  CHECK(set.read(4).width == 10);
  CHECK(set.decoder() != Decoder::auto_);
  // a/: notes.txt, jpg, folder.jpg and notes.md, which are not looked at; hidden ones are left out silently.
  CHECK(set.left_out() ==
        root + "<class>/: left out 4 entries that are not .jpg, .jpeg or .png files, such as a/folder.jpg");
}

TEST_CASE("a link to nowhere in place of a class or an image is an error that names it, not left out") {
  const TempDir dir;
  for (const char* name : {"train/a/1.jpg", "train/b/1.jpg"}) put(dir / name, jpeg());
  fs::create_symlink("loop", dir / "loop");
  const auto open = [&] { ImageFolder({.dir = dir.path(), .split = "train"}); };
  for (const char* name : {"train/a/2.jpg", "train/b/2.PNG", "train/c"})
    for (const char* target : {"absent", "loop"}) {
      const fs::path link = dir / name;
      fs::create_symlink(dir / target, link);
      CHECK_THROWS_AS(open(), DataError);
      CHECK(error_of(open).find(link.string() + " is a link that leads nowhere") == 0);
      fs::remove(link);
    }
  CHECK(error_of(open).empty());
  const auto below_loop = [&] { ImageFolder({.dir = dir / "loop", .split = "train"}); };
  CHECK_THROWS_AS(below_loop(), DiskError);
  CHECK(error_of(below_loop).find("cannot look at the folder '" + (dir / "loop/train").string() + "': ") == 0);
}

TEST_CASE("missing and empty folders are data errors that name the folder") {
  const TempDir dir;
  const std::string train = (dir / "train").string();
  const auto open = [&] { ImageFolder({.dir = dir.path(), .split = "train"}); };
  CHECK(error_of(open) == "there is no folder " + train + ": images are expected in " + train + "/<class>/*.JPEG");
  fs::create_directories(dir / "train");
  CHECK(error_of(open).find(train + " holds no class folder") == 0);
  put(dir / "train" / "cat" / "1.jpg", jpeg());
  fs::create_directories(dir / "train" / "dog");
  CHECK(error_of(open).find("class folder " + train + "/dog holds no .jpg") == 0);
  CHECK(error_of(open).find("add images or remove the folder") != std::string::npos);
  CHECK_THROWS_AS(open(), DataError);
  fs::create_symlink("/gone", dir / "train" / "dog" / "notes.txt");  // no image's name, so no matter where it leads
  CHECK(error_of(open).find("class folder " + train + "/dog holds no .jpg") == 0);
  fs::create_directories(dir / "train" / "dog" / "images");  // as Tiny ImageNet comes
  CHECK(error_of(open).find("class folder " + train + "/dog/images holds no .jpg") == 0);
  put(dir / "train" / "dog" / "images" / "set1" / "1.jpg", jpeg());
  CHECK(error_of(open).find("its folder set1 is not looked into: move its images up") != std::string::npos);
  put(dir / "train" / "dog" / "images" / "1.jpg", jpeg());
  CHECK(error_of(open).empty());
}

TEST_CASE("different class folders in two splits are reported by name") {
  const TempDir dir;
  for (const char* name :
       {"train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/c/1.jpg", "same/a/1.jpg", "same/b/1.jpg"})
    put(dir / name, jpeg());
  const ImageFolder train({.dir = dir.path(), .split = "train"}), val({.dir = dir.path(), .split = "val"});
  const ImageFolder same({.dir = dir.path(), .split = "same"});
  CHECK(error_of([&] { require_same_classes(train, val, "train", "val"); }) ==
        "class 'b' is in train but not in val: both need the same classes");
  CHECK(error_of([&] { require_same_classes(val, train, "val", "train"); }) ==
        "class 'b' is in train but not in val: both need the same classes");
  require_same_classes(train, same, "train", "same");
}

TEST_CASE("a subset keeps the first classes and a reproducible draw of each") {
  const auto whole = std::make_shared<const SyntheticDataset>(
      SyntheticDatasetArgs{.split = SynthSplit::train, .per_class = 20, .size = 16, .seed = 0});
  const Subset three(whole, {.classes = 3});
  CHECK(three.size() == 60);
  CHECK(three.num_classes() == 3);
  const Subset few(whole, {.classes = 3, .per_class = 5, .seed = 1}),
      again(whole, {.classes = 3, .per_class = 5, .seed = 1});
  const Subset other(whole, {.classes = 3, .per_class = 5, .seed = 2});
  CHECK(few.size() == 15);
  CHECK(paths(few) == paths(again));
  CHECK(paths(few) != paths(other));
  std::vector<int> count(3);
  for (int64_t i = 0; i < few.size(); ++i) ++count[static_cast<size_t>(few.label(i))];
  CHECK(count == std::vector<int>{5, 5, 5});
  const std::vector<std::string> names = paths(few);
  CHECK(std::set<std::string>(names.begin(), names.end()).size() == 15);
  // More classes do not change what is drawn from the first ones.
  const Subset all(whole, {.per_class = 5, .seed = 1});
  CHECK(std::equal(names.begin(), names.end(), paths(all).begin()));
  CHECK(Subset(whole, {.per_class = 100}).size() == 200);
  CHECK_THROWS_AS(Subset(whole, {.classes = 11}), UsageError);
  CHECK_THROWS_AS(Subset(whole, {.per_class = -1}), UsageError);
}

TEST_CASE("a subset that keeps images evenly spreads them over all classes") {
  const auto whole = std::make_shared<const SyntheticDataset>(
      SyntheticDatasetArgs{.split = SynthSplit::train, .per_class = 20, .size = 16, .seed = 0});
  const Subset ten(whole, {.evenly = 10}), seven(whole, {.evenly = 7}), three(whole, {.classes = 3, .evenly = 3});
  REQUIRE(ten.size() == 10);
  for (int i = 0; i < 10; ++i) CHECK(ten.label(i) == i);
  REQUIRE(seven.size() == 7);
  for (int64_t i = 0; i < 7; ++i) CHECK(seven.path(i) == whole->path(i * 200 / 7));
  REQUIRE(three.size() == 3);
  CHECK(three.label(2) == 2);
  CHECK(Subset(whole, {.evenly = 200}).size() == 200);
  CHECK(Subset(whole, {.evenly = 500}).size() == 200);
  CHECK_THROWS_AS(Subset(whole, {.evenly = -1}), UsageError);
}

TEST_CASE("a shuffled subset has the same images in an order of its own, that of its seed") {
  const auto whole = std::make_shared<const SyntheticDataset>(
      SyntheticDatasetArgs{.split = SynthSplit::train, .per_class = 20, .size = 16, .seed = 0});
  const Subset plain(whole, {.evenly = 50}), a(whole, {.evenly = 50, .shuffled = true}),
      b(whole, {.evenly = 50, .shuffled = true}), other(whole, {.seed = 1, .evenly = 50, .shuffled = true});
  CHECK(paths(a) == paths(b));
  CHECK(paths(a) != paths(plain));
  CHECK(paths(a) != paths(other));
  std::vector<std::string> sorted = paths(a);
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::string> expected = paths(plain);
  std::sort(expected.begin(), expected.end());
  CHECK(sorted == expected);
}

TEST_CASE("classes are found by name among those of a model, ImageNet's folders by the number that begins a name") {
  const std::vector<std::string> names = {"b",
                                          "a",
                                          "n01440764 tench, Tinca tinca",
                                          "twice",
                                          "twice",
                                          "big dog",
                                          "n02012849 crane",
                                          "n02012849 crane again",
                                          "n03126707"};
  const auto place = [&](const std::string& name) { return places_of({name}, names).front(); };
  CHECK(places_of({"a", "b", "c"}, names) == std::vector<int>{1, 0, -1});
  CHECK(place("n01440764") == 2);
  CHECK(place("n01440764 tench, Tinca tinca") == 2);
  CHECK(place("n03126707") == 8);
  CHECK(place("big") == -1);  // no number: another class may be called so
  CHECK(place("twice") == -1);
  CHECK(place("n02012849") == -1);
  CHECK(place("n02012849 crane") == 6);
  CHECK(place("") == -1);
  CHECK(places_of({}, names).empty());
}

TEST_CASE("relabelled images keep their pixels and order, and have the numbers of other classes") {
  const TempDir dir;
  for (const char* name : {"a/1.jpg", "b/2.jpg", "b/3.jpg"}) put(dir / "val" / name, jpeg(name[0] == 'a' ? 10 : 20));
  const auto whole = std::make_shared<ImageFolder>(ImageFolderArgs{.dir = dir.path(), .split = "val"});
  const std::vector<std::string> names = {"b", "c", "a"};
  const Relabelled set(whole, names, places_of(whole->class_names(), names));
  CHECK(set.class_names() == names);
  CHECK(paths(set) == paths(*whole));
  CHECK(set.label(0) == 2);
  CHECK(set.label(1) == 0);
  CHECK(set.label(2) == 0);
  CHECK(set.read(1).width == 20);
  CHECK(set.content_mark(1) == whole->content_mark(1));
  CHECK_THROWS_AS(Relabelled(whole, names, {0}), UsageError);
  CHECK_THROWS_AS(Relabelled(whole, names, {0, -1}), UsageError);
  CHECK_THROWS_AS(Relabelled(whole, names, {0, 3}), UsageError);
}

}  // namespace
}  // namespace nibble
