#include "apps/study/start_weights.hpp"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <tuple>

#include "apps/study/plan.hpp"
#include "engine/error.hpp"
#include "engine/files.hpp"
#include "nn/atomic_file.hpp"
#include "nn/run_folder.hpp"
#include "nn/sha256.hpp"
#include "nn/study/study_folder.hpp"

namespace nibble::apps {

namespace fs = std::filesystem;

namespace {

/// What a link leads to now: `latest` may lead elsewhere later.
std::string target_of(const fs::path& link) {
  std::error_code none;
  if (!fs::is_symlink(link, none)) return link.string();
  const fs::path target = fs::read_symlink(link, none);
  return none ? link.string() : (target.is_absolute() ? target : link.parent_path() / target).string();
}

std::string file_of(const std::string& weights, const StudyPoint& point) {
  if (!path_exists(plan_path(weights))) return target_of(resolve_model_path(weights));
  std::optional<StudyPoint> best;
  for (const StudyPoint& p : read_plan(weights).points) {
    if (p.precision != "bf16" || p.width != point.width || !path_exists(result_path(weights, p.name()))) continue;
    if (!best || p.seed == point.seed || (best->seed != point.seed && p.seed < best->seed)) best = p;
  }
  if (!best)
    throw DataError(
        "the study {} has no finished bf16 model of width {} for {} to start from; train it there, or leave "
        "the width out",
        weights, point.width, point.name());
  return target_of(resolve_model_path(fs::path(weights) / best->name() / "latest"));
}

}  // namespace

const PointStart* StudyStart::of(const StudyPoint& point) const {
  const auto found = std::find_if(points.begin(), points.end(),
                                  [&](const PointStart& s) { return s.width == point.width && s.seed == point.seed; });
  return found == points.end() ? nullptr : &*found;
}

void StudyStart::add(const StudyPoint& point) {
  if (weights.empty() || of(point) != nullptr) return;
  const std::string file = file_of(weights, point);
  const auto same = std::find_if(points.begin(), points.end(), [&](const PointStart& s) { return s.file == file; });
  points.push_back({point.width, point.seed, file, same != points.end() ? same->sha256 : sha256_of_file(file)});
  std::sort(points.begin(), points.end(), [](const PointStart& a, const PointStart& b) {
    return std::tuple(a.width, a.seed) < std::tuple(b.width, b.seed);
  });
}

}  // namespace nibble::apps
