// What a study report writes alongside its page: JSON and CSV for programs, a picture for a README.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/command_line.hpp"
#include "apps/report/study_charts.hpp"
#include "apps/report/study_findings.hpp"
#include "apps/report/study_report.hpp"
#include "engine/error.hpp"
#include "nn/atomic_file.hpp"
#include "nn/json_text.hpp"
#include "nn/study/study_folder.hpp"

namespace nibble::apps {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kJson = "study.json";
constexpr const char* kCsv = "points.csv";
constexpr const char* kPicture = "pareto.svg";

Json estimate_json(const Estimate& e) {
  return {{"percent", e.value}, {"standard_error", e.error}, {"seed_error", e.seed_error}, {"freedom", e.freedom}};
}

Json group_json(const StudyGroup& g) {
  Json j = {{"precision", g.precision}, {"width", g.width}, {"points", Json::array()}};
  for (const PointResult* p : g.points) j["points"].push_back(p->name);
  j["top1"] = estimate_json(g.top1);
  j["last_top1"] = estimate_json(g.last_top1);
  j["train_top1"] = estimate_json(g.train_top1);
  j["gap"] = estimate_json(g.gap);
  j["loss"] = g.loss;
  j["train_loss"] = g.train_loss;
  for (const CostKind& cost : cost_kinds()) j["cost"][cost.key] = cost.of(g);
  return j;
}

/// A cell of text: quoted, and not a formula to a spreadsheet.
std::string csv_text(const std::string& text) {
  std::string cell = "\"";
  if (!text.empty() && std::string("=+-@\t\r").find(text[0]) != std::string::npos) cell += '\'';
  for (const char c : text) {
    if (c == '"') cell += '"';
    cell += c;
  }
  return cell + "\"";
}

/// A study.json may be the only data of its study (results kept in a repository), so another study's is not replaced.
/// One that shares a training with `points` is of the same study. One that cannot be read may be of a later version.
void refuse_other_study(const std::filesystem::path& file, const std::vector<PointResult>& points) {
  std::error_code none;
  if (!std::filesystem::is_regular_file(file, none) || std::filesystem::file_size(file, none) == 0) return;
  const std::vector<PointResult> there = read_study(file);
  const auto known = [&](const PointResult& p) {
    return std::any_of(points.begin(), points.end(), [&](const PointResult& q) {
      return q.name == p.name && q.provenance.started == p.provenance.started;
    });
  };
  if (std::none_of(there.begin(), there.end(), known))
    throw UsageError("{} holds another study, and would be replaced; choose another folder for --out", file.string());
}

}  // namespace

std::string study_picture(const std::vector<PointResult>& points) {
  return standalone(draw(cost_chart(group_points(points), cost_kinds().front())));
}

std::string study_json(const std::vector<PointResult>& points) {
  const std::vector<StudyGroup> groups = group_points(points);
  Json j;
  j["format"] = "nibble-study-1";
  j["findings"] = Json::array();
  for (const Finding& f : findings_of(groups))
    j["findings"].push_back({{"claim", f.claim}, {"verdict", name_of(f.verdict)}, {"evidence", f.evidence}});
  for (const CostKind& cost : cost_kinds()) {
    j["fronts"][cost.key] = Json::array();
    for (const StudyGroup* g : front_of(groups, cost)) j["fronts"][cost.key].push_back(g->name());
  }
  j["groups"] = Json::array();
  for (const StudyGroup& g : groups) j["groups"].push_back(group_json(g));
  j["points"] = Json::array();
  for (const PointResult& p : points) j["points"].push_back(Json::parse(to_json(p)));
  return json_text(j) + "\n";
}

std::string study_csv(const std::vector<PointResult>& points) {
  std::string text =
      "name,arch,precision,width,seed,image_size,classes,steps,top1_best,epoch_best,top1_last,top5_last,loss_last,"
      "images,"
      "train_top1,train_loss,train_images,linear,quadratic,memory_bits,linear_ratio,quadratic_ratio,memory_ratio,"
      "served_bytes,batch1_ms,batch32_ms_per_image,seconds\r\n";
  for (const PointResult& p : points)
    text +=
        fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\r\n",
                    csv_text(p.name), csv_text(p.arch), csv_text(p.precision), p.width, p.seed, p.image_size, p.classes,
                    p.steps, p.best.top1, p.best.epoch, p.last.top1, p.last.top5, p.last.loss, p.last.images,
                    p.train_unaugmented.top1, p.train_unaugmented.loss, p.train_unaugmented.images, p.cost.linear,
                    p.cost.quadratic, p.cost.memory_bits, p.ratio.linear, p.ratio.quadratic, p.ratio.memory,
                    p.served_bytes, p.latency.batch1_ms, p.latency.batch32_ms_per_image, p.provenance.seconds);
  return text;
}

StudyReportFiles write_study_report(const std::vector<PointResult>& points, const std::string& name,
                                    const std::vector<std::string>& missing, const std::filesystem::path& out,
                                    OtherStudy other) {
  std::error_code none;
  if (out.filename().empty() || std::filesystem::is_directory(out, none))
    throw UsageError("--out is '{}', a folder; name the page in it, such as {}", out.string(),
                     (out / "index.html").string());
  for (const char* companion : {kJson, kCsv, kPicture})
    if (out.filename() == companion)
      throw UsageError("--out is '{}', but {} is written next to the page; give the page another name", out.string(),
                       companion);
  const std::string page = study_page(points, name, missing);
  const std::filesystem::path folder = out.parent_path();
  const StudyReportFiles files = {
      .page = out, .json = folder / kJson, .csv = folder / kCsv, .svg = folder / kPicture, .bytes = page.size()};
  refuse_to_replace(files.page, "<!DOCTYPE html", "an HTML page");
  refuse_to_replace(files.csv, "name,arch,precision,", "a table of a study");
  refuse_to_replace(files.svg, "<svg ", "a picture");
  refuse_to_replace(files.json, R"({"format":"nibble-study-1")", "the data of a study");
  if (other == OtherStudy::kRefused) refuse_other_study(files.json, points);
  make_folders_above(out);
  write_file_atomically(files.json, study_json(points));
  write_file_atomically(files.csv, study_csv(points));
  write_file_atomically(files.svg, study_picture(points));
  write_file_atomically(out, page);  // last: another program may be waiting for it
  return files;
}

}  // namespace nibble::apps
