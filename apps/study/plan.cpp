#include "apps/study/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>

#include "engine/error.hpp"
#include "nn/atomic_file.hpp"
#include "nn/json_text.hpp"
#include "nn/unit.hpp"

namespace nibble::apps {

namespace {

constexpr const char* kFormat = "nibble-study-1";
constexpr uint64_t kLongestPlan = uint64_t{16} << 20;

/// Files come from anywhere, and names become folders: letters, digits and dashes only.
bool is_precision_word(const std::string& text) {
  return !text.empty() && text.size() <= 32 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

template <typename T>
bool contains(const std::vector<T>& all, const T& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

/// The lists that the points are made of: the widths of the seed that has the most of them (of equals the lowest), and
/// all seeds that have these. Others are extra seeds, and no part of it.
StudyGrid grid_of(const std::vector<StudyPoint>& points) {
  std::map<uint64_t, std::set<double>> widths;  // by seed
  for (const StudyPoint& p : points) widths[p.seed].insert(p.width);
  const std::set<double>& most = std::max_element(widths.begin(), widths.end(), [](const auto& a, const auto& b) {
                                   return a.second.size() < b.second.size();
                                 })->second;
  StudyGrid grid;
  for (const auto& [seed, its_widths] : widths)
    if (its_widths == most) grid.seeds.push_back(seed);
  for (const StudyPoint& p : points) {
    if (most.contains(p.width) && !contains(grid.widths, p.width)) grid.widths.push_back(p.width);
    if (!contains(grid.precisions, p.precision)) grid.precisions.push_back(p.precision);
  }
  return grid;
}

void complete(StudyGrid& grid, const std::vector<StudyPoint>& points) {
  StudyGrid known;
  if (points.empty()) {
    known.widths = {0.5, 0.75, 1, 1.5};
    known.precisions = {"bf16", "w8a8", "w4a4", "w4a4-fl8"};
    known.seeds = {0};
  } else {
    known = grid_of(points);
  }
  if (grid.widths.empty()) grid.widths = known.widths;
  if (grid.precisions.empty()) grid.precisions = known.precisions;
  if (grid.seeds.empty()) grid.seeds = known.seeds;
}

}  // namespace

std::string StudyPoint::name() const {
  return fmt::format("{}-x{}-s{}", precision, width, seed);
}

std::pair<double, uint64_t> parse_extra_seed(const std::string& text) {
  std::pair<double, uint64_t> parsed;
  const char* end = text.data() + text.size();
  const auto width = std::from_chars(text.data(), end, parsed.first);
  if (width.ec == std::errc() && width.ptr != end && *width.ptr == ':') {
    const auto seed = std::from_chars(width.ptr + 1, end, parsed.second);
    if (seed.ec == std::errc() && seed.ptr == end) return parsed;
  }
  throw UsageError("--extra-seeds has '{}'; use WIDTH:SEED, such as 1:7", text);
}

void StudyPlan::add(StudyGrid grid) {
  const bool only_extra = !points.empty() && grid.widths.empty() && grid.precisions.empty() && grid.seeds.empty();
  complete(grid, points);
  std::map<std::string, size_t> rank;  // of the precisions, in the order in which the study met them
  for (const StudyPoint& p : points) rank.emplace(p.precision, rank.size());
  for (const std::string& p : grid.precisions) rank.emplace(p, rank.size());
  const auto add_all = [&](double width, uint64_t seed) {
    for (const std::string& precision : grid.precisions) {
      const StudyPoint point{precision, width, seed};
      if (!contains(points, point)) points.push_back(point);
    }
  };
  for (const uint64_t seed : grid.seeds)
    for (const double width : grid.widths)
      if (!only_extra) add_all(width, seed);
  for (const auto& [width, seed] : grid.extra_seeds) add_all(width, seed);
  std::stable_sort(points.begin(), points.end(), [&](const StudyPoint& a, const StudyPoint& b) {
    return std::tuple(a.seed, a.width, rank.at(a.precision)) < std::tuple(b.seed, b.width, rank.at(b.precision));
  });
}

std::vector<std::string> StudyPlan::without(const std::vector<PointResult>& results) const {
  std::set<std::string> there;
  for (const PointResult& r : results) there.insert(r.name);
  std::vector<std::string> names;
  for (const StudyPoint& p : points)
    if (!there.contains(p.name())) names.push_back(p.name());
  return names;
}

namespace {

nlohmann::ordered_json start_json(const StudyStart& start) {
  nlohmann::ordered_json j = {
      {"weights", start.weights}, {"key", start.choice.key}, {"prefix", start.choice.prefix}, {"points", {}}};
  for (const PointStart& p : start.points)
    j["points"].push_back({{"width", p.width}, {"seed", p.seed}, {"file", p.file}, {"sha256", p.sha256}});
  return j;
}

/// Where it is not from 0 to the largest int64, the other constructors of JSON would wrap or cut it.
std::optional<uint64_t> seed_in(const nlohmann::json& point) {
  const nlohmann::json& seed = point.at("seed");
  if (!seed.is_number_unsigned() || seed.get<uint64_t>() > uint64_t{INT64_MAX}) return std::nullopt;
  return seed.get<uint64_t>();
}

/// None: a seed is none.
std::optional<StudyStart> start_from_json(const nlohmann::json& j) {
  StudyStart start{.weights = j.at("weights"), .choice = {.key = j.at("key"), .prefix = j.at("prefix")}};
  for (const nlohmann::json& p : j.at("points")) {
    const std::optional<uint64_t> seed = seed_in(p);
    if (!seed) return std::nullopt;
    start.points.push_back(
        {.width = p.at("width").get<double>(), .seed = *seed, .file = p.at("file"), .sha256 = p.at("sha256")});
  }
  return start;
}

}  // namespace

std::string to_json(const StudyPlan& plan) {
  nlohmann::ordered_json j;
  j["format"] = kFormat;
  j["classes"] = plan.data.class_names;
  j["train_images"] = plan.data.train_images;
  j["val_images"] = plan.data.validation_images;
  if (!plan.data.images.empty()) j["images"] = plan.data.images;
  j["train_eval_images"] = plan.train_eval_images;
  j["train_eval_spread"] = plan.train_eval_spread;
  if (!plan.start.weights.empty()) j["start"] = start_json(plan.start);
  j["points"] = nlohmann::ordered_json::array();
  for (const StudyPoint& p : plan.points)
    j["points"].push_back({{"precision", p.precision}, {"width", p.width}, {"seed", p.seed}});
  return json_text(j, 1) + "\n";
}

StudyPlan plan_from_json(const std::string& text, const std::string& source) {
  const auto refuse = [&](const std::string& why) {
    return DataError("{} is not the plan of a study ({}); put it back, or begin the study in another folder", source,
                     why);
  };
  StudyPlan plan;
  try {
    const nlohmann::json j = parse_json_or_discard(text);
    if (!j.is_object() || j.value("format", "") != kFormat) throw refuse(fmt::format("its format is not {}", kFormat));
    const auto count = [&](const char* key) {
      const std::optional<int64_t> number = whole_number(j.at(key));
      if (!number || *number < 0) throw refuse(fmt::format("{} is not a whole number of at least 0", key));
      return *number;
    };
    plan.data.class_names = j.at("classes").get<std::vector<std::string>>();
    plan.data.train_images = count("train_images");
    plan.data.validation_images = count("val_images");
    plan.data.images = j.value("images", "");
    plan.train_eval_images = count("train_eval_images");
    plan.train_eval_spread = j.value("train_eval_spread", false);
    const auto no_seed = [&] { return refuse(fmt::format("a seed is not a whole number from 0 to {}", INT64_MAX)); };
    if (j.contains("start")) {
      std::optional<StudyStart> start = start_from_json(j.at("start"));
      if (!start) throw no_seed();
      plan.start = std::move(*start);
    }
    for (const nlohmann::json& p : j.at("points")) {
      StudyPoint point;
      p.at("precision").get_to(point.precision);
      p.at("width").get_to(point.width);
      const std::optional<uint64_t> seed = seed_in(p);
      if (!seed) throw no_seed();
      point.seed = *seed;
      if (!is_precision_word(point.precision)) throw refuse("a precision is not the name of one");
      if (!(point.width >= kLeastWidth && point.width <= kMostWidth))
        throw refuse(fmt::format("a width is not from {} to {}", kLeastWidth, kMostWidth));
      if (contains(plan.points, point)) throw refuse(fmt::format("it has {} twice", point.name()));
      plan.points.push_back(point);
    }
  } catch (const nlohmann::json::exception&) {
    throw refuse("a key is missing or of another type");
  }
  return plan;
}

StudyPlan read_plan(const std::filesystem::path& study) {
  const std::filesystem::path path = plan_path(study);
  return plan_from_json(read_text_file(path, kLongestPlan), path.string());
}

std::filesystem::path plan_path(const std::filesystem::path& study) {
  return study / "plan.json";
}

std::filesystem::path recipe_path(const std::filesystem::path& study) {
  return study / "recipe.toml";
}

}  // namespace nibble::apps
