// Wrappers: data sets made from another one.
#pragma once
#include <mutex>
#include <vector>

#include "data/dataset.hpp"

namespace nibble {

struct SubsetArgs {
  int classes = 0;        // keep the first N class names (0: all)
  int64_t per_class = 0;  // keep K images of each class, drawn by `seed` (0: all; a smaller class keeps all of its own)
  uint64_t seed = 0;
  int64_t evenly = 0;  // of what these keep, N images at equal distances in its order (0, or more than there are: all)
};

/// A part of a data set, in the order of the whole. The K images of a class depend on the seed, the class's label and
/// its number of images only. Throws UsageError when there are fewer classes than asked for.
class Subset : public Dataset {
 public:
  Subset(DatasetPtr whole, const SubsetArgs& args);

  int64_t size() const override { return static_cast<int64_t>(kept_.size()); }
  const std::vector<std::string>& class_names() const override { return classes_; }
  int label(int64_t index) const override { return whole_->label(at(index)); }
  std::string path(int64_t index) const override { return whole_->path(at(index)); }
  Image read(int64_t index) const override { return whole_->read(at(index)); }

 private:
  int64_t at(int64_t index) const { return kept_[static_cast<size_t>(index)]; }

  DatasetPtr whole_;
  std::vector<std::string> classes_;
  std::vector<int64_t> kept_;
};

/// Keeps decoded images in memory, first come, until `max_bytes` of pixels are held; later ones are decoded each time.
/// Nothing is evicted: an epoch visits every image once, so the oldest is the next one needed.
class DecodedCache : public Dataset {
 public:
  DecodedCache(DatasetPtr source, int64_t max_bytes);

  int64_t size() const override { return source_->size(); }
  const std::vector<std::string>& class_names() const override { return source_->class_names(); }
  int label(int64_t index) const override { return source_->label(index); }
  std::string path(int64_t index) const override { return source_->path(index); }
  Image read(int64_t index) const override;

  int64_t bytes_held() const;

 private:
  DatasetPtr source_;
  int64_t max_bytes_;
  mutable std::mutex mutex_;
  mutable int64_t bytes_ = 0;
  mutable std::vector<Image> images_;  // without pixels: not held
};

}  // namespace nibble
