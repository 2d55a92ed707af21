// Comparisons by relative error alone. A bare doctest::Approx allows epsilon * (1 + magnitude), which passes whatever
// a small number is.
#pragma once
#include <doctest/doctest.h>

namespace nibble::testing {

/// Equal to `value` within `error` times the larger of both; to 0 only 0 is (its comparison is <, hence a scale).
inline doctest::Approx relative(double value, double error) {
  return doctest::Approx(value).epsilon(error).scale(1e-290);
}

}  // namespace nibble::testing
