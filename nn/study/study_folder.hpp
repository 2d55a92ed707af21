// Where a study keeps its finished points, and how they are found again.
//
//   STUDY/<point>/             an ordinary run folder, one per point
//   STUDY/<point>/result.json  there when the point is finished: its PointResult
//   STUDY/<point>/served.safetensors  its model as it would be deployed
//   study.json                 all points in one file, as the report writes it and repositories keep it
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "nn/study/point_result.hpp"

namespace nibble {

/// STUDY/<point>/result.json
std::filesystem::path result_path(const std::filesystem::path& study, const std::string& point);

/// served.safetensors in the run folder of a point
std::filesystem::path served_path(const std::filesystem::path& run);

/// STUDY/study.json
std::filesystem::path one_file_path(const std::filesystem::path& study);

/// Where the points of a study are kept: in result files, or all in one file like study.json.
struct StudySource {
  std::vector<std::filesystem::path> results;
  std::filesystem::path file;  // empty: in result files
};

/// The result files of a study folder; its study.json only where it has none, because a report that was written there
/// grows stale; or neither. DiskError when it cannot be read.
StudySource source_in(const std::filesystem::path& folder);

/// The same for a study that must be there, or the file that was named. UsageError when there is no such path,
/// DataError when the folder has neither.
StudySource find_study(const std::filesystem::path& study);

/// The finished points of a study folder, ordered by precision, width and seed; for a folder without any, those of its
/// study.json; or those of a file like study.json. DataError naming the file when one does not parse, holds no points,
/// or two points have one name (and when nothing is found, what was looked for); DiskError when it cannot be read.
/// Files above 256 MiB are refused.
std::vector<PointResult> read_study(const std::filesystem::path& study);

}  // namespace nibble
