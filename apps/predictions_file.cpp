#include "apps/predictions_file.hpp"

#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <utility>

#include "apps/guesses.hpp"
#include "engine/error.hpp"
#include "nn/json_text.hpp"

namespace nibble::apps {

namespace {

constexpr std::string_view kBegin = R"({"image":)";  // of every line

/// Where the file is to lie: a link's target. UsageError for another file, so that a mistaken name costs no model;
/// AtomicFile refuses what is no file.
std::filesystem::path not_another_file(const std::filesystem::path& path) {
  std::error_code none;
  if (std::filesystem::is_symlink(path, none) && !std::filesystem::exists(path, none))
    return std::filesystem::weakly_canonical(path, none);
  if (!std::filesystem::is_regular_file(path, none)) return path;
  std::ifstream file(path, std::ios::binary);
  std::string begin(kBegin.size(), '\0');
  file.read(begin.data(), std::ssize(begin));
  if (file.gcount() > 0 && begin != kBegin)
    throw UsageError("--predictions {} exists and holds no predictions, so it is not replaced; choose another name",
                     path.string());
  const std::filesystem::path target = std::filesystem::canonical(path, none);
  return none ? path : target;
}

/// A killed evaluation leaves its part of the file, under a name of its own.
std::filesystem::path without_leftovers(const std::filesystem::path& path) {
  try {
    remove_temporary_files(path.has_parent_path() ? path.parent_path() : ".");
  } catch (const DiskError&) {  // another's, perhaps: they are only in the way of disk space
  }
  return path;
}

}  // namespace

PredictionsFile::PredictionsFile(const std::filesystem::path& path, DatasetPtr dataset, std::vector<std::string> names)
    : file_(without_leftovers(not_another_file(path))), dataset_(std::move(dataset)), names_(std::move(names)) {}

void PredictionsFile::add(const Batch& batch, const Tensor& logits) {
  constexpr int64_t kTop = 5;
  for (int64_t i = 0; i < batch.size(); ++i) {
    const int64_t label = batch.labels[static_cast<size_t>(i)];
    nlohmann::ordered_json line;
    line["image"] = dataset_->path(batch.indices[static_cast<size_t>(i)]);
    line["label"] = {{"index", label}, {"name", class_text(names_, label)}};
    line["top"] = guesses_json(best_guesses(logits.row<float>(i), logits.dim(1), kTop), names_);
    file_.append(json_text(line) + "\n");
  }
}

}  // namespace nibble::apps
