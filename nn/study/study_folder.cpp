#include "nn/study/study_folder.hpp"

#include <algorithm>
#include <tuple>

#include "engine/error.hpp"
#include "engine/files.hpp"
#include "nn/atomic_file.hpp"

namespace nibble {

namespace fs = std::filesystem;

namespace {

constexpr const char* kResult = "result.json";
constexpr const char* kStudy = "study.json";
constexpr uint64_t kLongestStudy = uint64_t{256} << 20;  // a point takes about 50 KiB

std::vector<fs::path> results_in(const fs::path& study) {
  std::vector<fs::path> results;
  for (const fs::directory_entry& entry : list_folder(study)) {
    std::error_code ignored;
    if (fs::is_regular_file(entry.path() / kResult, ignored)) results.push_back(entry.path() / kResult);
  }
  std::sort(results.begin(), results.end());
  return results;
}

[[noreturn]] void refuse_empty(const fs::path& study) {
  throw DataError("'{}' has no finished point (no */{}) and no {}; run nibble study run first", study.string(), kResult,
                  kStudy);
}

std::vector<PointResult> points_of_file(const fs::path& file) {
  return points_from_json(read_text_file(file, kLongestStudy), file.string());
}

void sort_points(std::vector<PointResult>& points, const fs::path& study) {
  std::sort(points.begin(), points.end(), [](const PointResult& a, const PointResult& b) {
    return std::tie(a.precision, a.width, a.seed, a.name) < std::tie(b.precision, b.width, b.seed, b.name);
  });
  std::vector<std::string> names;
  for (const PointResult& p : points) names.push_back(p.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end())
    throw DataError("'{}' holds two results called '{}'; keep one of them", study.string(), *twice);
}

}  // namespace

fs::path result_path(const fs::path& study, const std::string& point) {
  return study / point / kResult;
}

fs::path served_path(const fs::path& run) {
  return run / "served.safetensors";
}

fs::path one_file_path(const fs::path& study) {
  return study / kStudy;
}

StudySource source_in(const fs::path& folder) {
  StudySource source{.results = results_in(folder), .file = {}};
  std::error_code ignored;
  if (source.results.empty() && fs::is_regular_file(one_file_path(folder), ignored))
    source.file = one_file_path(folder);
  return source;
}

StudySource find_study(const fs::path& study) {
  std::error_code ignored;
  if (!fs::exists(study, ignored)) throw UsageError("there is no study '{}'; check the path", study.string());
  if (!fs::is_directory(study, ignored)) return {.results = {}, .file = study};
  StudySource source = source_in(study);
  if (source.results.empty() && source.file.empty()) refuse_empty(study);
  return source;
}

std::vector<PointResult> read_study(const fs::path& study) {
  const StudySource source = find_study(study);
  std::vector<PointResult> points;
  for (const fs::path& path : source.results) points.push_back(read_point_result(path));
  if (!source.file.empty()) points = points_of_file(source.file);
  if (points.empty()) refuse_empty(study);
  sort_points(points, study);
  return points;
}

}  // namespace nibble
