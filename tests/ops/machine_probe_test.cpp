// The loops behind the probes do what they claim, so that the bytes and products counted for them were really moved.
#include "ops/machine_probe.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "engine/cpu.hpp"
#include "ops/kernels/isa/bandwidth.hpp"

namespace nibble {
namespace {

TEST_CASE("bandwidth loops read, halve and combine every element, at lengths that fill no vector") {
  for (const int64_t n : {1, 3, 16, 63, 64, 65, 1000}) {
    CAPTURE(n);
    std::vector<float> x;
    float sum = 0;  // of small integers: exact in any order
    for (int64_t i = 0; i < n; ++i) {
      x.push_back(static_cast<float>(i % 13 - 4));
      sum += x.back();
    }
    CHECK(kernels::read_floats(x.data(), n) == sum);
    kernels::halve_floats(x.data(), n);
    for (int64_t i = 0; i < n; ++i) CHECK(x[static_cast<size_t>(i)] == static_cast<float>(i % 13 - 4) / 2);
  }
  alignas(16) float to[32] = {}, a[32], b[32];
  for (int i = 0; i < 32; ++i) {
    a[i] = static_cast<float>(i);
    b[i] = static_cast<float>(100 - i);
  }
  kernels::stream_triad(to, a, b, 3.0f, 28);
  for (int i = 0; i < 32; ++i) CHECK(to[i] == (i < 28 ? a[i] + 3.0f * b[i] : 0.0f));
}

TEST_CASE("the probe finds a peak for every unit of a level with vectors, and none for scalar") {
  const MacPeaks peaks = measure_mac_peaks();
  for (const double peak : peaks) CHECK((peak > 0) == (active_isa() != Isa::scalar));
  const MacPeaks both = largest(peaks, {1e30, 0, 0, 0});
  CHECK(both[0] == 1e30);
  CHECK(both[3] == peaks[3]);
}

}  // namespace
}  // namespace nibble
