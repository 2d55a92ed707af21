#include "data/subset.hpp"

#include <algorithm>

#include "engine/error.hpp"
#include "engine/rng.hpp"

namespace nibble {
namespace {

// Moves `keep` elements drawn without replacement to the front (the first steps of a Fisher-Yates shuffle).
void draw(std::vector<int64_t>& items, int64_t keep, Rng rng) {
  const int64_t n = static_cast<int64_t>(items.size());
  for (int64_t i = 0; i < keep; ++i) {
    const int64_t j = i + rng.below(static_cast<uint32_t>(n - i));
    std::swap(items[static_cast<size_t>(i)], items[static_cast<size_t>(j)]);
  }
  items.resize(static_cast<size_t>(keep));
}

// Keeps `few` elements at equal distances.
void thin_out(std::vector<int64_t>& items, int64_t few) {
  const int64_t all = static_cast<int64_t>(items.size());
  if (few >= all) return;
  for (int64_t i = 0; i < few; ++i)  // what is read lies at or after i
    items[static_cast<size_t>(i)] = items[static_cast<size_t>(i * all / few)];
  items.resize(static_cast<size_t>(few));
}

}  // namespace

Subset::Subset(DatasetPtr whole, const SubsetArgs& args) : whole_(std::move(whole)), classes_(whole_->class_names()) {
  if (args.classes < 0 || args.classes > whole_->num_classes())
    throw UsageError("--classes {} was asked for, but the data set has {} classes", args.classes,
                     whole_->num_classes());
  if (args.per_class < 0) throw UsageError("--per-class is {}, but it must not be negative", args.per_class);
  if (args.evenly < 0) throw UsageError("{} images cannot be kept; keep at least 0", args.evenly);
  if (args.classes > 0) classes_.resize(static_cast<size_t>(args.classes));
  std::vector<std::vector<int64_t>> by_class(classes_.size());
  for (int64_t i = 0; i < whole_->size(); ++i) {
    const size_t label = static_cast<size_t>(whole_->label(i));
    if (label < by_class.size()) by_class[label].push_back(i);
  }
  for (size_t k = 0; k < by_class.size(); ++k) {
    std::vector<int64_t>& items = by_class[k];
    const int64_t all = static_cast<int64_t>(items.size());
    if (args.per_class > 0 && args.per_class < all)
      draw(items, args.per_class, Rng(args.seed, rng_purpose::kSubset, k));
    kept_.insert(kept_.end(), items.begin(), items.end());
  }
  std::sort(kept_.begin(), kept_.end());
  if (args.evenly > 0) thin_out(kept_, args.evenly);
  if (args.shuffled) draw(kept_, size(), Rng(args.seed, rng_purpose::kSubset, classes_.size()));
}

}  // namespace nibble
