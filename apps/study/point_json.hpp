// A finished point as `study run` and `study report` print it; `study pick` prints groups over seeds, with keys of its
// own.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "nn/study/point_result.hpp"

namespace nibble::apps {

/// name, precision, width, seed; top1_best (the published metric), top1_last (after the last step, and so of the served
/// file), top1_train, in percent; ratios of cost; bytes and milliseconds, 0 where they were not measured.
nlohmann::ordered_json point_json(const PointResult& point);

}  // namespace nibble::apps
