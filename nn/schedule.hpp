// Learning rate per step.
#pragma once
#include <cstdint>
#include <string>

namespace nibble {

enum class ScheduleKind { kCosine, kStep, kPaper };
/// Parses "cosine", "step", "paper"; throws UsageError.
ScheduleKind schedule_kind(const std::string& name);

struct Schedule {
  ScheduleKind kind = ScheduleKind::kCosine;
  double peak = 0.05;
  int64_t warmup_steps = 0;
  int64_t total_steps = 0;  // of the run, warm-up included; must be set

  /// cosine: linear warm-up to `peak`, then half a cosine to 0.
  /// step: warm-up, then a tenth at each third of the run (torchvision's 30/60/90 rule).
  /// paper (METHOD.md section 4): factor min(1, step/warmup); cosine from there to peak/1000 where the linear
  /// cooldown to 0 begins, the last 20 % of the run.
  /// After `total_steps` all stay where they ended (step: at a hundredth of the peak).
  float rate(int64_t step) const;
};

}  // namespace nibble
