#include "data/validation_split.hpp"

#include <algorithm>
#include <cerrno>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>

#include "engine/error.hpp"
#include "engine/files.hpp"
#include "engine/rng.hpp"

namespace nibble {
namespace {

namespace fs = std::filesystem;

/// FNV-1a, 64 bits (Fowler, Noll, Vo).
uint64_t hash_of(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

std::string file_name(const Dataset& images, int64_t index) {
  return fs::path(images.path(index)).filename().string();
}

const std::string& class_of(const Dataset& images, int64_t index) {
  return images.class_names()[static_cast<size_t>(images.label(index))];
}

bool is_there(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (error && status.type() != fs::file_type::not_found) throw_disk_error("look at", path, error.value());
  return status.type() != fs::file_type::not_found;
}

void place(const fs::path& image, const fs::path& to, SplitFiles files) {
  std::error_code error;
  if (files == SplitFiles::kCopies)
    fs::copy_file(image, to, error);
  else
    fs::create_symlink(fs::canonical(image, error), to, error);
  if (error) throw_disk_error("make", to, error.value());
}

}  // namespace

std::vector<bool> set_aside(const Dataset& images, const ValidationShare& of) {
  if (!(of.share > 0 && of.share < 1)) throw UsageError("--val-share is {}; use a share between 0 and 1", of.share);
  struct Class {
    int64_t images = 0, aside = 0, lowest = 0, highest = 0;  // by draw
    float low = std::numeric_limits<float>::infinity(), high = -1;
  };
  std::vector<Class> classes(static_cast<size_t>(images.num_classes()));
  std::vector<bool> aside(static_cast<size_t>(images.size()));
  for (int64_t i = 0; i < images.size(); ++i) {
    const float drawn =
        Rng(of.seed, rng_purpose::kValidation, hash_of(class_of(images, i) + "/" + file_name(images, i))).uniform();
    Class& c = classes[static_cast<size_t>(images.label(i))];
    aside[static_cast<size_t>(i)] = static_cast<double>(drawn) < of.share;
    ++c.images;
    c.aside += aside[static_cast<size_t>(i)];
    if (drawn < c.low) c.low = drawn, c.lowest = i;
    if (drawn > c.high) c.high = drawn, c.highest = i;
  }
  for (size_t k = 0; k < classes.size(); ++k) {
    const Class& c = classes[k];
    if (c.images < 2)
      throw DataError(
          "class {} has 1 image, which cannot be in training and in validation; add images or leave the "
          "class out",
          images.class_names()[k]);
    if (c.aside == 0) aside[static_cast<size_t>(c.lowest)] = true;
    if (c.aside == c.images) aside[static_cast<size_t>(c.highest)] = false;
  }
  return aside;
}

void write_split(const Dataset& images, const std::vector<bool>& validation, const fs::path& out, SplitFiles files) {
  const fs::path part = out.string() + ".part";
  if (is_there(out)) throw UsageError("'{}' exists; choose another folder", out.string());
  if (is_there(part)) throw UsageError("'{}' exists, left by a split that was stopped; remove it", part.string());
  for (const std::string& name : images.class_names())
    for (const char* split : {"train", "val"}) make_folders(part / split / name);
  for (int64_t i = 0; i < images.size(); ++i) {
    const char* split = validation[static_cast<size_t>(i)] ? "val" : "train";
    place(images.path(i), part / split / class_of(images, i) / file_name(images, i), files);
  }
  if (disk_calls().rename(part.c_str(), out.c_str()) != 0) throw_disk_error("make", out, errno);
}

}  // namespace nibble
