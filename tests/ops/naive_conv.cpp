#include "tests/ops/naive_conv.hpp"

#include "engine/dtype.hpp"

namespace nibble::testing {

Sums naive_forward(const ConvShape& s, const Doubles& x, const Doubles& w) {
  Sums y(s.out_pixels() * s.oc);
  for_each_product(s, [&](size_t o, size_t i, size_t k) { y.add(o, x[i] * w[k]); });
  return y;
}

Sums naive_input_gradient(const ConvShape& s, const Doubles& d_y, const Doubles& w) {
  Sums d_x(s.n * s.h * s.w * s.ic);
  for_each_product(s, [&](size_t o, size_t i, size_t k) { d_x.add(i, d_y[o] * w[k]); });
  return d_x;
}

Sums naive_weight_gradient(const ConvShape& s, const Doubles& d_y, const Doubles& x) {
  Sums d_w(s.oc * s.k());
  for_each_product(s, [&](size_t o, size_t i, size_t k) { d_w.add(k, d_y[o] * x[i]); });
  return d_w;
}

Doubles values_of(const Tensor& t) {
  Doubles v;
  std::vector<uint8_t> row(at(t.stride() + 64));
  for (int64_t r = 0; r < t.rows(); ++r) {
    if (bits_of(t.dtype()) == 4)
      for (int64_t c = 0; c < t.shape().back(); ++c)
        row[at(c)] = static_cast<uint8_t>(t.row<uint8_t>(r)[c / 2] >> (c % 2 * 4) & 15);
    for (int64_t c = 0; c < t.shape().back(); ++c) switch (t.dtype()) {
        case DType::f32:
          v.push_back(static_cast<double>(t.row<float>(r)[c]));
          break;
        case DType::bf16:
          v.push_back(static_cast<double>(to_float(t.row<bf16>(r)[c])));
          break;
        case DType::s32:
          v.push_back(t.row<int32_t>(r)[c]);
          break;
        case DType::s8:
          v.push_back(t.row<int8_t>(r)[c]);
          break;
        case DType::u8:
          v.push_back(t.row<uint8_t>(r)[c]);
          break;
        default:
          v.push_back(row[at(c)]);
      }
  }
  return v;
}

}  // namespace nibble::testing
