// The likeliest classes of an image, as predict and eval --predictions say them.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace nibble::apps {

struct Guess {
  int64_t index = 0;
  float p = 0;  // softmax of the logits
};

/// The `top` likeliest of `classes`, likeliest first, of equal ones the lower index; the first ones, with p NaN, unless
/// every logit is finite.
std::vector<Guess> best_guesses(const float* logits, int64_t classes, int64_t top);

/// The name of class `index`, or its number where there is no name.
std::string class_text(const std::vector<std::string>& names, int64_t index);

/// [{"index", "name", "p"}, ...]
nlohmann::ordered_json guesses_json(const std::vector<Guess>& guesses, const std::vector<std::string>& names);

}  // namespace nibble::apps
