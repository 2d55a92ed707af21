#include "apps/guesses.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "ops/softmax_cross_entropy.hpp"

namespace nibble::apps {

std::vector<Guess> best_guesses(const float* logits, int64_t classes, int64_t top) {
  std::vector<float> p(static_cast<size_t>(classes));
  softmax_row(logits, classes, p.data());
  std::vector<int64_t> order(p.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  const int64_t kept = std::min(top, classes);
  // By logits: different ones may round to one probability.
  if (std::all_of(logits, logits + classes, [](float v) { return std::isfinite(v); }))
    std::partial_sort(order.begin(), order.begin() + kept, order.end(),
                      [&](int64_t a, int64_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  std::vector<Guess> best;
  for (int64_t i = 0; i < kept; ++i) {
    const int64_t index = order[static_cast<size_t>(i)];
    best.push_back({index, p[static_cast<size_t>(index)]});
  }
  return best;
}

std::string class_text(const std::vector<std::string>& names, int64_t index) {
  return index < std::ssize(names) ? names[static_cast<size_t>(index)] : std::to_string(index);
}

nlohmann::ordered_json guesses_json(const std::vector<Guess>& guesses, const std::vector<std::string>& names) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const Guess& g : guesses) all.push_back({{"index", g.index}, {"name", class_text(names, g.index)}, {"p", g.p}});
  return all;
}

}  // namespace nibble::apps
