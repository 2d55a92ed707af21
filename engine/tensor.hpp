// Tensor: a typed, shaped handle on shared storage.
#pragma once
#include <cstring>
#include <memory>
#include <type_traits>

#include "engine/dtype.hpp"
#include "engine/integers.hpp"
#include "engine/shape.hpp"
#include "engine/storage.hpp"

namespace nibble {

/// A handle: copying it shares the storage. Rows (the innermost dimension, channels in NHWC) are `stride()` elements
/// apart, which may exceed the innermost dimension: activation rows start on cache lines (see `round_stride`).
/// Pad elements of a strided tensor are zero for unsigned codes and unspecified otherwise.
class Tensor {
 public:
  Tensor() = default;
  /// Uninitialised tensor with dense rows (packed 4-bit rows start on a byte).
  Tensor(DType dtype, const Shape& shape) : Tensor(dtype, shape, dense_stride(dtype, shape.back())) {}
  /// Uninitialised tensor whose rows are `stride` elements apart; stride >= innermost dimension, even for 4 bits.
  Tensor(DType dtype, const Shape& shape, int64_t stride) : dtype_(dtype), shape_(shape), stride_(stride) {
    if (stride < shape.back())
      throw ShapeError("[tensor] row stride {} is below the row length {}", stride, shape.back());
    int64_t bits = 0;
    if (__builtin_mul_overflow(rows(), stride, &bits) || __builtin_mul_overflow(bits, int64_t{bits_of(dtype)}, &bits))
      throw ShapeError("[tensor] {} with rows of {} elements has more than 2^63 - 1 bits", shape.str(), stride);
    if (bits_of(dtype) == 4 && stride % 2 != 0) throw ShapeError("[tensor] 4-bit row stride {} is odd", stride);
    storage_ = std::make_shared<Storage>(bytes());
  }
  static Tensor zeros(DType dtype, const Shape& shape) {
    return zeros(dtype, shape, dense_stride(dtype, shape.back()));
  }
  static Tensor zeros(DType dtype, const Shape& shape, int64_t stride) {
    Tensor t(dtype, shape, stride);
    std::memset(t.storage_->data(), 0, t.bytes());
    return t;
  }
  /// Row stride of activations: the smallest whose bytes are a multiple of 64 and not of 2 KiB. Rows 2 KiB apart share
  /// two of the 64 sets of a first-level cache, where a block of 32 rows evicts itself.
  static int64_t round_stride(DType dtype, int64_t row) {
    const int64_t per_line = 64 * 8 / bits_of(dtype);
    const int64_t lines = ceil_div(row, per_line);
    return (lines > 0 && lines % 32 == 0 ? lines + 1 : lines) * per_line;
  }

  bool defined() const { return storage_ != nullptr; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t size() const { return shape_.size(); }
  int64_t rows() const { return shape_.rows(); }
  int64_t stride() const { return stride_; }
  bool dense() const { return stride_ == dense_stride(dtype_, shape_.back()); }
  size_t row_bytes() const { return static_cast<size_t>(stride_) * static_cast<size_t>(bits_of(dtype_)) / 8; }
  size_t bytes() const { return static_cast<size_t>(rows()) * row_bytes(); }

  template <typename T>
  T* data() const {
    check_type<T>();
    return reinterpret_cast<T*>(storage_->data());
  }
  template <typename T>
  T* row(int64_t r) const {
    check_type<T>();
    return reinterpret_cast<T*>(storage_->data() + static_cast<size_t>(r) * row_bytes());
  }
  std::byte* raw() const { return storage_->data(); }
  void zero() const { std::memset(storage_->data(), 0, bytes()); }
  Tensor clone() const {
    Tensor t(dtype_, shape_, stride_);
    std::memcpy(t.raw(), raw(), bytes());
    return t;
  }
  /// Same storage under another shape of equal size; rows must be dense.
  Tensor reshape(const Shape& shape) const {
    if (!dense() || shape.size() != size() || (bits_of(dtype_) == 4 && shape.back() != shape_.back()))
      throw ShapeError("[reshape] {} (row stride {}) does not become {}", shape_.str(), stride_, shape.str());
    Tensor t = *this;
    t.shape_ = shape;
    t.stride_ = dense_stride(dtype_, shape.back());
    return t;
  }

 private:
  static int64_t dense_stride(DType dtype, int64_t row) { return bits_of(dtype) == 4 ? (row + 1) / 2 * 2 : row; }
  template <typename T>
  void check_type() const {
    using U = std::remove_const_t<T>;
    const bool fits = std::is_same_v<U, float>     ? dtype_ == DType::f32
                      : std::is_same_v<U, bf16>    ? dtype_ == DType::bf16
                      : std::is_same_v<U, int32_t> ? dtype_ == DType::s32
                      : std::is_same_v<U, int8_t>  ? dtype_ == DType::s8
                      : std::is_same_v<U, uint8_t> ? (dtype_ == DType::u8 || bits_of(dtype_) == 4)
                                                   : false;
    if (!fits) throw DTypeError("[tensor] storage of {} read as another type", name_of(dtype_));
  }

  std::shared_ptr<Storage> storage_;
  DType dtype_ = DType::f32;
  Shape shape_;
  int64_t stride_ = 0;
};

}  // namespace nibble
