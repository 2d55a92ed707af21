// nibble predict
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/model_input.hpp"
#include "apps/options.hpp"
#include "data/augment.hpp"
#include "ops/softmax_cross_entropy.hpp"

namespace nibble::apps {

namespace {

struct Guess {
  int64_t index = 0;
  float p = 0;
};

class Predict : public Command {
 public:
  const char* name() const override { return "predict"; }
  const char* summary() const override { return "top labels of images"; }
  const char* examples() const override {
    return "  nibble predict model.safetensors photo.jpg\n"
           "  nibble predict runs/a *.jpg --top 3 --json";
  }

  void declare(CLI::App& app) override {
    add_option(app, "MODEL", model_, "run folder, checkpoint or served file").required();
    add_option(app, "IMAGE", images_, "JPEG or PNG files").required();
    add_option(app, "--top", top_, "labels per image").capture_default_str();
    add_option(app, "--decoder", decoder_, "auto (that of the model's training), turbo or stb").capture_default_str();
    add_flag(app, "--json", json_, "print one JSON object per line");
    declare_threads(app, threads_);
  }

  int run() override {
    apply_threads(threads_);
    if (top_ < 1) throw UsageError("--top is {}; use at least 1", top_);
    const LoadedModel model = load_model(model_);
    const Decoder decoder = decoder_for(model.decoder, decoder_);
    bool failed = false;
    std::error_code none;  // load_image reports what cannot be looked at
    for (const std::string& path : images_) {
      std::vector<Guess> best;
      std::string damage;
      try {
        if (std::filesystem::is_directory(path, none))
          throw DataError("{} is a folder, not an image; name its images, such as {}", path, all_in(path));
        const Image image = load_image(path, decoder);
        damage = image.warning;
        best = predict(model, image);
      } catch (const Error& e) {
        if (e.code() != ExitCode::kData && e.code() != ExitCode::kDisk) throw;
        failed = true;
        if (json_)
          print_object({{"image", path}, {"error", e.what()}});
        else
          warn(fmt::format("error: {}", e.what()));
        continue;
      }
      if (!damage.empty()) warn(fmt::format("{} is used although damaged: {}", path, damage));
      report(model, path, best, damage);  // outside: output that cannot be printed is no bad image
    }
    return failed ? static_cast<int>(ExitCode::kData) : 0;
  }

 private:
  /// For the shell: every file of a folder.
  static std::string all_in(const std::string& folder) {
    return shell_quoted(folder) + (folder.ends_with('/') ? "*" : "/*");
  }

  std::vector<Guess> predict(const LoadedModel& model, const Image& image) const {
    const int side = static_cast<int>(model.network().options.image_size);
    const Tensor input(DType::u8, {1, side, side, 3});
    transform_eval(image, side, input.data<uint8_t>());
    const Tensor logits = model.run(input);
    const int64_t classes = logits.dim(1);
    if (!std::all_of(logits.data<float>(), logits.data<float>() + classes, [](float v) { return std::isfinite(v); }))
      throw DivergedError("{} gives logits that are not finite: its training has diverged; use an earlier checkpoint",
                          model.path);
    std::vector<float> p(static_cast<size_t>(classes));
    softmax_row(logits.data<float>(), classes, p.data());
    std::vector<int64_t> order(p.size());
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return p[static_cast<size_t>(a)] > p[static_cast<size_t>(b)]; });
    std::vector<Guess> best;
    for (int64_t i = 0; i < std::min(top_, classes); ++i)
      best.push_back({order[static_cast<size_t>(i)], p[static_cast<size_t>(order[static_cast<size_t>(i)])]});
    return best;
  }

  void report(const LoadedModel& model, const std::string& path, const std::vector<Guess>& best,
              const std::string& damage) const {
    const auto label = [&](int64_t i) {
      return static_cast<size_t>(i) < model.class_names.size() ? model.class_names[static_cast<size_t>(i)]
                                                               : std::to_string(i);
    };
    if (json_) {
      nlohmann::ordered_json j;
      j["image"] = path;
      j["top"] = nlohmann::ordered_json::array();
      for (const Guess& g : best) j["top"].push_back({{"index", g.index}, {"name", label(g.index)}, {"p", g.p}});
      if (!damage.empty()) j["warning"] = damage;
      print_object(j);
      return;
    }
    std::string line = one_line(path) + ":";
    for (const Guess& g : best)
      line += fmt::format("  {} {:.1f} %", one_line(label(g.index)), 100 * static_cast<double>(g.p));
    print(line);
  }

  std::string model_, decoder_ = "auto";
  std::vector<std::string> images_;
  int64_t top_ = 5, threads_ = 0;
  bool json_ = false;
};

}  // namespace

Command* predict_command() {
  return new Predict;
}

}  // namespace nibble::apps
