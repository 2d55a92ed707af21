// Every hostile image of the shared data: labels or one clear error, in bounded time and memory.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "engine/sanitizer.hpp"
#include "tests/apps/program.hpp"
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

/// Every file with every decoder: auto is libjpeg-turbo where the build has it.
std::vector<std::pair<std::string, ManifestRow>> each(const std::vector<ManifestRow>& rows) {
  std::vector<std::pair<std::string, ManifestRow>> all;
  for (const char* decoder : {"auto", "stb"})
    for (const ManifestRow& row : rows) all.emplace_back(decoder, row);
  return all;
}

}  // namespace

TEST_CASE("every hostile image is predicted or refused as the manifest expects, within 2 s and 512 MiB") {
  const auto shared = shared_data();
  if (!program() || !shared) {
    MESSAGE("skipped: needs the program and the shared images");
    return;
  }
  constexpr bool kBounded = !nibble::kAddressSanitizer;  // the sanitizer's own memory and time are not the decoder's
  const TemporaryFolder folder("hostile");
  const std::string data = folder / "data", run = folder / "run";
  train_tiny_run(data, run, 4);
  const std::filesystem::path root = *shared / "hostile-images";
  const std::vector<ManifestRow> rows = manifest(root / "MANIFEST.tsv");
  REQUIRE(rows.size() > 100);
  for (const auto& entry : each(rows)) {
    const std::string& decoder = entry.first;
    const ManifestRow& row = entry.second;
    CAPTURE(decoder);
    CAPTURE(row.file);
    CAPTURE(row.expected);
    rusage before{}, after{};
    getrusage(RUSAGE_CHILDREN, &before);
    const Result r =
        run_program("predict " + run + " '" + (root / row.file).string() + "' --threads 1 --decoder " + decoder);
    getrusage(RUSAGE_CHILDREN, &after);
    // stb_image gives up where a restart interval holds more data than its blocks take; libjpeg-turbo skips the rest.
    const bool too_damaged = decoder == "stb" && row.file == "jpeg/hopper_bad_exif.jpg";
    CHECK((too_damaged ? r.code == 3 : allowed(row.expected, r.code)));
    CHECK((r.code == 0 ? !r.out.empty() : r.err.starts_with("error: ")));
    const auto seconds = [](const rusage& u) {
      return static_cast<double>(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
             1e-6 * static_cast<double>(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    };
    if (kBounded) CHECK(seconds(after) - seconds(before) < 2.0);
    if (kBounded) CHECK(after.ru_maxrss < 512 * 1024);
  }
}
