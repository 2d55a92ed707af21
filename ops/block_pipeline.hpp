// The order of work of drivers whose kernel multiplies rows in place: blocks of sums, the products of one alongside the
// epilogue of the last, whose sums it stores on the way.
#pragma once
#include <algorithm>
#include <cstdint>

#include "engine/scratch.hpp"
#include "ops/panels.hpp"
#include "ops/product_hooks.hpp"

namespace nibble::block_pipeline {

/// 32 rows x 64 columns, 8 KiB of sums. With 32, 96 and 128 columns the convolutions of inference took a third, a
/// seventh and a tenth longer (perhaps for half lines of codes, and for epilogues so long that the multipliers sleep).
inline constexpr int64_t kRows = 32, kPanels = 2;

/// Keeps a level's kernels ready; nothing may be spawned or waited for in its lifetime.
template <typename Gemm>
class KernelScope {
 public:
  explicit KernelScope(const Gemm& gemm) : end_(gemm.end) { gemm.begin(); }
  ~KernelScope() { end_(); }
  KernelScope(const KernelScope&) = delete;
  KernelScope& operator=(const KernelScope&) = delete;

 private:
  void (*end_)();
};

/// Sums of some rows, of which the last `count` are passed on, and of panels [n, last).
struct Block {
  int64_t count = 0, n = 0, last = 0;

  int64_t ldc(const Panels& b) const { return (last - n) * b.nr; }
  int64_t column(const Panels& b) const { return n * b.nr; }
  int64_t columns(const Panels& b) const { return std::min(b.columns, last * b.nr) - column(b); }
  /// Where the sums of `rows` rows with panel i belong, if those of the block are at c.
  template <typename C>
  kernels::HeldSums<C> sums(const Panels& b, int64_t i, int64_t rows, C* c) const {
    return {.c = c + (i - n) * b.nr, .ldc = ldc(b), .rows = static_cast<int>(rows)};
  }
};

/// One buffer of sums serves all blocks: the kernel holds a panel's sums until the next product, so those of a block
/// are complete after the first product of the next one, whose own are stored after the epilogue. A second buffer, and
/// the epilogue in halves after two products, took 8 % longer in inference: 8 KiB more of L1.
/// B is a Block and whatever else its driver needs to know about one.
template <typename C, typename B>
class Pipeline {
 public:
  /// multiply(block, panel, held) stores the sums that the kernel holds, makes those of `now`, and returns where they
  /// belong; finish(block, next) passes on the last block.
  template <typename Multiply, typename Finish>
  void next(const B& now, const Multiply& multiply, const Finish& finish) {
    for (int64_t i = now.n; i < now.last; ++i) {
      held_ = multiply(now, i, held_);
      if (i == now.n && done_.count > 0) finish(done_, now);
    }
    done_ = now;
  }

  template <typename Gemm, typename Finish>
  void drain(const Gemm& gemm, const Finish& finish) {
    gemm.store_held(held_);
    if (done_.count > 0) finish(done_, B{});
    held_ = {};
    done_ = {};
  }

 private:
  kernels::HeldSums<C> held_{};
  B done_{};
};

}  // namespace nibble::block_pipeline
