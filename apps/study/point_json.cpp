#include "apps/study/point_json.hpp"

#include <nlohmann/json.hpp>

namespace nibble::apps {

nlohmann::ordered_json point_json(const PointResult& p) {
  return {{"name", p.name},
          {"precision", p.precision},
          {"width", p.width},
          {"seed", p.seed},
          {"top1_best", p.best.top1},
          {"top1_last", p.last.top1},
          {"top1_train", p.train_unaugmented.top1},
          {"linear_ratio", p.ratio.linear},
          {"quadratic_ratio", p.ratio.quadratic},
          {"memory_ratio", p.ratio.memory},
          {"served_bytes", p.served_bytes},
          {"batch1_ms", p.latency.batch1_ms},
          {"batch32_ms_per_image", p.latency.batch32_ms_per_image}};
}

}  // namespace nibble::apps
