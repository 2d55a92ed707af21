// How the element-wise ops of the fast path go over a tensor: in blocks of pixels, and where a block's codes are
// written.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "engine/parallel.hpp"
#include "engine/scratch.hpp"
#include "engine/tensor.hpp"
#include "ops/kernels/table.hpp"

namespace nibble {

inline constexpr int64_t kTaskRows = 512;    // pixels per task
inline constexpr int64_t kBlockPixels = 64;  // pixels per kernel call: 64 rows of 256 bf16 channels are 32 KiB

/// Tasks that row_blocks cuts so many rows into.
inline int64_t row_tasks(int64_t rows) {
  return ceil_div(rows, kTaskRows);
}

/// Runs body(task, first, rows) over blocks of at most kBlockPixels rows; tasks are cut by shape. What a body streams
/// is visible to the caller when this returns.
template <typename Body>
void row_blocks(int64_t rows, const Body& body) {
  parallel_for(row_tasks(rows), [&](int64_t task) {
    const int64_t end = std::min(rows, (task + 1) * kTaskRows);
    for (int64_t first = task * kTaskRows; first < end; first += kBlockPixels)
      body(task, first, std::min(kBlockPixels, end - first));
    kernels::active().ew.publish();
  });
}

/// Adds the tasks' two sums of every channel, partial[task][2][channels], in the order of the tasks.
inline void add_partial_sums(const Tensor& partial, int64_t tasks, int64_t channels, double* first, double* second) {
  constexpr int64_t kWorthATask = int64_t{1} << 14, kLeastChannels = 64;
  const int64_t blocks = std::clamp<int64_t>(tasks * channels / kWorthATask, 1, ceil_div(channels, kLeastChannels));
  parallel_for(blocks, [&](int64_t block) {
    const int64_t begin = block * channels / blocks, end = (block + 1) * channels / blocks;
    for (int64_t t = 0; t < tasks; ++t) {
      const float* const p = partial.data<float>() + t * 2 * channels;
      for (int64_t c = begin; c < end; ++c) {
        first[c] += static_cast<double>(p[c]);
        second[c] += static_cast<double>(p[channels + c]);
      }
    }
  });
}

/// Raises out[c] to the tasks' maxima.
inline void merge_maxima(const Tensor& partial, int64_t tasks, int64_t c, float* out) {
  for (int64_t t = 0; t < tasks; ++t)
    for (int64_t i = 0; i < c; ++i) out[i] = std::max(out[i], partial.data<float>()[t * c + i]);
}

/// An unwritten bf16 tensor of the shape of `t`.
inline Tensor bf16_like(const Tensor& t) {
  return Tensor(DType::bf16, t.shape(), Tensor::round_stride(DType::bf16, t.shape().back()));
}

/// The rows of a bf16 tensor from `first` on; none of an undefined one.
inline kernels::Rows<const bf16> bf16_rows(const Tensor& t, int64_t first) {
  if (!t.defined()) return {};
  return {t.row<bf16>(first), t.stride()};
}

/// The codes [first, first + rows) of a tensor while a kernel writes them, a byte each: in the tensor itself or, where
/// it keeps them packed, in `scratch` until store(). Kernels write only the channels; the pad bytes are zero.
class CodeBlock {
 public:
  CodeBlock(const Tensor& codes, int64_t first, int64_t rows, Scratch& scratch)
      : codes_(codes), first_(first), rows_(rows), packed_(bits_of(codes.dtype()) == 4) {
    const int64_t stride = codes.stride(), channels = codes.shape().back();
    bytes_ = packed_ ? scratch.get<uint8_t>(static_cast<size_t>(rows * stride)) : codes.row<uint8_t>(first);
    if (stride == channels) return;
    for (int64_t r = 0; r < rows; ++r)
      std::memset(bytes_ + r * stride + channels, 0, static_cast<size_t>(stride - channels));
  }

  kernels::Rows<uint8_t> bytes() const { return {bytes_, codes_.stride()}; }
  void store() const {
    if (packed_) kernels::active().ew.pack_u4(bytes_, rows_ * codes_.stride(), codes_.row<uint8_t>(first_));
  }

 private:
  const Tensor& codes_;
  int64_t first_, rows_;
  bool packed_;
  uint8_t* bytes_ = nullptr;
};

}  // namespace nibble
