// Data sets as they are published: Tiny ImageNet's folders, flat folders with a list of labels, CIFAR's records.
#include <doctest/doctest.h>

#include <fstream>

#include "data/cifar.hpp"
#include "data/image_folder.hpp"
#include "data/label_list.hpp"
#include "data/open_images.hpp"
#include "data/synth.hpp"
#include "data/unsorted_images.hpp"
#include "engine/error.hpp"
#include "tests/data/images.hpp"
#include "tests/error_of.hpp"
#include "tests/temp_dir.hpp"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing::error_of;
using testing::TempDir;

void write_file(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

std::string jpeg_text() {
  const Image image = testing::formula_image(10, 8);
  const std::vector<uint8_t> bytes = encode_jpeg({image.pixels.get(), image.bytes()}, 10, 8, 90);
  return {bytes.begin(), bytes.end()};
}

/// "class file" of every image, in the data set's order.
std::vector<std::string> listing(const Dataset& set) {
  std::vector<std::string> all;
  for (int64_t i = 0; i < set.size(); ++i)
    all.push_back(set.class_names()[static_cast<size_t>(set.label(i))] + " " +
                  fs::path(set.path(i)).filename().string());
  return all;
}

std::vector<std::string> parsed(const std::string& text) {
  std::vector<std::string> all;
  for (const LabelledFile& l : parse_label_list(text, "list", 100))
    all.push_back(std::to_string(l.line) + " [" + l.file + "] [" + l.class_name + "]");
  return all;
}

TEST_CASE("label lists are read as Tiny ImageNet, ImageNet's competition and people write them") {
  CHECK(parsed("val_0.JPEG\tn03444034\t0\t32\t44\t62\nval_1.JPEG\tn04067472\t52\t55\t57\t59\n") ==
        std::vector<std::string>{"1 [val_0.JPEG] [n03444034]", "2 [val_1.JPEG] [n04067472]"});
  CHECK(parsed("ImageId,PredictionString\r\nILSVRC2012_val_00048981,n03995372 85 1 499 272 \r\n") ==
        std::vector<std::string>{"2 [ILSVRC2012_val_00048981.JPEG] [n03995372]"});
  CHECK(parsed("\xef\xbb\xbf\n  a.jpg   cat\n\nb.png,big dog,1\nmy cat.jpeg\tbig cat\tx\nc c.JPG,dog\nlast.jpg cat") ==
        std::vector<std::string>{"2 [a.jpg] [cat]", "4 [b.png] [big dog]", "5 [my cat.jpeg] [big cat]",
                                 "6 [c c.JPG] [dog]", "7 [last.jpg] [cat]"});
  CHECK(parsed("").empty());
  for (const std::string bad :
       {"a.jpg", "a.jpg\t", "\tcat", ",cat", "a.jpg,", "x/a.jpg cat", "../a.jpg cat", ".. cat", ". cat", "a.jpg c/d",
        "a.jpg ..", "a.jpg \xff", "a.jpg big cat", "a b.jpg cat", "\"a.jpg\",cat", "a.jpg,\"cat\""}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(parsed("ok.jpg cat\n" + bad + "\n"), DataError);
    CHECK(error_of([&] { parsed("ok.jpg cat\n" + bad + "\n"); }).find("list line 2 is '") == 0);
  }
  CHECK_THROWS_AS(parsed(std::string("a\0.jpg cat", 10)), DataError);
  const auto three = [] { parse_label_list("a.jpg x\nb.jpg x\nc.jpg x", "list", 2); };
  CHECK(error_of(three).find("list line 3 is one more than the 2 images that are there") == 0);
}

TEST_CASE("the same images are the same data set in class folders, in Tiny ImageNet's layout and with a list") {
  const TempDir dir;
  const std::string image = jpeg_text();
  std::string annotations, lines, solution = "ImageId,PredictionString\n";
  // Names of which one class sorts before another's files, and files in another order than their classes.
  for (const auto& [name, file] : std::vector<std::pair<std::string, std::string>>{
           {"a", "9.JPEG"}, {"a-b", "5.JPEG"}, {"a", "3.JPEG"}, {"b", "1.JPEG"}, {"a-b", "7.JPEG"}}) {
    write_file(dir / "folders" / "val" / name / file, image);
    write_file(dir / "nested" / "val" / name / "images" / file, image);
    write_file(dir / "nested" / "val" / name / (name + "_boxes.txt"), "boxes");
    write_file(dir / "tiny" / "val" / "images" / file, image);
    write_file(dir / "listed" / "val" / file, image);
    write_file(dir / "solved" / "val" / file, image);
    annotations += file + "\t" + name + "\t0\t0\t62\t62\n";
    lines += file + " " + name + "\n";
    solution += file.substr(0, 1) + "," + name + " 1 2 3 4\n";
  }
  write_file(dir / "tiny" / "val" / "val_annotations.txt", annotations);
  write_file(dir / "listed" / "val.txt", lines);
  write_file(dir / "solved" / "LOC_val_solution.csv", solution);
  const DatasetPtr folders = open_images(dir / "folders", "val", Decoder::auto_);
  REQUIRE(listing(*folders) ==
          std::vector<std::string>{"a-b 5.JPEG", "a-b 7.JPEG", "a 3.JPEG", "a 9.JPEG", "b 1.JPEG"});
  for (const char* other : {"nested", "tiny", "listed", "solved"}) {
    CAPTURE(other);
    const DatasetPtr set = open_images(dir / other, "val", Decoder::auto_);
    CHECK(set->class_names() == folders->class_names());
    CHECK(listing(*set) == listing(*folders));
    CHECK(set->left_out().empty());
    CHECK(set->read(4).width == 10);
    // The folder itself, by names that have no last part.
    for (const fs::path& itself : {dir / other / "val", dir / other / "val" / "", dir / other / "val" / "."})
      CHECK(listing(*open_images(itself, "", Decoder::auto_)) == listing(*folders));
  }
  // Next to class folders a list counts for nothing.
  write_file(dir / "folders" / "val.txt", "5.JPEG b\n");
  CHECK(listing(*open_images(dir / "folders", "val", Decoder::auto_)) == listing(*folders));
  // What the list does not name is left out and counted, as is what is not an image in a class folder's images/.
  write_file(dir / "listed" / "val" / "2.JPEG", image);
  CHECK(open_images(dir / "listed", "val", Decoder::auto_)->left_out() ==
        (dir / "listed" / "val").string() + ": left out 1 image that " + (dir / "listed" / "val.txt").string() +
            " does not name: 2.JPEG");
  write_file(dir / "listed" / "val" / "8.JPEG", image);
  CHECK(open_images(dir / "listed", "val", Decoder::auto_)->left_out().find("2 images that ") != std::string::npos);
  write_file(dir / "nested" / "val" / "a" / "images" / "notes.txt", "");
  write_file(dir / "nested" / "val" / "a" / "b_boxes.txt", "");
  CHECK(open_images(dir / "nested", "val", Decoder::auto_)->left_out() ==
        (dir / "nested" / "val").string() +
            "/<class>/: left out 2 entries that are not .jpg, .jpeg or .png files, such as a/b_boxes.txt");
}

TEST_CASE("lists that do not fit their folder are refused with the line, folders without a list with its names") {
  const TempDir dir;
  const auto open = [&] { open_images(dir.path(), "val", Decoder::auto_); };
  for (const char* name : {"1.jpg", "2.jpg"}) write_file(dir / "val" / name, jpeg_text());
  CHECK_THROWS_AS(open(), DataError);
  for (const std::string& place : {(dir / "val.txt").string(), (dir / "val" / "val_annotations.txt").string(),
                                   (dir / "LOC_val_solution.csv").string()})
    CHECK(error_of(open).find(place) != std::string::npos);
  const std::string list = (dir / "val.txt").string();
  write_file(list, "1.jpg a\n3.jpg b\n");
  CHECK(error_of(open) == list + " line 2 names 3.jpg, which is not an image in " + (dir / "val").string() +
                              "; put it there or remove the line");
  write_file(list, "2.jpg a\n2.jpg b\n");
  CHECK(error_of(open) == list + " line 2 names 2.jpg a second time; remove one of the two lines");
  write_file(list, "\n\n");
  CHECK(error_of(open).find(list + " names no image of ") == 0);
  CHECK_THROWS_AS(open(), DataError);
  write_file(list, "1.jpg a\n2.jpg b\n");
  CHECK(error_of(open).empty());
  write_file(dir / "val" / "val_annotations.txt", "1.jpg\tc\n");  // the first that is there counts
  CHECK(open_images(dir.path(), "val", Decoder::auto_)->class_names() == std::vector<std::string>{"c"});
  write_file(dir / "train" / "images" / "1.jpg", jpeg_text());  // Tiny ImageNet's without its list
  const auto without = [&] { open_images(dir.path(), "train", Decoder::auto_); };
  CHECK(error_of(without).find((dir / "train").string() + " holds the folder images alone, and no list") == 0);
  CHECK(error_of(without).find((dir / "train/train_annotations.txt").string()) != std::string::npos);
  write_file(dir / "train" / "other" / "1.jpg", jpeg_text());  // next to another one it is a class
  CHECK(open_images(dir.path(), "train", Decoder::auto_)->class_names() == std::vector<std::string>{"images", "other"});
}

/// A record whose pixel (x, y) is {x + first, y + first, x ^ y}.
std::string record(const std::string& labels, int first) {
  std::string bytes = labels;
  for (int c = 0; c < 3; ++c)
    for (int y = 0; y < 32; ++y)
      for (int x = 0; x < 32; ++x) bytes.push_back(static_cast<char>(c == 0 ? x + first : c == 1 ? y + first : x ^ y));
  return bytes;
}

void write_cifar10(const fs::path& dir) {
  for (int batch = 1; batch <= 5; ++batch) {
    std::string bytes;  // more images in every file, so that no two have their ends at the same distance
    for (int i = 0; i < batch; ++i) bytes += record({static_cast<char>((batch + i) % 3)}, 10 * batch + i);
    write_file(dir / ("data_batch_" + std::to_string(batch) + ".bin"), bytes);
  }
  write_file(dir / "test_batch.bin", record({2}, 7) + record({0}, 8));
  write_file(dir / "batches.meta.txt", "plane\ncar\nbird\n\n");
}

TEST_CASE("CIFAR's records become images of their classes, in the order of the files") {
  const TempDir dir;
  write_cifar10(dir / "ten");
  const DatasetPtr train = open_images(dir / "ten", "train", Decoder::auto_);
  CHECK(train->class_names() == std::vector<std::string>{"plane", "car", "bird"});
  REQUIRE(train->size() == 15);
  int64_t index = 0;
  for (int batch = 1; batch <= 5; ++batch)
    for (int i = 0; i < batch; ++i, ++index) {
      CAPTURE(index);
      CHECK(train->label(index) == (batch + i) % 3);
      CHECK(train->path(index) ==
            (dir / "ten").string() + "/data_batch_" + std::to_string(batch) + ".bin:" + std::to_string(i));
      const Image image = train->read(index);
      REQUIRE(image.width == 32);
      REQUIRE(image.height == 32);
      int wrong = 0;
      for (int y = 0; y < 32; ++y)
        for (int x = 0; x < 32; ++x) {
          const uint8_t* pixel = image.pixels.get() + 3 * (32 * y + x);
          wrong += pixel[0] != x + 10 * batch + i || pixel[1] != y + 10 * batch + i || pixel[2] != (x ^ y);
        }
      CHECK(wrong == 0);
    }
  const DatasetPtr val = open_images(dir / "ten", "val", Decoder::auto_);
  REQUIRE(val->size() == 2);
  CHECK(val->label(0) == 2);
  CHECK(val->read(1).pixels[0] == 8);
  CHECK(listing(*open_images(dir / "ten", "test", Decoder::auto_)) == listing(*val));
  CHECK_THROWS_AS(open_images(dir / "ten", "extra", Decoder::auto_), UsageError);
  // Other pixels of the same name and label are told apart; for files their sizes do that.
  CHECK(val->content_mark(0) != val->content_mark(1));
  CHECK(val->content_mark(0) == open_images(dir / "ten", "val", Decoder::auto_)->content_mark(0));

  write_file(dir / "hundred" / "train.bin", record({7, 1}, 3) + record({9, 0}, 4));
  write_file(dir / "hundred" / "test.bin", record({9, 1}, 5));
  write_file(dir / "hundred" / "fine_label_names.txt", "apple\r\naquarium_fish\r\n");
  const DatasetPtr hundred = open_images(dir / "hundred", "train", Decoder::auto_);
  CHECK(hundred->class_names() == std::vector<std::string>{"apple", "aquarium_fish"});
  REQUIRE(hundred->size() == 2);
  CHECK(hundred->label(0) == 1);
  CHECK(hundred->label(1) == 0);
  CHECK(hundred->read(1).pixels[0] == 4);
  // Folders of images come first.
  write_file(dir / "ten" / "val" / "a" / "1.jpg", jpeg_text());
  CHECK(open_images(dir / "ten", "val", Decoder::auto_)->class_names() == std::vector<std::string>{"a"});
}

TEST_CASE("CIFAR for Python, and the folder above CIFAR's, are refused by what to take instead") {
  const TempDir dir;
  const auto refusal = [&](const char* name) {
    const auto open = [&] { open_images(dir / name, "train", Decoder::auto_); };
    CHECK_THROWS_AS(open(), DataError);
    return error_of(open);
  };
  write_file(dir / "ten" / "data_batch_1", "pickled");
  CHECK(refusal("ten").find(" is CIFAR in its version for Python; fetch the binary one") != std::string::npos);
  for (const char* name : {"train", "test", "meta"}) write_file(dir / "hundred" / name, "pickled");
  CHECK(refusal("hundred").find("version for Python") != std::string::npos);
  write_cifar10(dir / "above" / "cifar-10-batches-bin");
  CHECK_THROWS_AS(open_images_to_look_at(dir / "ten", "", Decoder::auto_), DataError);
  CHECK(error_of([&] { open_images_to_look_at(dir / "ten", "", Decoder::auto_); }) == refusal("ten"));
  CHECK(refusal("above") == (dir / "above").string() + " is the folder above cifar-10-batches-bin; name " +
                                (dir / "above" / "cifar-10-batches-bin").string());
}

TEST_CASE("CIFAR's files that are cut, mislabelled or missing are refused by name") {
  const TempDir dir;
  const auto open = [&] { open_images(dir.path(), "train", Decoder::auto_); };
  write_cifar10(dir.path());
  const std::string third = (dir / "data_batch_3.bin").string(), names = (dir / "batches.meta.txt").string();
  const std::string whole = record({0}, 1);
  write_file(third, whole + whole.substr(0, 3072));
  CHECK(error_of(open) == third + " has 6145 bytes, not a whole number of images of 3073; fetch it again");
  write_file(third, "");
  CHECK(error_of(open).find(third + " has 0 bytes") == 0);
  write_file(third, whole + record({3}, 1));
  CHECK(error_of(open) ==
        "image 1 of " + third + " has the label 3, but there are names of 3 classes; fetch the data set again");
  fs::remove(third);
  CHECK(error_of(open).find("there is no " + third) == 0);
  CHECK_THROWS_AS(open(), DataError);
  write_cifar10(dir.path());
  CHECK(error_of(open).empty());
  for (const std::string& bad :
       {std::string("plane\ncar\nplane\n"), std::string("plane\n\xff\nbird\n"), std::string()}) {
    write_file(names, bad);
    CHECK_THROWS_AS(open(), DataError);
    CHECK(error_of(open).find(names + " names ") == 0);
  }
  fs::remove(names);
  CHECK(error_of(open) == "there is no " + names + ", which names the classes; fetch the whole data set");
  CHECK_THROWS_AS(open(), DataError);
  std::string many;
  for (int i = 0; i < 257; ++i) many += std::to_string(i) + "\n";
  write_file(names, many);
  CHECK(error_of(open).find(names + " names more than the 256 classes") == 0);
  // Cut short behind our back: an error of the image, not one byte of another.
  write_cifar10(dir.path());
  const Cifar set(dir.path(), "train");
  fs::resize_file(dir / "data_batch_5.bin", 3073 + 100);
  CHECK(set.read(10).pixels[0] == 50);
  CHECK_THROWS_AS(set.read(11), DataError);
}

TEST_CASE("images that nobody sorted: all below a folder, by name, whatever lies between") {
  const TempDir dir;
  const std::string image = jpeg_text();
  const fs::path root = dir / "frames";
  for (const char* name : {"b/2.jpg", "b/1.png", "a.jpeg", "b/c/d/3.JPG", "c.jpg", ".hidden/4.jpg", "b/.5.jpg"})
    write_file(root / name, image);
  write_file(root / "b" / "notes.txt", "no image");
  write_file(dir / "elsewhere" / "6.jpg", image);
  fs::create_symlink(dir / "elsewhere" / "6.jpg", root / "b" / "6.jpg");
  fs::create_directory_symlink(root, root / "b" / "again.jpg");  // would have no end
  fs::create_symlink("nowhere", root / "b" / "gone");
  const UnsortedImages set(root, Decoder::auto_);
  std::vector<std::string> found;
  for (int64_t i = 0; i < set.size(); ++i) found.push_back(fs::path(set.path(i)).lexically_relative(root).string());
  CHECK(found == std::vector<std::string>{"a.jpeg", "b/1.png", "b/2.jpg", "b/6.jpg", "b/c/d/3.JPG", "c.jpg"});
  CHECK(set.class_names() == std::vector<std::string>{""});
  CHECK(set.label(5) == 0);
  CHECK(set.read(3).width == 10);
  CHECK(set.left_out() ==
        root.string() + ": left out 3 entries that are not .jpg, .jpeg or .png files, such as b/again.jpg");

  fs::create_symlink("nowhere", root / "b" / "gone.jpg");
  const UnsortedImages with_broken(root, Decoder::auto_);
  REQUIRE(with_broken.size() == 7);
  CHECK(with_broken.path(5) == (root / "b" / "gone.jpg").string());
  CHECK_THROWS_AS(with_broken.read(5), DataError);
  CHECK(with_broken.read(6).width == 10);
  CHECK(error_of([&] { UnsortedImages(dir / "none", Decoder::auto_); }) ==
        "there is no folder " + (dir / "none").string() + ": name one with images in it");
  write_file(dir / "empty" / "x" / "notes.txt", "");
  CHECK(error_of([&] { UnsortedImages(dir / "empty", Decoder::auto_); }).find("holds no .jpg, .jpeg or .png file") !=
        std::string::npos);
}

TEST_CASE("work that needs no labels takes class folders where there are some, and any folder of images") {
  const TempDir dir;
  const std::string image = jpeg_text();
  const auto names = [&](const char* set, const std::string& split) {
    return open_images_to_look_at(dir / set, split, Decoder::auto_)->class_names();
  };
  const std::vector<std::string> none{""};
  write_file(dir / "sorted" / "train" / "cat" / "1.jpg", image);
  CHECK(has_splits(dir / "sorted"));
  CHECK(names("sorted", "train") == std::vector<std::string>{"cat"});
  CHECK(names("sorted", "") == none);
  CHECK_THROWS_AS(names("sorted", "test"), DataError);
  CHECK_FALSE(has_labels(dir / "sorted" / "train" / "cat"));

  write_file(dir / "flat" / "val" / "1.jpg", image);
  CHECK(has_splits(dir / "flat"));
  CHECK(names("flat", "val") == none);
  write_file(dir / "flat" / "val.txt", "1.jpg dog");
  CHECK(names("flat", "val") == std::vector<std::string>{"dog"});
  write_file(dir / "nested" / "val" / "images" / "1.jpg", image);
  CHECK(names("nested", "val") == none);

  write_file(dir / "frames" / "monday" / "1.jpg", image);
  write_file(dir / "frames" / "2.jpg", image);
  CHECK_FALSE(has_splits(dir / "frames"));
  CHECK(names("frames", "") == none);
  CHECK_THROWS_AS(names("frames", "train"), DataError);
}

}  // namespace
}  // namespace nibble
