// What products prefetch: rows that the next task or chunk reads, each once, and nothing else.
#include "ops/memory_ahead.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "ops/packed_conv.hpp"
#include "tests/ops/packed_layers.hpp"
#include "tests/threads_guard.hpp"

namespace nibble::testing {
namespace {

TEST_CASE("pieces ahead are whole, in order, and shared among tasks without gap or overlap") {
  const Tensor memory(DType::u8, {100, 1}, 1);
  const MemoryAhead all = rows_ahead(memory, 0, 100);
  REQUIRE(all.end - all.next == 100);
  MemoryAhead ahead = all;
  for (int i = 0; i < 3; ++i) CHECK(ahead.take(30) == memory.raw() + 30 * i);
  CHECK(ahead.take(30) == nullptr);  // ten bytes are left
  CHECK(ahead.take(10) == memory.raw() + 90);
  CHECK(MemoryAhead{}.take(1) == nullptr);
  for (const int64_t tasks : {1, 2, 3, 7, 50}) {
    const std::byte* end = memory.raw();
    for (int64_t i = 0; i < tasks; ++i) {
      const MemoryAhead part = all.part(i, tasks, 16);
      CHECK(part.next == end);
      end = part.end;
    }
    CHECK(end == memory.raw() + 96);
  }
  CHECK(rows_ahead(memory, 5, 5).next == nullptr);
  CHECK(rows_ahead(memory, 7, 3).next == nullptr);
  ChunkAhead both{rows_ahead(memory, 0, 20), rows_ahead(memory, 50, 80)};
  CHECK(both.take(16) == memory.raw());
  CHECK(both.take(16) == memory.raw() + 50);
  CHECK(both.take(16) == nullptr);
}

struct Asked {
  const std::byte* begin;
  int64_t bytes;
};
std::vector<Asked> asked;  // by one thread

/// The level's kernel, which also notes what it may prefetch.
template <typename T>
void note_run(int k, int rows, const void* a, int64_t a_panel_bytes, const void* b, float* c, int64_t ldc,
              kernels::Into into, const void* next_b) {
  const kernels::GemmFloat<T>* gemm = nullptr;
  if constexpr (sizeof(T) == 2)
    gemm = &kernels::active().bf16_gemm;
  else
    gemm = &kernels::active().f32_gemm;
  if (next_b != nullptr)
    asked.push_back({static_cast<const std::byte*>(next_b), int64_t{k} * gemm->nr * gemm->b_bytes});
  gemm->run(k, rows, a, a_panel_bytes, b, c, ldc, into, next_b);
}

/// Bytes of `t` from row `first` on that were prefetched; -1 when some were prefetched twice.
int64_t asked_of(const Tensor& t, int64_t first) {
  std::vector<uint8_t> seen(t.bytes());
  const auto from = static_cast<size_t>(first) * t.row_bytes();
  int64_t count = 0;
  for (const Asked& a : asked) {
    if (a.begin < t.raw() || a.begin >= t.raw() + t.bytes()) continue;
    const auto at = static_cast<size_t>(a.begin - t.raw());
    REQUIRE(at + static_cast<size_t>(a.bytes) <= t.bytes());
    for (size_t i = at; i < at + static_cast<size_t>(a.bytes); ++i) {
      if (seen[i]++ != 0) return -1;
      count += i >= from;
    }
  }
  return count;
}

bool within(const Asked& a, const Tensor& t) {
  return a.begin >= t.raw() && a.begin + a.bytes <= t.raw() + t.bytes();
}

TEST_CASE("a chunk of a weight gradient asks for the rows of the next one, the last for none") {
  if (kernels::active().weight_gradient.run_left_again != nullptr) {
    MESSAGE("skipped: this level multiplies weight gradients on tiles, which stream both operands themselves");
    return;
  }
  kernels::Table table = kernels::active();
  table.bf16_gemm.run = note_run<bf16>;
  table.f32_gemm.run = note_run<float>;
  const ThreadsGuard guard;
  set_threads(1);
  const ConvShape one{.n = 4, .h = 32, .w = 32, .ic = 256, .oc = 64},
      wide{.n = 4, .h = 32, .w = 32, .ic = 64, .oc = 256};
  const ConvShape halved{.n = 16, .h = 32, .w = 32, .ic = 64, .oc = 128, .stride = 2};
  for (const ConvShape& s : {one, wide, three(4, 32, 32, 64, 64, 1, 1), three(16, 32, 32, 64, 64, 2, 1), halved})
    for (const Precision& p : {code_precisions()[2], code_precisions()[0], float_precisions()[0]}) {
      INFO(s.ic << " to " << s.oc << ", " << s.kh << "x" << s.kw << "/" << s.stride << ", " << p.name);
      const Operands op = make_operands({"any", s}, p);
      const LayerWeights layer = op.layer(Passes::kForwardAndBackward, &table);
      const Tensor d_y = random_bf16({s.n, s.oh(), s.ow(), s.oc}, 1), d_w = random_f32({s.oc, s.kh, s.kw, s.ic}, 2);
      asked.clear();
      packed_conv_backward_weights(layer, op.x, d_y, d_w);
      for (const Asked& a : asked) CHECK((within(a, d_y) || within(a, op.x)));
      // The first chunk has 512 to 2,048 points, and its own rows are never prefetched.
      const int64_t later = std::max<int64_t>(0, d_y.rows() - 2048);
      CHECK(asked_of(d_y, 512) >= later * static_cast<int64_t>(d_y.row_bytes()) * 3 / 4);
      CHECK(asked_of(d_y, 512) == asked_of(d_y, 0));
      const int64_t x_bytes = later * s.stride * s.stride * static_cast<int64_t>(op.x.row_bytes());
      if (s.kh > 1)  // rows that chunks share may be prefetched twice
        CHECK(std::any_of(asked.begin(), asked.end(), [&](const Asked& a) { return within(a, op.x); }));
      else if (s.stride == 1 || bits_of(op.x.dtype()) == 4)  // where a chunk of it is at least a piece on every level
        CHECK(asked_of(op.x, 0) >= (s.ic == 256 ? x_bytes * 3 / 4 : 0));
      else  // every fourth pixel is read
        CHECK(asked_of(op.x, 0) == 0);
    }
}

TEST_CASE("a task of a gathered product asks for the rows of the next one, the last for none") {
  if (kernels::active().bf16_gemm.run_strided != nullptr) {
    MESSAGE("skipped: this level reads rows in place of planes");
    return;
  }
  kernels::Table table = kernels::active();
  table.bf16_gemm.run = note_run<bf16>;
  table.bf16_gemm.run_gathered = nullptr;
  const ThreadsGuard guard;
  set_threads(1);
  for (const ConvShape& s : {ConvShape{.n = 4, .h = 32, .w = 32, .ic = 64, .oc = 256},
                             ConvShape{.n = 4, .h = 32, .w = 32, .ic = 256, .oc = 64}}) {
    INFO(s.ic << " to " << s.oc);
    const Operands op = make_operands({"any", s}, float_precisions()[0]);
    const LayerWeights layer = op.layer(Passes::kForwardAndBackward, &table);
    const Tensor d_y = random_bf16({s.n, s.oh(), s.ow(), s.oc}, 1);
    asked.clear();
    packed_conv_backward_input(layer, d_y, op.x.shape());
    const auto row = static_cast<int64_t>(d_y.row_bytes());
    // Tasks of 512 points: the rows of the first are not prefetched.
    CHECK(asked_of(d_y, 512) >= (d_y.rows() - 512) * row * 3 / 4);
    CHECK(asked_of(d_y, 512) == asked_of(d_y, 0));
    for (const Asked& a : asked) {
      const bool in_panels =
          std::any_of(layer.input_gradient.begin(), layer.input_gradient.end(),
                      [&](const LayerWeights::GradientOperand& o) { return within(a, o.panels.storage); });
      CHECK((in_panels || within(a, d_y)));
    }
  }
}

}  // namespace
}  // namespace nibble::testing
