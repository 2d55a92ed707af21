#include "nn/study/curves.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>

#include "nn/atomic_file.hpp"
#include "nn/json_text.hpp"
#include "nn/metrics_log.hpp"

namespace nibble {

namespace {

constexpr double kHalfWindow = 2.5;  // epochs: the published window is 5 * 156 steps
constexpr size_t kNeighbours = 250;  // on each side: 100 evaluations per epoch; a log may hold millions

double number(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : std::numeric_limits<double>::quiet_NaN();
}

/// Ascending by step; for equal steps the one written last.
template <typename Sample>
void settle(std::vector<Sample>& samples) {
  std::stable_sort(samples.begin(), samples.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  std::vector<Sample> kept;
  for (const Sample& s : samples) {
    if (!kept.empty() && kept.back().step == s.step) kept.pop_back();
    kept.push_back(s);
  }
  samples = std::move(kept);
}

}  // namespace

Curves read_curves(const std::filesystem::path& metrics) {
  const std::string text = read_text_file(metrics, kLongestLog);
  Curves curves;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const nlohmann::json line = parse_json_or_discard(std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
    if (!line.is_object()) continue;
    const double step = number(line, "step");
    if (!(step >= 0 && step < 1e15)) continue;
    const auto at = static_cast<int64_t>(step);
    const double epoch = number(line, "epoch"), images = number(line, "eval/images");
    if (std::isfinite(number(line, "eval/top1"))) {
      curves.evaluations.push_back({at, epoch, number(line, "eval/top1"), number(line, "eval/top5"),
                                    number(line, "eval/loss"),
                                    images >= 1 && images < 1e15 ? static_cast<int64_t>(images) : 0});
    } else if (line.contains("train/loss")) {
      curves.train.push_back({at, epoch, number(line, "train/loss"), number(line, "train/top1")});
      curves.progress.push_back(
          {at, epoch, number(line, "lr"), number(line, "images_per_second"), number(line, "data_wait")});
    }
  }
  settle(curves.train);
  settle(curves.evaluations);
  settle(curves.progress);
  return curves;
}

std::vector<TrainSample> thinned(const std::vector<TrainSample>& train, size_t samples) {
  if (train.size() <= samples) return train;
  std::vector<TrainSample> result;
  for (size_t i = 0; i < samples; ++i) {
    const size_t first = i * train.size() / samples, last = (i + 1) * train.size() / samples;
    TrainSample mean;
    for (size_t k = first; k < last; ++k) {
      mean.loss += train[k].loss;
      mean.top1 += train[k].top1;
    }
    mean.loss /= static_cast<double>(last - first);
    mean.top1 /= static_cast<double>(last - first);
    mean.step = train[last - 1].step;
    mean.epoch = train[last - 1].epoch;
    result.push_back(mean);
  }
  return result;
}

std::vector<SmoothedEpoch> smoothed(const std::vector<EvalSample>& evaluations) {
  std::vector<SmoothedEpoch> result;
  for (size_t i = 0; i < evaluations.size(); ++i) {
    const EvalSample& centre = evaluations[i];
    const auto distance = [&](size_t k) { return std::abs(evaluations[k].epoch - centre.epoch); };
    size_t first = i, last = i + 1;  // ends where the epochs leave the window; those that are not known do not end it
    while (first > 0 && i - first < kNeighbours && !(distance(first - 1) >= kHalfWindow)) --first;
    while (last < evaluations.size() && last - i <= kNeighbours && !(distance(last) >= kHalfWindow)) ++last;
    SmoothedEpoch mean{.step = centre.step, .epoch = centre.epoch};
    double sum = 0;
    for (size_t k = first; k < last; ++k) {
      const EvalSample& e = evaluations[k];
      const double weight = k == i ? kHalfWindow : kHalfWindow - distance(k);
      if (!(weight > 0)) continue;
      sum += weight;
      mean.top1 += weight * (e.top1 - centre.top1);
      mean.top5 += weight * (e.top5 - centre.top5);
      mean.loss += weight * (e.loss - centre.loss);
    }
    // Summed as differences, so that equal values give that value: 100 % as 100.00000000000001 would be no percentage.
    mean.top1 = centre.top1 + mean.top1 / sum;
    mean.top5 = centre.top5 + mean.top5 / sum;
    mean.loss = centre.loss + mean.loss / sum;
    result.push_back(mean);
  }
  return result;
}

bool has_neighbours(const std::vector<EvalSample>& evaluations, double epoch, int64_t first_step) {
  return std::count_if(evaluations.begin(), evaluations.end(), [&](const EvalSample& e) {
           return e.step >= first_step && std::abs(e.epoch - epoch) < kHalfWindow;
         }) > 1;
}

bool is_smoothed(const std::vector<EvalSample>& evaluations, const SmoothedEpoch& best) {
  if (!has_neighbours(evaluations, best.epoch)) return false;
  const bool own = std::any_of(evaluations.begin(), evaluations.end(),
                               [&](const EvalSample& e) { return e.epoch == best.epoch && e.top1 == best.top1; });
  const bool level = std::all_of(evaluations.begin(), evaluations.end(), [&](const EvalSample& e) {
    return !(std::abs(e.epoch - best.epoch) < kHalfWindow) || e.top1 == best.top1;
  });
  return level || !own;
}

SmoothedEpoch best_smoothed(const std::vector<EvalSample>& evaluations, int64_t first_step) {
  const auto only = [](const std::vector<EvalSample>& samples, auto counts) {  // all of them where none counts
    std::vector<EvalSample> counted;
    std::copy_if(samples.begin(), samples.end(), std::back_inserter(counted), counts);
    return counted.empty() ? samples : counted;
  };
  const std::vector<EvalSample> behind = only(evaluations, [&](const EvalSample& e) { return e.step >= first_step; });
  const std::vector<SmoothedEpoch> all =
      smoothed(only(behind, [](const EvalSample& e) { return std::isfinite(e.epoch); }));
  return *std::max_element(all.begin(), all.end(),
                           [](const SmoothedEpoch& a, const SmoothedEpoch& b) { return a.top1 < b.top1; });
}

}  // namespace nibble
