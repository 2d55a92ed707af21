#include "engine/tape.hpp"

namespace nibble {

void Variable::accumulate(const Tensor& g) const {
  Tensor& mine = state_->grad;
  if (!mine.defined()) {
    mine = g;
    return;
  }
  if (mine.dtype() != g.dtype() || mine.shape() != g.shape() || mine.stride() != g.stride())
    throw ShapeError("[accumulate] gradient {} {} does not add to {} {}", name_of(g.dtype()), g.shape().str(),
                     name_of(mine.dtype()), mine.shape().str());
  // The first gradient may be shared with the variable it came from, so the sum goes to new storage.
  Tensor sum(mine.dtype(), mine.shape(), mine.stride());
  const int64_t n = mine.rows() * mine.stride();
  if (mine.dtype() == DType::f32) {
    const float *a = mine.data<float>(), *b = g.data<float>();
    float* out = sum.data<float>();
    for (int64_t i = 0; i < n; ++i) out[i] = a[i] + b[i];
  } else if (mine.dtype() == DType::bf16) {
    const bf16 *a = mine.data<bf16>(), *b = g.data<bf16>();
    bf16* out = sum.data<bf16>();
    for (int64_t i = 0; i < n; ++i) out[i] = to_bf16(to_float(a[i]) + to_float(b[i]));
  } else {
    throw DTypeError("[accumulate] gradients are f32 or bf16, got {}", name_of(mine.dtype()));
  }
  mine = sum;
}

void Tape::backward(const Variable& loss) {
  if (loss.value().dtype() != DType::f32 || loss.value().size() != 1)
    throw ShapeError("[backward] the loss is one f32 number, got {} {}; pass a gradient for other outputs",
                     name_of(loss.value().dtype()), loss.shape().str());
  Tensor one(DType::f32, loss.shape());
  *one.data<float>() = 1.0f;
  backward(loss, one);
}

void Tape::backward(const Variable& output, const Tensor& gradient) {
  output.accumulate(gradient);
  while (!steps_.empty()) {
    std::function<void()> step = std::move(steps_.back());
    steps_.pop_back();
    step();
  }
}

}  // namespace nibble
