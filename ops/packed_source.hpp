// What forward and backward of the packed convolution share: checked shapes, and where a gathered product reads its
// source: bf16 rows as they lie, codes as they lie or expanded per task.
#pragma once
#include "ops/memory_ahead.hpp"
#include "ops/packed_conv.hpp"

namespace nibble {

/// The layer's geometry for this input; throws DTypeError and ShapeError when the input does not fit the layer, or the
/// layer is packed for the executor.
inline ConvShape shape_with_batch(const LayerWeights& layer, const Tensor& x) {
  if (layer.fewer_products())
    throw ShapeError("[conv] {} was packed for serving; prepare it with Passes::kForward to compute it here",
                     layer.name);
  const bool codes = x.dtype() == DType::u8 || x.dtype() == DType::u4;
  if (layer.integer() ? !codes : x.dtype() != DType::bf16)
    throw DTypeError("[conv] {} reads {}, got {}", layer.name, layer.integer() ? "u8 or u4 codes" : "bf16",
                     name_of(x.dtype()));
  ConvShape s = layer.shape;
  s.n = x.dim(0);
  const Shape expected = layer.input_shape(s.n);
  if (x.shape() != expected)
    throw ShapeError("[conv] {} reads [n,{},{},{}], got {}", layer.name, expected[1], expected[2], expected[3],
                     x.shape().str());
  if (layer.row_folded && x.stride() != s.ic)
    throw ShapeError("[conv] {} reads whole image rows, so pixels must be {} elements apart, got {}", layer.name, s.ic,
                     x.stride());
  return s;
}

/// Throws ShapeError unless d_y is a gradient of what the layer makes of s.n images.
inline void check_gradient(const LayerWeights& layer, const ConvShape& s, const Tensor& d_y) {
  if (d_y.shape() != Shape{s.n, s.oh(), s.ow(), s.oc})
    throw ShapeError("[conv] {} makes [{},{},{},{}], but its gradient is {}", layer.name, s.n, s.oh(), s.ow(), s.oc,
                     d_y.shape().str());
}

/// Rows of a source whose codes are still to be expanded: by jobs that threads may share, all of which have run before
/// the rows are read.
template <typename T, typename Run>
struct Expansion {
  SourceRows<T> rows;
  int64_t jobs = 0;
  Run run;  // run(job)

  void run_all() const {
    for (int64_t job = 0; job < jobs; ++job) run(job);
  }
};

/// Codes as the multiplier sees them. Bytes without a shift are read in place; packed nibbles and shifted channels are
/// expanded once per task into scratch (each code then feeds all taps and output channels).
class CodeSource {
 public:
  CodeSource(const Tensor& x, const ActivationQuantizer* q, const Gather& g) : x_(x), g_(g) {
    const bool is_signed = q != nullptr && q->is_signed;
    pad_.assign(static_cast<size_t>(round_up(std::max<int64_t>(x.stride(), 64), 64)),
                is_signed ? kSignedOffset : uint8_t{0});
    if (q != nullptr && !q->factor.empty()) {
      factor_ = q->factor;
      factor_.resize(static_cast<size_t>(x.stride()), 1);
    }
  }

  /// By jobs of some pixels.
  auto expansion(Scratch& scratch, RowRange range) const {
    const int64_t pixels = (range.end - range.begin) * g_.sw, stride = x_.stride();
    const bool packed = bits_of(x_.dtype()) == 4, as_they_lie = !packed && factor_.empty();
    const uint8_t* const from = x_.row<uint8_t>(range.begin * g_.sw);
    uint8_t* const to = as_they_lie ? nullptr : scratch.get<uint8_t>(static_cast<size_t>(pixels * stride));
    const auto run = [this, pixels, stride, packed, from, to](int64_t job) {
      const auto& ew = kernels::active().ew;
      const int64_t first = job * kJobPixels, count = std::min(kJobPixels, pixels - first);
      const uint8_t* codes = from + first * static_cast<int64_t>(x_.row_bytes());
      uint8_t* const expanded = to + first * stride;
      if (packed) {
        ew.unpack_u4(codes, count * stride, expanded);
        codes = expanded;
      }
      if (factor_.empty()) return;
      for (int64_t p = 0; p < count; ++p)
        ew.multiply_u8(codes + p * stride, factor_.data(), stride, expanded + p * stride);
    };
    return Expansion<uint8_t, decltype(run)>{.rows = rows(as_they_lie ? from : to, range),
                                             .jobs = as_they_lie ? 0 : ceil_div(pixels, kJobPixels),
                                             .run = run};
  }

  SourceRows<uint8_t> operator()(Scratch& scratch, RowRange range) const {
    const auto all = expansion(scratch, range);
    all.run_all();
    return all.rows;
  }

  /// The memory of these rows, if all of it is read: packed nibbles are expanded whole.
  MemoryAhead ahead(RowRange range) const {
    if (!g_.reads_all() && bits_of(x_.dtype()) != 4) return {};
    return rows_ahead(x_, range.begin * g_.sw, range.end * g_.sw);
  }

 private:
  static constexpr int64_t kJobPixels = 128;

  SourceRows<uint8_t> rows(const uint8_t* data, RowRange range) const {
    return {
        .data = data, .first_row = range.begin, .stride = x_.stride(), .pad = pad_.data(), .pad_is_zero = pad_[0] == 0};
  }

  const Tensor& x_;
  const Gather& g_;
  std::vector<uint8_t> pad_;
  std::vector<uint8_t> factor_;
};

class Bf16Source {
 public:
  Bf16Source(const Tensor& x, const Gather& g)
      : x_(x), g_(g), pad_(static_cast<size_t>(std::max<int64_t>(x.stride(), 64))) {}

  SourceRows<bf16> operator()(Scratch&, RowRange range) const {
    return {.data = x_.row<bf16>(range.begin * g_.sw),
            .first_row = range.begin,
            .stride = x_.stride(),
            .pad = pad_.data(),
            .pad_is_zero = true};
  }
  auto expansion(Scratch& scratch, RowRange range) const {
    const auto nothing = [](int64_t) {};
    return Expansion<bf16, decltype(nothing)>{.rows = (*this)(scratch, range), .jobs = 0, .run = nothing};
  }

  /// The memory of these rows, if all of it is read.
  MemoryAhead ahead(RowRange range) const {
    return g_.reads_all() ? rows_ahead(x_, range.begin * g_.sw, range.end * g_.sw) : MemoryAhead{};
  }

 private:
  const Tensor& x_;
  const Gather& g_;
  std::vector<bf16> pad_;
};

}  // namespace nibble
