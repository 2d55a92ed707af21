// nibble predict
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <unordered_map>
#include <vector>

#include "apps/bad_images.hpp"
#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/guesses.hpp"
#include "apps/model_input.hpp"
#include "apps/options.hpp"
#include "data/loader.hpp"
#include "data/unsorted_images.hpp"
#include "engine/error.hpp"

namespace nibble::apps {

namespace {

/// The images that the command line names, each itself or by its folder. What is wrong with one is what reading it
/// throws, whatever it is: it stops no other.
class NamedImages : public Dataset {
 public:
  NamedImages(const std::vector<std::string>& names, Decoder decoder) : decoder_(decoder) {
    std::error_code none;  // load_image reports what cannot be looked at
    for (const std::string& name : names)
      if (std::filesystem::is_directory(name, none))
        add_folder(name);
      else
        items_.push_back({name, ""});
  }

  int64_t size() const override { return std::ssize(items_); }
  const std::vector<std::string>& class_names() const override { return classes_; }
  int label(int64_t) const override { return 0; }
  std::string path(int64_t index) const override { return items_[static_cast<size_t>(index)].path; }
  Image read(int64_t index) const override {
    const Item& item = items_[static_cast<size_t>(index)];
    if (!item.error.empty()) throw DataError("{}", item.error);
    try {
      return load_image(item.path, decoder_);
    } catch (const DiskError& e) {  // would end the loader
      throw DataError("{}", e.what());
    }
  }

 private:
  struct Item {
    std::string path, error;
  };

  void add_folder(const std::string& folder) {
    try {
      const UnsortedImages images(folder, decoder_);
      for (int64_t i = 0; i < images.size(); ++i) items_.push_back({images.path(i), ""});
      if (const std::string others = images.left_out(); !others.empty()) warn(others);
    } catch (const Error& e) {
      if (e.code() != ExitCode::kData && e.code() != ExitCode::kDisk) throw;
      items_.push_back({folder, e.what()});
    }
  }

  Decoder decoder_;
  std::vector<std::string> classes_{""};
  std::vector<Item> items_;
};

/// What a loader notes of its images, by path.
class Notes {
 public:
  /// Of the image; empty: nothing. `all` only grows.
  std::string of(const std::string& path, const std::vector<ImageNote>& all) {
    for (; taken_ < all.size(); ++taken_) reasons_[all[taken_].path] = all[taken_].reason;
    const auto found = reasons_.find(path);
    return found == reasons_.end() ? "" : found->second;
  }

 private:
  size_t taken_ = 0;
  std::unordered_map<std::string, std::string> reasons_;
};

class Predict : public Command {
 public:
  const char* name() const override { return "predict"; }
  const char* summary() const override { return "top labels of images"; }
  const char* examples() const override {
    return "  nibble predict model.safetensors photo.jpg\n"
           "  nibble predict runs/a *.jpg --top 3 --json\n"
           "  nibble predict model.safetensors frames --json > labels.jsonl";
  }

  void declare(CLI::App& app) override {
    add_option(app, "MODEL", model_, "run folder, checkpoint or served file").required();
    add_option(app, "IMAGE", images_, "JPEG or PNG files, or folders: all images below them").required();
    add_option(app, "--top", top_, "labels per image").capture_default_str();
    add_flag(app, "--logits", logits_, "with --json: also the logits of all classes, in the order of the model");
    add_option(app, "--decoder", decoder_, "auto (that of the model's training), turbo or stb").capture_default_str();
    add_option(app, "--loader-threads", loader_threads_, "threads that decode").capture_default_str();
    add_flag(app, "--json", json_, "print one JSON object per line");
    declare_threads(app, threads_);
  }

  int run() override {
    apply_threads(threads_);
    if (top_ < 1) throw UsageError("--top is {}; use at least 1", top_);
    if (logits_ && !json_) throw UsageError("--logits are numbers for programs; add --json");
    if (loader_threads_ < 1 || loader_threads_ > 64)
      throw UsageError("--loader-threads is {}; use 1 to 64", loader_threads_);
    const LoadedModel model = load_model(model_);
    const auto images = std::make_shared<NamedImages>(images_, decoder_for(model.decoder, decoder_));
    EvalLoader loader({.dataset = images,
                       .transform = eval_transform(model.network().options),
                       .batch_size = kBatch,
                       .workers = static_cast<int>(loader_threads_)});
    Notes unreadable, damaged;
    int64_t done = 0;
    bool failed = false;
    const auto report_bad = [&](int64_t before) {
      for (; done < before; ++done, failed = true)
        report_error(images->path(done), unreadable.of(images->path(done), loader.skipped()));
    };
    while (const std::optional<Batch> batch = next_of(loader)) {
      const Tensor logits = model.run(batch->images);
      for (int64_t i = 0; i < batch->size(); ++i, ++done) {
        report_bad(batch->indices[static_cast<size_t>(i)]);
        report(model, images->path(done), logits.row<float>(i), logits.dim(1),
               damaged.of(images->path(done), loader.damaged()));
      }
    }
    report_bad(images->size());
    BadImageNames().name_turned(loader.turned());
    return failed ? static_cast<int>(ExitCode::kData) : 0;
  }

 private:
  /// Images at a time: the thread that decodes works ahead.
  static constexpr int64_t kBatch = 8;

  /// Nothing, too, where no image could be read, which the loader throws; the notes say so of each.
  static std::optional<Batch> next_of(EvalLoader& loader) {
    try {
      return loader.next();
    } catch (const DataError&) {
      return std::nullopt;
    }
  }

  void report_error(const std::string& path, const std::string& error) const {
    if (json_)
      print_object({{"image", path}, {"error", error}});
    else
      warn(fmt::format("error: {}", error));
  }

  void report(const LoadedModel& model, const std::string& path, const float* logits, int64_t classes,
              const std::string& damage) const {
    if (!std::all_of(logits, logits + classes, [](float v) { return std::isfinite(v); }))
      throw DivergedError("{} gives logits that are not finite: its training has diverged; use an earlier checkpoint",
                          model.path);
    if (!damage.empty()) warn(fmt::format("{} is used although damaged: {}", path, damage));
    const std::vector<Guess> best = best_guesses(logits, classes, top_);
    if (json_) {
      nlohmann::ordered_json j;
      j["image"] = path;
      j["top"] = guesses_json(best, model.class_names);
      if (logits_) j["logits"] = std::vector<float>(logits, logits + classes);
      if (!damage.empty()) j["warning"] = damage;
      print_object(j);
      return;
    }
    std::string line = one_line(path) + ":";
    for (const Guess& g : best)
      line += fmt::format("  {} {:.1f} %", one_line(class_text(model.class_names, g.index)),
                          100 * static_cast<double>(g.p));
    print(line);
  }

  std::string model_, decoder_ = "auto";
  std::vector<std::string> images_;
  int64_t top_ = 5, loader_threads_ = 1, threads_ = 0;
  bool json_ = false, logits_ = false;
};

}  // namespace

Command* predict_command() {
  return new Predict;
}

}  // namespace nibble::apps
