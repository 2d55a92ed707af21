// The multiply-accumulate peak of a level's instructions on this core, for ops/machine_probe and bench/.
#pragma once
#include <cstdint>

#include "engine/cpu.hpp"
#include "engine/profiler.hpp"

namespace nibble::kernels {

/// What a GEMM family multiplies: fp32, bf16, 8-bit codes, 4-bit codes.
using Unit = MacUnit;

/// Executes `rounds` rounds of the level's best instructions for the unit on registers alone (no loads) and returns how
/// many multiply-accumulates that were; 0 for scalar, whose peak depends on the compiler. The level must be runnable.
int64_t peak_macs(Isa isa, Unit unit, int64_t rounds);

}  // namespace nibble::kernels
