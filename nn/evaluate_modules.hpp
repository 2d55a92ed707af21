// Evaluation module by module: the plain path that the served executor is checked against.
#pragma once
#include <functional>

#include "nn/model.hpp"
#include "nn/step_weights.hpp"

namespace nibble {

/// Called by evaluation after each unit of the network, with its index: accumulators (s32 or f32, [n, oh, ow, oc]) and
/// what the unit passes on (bf16 or codes; undefined for fc, whose result is the logits).
using UnitObserver = std::function<void(size_t unit, const Tensor& accumulators, const Tensor& output)>;

/// Logits f32 [n, classes] with running statistics, module by module through full-size tensors: the slow, plain path
/// that the served executor is compared with.
Tensor evaluate_modules(const Model& model, const StepWeights& weights, const Tensor& images,
                        const UnitObserver& observer = {});

}  // namespace nibble
