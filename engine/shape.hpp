// Shape: up to four dimensions, outermost first.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "engine/error.hpp"

namespace nibble {

class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) {
    if (dims.size() > kMaxRank) throw ShapeError("[shape] rank is at most {}, got {}", kMaxRank, dims.size());
    for (int64_t d : dims) {
      if (d < 0) throw ShapeError("[shape] a dimension is negative: {}", d);
      dims_[static_cast<size_t>(rank_++)] = d;
    }
    int64_t elements = 1;  // of the dimensions that are not 0: rows() leaves the last one out
    for (int64_t d : dims)
      if (d > 0 && __builtin_mul_overflow(elements, d, &elements))
        throw ShapeError("[shape] {} has more than 2^63 - 1 elements", str());
  }

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[static_cast<size_t>(i)]; }
  int64_t back() const { return rank_ == 0 ? 1 : dims_[static_cast<size_t>(rank_ - 1)]; }
  /// Number of elements; 1 for rank 0.
  int64_t size() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= (*this)[i];
    return n;
  }
  /// Product of all dimensions except the innermost.
  int64_t rows() const {
    int64_t n = 1;
    for (int i = 0; i + 1 < rank_; ++i) n *= (*this)[i];
    return n;
  }
  bool operator==(const Shape&) const = default;
  std::string str() const {
    std::string s = "[";
    for (int i = 0; i < rank_; ++i) s += (i ? "," : "") + std::to_string((*this)[i]);
    return s + "]";
  }

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

}  // namespace nibble
