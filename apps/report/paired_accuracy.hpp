// Accuracies of models that were judged on the same images: how much of their differences is chance, image by image.
#pragma once
#include <optional>
#include <utility>
#include <vector>

#include "nn/study/point_result.hpp"

namespace nibble::apps {

/// Whether all points know the outcomes of the same validation images.
bool judged_on_same_images(const std::vector<const PointResult*>& points);

/// The variance, in percent squared, that a weighted sum of the points' accuracies after the last step has over images:
/// each contributes the weighted sum of its outcomes. Models that are right on the same images differ by little of it.
/// What points of other seeds have in common is the chance of the images; by what they differ image by image is in it,
/// too. Two images more count, one either way of the most that one can contribute, so that models that agree on all of
/// a few images are not taken for equal. Images that a point did not see take no part. None when the points do not know
/// the outcomes of the same images, or of fewer than two. Cost: points x images.
std::optional<double> paired_variance(const std::vector<std::pair<const PointResult*, double>>& weighted);

/// The variance over the points, which differ in their seeds, of one image's outcome (0 or 1): the mean over the images
/// that all of them saw. The points know the outcomes of the same images (judged_on_same_images), and are two or more.
double variance_over_points(const std::vector<const PointResult*>& points);

}  // namespace nibble::apps
