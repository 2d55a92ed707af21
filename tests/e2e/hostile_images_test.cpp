// Every hostile image of the shared data: labels or one clear error, in bounded time and memory.
#include <doctest/doctest.h>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/apps/whole_run.hpp"
#include "tests/shared_data.hpp"

namespace {

using namespace nibble::testing;

struct ManifestRow {
  std::string file, expected;
};

std::vector<ManifestRow> manifest(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  std::vector<ManifestRow> rows;
  while (std::getline(in, line)) {
    std::vector<std::string> cells;
    std::stringstream text(line);
    for (std::string cell; std::getline(text, cell, '\t');) cells.push_back(cell);
    if (cells.size() > 4) rows.push_back({cells[0], cells[4]});
  }
  return rows;
}

/// Exit codes the manifest's wording allows: 0 labels, 3 a clear error.
bool allowed(const std::string& expected, int code) {
  if (expected == "decode or reject if PNG unsupported") return code == 0;  // it is supported
  const bool choice = expected.starts_with("either") || has(expected, " or ") || has(expected, "unless") ||
                      has(expected, "(or ") || has(expected, "skip") || has(expected, "decoder without");
  if (choice) return code == 0 || code == 3;
  return expected.starts_with("reject") ? code == 3 : code == 0;
}

/// Whether this outcome is what the manifest expects; `refused` or labels.
bool expected_outcome(const ManifestRow& row, const std::string& decoder, bool refused) {
  // stb_image gives up where a restart interval holds more data than its blocks take; libjpeg-turbo skips the rest.
  if (decoder == "stb" && row.file == "jpeg/hopper_bad_exif.jpg") return refused;
  return allowed(row.expected, refused ? 3 : 0);
}

/// One process per file: its exit code, its bounds.
void check_alone(const std::string& run, const std::filesystem::path& root, const ManifestRow& row,
                 const std::string& decoder) {
  CAPTURE(decoder);
  CAPTURE(row.file);
  CAPTURE(row.expected);
  const Result r =
      run_program("predict " + run + " '" + (root / row.file).string() + "' --threads 1 --decoder " + decoder);
  CHECK((r.code == 0 || r.code == 3));
  CHECK(expected_outcome(row, decoder, r.code != 0));
  CHECK((r.code == 0 ? !r.out.empty() : r.err.starts_with("error: ")));
  CHECK(r.cpu_seconds < 2.0);
  CHECK(r.peak_kib < 512 * 1024);
}

/// One process for all: a line each, in their order.
void check_together(const std::string& run, const std::filesystem::path& root, const std::vector<ManifestRow>& rows,
                    const std::string& decoder) {
  CAPTURE(decoder);
  std::string files;
  for (const ManifestRow& row : rows) files += " '" + (root / row.file).string() + "'";
  const Result r = run_program("predict " + run + " --json --decoder " + decoder + files);
  CHECK(r.code == 3);  // some must be refused
  const std::vector<nlohmann::json> lines = json_lines(r.out);
  REQUIRE(lines.size() == rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    CAPTURE(rows[i].file);
    CAPTURE(rows[i].expected);
    CHECK(lines[i].contains("top") != lines[i].contains("error"));
    CHECK(expected_outcome(rows[i], decoder, lines[i].contains("error")));
  }
}

}  // namespace

TEST_CASE("every hostile image is predicted or refused as the manifest expects, within 2 s and 512 MiB") {
  const auto shared = shared_data("hostile-images");
  if (!program() || !shared) {
    MESSAGE("skipped: needs the program and the shared images");
    return;
  }
  const TemporaryFolder folder("hostile");
  const std::filesystem::path root = *shared / "hostile-images";
  const std::vector<ManifestRow> rows = manifest(root / "MANIFEST.tsv");
  REQUIRE(rows.size() > 100);
  // auto is libjpeg-turbo where the build has it.
  for (const std::string decoder : {"auto", "stb"}) {
    const std::string run = folder / decoder;
    train_tiny_run(folder / "data", run, 4, "--decoder " + decoder);  // else its training's is another, and said
    if (thorough())
      for (const ManifestRow& row : rows) check_alone(run, root, row, decoder);
    else  // a sanitizer's memory and time are not the decoder's, and decoders are the same on every level
      check_together(run, root, rows, decoder);
  }
}
