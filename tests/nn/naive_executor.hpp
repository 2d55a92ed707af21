// A naive scalar executor of served models: plain loops over plain arrays, sharing no code with the real one.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "nn/runtime/served_model.hpp"

namespace nibble::testing {

/// A map as plain numbers: codes and accumulators exact in double, bf16 values as float.
struct NaiveMap {
  int64_t h = 0, w = 0, c = 0;
  std::vector<double> v;
  double& at(int64_t y, int64_t x, int64_t i) { return v[static_cast<size_t>((y * w + x) * c + i)]; }
  double at(int64_t y, int64_t x, int64_t i) const { return v[static_cast<size_t>((y * w + x) * c + i)]; }
};

struct NaiveTrace {
  std::map<std::string, NaiveMap> accumulators;  // per unit
  std::map<std::string, NaiveMap> plain;         // bf16 output per unit, where it has one
  std::map<std::string, NaiveMap> codes;         // per quantizer
  std::vector<float> logits;
};

/// Runs one image, uint8 [h, w, 3].
NaiveTrace naive_run(const ServedModel& model, const uint8_t* image);

}  // namespace nibble::testing
