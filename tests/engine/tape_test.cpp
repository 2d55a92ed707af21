// Tape: order of steps, accumulation, chains through several ops, errors.
#include "engine/tape.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "ops/add.hpp"
#include "ops/mul.hpp"
#include "tests/gradcheck.hpp"

using namespace nibble;
using namespace nibble::testing;

namespace {

Tensor number(float v) {
  Tensor t(DType::f32, {1});
  *t.data<float>() = v;
  return t;
}

}  // namespace

TEST_CASE("the tape runs its steps in reverse, destroys each after it has run, and is empty afterwards") {
  std::vector<int> order;
  const auto alive = std::make_shared<int>(0);
  Tape tape;
  for (int i = 0; i < 3; ++i) {
    tape.record([&order, i, kept = alive] {
      order.push_back(i);
      order.push_back(static_cast<int>(kept.use_count()));
    });
  }
  CHECK(tape.size() == 3);
  tape.backward(Variable(number(1), Grad::kWanted));
  // use_count: `alive` itself and the steps not yet destroyed
  CHECK(order == std::vector<int>{2, 4, 1, 3, 0, 2});
  CHECK(tape.size() == 0);
  CHECK(alive.use_count() == 1);
}

TEST_CASE("a step that throws leaves no step behind for the next graph") {
  Tape tape;
  int ran = 0;
  const Variable loss(Tensor::zeros(DType::f32, {1}), Grad::kWanted);
  tape.record([&] { ++ran; });
  tape.record([] { throw ShapeError("[test] a step fails"); });
  CHECK_THROWS_AS(tape.backward(loss), ShapeError);
  CHECK(tape.size() == 0);
  tape.record([&] { ran += 10; });
  tape.backward(loss);
  CHECK(ran == 10);
}

TEST_CASE("a loss is seeded with 1 and gradients of several uses add up") {
  // loss = (x*y + x) * x = x^2 y + x^2; d/dx = 2xy + 2x, d/dy = x^2
  const Variable x(number(3), Grad::kWanted), y(number(5), Grad::kWanted);
  Tape tape;
  const Variable loss = mul(&tape, add(&tape, mul(&tape, x, y), x), x);
  tape.backward(loss);
  CHECK(*loss.value().data<float>() == 54.0f);
  CHECK(*loss.grad().data<float>() == 1.0f);
  CHECK(*x.grad().data<float>() == 36.0f);
  CHECK(*y.grad().data<float>() == 9.0f);
}

TEST_CASE("a branch that does not reach the loss gets no gradient and disturbs no other") {
  const Variable x(number(3), Grad::kWanted), unused(number(7), Grad::kWanted);
  Tape tape;
  const Variable loss = mul(&tape, x, x);
  mul(&tape, x, unused);
  tape.backward(loss);
  CHECK(*x.grad().data<float>() == 6.0f);
  CHECK_FALSE(unused.grad().defined());
}

TEST_CASE("accumulate never writes into a gradient that another variable shares") {
  const Variable a(number(1), Grad::kWanted), b(number(2), Grad::kWanted);
  const Tensor g = number(10);
  a.accumulate(g);
  b.accumulate(g);
  a.accumulate(number(5));
  CHECK(*a.grad().data<float>() == 15.0f);
  CHECK(*b.grad().data<float>() == 10.0f);
  CHECK(*g.data<float>() == 10.0f);
}

TEST_CASE("bf16 gradients are added in f32 and rounded once") {
  const Variable x(Tensor(DType::bf16, {2}), Grad::kWanted);
  Tensor g(DType::bf16, {2}), h(DType::bf16, {2});
  g.data<bf16>()[0] = to_bf16(1.0f);
  h.data<bf16>()[0] = to_bf16(0x1p-8f);  // 1 + 2^-8 is a tie: to even, 1
  g.data<bf16>()[1] = to_bf16(1.0f);
  h.data<bf16>()[1] = to_bf16(0x1.8p-7f);  // 1 + 3 * 2^-8: tie between 1 + 2^-7 and 1 + 2^-6, to even
  x.accumulate(g);
  x.accumulate(h);
  CHECK(to_float(x.grad().data<bf16>()[0]) == 1.0f);
  CHECK(to_float(x.grad().data<bf16>()[1]) == 1.0f + 0x1p-6f);
}

TEST_CASE("copies of a variable share value and gradient; release drops both") {
  const Variable a(number(4), Grad::kWanted);
  const Variable b = a;
  b.accumulate(number(2));
  CHECK(*a.grad().data<float>() == 2.0f);
  a.release();
  CHECK_FALSE(b.value().defined());
  CHECK_FALSE(b.grad().defined());
  CHECK_FALSE(Variable().defined());
  CHECK_FALSE(Variable().wants_grad());
}

TEST_CASE("a value dropped with a way to make it is made once, for all copies; one released is not made again") {
  const Variable a(number(4), Grad::kWanted);
  const Variable b = a;
  int made = 0;
  const auto again = [&made] {
    ++made;
    return number(5);
  };
  a.drop(again);
  CHECK_FALSE(b.value().defined());
  b.remake();
  a.remake();
  CHECK(made == 1);
  CHECK(*a.value().data<float>() == 5.0f);
  a.drop(again);
  a.release();
  a.remake();
  CHECK_FALSE(a.value().defined());
  b.drop();
  b.remake();
  CHECK(made == 1);
}

TEST_CASE("recording needs a tape and an input that wants a gradient") {
  const Variable wanted(number(1), Grad::kWanted), not_wanted(number(1));
  Tape tape;
  CHECK(recording(&tape, wanted, not_wanted));
  CHECK_FALSE(recording(&tape, not_wanted));
  CHECK_FALSE(recording(nullptr, wanted));
}

TEST_CASE("backward names a loss that is not a number, and gradients that do not add") {
  Tape tape;
  CHECK(error_of<ShapeError>([&] { tape.backward(Variable(Tensor(DType::f32, {3}), Grad::kWanted)); }) ==
        "[backward] the loss is one f32 number, got f32 [3]; pass a gradient for other outputs");
  CHECK(error_of<ShapeError>([&] { tape.backward(Variable(Tensor(DType::bf16, {1}), Grad::kWanted)); }) ==
        "[backward] the loss is one f32 number, got bf16 [1]; pass a gradient for other outputs");
  CHECK(error_of<ShapeError>([&] {
          tape.backward(Variable(Tensor(DType::f32, {3}), Grad::kWanted), Tensor::zeros(DType::f32, {2}));
        }) == "[backward] the gradient is f32 [2], the output f32 [3]; pass one of the output's type and shape");
  const Variable x(number(1), Grad::kWanted);
  x.accumulate(number(1));
  CHECK(error_of<ShapeError>([&] { x.accumulate(Tensor::zeros(DType::f32, {2})); }) ==
        "[accumulate] gradient f32 [2] with rows 2 apart does not add to f32 [1] with rows 1 apart");
  const Variable codes(Tensor(DType::s8, {1}), Grad::kWanted);
  codes.accumulate(Tensor::zeros(DType::s8, {1}));
  CHECK(error_of<DTypeError>([&] { codes.accumulate(Tensor::zeros(DType::s8, {1})); }) ==
        "[accumulate] gradients are f32 or bf16, got s8");
}
