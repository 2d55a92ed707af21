// The report of a study: which model is best for which cost, what of the published findings holds, and all figures.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "nn/study/point_result.hpp"

namespace nibble::apps {

/// The whole page. `name` is the study's, `missing` are its planned points without a result. DataError when the points
/// do not compare (see group_points).
std::string study_page(const std::vector<PointResult>& points, const std::string& name,
                       const std::vector<std::string>& missing = {});

/// Accuracy against linear cost as an SVG file of its own, for a README.
std::string study_picture(const std::vector<PointResult>& points);

/// All points as one JSON object: "points" as their result files have them, "groups" over seeds, "fronts", "findings".
std::string study_json(const std::vector<PointResult>& points);

/// One line per point, RFC 4180, with a header.
std::string study_csv(const std::vector<PointResult>& points);

/// What a report consists of.
struct StudyReportFiles {
  std::filesystem::path page, json, csv, svg;
  uint64_t bytes = 0;  // of the page
};

/// What becomes of a study.json beside the page when it holds other trainings, maybe as the only data of its study. In
/// the study's own folder it is an older report, from before points were started over.
enum class OtherStudy { kRefused, kReplaced };

/// Writes the page to `out` and next to it study.json, points.csv and pareto.svg; each is complete or as it was before.
/// UsageError when `out` is a folder or has the name of one of them, and for foreign files in their places;
/// DataError, DiskError.
StudyReportFiles write_study_report(const std::vector<PointResult>& points, const std::string& name,
                                    const std::vector<std::string>& missing, const std::filesystem::path& out,
                                    OtherStudy other);

}  // namespace nibble::apps
