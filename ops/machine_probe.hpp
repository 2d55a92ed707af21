// What this machine reaches right now: multiply-accumulate peaks and memory bandwidth, to compare a measurement with.
#pragma once
#include <array>

#include "engine/profiler.hpp"

namespace nibble {

/// Multiply-accumulates per second, by MacUnit, of all threads() threads at once; 0 where the kernel level has no known
/// peak (scalar).
using MacPeaks = std::array<double, kMacUnits>;

/// Registers alone (ops/kernels/isa/peak.hpp), at the active kernel level, all threads at once; for each thread the
/// best of several runs of about 0.5 ms, because on a shared machine the best is nearest to what the hardware does.
/// Call it before and after a measurement and keep the larger (`largest`).  Cost: about 0.05 s.
MacPeaks measure_mac_peaks();
/// The same for one unit.  Cost: about 0.01 s.
double measure_mac_peak(MacUnit unit);
MacPeaks largest(const MacPeaks& a, const MacPeaks& b);

/// Size of an array that the caches cannot hold: twice the third level, 64 to 256 MiB (servers have 32 to 105 MiB of
/// it; a machine that does not say gets 64), whole MiB.
int64_t bytes_beyond_caches();

/// Bytes per second of all threads() threads together, on arrays of bytes_beyond_caches().
struct MemoryBandwidth {
  double read = 0;
  double read_write = 0;  // in place: half of the bytes each way
  double triad = 0;       // two arrays read, a third written past the caches (STREAM's kernel)
};
/// The best of a few passes.  Cost: about 0.3 s for 64 MiB, and three such arrays, given back.
MemoryBandwidth measure_memory_bandwidth();

}  // namespace nibble
