#include "nn/gradients.hpp"

#include <utility>

#include "engine/parallel.hpp"
#include "engine/profiler.hpp"
#include "ops/kernels/table.hpp"

namespace nibble {

Gradients make_gradients(const Model& model) {
  Gradients g;
  for (const UnitParameters& p : model.units) {
    UnitParameters d;
    d.weights = Tensor::zeros(DType::f32, p.weights.shape());
    if (p.gamma.defined()) d.gamma = Tensor::zeros(DType::f32, p.gamma.shape());
    if (p.beta.defined()) d.beta = Tensor::zeros(DType::f32, p.beta.shape());
    if (p.bias.defined()) d.bias = Tensor::zeros(DType::f32, p.bias.shape());
    g.units.push_back(std::move(d));
  }
  return g;
}

void Gradients::add(const Gradients& other) const {
  Zone zone("gradients, sum of shards");
  zone.count([&] {
    int64_t values = 0;
    for (const UnitParameters& p : units)
      for (const Tensor* t : {&p.weights, &p.gamma, &p.beta, &p.bias})
        if (t->defined()) values += t->size();
    return ZoneWork{.bytes = 3 * int64_t{sizeof(float)} * values};
  });
  parallel_for(static_cast<int64_t>(units.size()), [&](int64_t i) {
    const UnitParameters &mine = units[static_cast<size_t>(i)], &theirs = other.units[static_cast<size_t>(i)];
    const auto sum = [](const Tensor& a, const Tensor& b) {
      if (a.defined()) kernels::active().ew.add_f32(b.data<float>(), a.size(), a.data<float>());
    };
    sum(mine.weights, theirs.weights);
    sum(mine.gamma, theirs.gamma);
    sum(mine.beta, theirs.beta);
    sum(mine.bias, theirs.bias);
  });
}

}  // namespace nibble
