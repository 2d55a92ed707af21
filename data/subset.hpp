// Subset: some classes or images of another data set.
#pragma once
#include <vector>

#include "data/dataset.hpp"

namespace nibble {

struct SubsetArgs {
  int classes = 0;        // keep the first N class names (0: all)
  int64_t per_class = 0;  // keep K images of each class, drawn by `seed` (0: all; a smaller class keeps all of its own)
  uint64_t seed = 0;
  int64_t evenly = 0;  // of what these keep, N images at equal distances in its order (0, or more than there are: all)
  bool shuffled = false;  // these in an order drawn by `seed`, so that any few in a row are of many classes
};

/// A part of a data set, in the order of the whole unless shuffled. The K images of a class depend on the seed, the
/// class's label and its number of images only. Throws UsageError when there are fewer classes than asked for.
class Subset : public Dataset {
 public:
  Subset(DatasetPtr whole, const SubsetArgs& args);

  int64_t size() const override { return static_cast<int64_t>(kept_.size()); }
  const std::vector<std::string>& class_names() const override { return classes_; }
  int label(int64_t index) const override { return whole_->label(at(index)); }
  std::string path(int64_t index) const override { return whole_->path(at(index)); }
  Image read(int64_t index) const override { return whole_->read(at(index)); }
  uint64_t content_mark(int64_t index) const override { return whole_->content_mark(at(index)); }

 private:
  int64_t at(int64_t index) const { return kept_[static_cast<size_t>(index)]; }

  DatasetPtr whole_;
  std::vector<std::string> classes_;
  std::vector<int64_t> kept_;
};

}  // namespace nibble
