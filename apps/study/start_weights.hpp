// The trained weights that a study's points start from, where they do.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "nn/import/weights_file.hpp"

namespace nibble::apps {

struct StudyPoint;

/// Of the points of one width and seed, in every precision.
struct PointStart {
  double width = 1;
  uint64_t seed = 0;
  std::string file;    // that was read when the points were planned
  std::string sha256;  // of it, by which it is known
  bool operator==(const PointStart&) const = default;
};

/// As `--weights` of a study asks; empty `weights`: points start from nothing.
struct StudyStart {
  std::string weights;  // a file or run, for all points, or a study with bf16 models
  WeightsChoice choice = {};
  std::vector<PointStart> points = {};  // by width, then seed

  /// null: there is none.
  const PointStart* of(const StudyPoint& point) const;
  /// Adds the start of the point, if it is not there: the file of `weights` itself, or of a study the last checkpoint
  /// of its bf16 model of this width, of the same seed if it has that, else of its lowest. Cost: a hash of the file.
  /// Errors: ModelError when a file is missing, DataError when the study has no finished bf16 model of the width.
  void add(const StudyPoint& point);
};

}  // namespace nibble::apps
