// The float mode of a host program that computes bounds: rounds up, keeps denormals.
#pragma once
#if defined(__x86_64__)
#include <cfenv>

namespace nibble::testing {

/// In force on this thread, and on those that it starts, for as long as it lives.
struct HostFloatMode {
  std::fenv_t before{};
  HostFloatMode() {
    std::fegetenv(&before);
    std::fesetenv(FE_DFL_ENV);
    std::fesetround(FE_UPWARD);
  }
  HostFloatMode(const HostFloatMode&) = delete;
  HostFloatMode& operator=(const HostFloatMode&) = delete;
  ~HostFloatMode() { std::fesetenv(&before); }

  /// By what it computes: fegetround asks the x87 unit.
  static bool in_force() {
    volatile float one = 1, tiny = 0x1p-60f, smallest = 0x1p-126f, half = 0.5f;
    volatile float up = one + tiny, denormal = smallest * half;
    return up > 1.0f && denormal + smallest > smallest;
  }
};

}  // namespace nibble::testing
#endif
