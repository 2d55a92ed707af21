#include "nn/gradients.hpp"

#include <utility>

#include "engine/parallel.hpp"
#include "engine/profiler.hpp"
#include "nn/parameter_fields.hpp"
#include "ops/kernels/table.hpp"

namespace nibble {

Gradients make_gradients(const Model& model) {
  Gradients g;
  for (const UnitParameters& p : model.units) {
    UnitParameters d;
    for (const ParameterField& f : kParameterFields)
      if (const Tensor& t = p.*f.tensor; t.defined()) d.*f.tensor = Tensor::zeros(DType::f32, t.shape());
    g.units.push_back(std::move(d));
  }
  return g;
}

void Gradients::add(const Gradients& other) const {
  Zone zone("gradients, sum of shards");
  zone.count([&] {
    int64_t values = 0;
    for (const UnitParameters& p : units)
      for (const ParameterField& f : kParameterFields)
        if (const Tensor& t = p.*f.tensor; t.defined()) values += t.size();
    return ZoneWork{.bytes = 3 * int64_t{sizeof(float)} * values};
  });
  parallel_for(static_cast<int64_t>(units.size()), [&](int64_t i) {
    const UnitParameters &mine = units[static_cast<size_t>(i)], &theirs = other.units[static_cast<size_t>(i)];
    for (const ParameterField& f : kParameterFields)
      if (const Tensor& sum = mine.*f.tensor; sum.defined())
        kernels::active().ew.add_f32((theirs.*f.tensor).data<float>(), sum.size(), sum.data<float>());
  });
}

}  // namespace nibble
