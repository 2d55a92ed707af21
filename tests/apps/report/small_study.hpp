// Points of a study as the reports read them, without training any.
#pragma once
#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <vector>

#include "nn/cost.hpp"
#include "nn/study/point_result.hpp"
#include "nn/unit.hpp"

namespace nibble::testing {

inline PointResult point(const std::string& precision, double width, double top1, uint64_t seed = 0) {
  NetworkOptions o;
  o.arch = "resnet26";
  o.precision = precision;
  o.width = width;
  o.image_size = 64;
  o.classes = 10;
  const Cost cost = cost_of(build_resnet(o));
  PointResult p;
  p.name = fmt::format("{}-x{:g}-s{}", precision, width, seed);
  p.arch = o.arch;
  p.precision = precision;
  p.width = width;
  p.seed = seed;
  p.image_size = 64;
  p.classes = 10;
  p.cost = cost.total;
  p.ratio = cost_ratio(cost.total, reference_cost(o));
  p.served_bytes = 1000000;
  p.last = {.top1 = top1, .top5 = 95, .loss = 1, .images = 10000};
  p.best = {.step = 20, .epoch = 2, .top1 = top1, .top5 = 95, .loss = 1};
  p.train_unaugmented = {.top1 = 90, .top5 = 99, .loss = 0.5, .images = 10000};
  p.curves.train = {{.step = 10, .epoch = 1, .loss = 2, .top1 = 30}, {.step = 20, .epoch = 2, .loss = 1, .top1 = 60}};
  p.curves.evaluations = {{.step = 10, .epoch = 1, .top1 = top1 / 2, .top5 = 80, .loss = 2},
                          {.step = 20, .epoch = 2, .top1 = top1, .top5 = 95, .loss = 1}};
  for (const LayerCost& l : cost.layers) p.layers.push_back({l, 0, 0, 0, {}});
  if (precision != "bf16") p.layers[1].usage = {.codes = {5, 3, 2, 0}, .clipped = 1, .total = 10};
  return p;
}

/// The paper's picture in small: 4 bits with 8-bit ends far above bf16 of equal cost, narrower gaps.
inline std::vector<PointResult> small_study() {
  std::vector<PointResult> all = {point("bf16", 0.5, 60), point("bf16", 1, 70),     point("w8a8", 0.5, 62),
                                  point("w8a8", 1, 72),   point("w4a4-fl8", 1, 71), point("w4a4-fl8", 0.5, 61),
                                  point("w4a4", 0.5, 55), point("w4a4", 1, 65)};
  for (PointResult& p : all) p.train_unaugmented.top1 = p.last.top1 + (p.precision == "bf16" ? 20 : 10);
  return all;
}

}  // namespace nibble::testing
