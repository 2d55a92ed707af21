// What is said about the arithmetic of a study's models.
#include "apps/study/recipe.hpp"

#include <doctest/doctest.h>

#include "tests/text.hpp"

namespace nibble::apps {
namespace {

using testing::has;

TEST_CASE("recipe: how quantized models multiply, and in what that is not as published, for each form") {
  CHECK(has(arithmetic_sentence("quant-mode = 'fake'\n"), "multiply dequantized values, as the published ones do"));
  CHECK(has(arithmetic_sentence("granularity = 'per_tensor'\n"), "one scale of activations per layer"));
  CHECK(has(arithmetic_sentence("granularity = 'per_tensor'\nquant-mode = 'fake'\n"),
            "multiply dequantized values with one scale of activations per layer"));
  for (const std::string other : {"", "quant-mode = 'fake'\n", "granularity = 'per_tensor'\n"}) {
    CHECK(has(arithmetic_sentence(other + "quant-scheme = 'nearest'\n"), "nearest of 2^b - 1 steps"));
    CHECK_FALSE(has(arithmetic_sentence(other), "nearest"));
  }
  const std::string fold = arithmetic_sentence("per-channel-by = 'fold'\n");
  CHECK(has(fold, "divides the weights before they are quantized"));
  CHECK(has(fold, "(per-channel-by fold)"));
  CHECK(arithmetic_sentence("") == fold);  // the default
  const std::string shift = arithmetic_sentence("per-channel-by = 'shift'\n");
  CHECK(has(shift, "powers of two alone"));
  CHECK(has(shift, "the scale of an 8-bit one divides the weights"));
  CHECK(arithmetic_sentence("per-channel-by = 'shift'\nprecision = 'w8a8'\n") == fold);
  const std::string both = arithmetic_sentence("per-channel-by = 'shift+fold'\n");
  CHECK(has(both, "powers of two, and what is left"));
  CHECK(has(both, "divides the weights"));
  CHECK(arithmetic_sentence("per-channel-by = 'fold").empty());
  CHECK(arithmetic_sentence("no-such-option = 1\n").empty());
}

}  // namespace
}  // namespace nibble::apps
