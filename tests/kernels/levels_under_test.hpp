// The kernel levels that a test visits.
#pragma once
#include <vector>

#include "engine/cpu.hpp"
#include "engine/env.hpp"
#include "ops/kernels/table.hpp"

namespace nibble::testing {

/// The level that NIBBLE_ISA forces, as the programs of a suite do one after another; otherwise all of this machine.
inline std::vector<Isa> levels_under_test() {
  kernels::active();  // probes the levels first
  return env(EnvVar::kIsa) ? std::vector<Isa>{active_isa()} : runnable_isas();
}

}  // namespace nibble::testing
