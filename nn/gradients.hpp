// Gradients of the parameters, and whatever else is laid out like them (momentum).
#pragma once
#include <vector>

#include "nn/model.hpp"

namespace nibble {

/// Gradients of one shard (or a sum of shards), laid out like the parameters. A backward pass writes every tensor.
struct Gradients {
  std::vector<UnitParameters> units;  // weights, gamma, beta, bias; running statistics stay undefined
  /// Adds `other`, tensor by tensor.
  void add(const Gradients& other) const;
};
Gradients make_gradients(const Model& model);

}  // namespace nibble
