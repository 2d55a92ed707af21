// Relabelled: another data set's images under the numbers that a model gives their classes.
#pragma once
#include <string>
#include <vector>

#include "data/dataset.hpp"

namespace nibble {

/// For each of `classes` its place in `names`: that of the name itself, or, for a WordNet number ("n01440764", a folder
/// of ImageNet), of the name that begins with it and a blank ("n01440764 tench"). -1 where there is none, or several.
std::vector<int> places_of(const std::vector<std::string>& classes, const std::vector<std::string>& names);

/// Image i of class k has the label places[k] and the class names `names`.
class Relabelled : public Dataset {
 public:
  /// `places`: those of whole->class_names() in `names`, none of them -1; UsageError.
  Relabelled(DatasetPtr whole, std::vector<std::string> names, std::vector<int> places);

  int64_t size() const override { return whole_->size(); }
  const std::vector<std::string>& class_names() const override { return names_; }
  int label(int64_t index) const override { return places_[static_cast<size_t>(whole_->label(index))]; }
  std::string path(int64_t index) const override { return whole_->path(index); }
  Image read(int64_t index) const override { return whole_->read(index); }
  uint64_t content_mark(int64_t index) const override { return whole_->content_mark(index); }
  std::string left_out() const override { return whole_->left_out(); }

 private:
  DatasetPtr whole_;
  std::vector<std::string> names_;
  std::vector<int> places_;
};

}  // namespace nibble
