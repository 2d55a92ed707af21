// add: values, gradients, errors; and the gradient checker's own negative controls.
#include "ops/add.hpp"

#include <doctest/doctest.h>

#include "ops/float_op.hpp"
#include "ops/mul.hpp"
#include "tests/gradcheck.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

Doubles reference(const std::vector<Doubles>& x) {
  Doubles y = x[0];
  for (size_t i = 0; i < y.size(); ++i) y[i] += x[1][i];
  return y;
}

/// a * b with a chosen mistake in its backward.
enum class Mistake { kNone, kSwapped, kOnePercent, kMissing, kLastElement };

Variable faulty_mul(Tape* tape, const Variable& a, const Variable& b, Mistake mistake) {
  return taped(
      tape, mul_forward(a.value(), b.value()),
      [a, b, mistake](const Tensor& d_y) {
        const Tensor d_a = mul_backward_a(d_y, mistake == Mistake::kSwapped ? a.value() : b.value());
        const Tensor d_b = mul_backward_b(d_y, a.value());
        if (mistake == Mistake::kOnePercent)
          for (int64_t i = 0; i < d_b.size(); ++i) d_b.data<float>()[i] *= 1.01f;
        if (mistake == Mistake::kLastElement) d_b.data<float>()[d_b.size() - 1] = 0.0f;
        if (a.wants_grad()) a.accumulate(d_a);
        if (b.wants_grad() && mistake != Mistake::kMissing) b.accumulate(d_b);
      },
      a, b);
}

GradcheckReport check_faulty(Mistake mistake) {
  return gradcheck(
      {.arguments = {random_tensor({3, 5}, 1), random_tensor({3, 5}, 2)},
       .op = [mistake](Tape* t, const std::vector<Variable>& v) { return faulty_mul(t, v[0], v[1], mistake); },
       .reference =
           [](const std::vector<Doubles>& x) {
             Doubles y = x[0];
             for (size_t i = 0; i < y.size(); ++i) y[i] *= x[1][i];
             return y;
           },
       .roundings = 4});
}

}  // namespace

TEST_CASE("add gives the sum and passes the gradient to both sides") {
  for (const Shape& shape : {Shape{1}, Shape{7}, Shape{3, 5}, Shape{2, 3, 3, 5}}) {
    const GradcheckReport report =
        gradcheck({.arguments = {random_tensor(shape, 1), random_tensor(shape, 2)},
                   .op = [](Tape* t, const std::vector<Variable>& v) { return add(t, v[0], v[1]); },
                   .reference = reference,
                   .roundings = 2});
    CHECK_MESSAGE(report.ok, report.message);
  }
}

TEST_CASE("add of a variable to itself doubles its gradient") {
  const Variable x(random_tensor({4}, 3), Grad::kWanted);
  Tape tape;
  const Variable y = add(&tape, x, x);
  const Tensor g = random_tensor({4}, 4);
  tape.backward(y, g);
  for (int64_t i = 0; i < 4; ++i) CHECK(x.grad().data<float>()[i] == 2 * g.data<float>()[i]);
}

TEST_CASE("add covers several blocks of elements") {
  const int64_t n = 2 * kElementsPerTask + 3;
  const Tensor a = random_tensor({n}, 5), b = random_tensor({n}, 6), y = add_forward(a, b);
  int64_t wrong = 0;
  for (int64_t i = 0; i < n; ++i) wrong += y.data<float>()[i] != a.data<float>()[i] + b.data<float>()[i];
  CHECK(wrong == 0);
}

TEST_CASE("add names shapes, types, strides and missing values that do not fit") {
  const Tensor a = random_tensor({2, 3}, 1);
  CHECK(error_of<ShapeError>([&] {
          add_forward(a, random_tensor({3, 2}, 1));
        }) == "[add] b has shape [3,2], but a's dimensions ask for [2,3]; pass a tensor of that shape");
  CHECK(error_of<DTypeError>([&] {
          add_forward(a, Tensor(DType::bf16, {2, 3}));
        }) == "[add] b is bf16, but the generic ops compute in f32 only; convert it first");
  CHECK(error_of<ShapeError>([&] {
          add_forward(Tensor(DType::f32, {2, 3}, 16), a);
        }) == "[add] a has rows of 3 elements 16 apart, but the generic ops want dense rows; copy it");
  CHECK(error_of<ShapeError>([&] { add_forward(Tensor(), a); }) ==
        "[add] a has no value; give it a tensor before the call");
}

TEST_CASE("the gradient checker accepts a right gradient and reports each wrong one") {
  CHECK(check_faulty(Mistake::kNone).ok);
  const GradcheckReport swapped = check_faulty(Mistake::kSwapped);
  CHECK_FALSE(swapped.ok);
  CHECK(swapped.message.find("gradient of argument 0") == 0);
  const GradcheckReport percent = check_faulty(Mistake::kOnePercent);
  CHECK_FALSE(percent.ok);
  CHECK(percent.message.find("gradient of argument 1") == 0);
  const GradcheckReport last = check_faulty(Mistake::kLastElement);
  CHECK_FALSE(last.ok);
  CHECK(last.message.find("gradient of argument 1 element 14") == 0);
  CHECK(check_faulty(Mistake::kMissing).message == "the gradient of argument 1 changes when it alone is wanted");
}

TEST_CASE("the gradient checker reports a wrong value and a result that depends on the tape") {
  const std::vector<Tensor> arguments = {random_tensor({4}, 1), random_tensor({4}, 2)};
  const Reference off = [](const std::vector<Doubles>& x) {
    Doubles y = reference(x);
    y[2] += 1e-5;
    return y;
  };
  const TapedOp right = [](Tape* t, const std::vector<Variable>& v) { return add(t, v[0], v[1]); };
  CHECK(gradcheck({arguments, right, off, 2}).message.find("value element 2") == 0);
  const TapedOp moody = [](Tape* t, const std::vector<Variable>& v) {
    return add(t, v[0], t == nullptr ? v[0] : v[1]);
  };
  CHECK(gradcheck({arguments, moody, reference, 2}).message == "the result without a tape differs from the one with");
}
