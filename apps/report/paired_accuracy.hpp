// Accuracies of models that were judged on the same images: how much of their differences is chance, image by image.
#pragma once
#include <optional>
#include <utility>
#include <vector>

#include "nn/study/point_result.hpp"

namespace nibble::apps {

/// Whether all points know the outcomes of the same validation images.
bool judged_on_same_images(const std::vector<const PointResult*>& points);

/// The variance, in percent squared, that a weighted sum of the points' accuracies after the last step has because the
/// images are a sample: each image contributes the weighted sum of its outcomes, and what differs between images is
/// chance. Models that are right on the same images differ by little of it. Two images more count, one either way of
/// the largest weight, so that models that agree on all of a few images are not taken for equal. Images that a point
/// did not see take no part. None when the points do not know the outcomes of the same images, or of fewer than two.
/// Cost: points x images.
std::optional<double> paired_variance(const std::vector<std::pair<const PointResult*, double>>& weighted);

}  // namespace nibble::apps
