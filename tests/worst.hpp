// The largest of many errors, which misses no NaN.
#pragma once
#include <cmath>

namespace nibble::testing {

/// The larger one; NaN as soon as one of them is (std::max keeps its first argument then). Begin with 0; a bound is met
/// by `worst <= bound`, which NaN is not.
inline double worse(double worst, double error) {
  return std::isnan(worst) || error <= worst ? worst : error;
}

}  // namespace nibble::testing
