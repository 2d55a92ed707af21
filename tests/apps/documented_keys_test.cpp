// The keys that apps/README.md promises to scripts are those that are printed, no more and no fewer.
#include <doctest/doctest.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>

#include "tests/apps/whole_run.hpp"
#include "tests/shared_data.hpp"

namespace nibble::testing {
namespace {

/// The words between the first backticks of the second column, in the row of the table whose first column is `row`.
std::set<std::string> promised_keys(const std::string& row) {
  std::istringstream document(read_text((source_root() / "apps/README.md").string()));
  const std::string begin = "| " + row + " | `";
  for (std::string line; std::getline(document, line);) {
    if (!line.starts_with(begin)) continue;
    std::istringstream words(line.substr(begin.size(), line.find('`', begin.size()) - begin.size()));
    return {std::istream_iterator<std::string>(words), {}};
  }
  return {};
}

/// The first columns of the table.
std::set<std::string> promised_rows() {
  std::istringstream document(read_text((source_root() / "apps/README.md").string()));
  std::set<std::string> rows;
  bool inside = false;
  for (std::string line; std::getline(document, line);) {
    if (line.starts_with("## ")) inside = line == "## What scripts can rely on";
    if (inside && line.starts_with("| `")) rows.insert(line.substr(2, line.find(" | ", 2) - 2));
  }
  return rows;
}

std::set<std::string> checked_rows;

void check_keys(const std::string& row, const nlohmann::json& printed) {
  checked_rows.insert(row);
  std::set<std::string> keys;
  for (const auto& item : printed.items()) keys.insert(item.key());
  INFO("row " << row);
  CHECK(keys == promised_keys(row));
}

TEST_CASE("every key that is printed stands in the table of apps/README.md, and every one there is printed") {
  if (no_program()) return;
  const TemporaryFolder folder("keys");
  const std::string data = synthetic_data(folder, {.train = 4}), run = folder / "run", served = folder / "served";
  check_keys("`synth`",
             json_of(run_program("synth --out " + (folder / "more") + " --train 1 --val 1 --size 16 --json")));
  const std::string options = " --width 0.1 --image-size 32 --batch-size 8 --shard 8 --epochs 2 --threads 1 --json";
  check_keys("`train --dry-run`",
             json_of(run_program("train --data " + data + " --out " + run + options + " --dry-run")));
  check_keys("`train`", json_of(train_run(data, run, options)));
  check_keys("`eval`", json_of(run_program("eval " + run + " --data " + data + " --json")));
  const std::string predictions = folder / "predictions.jsonl";
  run_well("eval " + run + " --data " + data + " --predictions " + predictions);
  check_keys("`eval --predictions`, line", json_lines(read_text(predictions)).front());
  check_keys("`eval --against`, against",
             json_of(run_program("eval " + run + " --data " + data + " --json --against " + run)).at("against"));
  check_keys("`split`", json_of(run_program("split " + data + "/train --out " + (folder / "split") + " --json")));
  check_keys("`export`", json_of(run_program("export " + run + "/latest --out " + served + " --json")));
  check_keys("`quantize`",
             json_of(run_program("quantize " + run + " --data " + data + " --json --out " + served + "-q")));
  const nlohmann::json sensitive = json_of(
      run_program("quantize " + run + " --data " + data + " --json --sensitivity w8a8 --precision w4a4 --images 16"));
  check_keys("`quantize --sensitivity`", sensitive);
  check_keys("`quantize --sensitivity`, layer", sensitive.at("layers").front());
  const std::string image = data + "/val/plain_disk/00000.jpg";
  check_keys("`predict`", json_of(run_program("predict " + served + " " + image + " --json")));
  const nlohmann::json inspected = json_of(run_program("inspect " + served + " --json"));
  check_keys("`inspect`", inspected);
  nlohmann::json layer = inspected.at("layers").front();
  for (const char* sometimes : {"zero_weight_share", "clipped_share", "code_counts"})
    CHECK(layer.erase(sometimes) == 1);
  check_keys("`inspect`, layer", layer);
  const nlohmann::json cost = json_of(run_program("cost --json"));
  check_keys("`cost`", cost);
  check_keys("`cost`, layer", cost.at("layers").front());
  check_keys("`report`", json_of(run_program("report " + run + " --json")));
  check_keys("`bench`",
             json_of(run_program("bench infer --width 0.1 --image-size 32 --batch-size 1 --repeats 1 --json")));
  nlohmann::json doctor = json_of(run_program("doctor --json --width 0.1 --image-size 32 --batch-size 8 --shard 8"));
  check_keys("`doctor`, estimate", doctor.at("estimate"));
  doctor.erase("estimate");
  check_keys("`doctor`", doctor);
  const std::string study = folder / "study";
  const std::string plan =
      "study run --quiet --json --arch resnet26 --image-size 32 --batch-size 8 --shard 8 --steps 2 " +
      ("--calibrate-at 1 --threads 1 --widths 0.1 --precisions w4a4 --data " + data) + " --out " + study;
  check_keys("`study run --dry-run`", json_of(run_program(plan + " --dry-run")));
  const nlohmann::json swept = json_of(run_program(plan));
  check_keys("`study run`", swept);
  check_keys("`study run` and `report`, point", swept.at("points").front());
  check_keys("`study measure`", json_of(run_program("study measure --json " + study)));
  check_keys("`study report`", json_of(run_program("study report --json " + study)));
  const nlohmann::json report = nlohmann::json::parse(read_text(study + "/report/study.json"));
  check_keys("`study.json`", report);
  check_keys("`study.json`, group", report.at("groups").front());
  check_keys("`study.json`, point", report.at("points").front());
  std::istringstream header(read_text(study + "/report/points.csv"));
  std::string line;
  std::getline(header, line);
  std::replace(line.begin(), line.end(), ',', '\n');
  std::istringstream columns(line);
  nlohmann::json csv;
  for (std::string column; columns >> column;) csv[column] = nullptr;
  check_keys("`points.csv`", csv);
  check_keys("`study pick`", json_of(run_program("study pick --max-linear 1 --json " + study)));
  const nlohmann::json compared = json_of(run_program("study compare --json " + study + " " + study));
  check_keys("`study compare`", compared);
  check_keys("`study compare`, model", compared.at("models").front());
  check_keys("`study compare`, figure", compared.at("models").front().at("top1"));
  const std::vector<nlohmann::json> lines = metrics_of(run);
  REQUIRE(lines.size() >= 2);
  for (const nlohmann::json& entry : lines)
    check_keys(entry.contains("eval/top1") ? "`metrics.jsonl`, evaluation" : "`metrics.jsonl`, training", entry);
  check_keys("`machine.json`, session", nlohmann::json::parse(read_text(run + "/machine.json")).at("sessions").front());
  CHECK(checked_rows == promised_rows());
}

}  // namespace
}  // namespace nibble::testing
