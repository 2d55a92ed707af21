// conv2d: values and gradients over strides, paddings and kernel sizes; order of sums; errors.
#include "ops/conv2d.hpp"

#include <doctest/doctest.h>

#include "engine/parallel.hpp"
#include "tests/gradcheck.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

/// Straight from the definition: seven loops, zero outside the image.
Doubles naive(const Doubles& x, const Doubles& w, const ConvShape& s) {
  Doubles y;
  for (int64_t i = 0; i < s.n; ++i)
    for (int64_t p = 0; p < s.oh(); ++p)
      for (int64_t q = 0; q < s.ow(); ++q)
        for (int64_t o = 0; o < s.oc; ++o) {
          double sum = 0;
          for (int64_t r = 0; r < s.kh; ++r)
            for (int64_t t = 0; t < s.kw; ++t) {
              const int64_t row = p * s.stride + r - s.pad_before, column = q * s.stride + t - s.pad_before;
              if (row < 0 || row >= s.h || column < 0 || column >= s.w) continue;
              for (int64_t c = 0; c < s.ic; ++c)
                sum += x[static_cast<size_t>(((i * s.h + row) * s.w + column) * s.ic + c)] *
                       w[static_cast<size_t>(((o * s.kh + r) * s.kw + t) * s.ic + c)];
            }
          y.push_back(sum);
        }
  return y;
}

Shape image(const ConvShape& s) {
  return {s.n, s.h, s.w, s.ic};
}
Shape kernel(const ConvShape& s) {
  return {s.oc, s.kh, s.kw, s.ic};
}
Conv2dArgs args_of(const ConvShape& s) {
  return {.stride = s.stride, .pad_before = s.pad_before, .pad_after = s.pad_after};
}

GradcheckReport check(const ConvShape& s) {
  return gradcheck({.arguments = {random_tensor(image(s), 1), random_tensor(kernel(s), 2)},
                    .op = [&](Tape* t, const std::vector<Variable>& v) { return conv2d(t, v[0], v[1], args_of(s)); },
                    .reference = [&](const std::vector<Doubles>& x) { return naive(x[0], x[1], s); },
                    .roundings = 2.0 * static_cast<double>(std::max({s.k(), s.taps() * s.oc, s.out_pixels()}))});
}

}  // namespace

TEST_CASE("conv2d and its gradients are right for every kind of geometry") {
  struct Case {
    const char* name;
    ConvShape shape;
  };
  const Case cases[] = {
      {"one by one", {.n = 2, .h = 3, .w = 4, .ic = 5, .oc = 7}},
      {"one by one, stride 2", {.n = 1, .h = 5, .w = 4, .ic = 3, .oc = 5, .stride = 2}},
      {"3x3 padded", {.n = 2, .h = 4, .w = 5, .ic = 3, .oc = 4, .kh = 3, .kw = 3, .pad_before = 1, .pad_after = 1}},
      {"3x3 unpadded, odd width", {.n = 1, .h = 5, .w = 7, .ic = 2, .oc = 3, .kh = 3, .kw = 3}},
      {"3x3 stride 2, odd sides",
       {.n = 1, .h = 7, .w = 5, .ic = 3, .oc = 2, .kh = 3, .kw = 3, .stride = 2, .pad_before = 1, .pad_after = 1}},
      {"3x3 stride 2, even sides, XLA's SAME",
       {.n = 1, .h = 6, .w = 8, .ic = 2, .oc = 3, .kh = 3, .kw = 3, .stride = 2, .pad_before = 0, .pad_after = 1}},
      {"7x7 stride 2, the stem",
       {.n = 1, .h = 9, .w = 8, .ic = 3, .oc = 3, .kh = 7, .kw = 7, .stride = 2, .pad_before = 3, .pad_after = 3}},
      {"7x7 stride 2, SAME",
       {.n = 1, .h = 8, .w = 8, .ic = 1, .oc = 2, .kh = 7, .kw = 7, .stride = 2, .pad_before = 2, .pad_after = 3}},
      {"stride above the kernel", {.n = 1, .h = 7, .w = 8, .ic = 2, .oc = 2, .kh = 2, .kw = 2, .stride = 3}},
      {"kernel of another height than width",
       {.n = 1, .h = 4, .w = 6, .ic = 2, .oc = 3, .kh = 1, .kw = 3, .pad_before = 1, .pad_after = 0}},
      {"image of one pixel",
       {.n = 3, .h = 1, .w = 1, .ic = 2, .oc = 2, .kh = 3, .kw = 3, .pad_before = 1, .pad_after = 1}},
      {"many channels", {.n = 1, .h = 2, .w = 2, .ic = 39, .oc = 17, .kh = 2, .kw = 2}},
  };
  for (const Case& c : cases) {
    const GradcheckReport report = check(c.shape);
    CHECK_MESSAGE(report.ok, c.name << ": " << report.message);
  }
}

TEST_CASE("conv2d with stride 2 leaves a zero gradient where no window looks") {
  // 1x1 with stride 2 reads the even pixels only.
  const ConvShape s{.n = 1, .h = 4, .w = 4, .ic = 2, .oc = 3, .stride = 2};
  const Tensor d_x =
      conv2d_backward_x(random_tensor({1, 2, 2, 3}, 1), random_tensor(kernel(s), 2), image(s), args_of(s));
  for (int64_t p = 0; p < 16; ++p) {
    const bool read = p / 4 % 2 == 0 && p % 4 % 2 == 0;
    CHECK((d_x.row<float>(p)[0] != 0.0f) == read);
  }
}

TEST_CASE("conv2d gives the same bits with any number of threads and whatever else is in the batch") {
  const ConvShape s{
      .n = 3, .h = 17, .w = 19, .ic = 70, .oc = 21, .kh = 3, .kw = 3, .stride = 1, .pad_before = 1, .pad_after = 1};
  const Tensor x = random_tensor(image(s), 1), w = random_tensor(kernel(s), 2);
  const int before = threads();
  set_threads(1);
  const Tensor y = conv2d_forward(x, w, args_of(s));
  const Tensor d_x = conv2d_backward_x(y, w, x.shape(), args_of(s));
  const Tensor d_w = conv2d_backward_w(y, x, w.shape(), args_of(s));
  for (int count : {2, 3}) {
    set_threads(count);
    CHECK(same_bits(conv2d_forward(x, w, args_of(s)), y));
    CHECK(same_bits(conv2d_backward_x(y, w, x.shape(), args_of(s)), d_x));
    CHECK(same_bits(conv2d_backward_w(y, x, w.shape(), args_of(s)), d_w));
  }
  set_threads(before);
  Tensor last(DType::f32, {1, s.h, s.w, s.ic});
  std::memcpy(last.raw(), x.row<float>(2 * s.h * s.w), last.bytes());
  const Tensor alone = conv2d_forward(last, w, args_of(s));
  CHECK(std::memcmp(alone.raw(), y.row<float>(2 * s.oh() * s.ow()), alone.bytes()) == 0);
}

TEST_CASE("conv2d of an empty batch is empty, with a zero weight gradient") {
  const Tensor x(DType::f32, {0, 4, 4, 2}), w = random_tensor({3, 3, 3, 2}, 1);
  const Tensor y = conv2d_forward(x, w, {});
  CHECK(y.shape() == Shape{0, 2, 2, 3});
  CHECK(to_doubles(conv2d_backward_w(y, x, w.shape(), {})) == Doubles(54, 0.0));
  CHECK(conv2d_backward_x(y, w, x.shape(), {}).shape() == x.shape());
}

TEST_CASE("conv2d names operands that do not fit") {
  const Tensor x = random_tensor({1, 4, 4, 2}, 1), w = random_tensor({3, 3, 3, 2}, 1);
  CHECK(error_of<ShapeError>([&] {
          conv2d_forward(x, random_tensor({3, 3, 3, 4}, 1), {});
        }) ==
        "[conv2d] x is [1,4,4,2] and w is [3,3,3,4], but NHWC and OHWI with equal last dimensions are needed; "
        "transpose or slice one");
  CHECK(error_of<ShapeError>([&] {
          conv2d_forward(random_tensor({4, 4, 2}, 1), w, {});
        }) == "[conv2d] x has shape [4,4,2], but its rank must be 4; reshape it");
  CHECK(error_of<DTypeError>([&] {
          conv2d_forward(x, Tensor(DType::s8, {3, 3, 3, 2}), {});
        }) == "[conv2d] w is s8, but the generic ops compute in f32 only; convert it first");
  CHECK(error_of<ShapeError>([&] {
          conv2d_backward_w(random_tensor({1, 3, 2, 3}, 1), x, w.shape(), {});
        }) ==
        "[conv2d] d_y has shape [1,3,2,3], but x, w and the arguments ask for [1,2,2,3]; "
        "pass a tensor of that shape");
  CHECK(error_of<ShapeError>([&] {
          conv2d_forward(x, random_tensor({3, 5, 5, 2}, 1), {});
        }) == "[conv] the 5x5 kernel does not fit the padded 4x4 image");
  CHECK(error_of<ShapeError>([&] { conv2d_forward(x, w, {.stride = 0}); }) ==
        "[conv] sizes must be positive, the number of images and pads at least 0: 1 images of 4x4x2, kernel 3x3, 3 "
        "outputs, "
        "stride 0, pads 0 and 0");
}
