// The published ImageNet results of the study, for reports to draw next to their own.
#pragma once
#include <span>

#include "nn/cost.hpp"

namespace nibble {

/// ResNet-50 of one precision and width on ImageNet at 224 px: percent and mean cross entropy. Training figures are of
/// augmented batches, smoothed as the evaluation is; 0 where none is known.
/// Source: "Pareto-Optimal Quantized ResNet Is Mostly 4-bit", arXiv 2105.03536, by the authors' figure notebook in
/// google/aqt at commit 613bdeb. One run per point, best smoothed epoch.
struct PublishedPoint {
  const char* precision;  // as parse_precision takes it
  double width;
  double top1;
  double train_top1, train_loss, eval_loss;
};

/// By precision (bf16, w8a8, w4a4-fl8, w4a4), ascending in width.
std::span<const PublishedPoint> published_points();

/// Its cost as a share of bf16 at width 1, by the same cost models as everything else (they reproduce the published
/// ones to the digit).  Cost: describes two networks.
CostRatio published_cost(const PublishedPoint& point);

}  // namespace nibble
