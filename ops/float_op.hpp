// What all generic float ops share: checks of operands, blocks of work, and the taped result.
#pragma once
#include <algorithm>
#include <string_view>

#include "engine/parallel.hpp"
#include "engine/tape.hpp"

namespace nibble {

/// Elements of one task of an element-wise op: 256 KiB of f32, worth a spawn and still inside an L2 cache.
inline constexpr int64_t kElementsPerTask = int64_t{1} << 16;

/// Calls body(begin, end) for fixed blocks that cover [0, n); the cut depends only on n and `block`.
inline void parallel_blocks(int64_t n, int64_t block, FunctionRef<void(int64_t, int64_t)> body) {
  parallel_for(ceil_div(n, block), [&](int64_t b) { body(b * block, std::min(n, (b + 1) * block)); });
}

/// Throws unless `t` is a dense f32 tensor of the rank (0: any rank).
inline void require_f32(std::string_view op, std::string_view name, const Tensor& t, int rank) {
  if (!t.defined()) throw ShapeError("[{}] {} has no value; give it a tensor before the call", op, name);
  if (t.dtype() != DType::f32)
    throw DTypeError("[{}] {} is {}, but the generic ops compute in f32 only; convert it first", op, name,
                     name_of(t.dtype()));
  if (rank != 0 && t.shape().rank() != rank)
    throw ShapeError("[{}] {} has shape {}, but its rank must be {}; reshape it", op, name, t.shape().str(), rank);
  if (!t.dense())
    throw ShapeError("[{}] {} has rows of {} elements {} apart, but the generic ops want dense rows; copy it", op, name,
                     t.shape().back(), t.stride());
}

/// Throws unless `t` is a dense f32 tensor of exactly this shape; `reason` says what fixes the shape.
inline void require_f32(std::string_view op, std::string_view name, const Tensor& t, const Shape& shape,
                        std::string_view reason) {
  require_f32(op, name, t, 0);
  if (t.shape() != shape)
    throw ShapeError("[{}] {} has shape {}, but {} ask for {}; pass a tensor of that shape", op, name, t.shape().str(),
                     reason, shape.str());
}

/// The output variable of an op, and its backward step on the tape if a gradient is wanted: `backward(d_y)` runs
/// when a gradient of the output has arrived, and is skipped (a zero gradient) when none has.
template <typename Backward, typename... Inputs>
Variable taped(Tape* tape, Tensor value, Backward backward, const Inputs&... inputs) {
  if (!recording(tape, inputs...)) return Variable(std::move(value));
  Variable y(std::move(value), Grad::kWanted);
  tape->record([y, backward = std::move(backward)] {
    if (y.grad().defined()) backward(y.grad());
  });
  return y;
}

}  // namespace nibble
