#include "nn/schedule.hpp"

#include <algorithm>

#include "engine/error.hpp"
#include "engine/math.hpp"

namespace nibble {

namespace {
constexpr double kPi = 3.14159265358979323846;

double half_cosine(double progress) {
  return 0.5 * (1.0 + static_cast<double>(cos_exact(kPi * std::clamp(progress, 0.0, 1.0))));
}
}  // namespace

ScheduleKind schedule_kind(const std::string& name) {
  if (name == "cosine") return ScheduleKind::kCosine;
  if (name == "step") return ScheduleKind::kStep;
  if (name == "paper") return ScheduleKind::kPaper;
  throw UsageError("--schedule is '{}'; use cosine, step or paper", name);
}

float Schedule::rate(int64_t step) const {
  const double t = static_cast<double>(step), total = static_cast<double>(total_steps);
  const double warmup = static_cast<double>(warmup_steps);
  if (kind == ScheduleKind::kPaper) {
    const double rise = warmup_steps > 0 ? std::min(1.0, t / warmup) : 1.0;
    constexpr double kFloor = 0.001, kCooldown = 0.2;
    const double falling = std::max(1.0, (1 - kCooldown) * total - warmup);  // published: 30,420 of 39,000 steps
    const double cosine = kFloor + (1.0 - kFloor) * half_cosine((t - warmup) / falling);
    return static_cast<float>(peak * rise * cosine * std::clamp((total - t) / (kCooldown * total), 0.0, 1.0));
  }
  if (step < warmup_steps) return static_cast<float>(peak * (t + 1.0) / warmup);
  if (kind == ScheduleKind::kCosine)
    return static_cast<float>(peak * half_cosine((t - warmup) / std::max(1.0, total - warmup)));
  const int64_t thirds = total_steps > 0 ? std::min<int64_t>(2, 3 * step / total_steps) : 0;
  return static_cast<float>(peak * (thirds == 0 ? 1.0 : thirds == 1 ? 0.1 : 0.01));
}

}  // namespace nibble
