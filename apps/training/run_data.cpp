#include "apps/training/run_data.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <span>

#include "apps/console.hpp"
#include "data/cifar.hpp"
#include "data/image_folder.hpp"
#include "data/open_images.hpp"
#include "data/sampler.hpp"
#include "data/subset.hpp"
#include "nn/sha256.hpp"

namespace nibble::apps {

namespace {

std::string digest_of(const Dataset& data) {
  Sha256 hash;
  for (int64_t i = 0; i < data.size(); ++i) {
    const int label = data.label(i);
    const std::string line = fmt::format("{}/{} {}\n", data.class_names()[static_cast<size_t>(label)],
                                         std::filesystem::path(data.path(i)).filename().string(), label);
    hash.update(std::as_bytes(std::span(line)));
  }
  return hash.hex();
}

std::string sizes_of(const Dataset& train, const Dataset& validation) {
  constexpr int64_t kLookedAt = 4096;
  Sha256 hash;
  for (const Dataset* data : {&train, &validation}) {
    const int64_t n = std::min(data->size(), kLookedAt);
    for (int64_t i = 0; i < n; ++i) {
      const std::string line = fmt::format("{}\n", data->content_mark(i * data->size() / n));
      hash.update(std::as_bytes(std::span(line)));
    }
  }
  return hash.hex();
}

/// What to do with images that are in class folders, but not in `train` and `val`.
void refuse_without_splits(const std::string& dir) {
  namespace fs = std::filesystem;
  std::error_code none;  // what cannot be looked at is refused when it is opened
  const auto has = [&](const char* name) { return fs::is_directory(fs::path(dir) / name, none); };
  if (has("val") || is_cifar(dir)) return;
  for (const char* other : {"valid", "validation", "test"})
    if (has("train") && has(other))
      throw DataError("there is no folder {}/val, but {}/{}; call it val", dir, dir, other);
  if (has("train") || (fs::is_directory(dir, none) && has_labels(dir)))
    throw DataError(
        "there is no folder {}/val to evaluate on; {} --out OUT sets a tenth of the images aside, and OUT "
        "is then the --data",
        dir, "nibble split " + shell_quoted(dir));
}

}  // namespace

RunData open_run_data(const TrainOptions& o) {
  refuse_without_splits(o.data);
  RunData data;
  const Decoder decoder = decoder_from_name(o.decoder);
  data.decoder = std::string(name_of(resolve(decoder)));
  const SubsetArgs subset{.classes = static_cast<int>(o.limit_classes), .per_class = o.per_class, .seed = o.seed};
  const auto open = [&](const char* split) {
    DatasetPtr images = open_images(o.data, split, decoder);
    if (const std::string others = images->left_out(); !others.empty()) data.left_out.push_back(others);
    return images;
  };
  data.train = open("train");
  data.validation = open("val");
  if (o.limit_classes > 0 || o.per_class > 0) data.train = std::make_shared<Subset>(data.train, subset);
  if (o.limit_classes > 0)
    data.validation =
        std::make_shared<Subset>(data.validation, SubsetArgs{.classes = subset.classes, .per_class = 0, .seed = 0});
  require_same_classes(*data.train, *data.validation, o.data + "/train", o.data + "/val");
  if (const int classes = data.train->num_classes(); classes < 2)
    throw DataError("{}/train has {} class; training needs at least 2 class folders", o.data, classes);
  data.digest = digest_of(*data.train);
  data.validation_digest = digest_of(*data.validation);
  data.sizes = sizes_of(*data.train, *data.validation);
  data.steps_per_epoch =
      Sampler({.size = data.train->size(), .batch_size = o.batch_size, .seed = o.seed}).batches_per_epoch();
  return data;
}

void require_outside_images(const std::string& out, const std::string& data) {
  namespace fs = std::filesystem;
  std::error_code ignored;  // what cannot be resolved cannot be written either, and that has its own sentence
  // Absolute first: of a name that does not exist yet weakly_canonical leaves a relative one relative.
  const fs::path place = fs::weakly_canonical(fs::absolute(out, ignored), ignored);
  for (const char* split : {"train", "val"}) {
    const fs::path images = fs::weakly_canonical(fs::absolute(fs::path(data) / split, ignored), ignored);
    const fs::path inside = place.lexically_relative(images);
    if (!images.empty() && !inside.empty() && *inside.begin() != "..")
      throw UsageError(
          "--out {} lies among the images of {}/{}, where it would be taken for a class; choose another folder", out,
          data, split);
  }
}

}  // namespace nibble::apps
