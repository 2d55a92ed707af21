// What the points of a study share: every option but width, precision and seed.
#pragma once
#include <set>
#include <string>
#include <vector>

#include "apps/config_file.hpp"
#include "nn/study/point_result.hpp"

namespace nibble::apps {

/// What a point varies, and so is not part of the recipe: width, precision, seed.
const std::set<std::string>& varied_options();

/// Name and values of the first option that makes two recipes different; an empty name when there is none. Options in
/// `ignored` do not count, nor do those that may change while a study continues because no result depends on them
/// (data, loader-threads, low-memory, keep, save-every), nor those that only one text has. Older versions wrote the
/// decoder `auto`, whichever it was: that differs from nothing.
ConfigDifference recipe_difference(const std::string& recipe, const std::string& other,
                                   const std::set<std::string>& ignored);

/// All of them, in the order of their names.
std::vector<ConfigDifference> recipe_differences(const std::string& recipe, const std::string& other);

/// "A has lr = 0.05, B has 0.1": how the recipes, or numbers of steps, of the first two points that were not made alike
/// differ; empty: all were. Long values are cut.
std::string unlike_recipes(const std::vector<PointResult>& points);

/// Where the points of two studies that are one in width and seed start from other weights, or only those of one start
/// from any: "weights" and what each has ("none"). An empty name: there is no such difference.
ConfigDifference weights_difference(const std::vector<PointResult>& a, const std::vector<PointResult>& b);

/// The versions of nibble that trained the points, each once, in the order of its text; where several processes worked
/// on one, "0.1.0, then 0.2.0".
std::vector<std::string> versions_of(const std::vector<PointResult>& points);

/// How the quantized models of a recipe multiply, and in what that differs from the published ones: a sentence. Empty
/// for a config text that cannot be read.
std::string arithmetic_sentence(const std::string& config);

}  // namespace nibble::apps
