#include "apps/report/paired_accuracy.hpp"

#include <algorithm>

namespace nibble::apps {

bool judged_on_same_images(const std::vector<const PointResult*>& points) {
  return !points.empty() && std::all_of(points.begin(), points.end(), [&](const PointResult* p) {
    const ImageOutcomes &one = p->outcomes, &first = points.front()->outcomes;
    return !one.images.empty() && one.images == first.images && one.right.size() == first.right.size();
  });
}

std::optional<double> paired_variance(const std::vector<std::pair<const PointResult*, double>>& weighted) {
  std::vector<const PointResult*> points;
  double gain = 0, loss = 0;
  for (const auto& [p, weight] : weighted) {
    points.push_back(p);
    (weight > 0 ? gain : loss) += weight;
  }
  if (!judged_on_same_images(points)) return std::nullopt;
  double images = 0, sum = 0, squares = 0;
  for (size_t i = 0; i < points.front()->outcomes.right.size(); ++i) {
    double contribution = 0;
    bool seen = true;
    for (const auto& [p, weight] : weighted) {
      const char outcome = p->outcomes.right[i];
      seen = seen && outcome != '-';
      if (outcome == '1') contribution += weight;
    }
    if (!seen) continue;
    ++images;
    sum += contribution;
    squares += contribution * contribution;
  }
  if (images < 2) return std::nullopt;
  const double most = std::max(gain, -loss);
  const double scatter = std::max(0.0, squares - sum * sum / images) + 2 * most * most;
  return 1e4 * scatter / (images * (images - 1));
}

double variance_over_points(const std::vector<const PointResult*>& points) {
  const auto n = static_cast<double>(points.size());
  double images = 0, sum = 0;
  for (size_t i = 0; i < points.front()->outcomes.right.size(); ++i) {
    double right = 0;
    bool seen = true;
    for (const PointResult* p : points) {
      seen = seen && p->outcomes.right[i] != '-';
      right += p->outcomes.right[i] == '1';
    }
    if (!seen) continue;
    ++images;
    sum += right * (n - right) / (n * (n - 1));
  }
  return images > 0 ? sum / images : 0;
}

}  // namespace nibble::apps
