// What tensors of codes and values occupy, and how they are best written.
#pragma once
#include <cstdint>

#include "engine/tensor.hpp"
#include "ops/kernels/table.hpp"

namespace nibble {

/// What the tensor occupies, padding of rows included; 0 for an undefined one.
inline int64_t stored_bytes(const Tensor& t) {
  return t.defined() ? static_cast<int64_t>(t.bytes()) : 0;
}

/// Streamed if tensors of this size have left the caches before they are read again: above twice a 2 MiB L2. At 224 px
/// streaming took a third of the time off batch norm's backward (a Xeon with AMX).
inline kernels::Store store_of(const Tensor& t) {
  return stored_bytes(t) > (int64_t{4} << 20) ? kernels::Store::kStreamed : kernels::Store::kCached;
}

/// Elements between the rows of codes of `channels` channels.
inline int64_t code_stride(int64_t channels) {
  return Tensor::round_stride(DType::u8, channels);  // 64 codes: a cache line as bytes, half a line packed
}

}  // namespace nibble
