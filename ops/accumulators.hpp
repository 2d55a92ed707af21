// Sums of products are int32 or fp32: which kernel takes them.
#pragma once
#include <cstdint>
#include <type_traits>

#include "engine/tensor.hpp"

namespace nibble {

/// Of two kernels that differ in the type of their accumulators, the one for `acc`.
template <typename Acc, typename OfInt32, typename OfFloat>
constexpr auto kernel_for(const Acc* /*acc*/, OfInt32 of_int32, OfFloat of_float) {
  if constexpr (std::is_same_v<Acc, int32_t>)
    return of_int32;
  else
    return of_float;
}

/// Calls body with the data of an s32 or f32 tensor.
template <typename Body>
void with_accumulators(const Tensor& acc, const Body& body) {
  if (acc.dtype() == DType::s32)
    body(static_cast<const int32_t*>(acc.data<int32_t>()));
  else
    body(static_cast<const float*>(acc.data<float>()));
}

}  // namespace nibble
