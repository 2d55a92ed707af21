// The trained tensors of a unit, once: what is copied, summed or stepped tensor by tensor goes through this list.
#pragma once
#include "nn/model.hpp"

namespace nibble {

struct ParameterField {
  Tensor UnitParameters::*tensor;
  const char* what;  // for messages
  bool kernel;       // of a convolution or linear layer: weight decay and LARS are for these
};

/// In the order in which sums over parameters run. Units lack some of them: those are undefined.
inline constexpr ParameterField kParameterFields[] = {{&UnitParameters::weights, "weights", true},
                                                      {&UnitParameters::gamma, "batch norm scale", false},
                                                      {&UnitParameters::beta, "batch norm shift", false},
                                                      {&UnitParameters::bias, "bias", false}};

}  // namespace nibble
