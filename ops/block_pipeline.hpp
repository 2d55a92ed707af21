// The order of work of drivers whose kernel multiplies rows in place: blocks of sums, the products of one beside the
// epilogue of the last, whose sums it stores on the way.
#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>

#include "ops/gather_gemm.hpp"

namespace nibble::block_pipeline {

/// 32 rows x 64 columns, 8 KiB of sums: 64 rows took 20 % longer at a depth of 64.
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

/// Sums of some rows, of which the last `count` are handed on, and of panels [n, last); c is theirs until the block
/// behind the next one begins.
template <typename C>
struct Block {
  int64_t count = 0, n = 0, last = 0;
  C* c = nullptr;

  int64_t ldc(const Panels& b) const { return (last - n) * b.nr; }
  /// Where the sums of `rows` rows with panel i belong.
  kernels::HeldSums<C> sums(const Panels& b, int64_t i, int64_t rows) const {
    return {.c = c + (i - n) * b.nr, .ldc = ldc(b), .rows = static_cast<int>(rows)};
  }
  int64_t column(const Panels& b) const { return n * b.nr; }
  int64_t columns(const Panels& b) const { return std::min(b.columns, last * b.nr) - column(b); }
};

/// B is a Block and what else its driver needs to know of one.
template <typename C, typename B>
class Pipeline {
 public:
  /// `sums` has room for two blocks of `block_sums` each.
  Pipeline(C* sums, int64_t block_sums) : to_(sums), other_(sums + block_sums) {}

  C* room() const { return to_; }

  /// multiply(block, panel, held) stores the sums that the kernel holds, makes those of `now`, a block at room(), and
  /// returns where they belong; finish(block, begin, end, next) hands on rows of the last one: half of them behind the
  /// first panel, or all where there is but one.
  template <typename Multiply, typename Finish>
  void next(const B& now, const Multiply& multiply, const Finish& finish) {
    int64_t finished = 0;
    for (int64_t i = now.n; i < now.last; ++i) {
      held_ = multiply(now, i, held_);
      const int64_t end = i + 1 == now.last ? done_.count : done_.count / kPanels;
      if (finished < end) finish(done_, finished, end, now);
      finished = end;
    }
    done_ = now;
    std::swap(to_, other_);
  }

  template <typename Gemm, typename Finish>
  void drain(const Gemm& gemm, const Finish& finish) {
    gemm.store_held(held_);
    held_ = {};
    if (done_.count > 0) finish(done_, int64_t{0}, done_.count, B{});
    done_ = {};
  }

 private:
  C *to_, *other_;
  kernels::HeldSums<C> held_{};
  B done_{};
};

}  // namespace nibble::block_pipeline
