#include "nn/study/point_result.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/error.hpp"
#include "nn/atomic_file.hpp"
#include "nn/json_text.hpp"

namespace nibble {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "nibble-point-1";
// The largest numbers that are read back; the least ratio of costs, far below any network's.
constexpr double kMostNumber = 1e15, kMostLoss = 1e300, kMostBound = 1e300, kLeastRatio = 1e-12;
constexpr uint64_t kLongestFile = uint64_t{16} << 20;  // 152 layers with 256 codes each and their curves take 0.5 MiB

Json accuracy_json(const Accuracy& a) {
  return {{"top1", a.top1}, {"top5", a.top5}, {"loss", a.loss}, {"images", a.images}};
}

Json layer_json(const PointLayer& l) {
  Json j = {{"name", l.name},
            {"macs", l.macs},
            {"weights", l.weights},
            {"weight_bits", l.weight_bits},
            {"activation_bits", l.activation_bits},
            {"linear", l.linear},
            {"quadratic", l.quadratic},
            {"memory_bits", l.memory_bits}};
  if (l.bound_max > 0) {
    j["bound_min"] = l.bound_min;
    j["bound_median"] = l.bound_median;
    j["bound_max"] = l.bound_max;
  }
  if (l.usage.codes.empty()) return j;
  j["clipped"] = l.usage.clipped;
  j["values"] = l.usage.total;
  j["code_counts"] = l.usage.codes;
  return j;
}

Json curves_json(const Curves& curves) {
  Json j = {{"train", Json::array()}, {"eval", Json::array()}};
  for (const TrainSample& s : curves.train)
    j["train"].push_back({{"step", s.step}, {"epoch", s.epoch}, {"loss", s.loss}, {"top1", s.top1}});
  for (const EvalSample& s : curves.evaluations)
    j["eval"].push_back({{"step", s.step}, {"epoch", s.epoch}, {"top1", s.top1}, {"top5", s.top5}, {"loss", s.loss}});
  return j;
}

/// One JSON object being read; every failure names the file and the key.
class ResultReader {
 public:
  ResultReader(const nlohmann::json& object, std::string source, std::string path)
      : object_(object), source_(std::move(source)), path_(std::move(path)) {
    if (!object.is_object()) fail("", "is not an object");
  }

  ResultReader inside(const char* key) const { return {value(key), source_, path_ + key + "."}; }

  std::vector<ResultReader> items(const char* key) const {
    const nlohmann::json& list = value(key);
    if (!list.is_array()) fail(key, "is not a list");
    std::vector<ResultReader> all;
    for (size_t i = 0; i < list.size(); ++i) all.push_back({list[i], source_, fmt::format("{}{}[{}].", path_, key, i)});
    return all;
  }

  bool has(const char* key) const { return object_.contains(key); }

  std::string text(const char* key) const {
    if (!value(key).is_string()) fail(key, "is not a string");
    return value(key).get<std::string>();
  }

  /// A finite number from `low` to `high`.
  double number(const char* key, double low = 0, double high = kMostNumber) const {
    const nlohmann::json& v = value(key);
    const double x = v.is_number() ? v.get<double>() : std::nan("");
    if (!(x >= low && x <= high)) fail(key, fmt::format("is not a number from {} to {}", low, high));
    return x;
  }
  double percent(const char* key) const { return number(key, 0, 100); }
  /// For costs: no network costs nothing.
  double ratio(const char* key) const { return number(key, kLeastRatio); }

  /// As number(), or NaN for null: a training loss may be missing.
  double number_or_nan(const char* key) const {
    return value(key).is_null() ? std::nan("") : number(key, -kMostLoss, kMostLoss);
  }

  int64_t count(const char* key) const { return whole(value(key), key); }

  std::vector<int64_t> counts(const char* key) const {
    if (!value(key).is_array()) fail(key, "is not a list");
    std::vector<int64_t> all;
    for (const nlohmann::json& v : value(key)) all.push_back(whole(v, key));
    return all;
  }

  uint64_t unsigned_number(const char* key) const {
    if (!value(key).is_number_unsigned()) fail(key, "is not a whole number of at least 0");
    return value(key).get<uint64_t>();
  }

  [[noreturn]] void fail(const std::string& key, const std::string& what) const {
    std::string place = path_ + key;
    if (place.ends_with('.')) place.pop_back();
    throw DataError(
        "{} is not the result of a training run: {} {}; give a study's folder or its study.json, or, if it is a "
        "point's damaged result.json, remove it to compute the point again",
        source_, place.empty() ? "its text" : "'" + place + "'", what);
  }

 private:
  const nlohmann::json& value(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) fail(key, "is missing");
    return *found;
  }

  int64_t whole(const nlohmann::json& v, const char* key) const {
    const std::optional<int64_t> number = whole_number(v);
    if (!number || *number < 0) fail(key, "is not a whole number of at least 0");
    return *number;
  }

  const nlohmann::json& object_;
  std::string source_, path_;
};

CostSums read_cost(const ResultReader& r) {
  CostSums c;
  c.macs = r.count("macs");
  c.weights = r.count("weights");
  c.linear = r.count("linear");
  c.quadratic = r.count("quadratic");
  c.memory_bits = r.count("memory_bits");
  return c;
}

Accuracy read_accuracy(const ResultReader& r) {
  return {.top1 = r.percent("top1"),
          .top5 = r.percent("top5"),
          .loss = r.number("loss", 0, kMostLoss),
          .images = r.count("images")};
}

/// Those of the evaluation that `last` sums up.
ImageOutcomes read_outcomes(const ResultReader& r, const Accuracy& last) {
  ImageOutcomes o{.images = r.text("images"), .right = r.text("right")};
  if (o.right.find_first_not_of("01-") != o.right.npos) r.fail("right", "has other characters than 0, 1 and -");
  const int64_t right = std::count(o.right.begin(), o.right.end(), '1');
  const int64_t seen = right + std::count(o.right.begin(), o.right.end(), '0');
  if (seen != last.images) r.fail("right", fmt::format("is of {} images, 'last' of {}", seen, last.images));
  if (std::abs(100 * static_cast<double>(right) - last.top1 * static_cast<double>(seen)) > 1)
    r.fail("right", fmt::format("has {} of {} images right, 'last' {} %", right, seen, last.top1));
  return o;
}

PointLayer read_layer(const ResultReader& r) {
  PointLayer l;
  static_cast<CostSums&>(l) = read_cost(r);
  l.name = r.text("name");
  l.weight_bits = static_cast<int>(r.number("weight_bits", 1, 32));
  l.activation_bits = static_cast<int>(r.number("activation_bits", 1, 32));
  if (r.has("bound_max")) {
    l.bound_min = r.number("bound_min", 0, kMostBound);
    l.bound_median = r.number("bound_median", 0, kMostBound);
    l.bound_max = r.number("bound_max", 0, kMostBound);
  }
  if (!r.has("code_counts")) return l;
  l.usage.codes = r.counts("code_counts");
  l.usage.clipped = r.count("clipped");
  l.usage.total = r.count("values");
  if (l.usage.codes.size() > 256) r.fail("code_counts", "has more than 256 entries");
  if (l.usage.clipped > l.usage.total) r.fail("clipped", "is more than 'values'");
  return l;
}

Curves read_curves_of(const ResultReader& r) {
  Curves curves;
  for (const ResultReader& s : r.items("train"))
    curves.train.push_back({.step = s.count("step"),
                            .epoch = s.number("epoch"),
                            .loss = s.number_or_nan("loss"),
                            .top1 = s.number_or_nan("top1")});
  for (const ResultReader& s : r.items("eval"))
    curves.evaluations.push_back({.step = s.count("step"),
                                  .epoch = s.number("epoch"),
                                  .top1 = s.percent("top1"),
                                  .top5 = s.percent("top5"),
                                  .loss = s.number("loss", 0, kMostLoss)});
  return curves;
}

PointResult read_point(const ResultReader& r) {
  if (r.text("format") != kFormat) r.fail("format", fmt::format("is not {}", kFormat));
  PointResult p;
  p.name = r.text("name");
  p.arch = r.text("arch");
  p.precision = r.text("precision");
  p.width = r.number("width", kLeastWidth, kMostWidth);
  p.seed = r.unsigned_number("seed");
  p.image_size = r.count("image_size");
  p.classes = r.count("classes");
  p.steps = r.count("steps");
  p.epochs = r.count("epochs");
  p.cost = read_cost(r.inside("cost"));
  const ResultReader ratio = r.inside("ratio");
  p.ratio = {.linear = ratio.ratio("linear"), .quadratic = ratio.ratio("quadratic"), .memory = ratio.ratio("memory")};
  p.served_bytes = r.unsigned_number("served_bytes");
  const ResultReader latency = r.inside("latency");
  p.latency = {.batch1_ms = latency.number("batch1_ms"),
               .batch32_ms_per_image = latency.number("batch32_ms_per_image"),
               .threads = latency.count("threads"),
               .cpu = latency.text("cpu"),
               .isa = latency.text("isa"),
               .sitting = latency.has("sitting") ? latency.text("sitting") : ""};
  p.last = read_accuracy(r.inside("last"));
  const ResultReader best = r.inside("best");
  p.best = {.step = best.count("step"),
            .epoch = best.number("epoch"),
            .top1 = best.percent("top1"),
            .top5 = best.percent("top5"),
            .loss = best.number("loss", 0, kMostLoss)};
  p.train_unaugmented = read_accuracy(r.inside("train_unaugmented"));
  if (r.has("outcomes")) p.outcomes = read_outcomes(r.inside("outcomes"), p.last);
  p.curves = read_curves_of(r.inside("curves"));
  if (p.curves.evaluations.empty())
    r.inside("curves").fail("eval", "has no evaluation, so the best epoch is not known");
  for (const ResultReader& layer : r.items("layers")) p.layers.push_back(read_layer(layer));
  const ResultReader from = r.inside("provenance");
  p.provenance = {.command = from.text("command"),
                  .config = from.text("config"),
                  .version = from.text("version"),
                  .cpu = from.text("cpu"),
                  .isa = from.text("isa"),
                  .threads = from.count("threads"),
                  .started = from.text("started"),
                  .seconds = from.number("seconds"),
                  .weights = from.has("weights") ? from.text("weights") : "",
                  .weights_sha256 = from.has("weights_sha256") ? from.text("weights_sha256") : ""};
  return p;
}

bool within(double x, double low, double high) {
  return x >= low && x <= high;
}

}  // namespace

bool can_be_kept(const TrainSample& s) {
  const auto number_or_none = [](double x) { return std::isnan(x) || within(x, -kMostLoss, kMostLoss); };
  return within(s.epoch, 0, kMostNumber) && number_or_none(s.loss) && number_or_none(s.top1);
}

bool can_be_kept(const EvalSample& s) {
  return within(s.epoch, 0, kMostNumber) && within(s.top1, 0, 100) && within(s.top5, 0, 100) &&
         within(s.loss, 0, kMostLoss);
}

bool can_be_kept_seconds(double seconds) {
  return within(seconds, 0, kMostNumber);
}

std::string to_json(const PointResult& p) {
  Json j;
  j["format"] = kFormat;
  j["name"] = p.name;
  j["arch"] = p.arch;
  j["precision"] = p.precision;
  j["width"] = p.width;
  j["seed"] = p.seed;
  j["image_size"] = p.image_size;
  j["classes"] = p.classes;
  j["steps"] = p.steps;
  j["epochs"] = p.epochs;
  j["cost"] = {{"macs", p.cost.macs},
               {"weights", p.cost.weights},
               {"linear", p.cost.linear},
               {"quadratic", p.cost.quadratic},
               {"memory_bits", p.cost.memory_bits}};
  j["ratio"] = {{"linear", p.ratio.linear}, {"quadratic", p.ratio.quadratic}, {"memory", p.ratio.memory}};
  j["served_bytes"] = p.served_bytes;
  j["latency"] = {{"batch1_ms", p.latency.batch1_ms},
                  {"batch32_ms_per_image", p.latency.batch32_ms_per_image},
                  {"threads", p.latency.threads},
                  {"cpu", p.latency.cpu},
                  {"isa", p.latency.isa}};
  if (!p.latency.sitting.empty()) j["latency"]["sitting"] = p.latency.sitting;
  j["last"] = accuracy_json(p.last);
  j["best"] = {{"step", p.best.step},
               {"epoch", p.best.epoch},
               {"top1", p.best.top1},
               {"top5", p.best.top5},
               {"loss", p.best.loss}};
  j["train_unaugmented"] = accuracy_json(p.train_unaugmented);
  if (!p.outcomes.right.empty()) j["outcomes"] = {{"images", p.outcomes.images}, {"right", p.outcomes.right}};
  j["curves"] = curves_json(p.curves);
  j["layers"] = Json::array();
  for (const PointLayer& l : p.layers) j["layers"].push_back(layer_json(l));
  j["provenance"] = {{"command", p.provenance.command}, {"config", p.provenance.config},
                     {"version", p.provenance.version}, {"cpu", p.provenance.cpu},
                     {"isa", p.provenance.isa},         {"threads", p.provenance.threads},
                     {"started", p.provenance.started}, {"seconds", p.provenance.seconds}};
  if (!p.provenance.weights_sha256.empty()) {
    j["provenance"]["weights"] = p.provenance.weights;
    j["provenance"]["weights_sha256"] = p.provenance.weights_sha256;
  }
  return json_text(j) + "\n";
}

PointResult point_result_from_json(const std::string& text, const std::string& source) {
  const nlohmann::json j = parse_json_or_discard(text);
  return read_point(ResultReader(j, source, ""));
}

std::vector<PointResult> points_from_json(const std::string& text, const std::string& source) {
  const nlohmann::json j = parse_json_or_discard(text);
  if (!j.is_object() || !j.contains("points") || !j["points"].is_array())
    throw DataError("'{}' is not a study: it has no list of points; name a study folder or its study.json", source);
  std::vector<PointResult> points;
  // Read where they are: copying or printing a value recurses, and a hostile file nests a million lists.
  for (const nlohmann::json& p : j["points"])
    points.push_back(read_point(ResultReader(p, fmt::format("{} (point {})", source, points.size() + 1), "")));
  return points;
}

PointResult read_point_result(const std::filesystem::path& path) {
  return point_result_from_json(read_text_file(path, kLongestFile), path.string());
}

}  // namespace nibble
