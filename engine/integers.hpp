// Integer division, rounded up.
#pragma once
#include <concepts>
#include <type_traits>

namespace nibble {

/// a / b rounded up, for a >= 0 (and above -b) and b > 0.
template <std::integral T>
constexpr T ceil_div(T a, std::type_identity_t<T> b) {
  return (a + b - 1) / b;
}

/// The smallest multiple of `to` that is not below n.
template <std::integral T>
constexpr T round_up(T n, std::type_identity_t<T> to) {
  return ceil_div(n, to) * to;
}

}  // namespace nibble
