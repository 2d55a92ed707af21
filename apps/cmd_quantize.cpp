// nibble quantize
#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>

#include "apps/bad_images.hpp"
#include "apps/class_names.hpp"
#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/layer_sensitivity.hpp"
#include "apps/model_input.hpp"
#include "apps/network_arguments.hpp"
#include "apps/options.hpp"
#include "apps/served_export.hpp"
#include "apps/training/run_evaluation.hpp"
#include "apps/training/run_note.hpp"
#include "data/cifar.hpp"
#include "data/loader.hpp"
#include "data/open_images.hpp"
#include "data/subset.hpp"
#include "engine/error.hpp"
#include "nn/checkpoint.hpp"
#include "nn/import/weights_file.hpp"
#include "nn/post_training.hpp"
#include "nn/run_folder.hpp"

namespace nibble::apps {

namespace fs = std::filesystem;

namespace {

class Quantize : public Command {
 public:
  const char* name() const override { return "quantize"; }
  const char* summary() const override {
    return "make a served model of trained weights without training (post-training quantization)";
  }
  const char* examples() const override {
    return "  nibble quantize resnet50.pth --data imagenet --out w8a8.safetensors\n"
           "  nibble quantize runs/bf16 --data imagenette --precision w4a4-fl8 --out w4a4.safetensors\n"
           "  nibble quantize resnet50.pth --precision bf16 --out bf16.safetensors   # as it is, to compare "
           "with\n"
           "  nibble quantize runs/bf16 --data imagenette --precision w4a4 --sensitivity w8a8     # which layers to "
           "keep "
           "finer";
  }
  const char* notes() const override {
    return "\n\nA bound is the mean over batches of a channel's largest value; images are centre-cropped as in eval, "
           "and"
           "\ntaken in whole batches where there is one. A checkpoint says what network it is (--arch, --width, "
           "--image-size, padding), "
           "and"
           "\none that was trained with quantizers what form they have; its own bounds and precision do not count. "
           "Other"
           "\nfiles say how many classes there are, and without --class-names, where --data has as many, they get the "
           "names of its folders."
           "\nIn bf16 no images are needed."
           "\nWhat images the model expects is not in files of other programs: --crop-share 0.9655 for torchvision's"
           "\nIMAGENET1K_V2, --pixel-mean and --pixel-std where they are not ImageNet's. The served file keeps them.";
  }

  void declare(CLI::App& app) override {
    add_option(
        app, "MODEL", model_,
        "safetensors or .pth file with torchvision's names, a checkpoint or a run folder (its best, else its latest)")
        .required();
    declare_weights_choice(app, weights_choice_);
    add_option(app, "--data", data_,
               "folder of images like those that the model will see; labels are not needed: any folder of images, or a "
               "data set (DIR/train/<class>/*, Tiny ImageNet or CIFAR as they come)");
    add_option(app, "--split", split_, "split of DIR to take images from (train, where DIR has splits)");
    add_option(app, "--out", out_, "served file to write");
    add_option(
        app, "--sensitivity", sensitivity_,
        "instead of a file: how much nearer to bf16 the logits come with one layer at a time in this precision "
        "(w8a8, bf16), the layers that gain most first; takes the time of a quantize for each layer, and keeps the "
        "--images in memory: 128 tell enough");
    add_option(app, "--class-names", class_names_,
               "file with a name of each class, in the order of the model's outputs: a line each, or JSON "
               "(imagenet_class_index.json); eval finds the folders of its images by them; otherwise a checkpoint's "
               "own, or those of the class folders of DIR's split where these "
               "are as many");
    add_option(app, "--images", images_, "images to take, spread evenly over the split").capture_default_str();
    add_option(app, "--batch-size", batch_size_,
               "images whose largest values, and statistics, are taken together; memory grows with it (width 1, 224 "
               "px, 32: 0.8 GiB)")
        .capture_default_str();
    add_option(
        app, "--norms", norms_,
        "batch norm's statistics: model (those of training), images (re-estimated, of the quantized network), or "
        "auto (images; of bf16, model)")
        .capture_default_str();
    add_option(app, "--decoder", decoder_, "auto (that of a checkpoint's training), turbo or stb")
        .capture_default_str();
    add_option(app, "--loader-threads", loader_threads_, "threads that decode").capture_default_str();
    add_flag(app, "--strict-data", strict_data_, "stop at a bad image instead of leaving it out");
    add_flag(app, "--json", json_, "print one JSON object");
    declare_threads(app, threads_);
    network_.declare(app, "Network");
  }

  int run() override {
    apply_threads(threads_);
    check_options();
    if (out_.empty() == sensitivity_.empty())
      throw UsageError(
          "name either the served file to write (--out) or the precision to try layers in (--sensitivity)");
    refuse_other_format(out_);
    const fs::path path = resolve_model_path(model_);
    Checkpoint c = read_weights(path);
    if (!class_names_.empty()) c.class_names = read_class_names(class_names_, c.model.network.options.classes);
    if (!out_.empty()) refuse_to_replace_other_than_served(out_);
    const bool quantizes = c.model.calibration_pending();
    if (norms_ == "auto") norms_ = quantizes ? "images" : "model";
    const bool looks_at_images = quantizes || norms_ == "images";
    if (!data_.empty()) open_data(c);
    if (looks_at_images && dataset_ == nullptr)
      throw UsageError("--data is missing; name a folder of images like those that the model will see");
    say_what_goes_in(c, looks_at_images);
    if (!sensitivity_.empty()) {
      report_sensitivity(c);
      return 0;
    }
    std::map<std::string, std::string> notes;
    if (looks_at_images) {
      const NormSource norms = norms_ == "images" ? NormSource::kImages : NormSource::kModel;
      c.model = quantize_after_training(c.model, norms, [&](const UseBatch& use) { each_batch(c.model.network, use); });
      c.model.usage = count_codes(c.model, dataset_);
      notes["post_training"] = fmt::format("{} images in batches of {}, norms of the {}", taken_, batch_size_, norms_);
    }
    report(export_served(c, out_, notes).sizes);
    return 0;
  }

 private:
  /// With 64 images w4a4-fl8 of three models has 1.3, 0.0 and 1.1 points less than with 1,024, with 256 0.3, 0.1 and
  /// 0.7 (bench/results, "Without training").
  static constexpr int64_t kFewImages = 256;

  void check_options() const {
    if (images_ < 1 || images_ > 10'000'000) throw UsageError("--images is {}; use 1 to 10000000", images_);
    if (batch_size_ < 1 || batch_size_ > 256) throw UsageError("--batch-size is {}; use 1 to 256", batch_size_);
    if (loader_threads_ < 1 || loader_threads_ > 64)
      throw UsageError("--loader-threads is {}; use 1 to 64", loader_threads_);
    decoder_from_name(decoder_);
    if (norms_ != "auto" && norms_ != "model" && norms_ != "images")
      throw UsageError("--norms is '{}'; use auto, model or images", norms_);
    if (!sensitivity_.empty()) parse_precision(sensitivity_);
    if (sensitivity_.ends_with("-fl8"))
      throw UsageError("--sensitivity is '{}'; use the precision of one layer, such as w8a8 or bf16", sensitivity_);
  }

  /// What the file says of its network, for what the user does not say.
  Checkpoint take_what_is_known(const fs::path& path) {
    const SafetensorsFile file = open_weights(path, weights_choice_).file;
    if (kind_of(file) == ModelFileKind::kCheckpoint) {
      Checkpoint c = load_checkpoint(file);
      c.momentum = {};  // as large as the weights
      network_.take_from_weights(c.model.network.options);
      if (c.model.calibrated()) network_.take_quantizers(c.model.network.options);
      return c;
    }
    if (const TensorEntry* head = file.find("fc.weight"); head != nullptr && head->shape.size() == 2) {
      if (head->shape.front() < 2 || head->shape.front() > 100'000)
        throw ModelError("{}: fc.weight has {} classes; nibble serves models of 2 to 100000", file.source(),
                         head->shape.front());
      network_.take_classes(head->shape.front());
    }
    return {};
  }

  /// The model in the precision that was asked for, with the given weights; not calibrated.
  Checkpoint read_weights(const fs::path& path) {
    Checkpoint c = take_what_is_known(path);
    network_.resolve();
    const Network network = build_resnet(network_.options);
    if (!is_servable(network))
      throw UsageError("--quant-mode fake has no served model, which quantize writes; use --quant-mode integer");
    c.model = make_model(network, {});
    const GivenWeights given = load_torchvision_weights(path, c.model, c.class_names, weights_choice_);
    if (!given.fresh.empty())
      throw ModelError("{}, so there is no {} to serve; nibble train --weights {} trains one", given.because,
                       given.fresh, shell_quoted(path.string()));
    tensors_ = given.tensors;
    weights_note_ = given.note;
    return c;
  }

  /// The images, and the names of their classes for a model without.
  void open_data(Checkpoint& c) {
    if (split_.empty() && has_splits(data_)) split_ = "train";
    std::error_code none;
    const auto has_split = [&](const char* name) { return fs::is_directory(fs::path(data_) / name, none); };
    if (split_ == "train" && !has_split("train") && has_split("val"))
      throw DataError("{} holds the split val alone; name it with --split val to take images of it", data_);
    const DatasetPtr all = open_images_to_look_at(data_, split_, decoder_for(noted_decoder(c), decoder_));
    if (const std::string others = all->left_out(); !others.empty()) warn(others);
    const bool labelled = !all->class_names().front().empty();
    can_evaluate_ =
        labelled && all->num_classes() == c.model.network.options.classes && (has_split("val") || is_cifar(data_));
    if (labelled && c.class_names.empty() && all->num_classes() == c.model.network.options.classes) {
      c.class_names = all->class_names();
      message(fmt::format(
          "names  of the classes are those of the folders, in their order from '{}' to '{}' (--class-names)",
          one_line(c.class_names.front()), one_line(c.class_names.back())));
    }
    // Only whole batches, if there is one: a channel's largest value over few images is smaller.
    const int64_t asked = std::min(images_, all->size());
    dataset_ = std::make_shared<Subset>(
        all, SubsetArgs{.evenly = asked - (asked > batch_size_ ? asked % batch_size_ : 0), .shuffled = true});
  }

  void say_what_goes_in(const Checkpoint& c, bool looks_at_images) const {
    const NetworkOptions& o = network_.options;
    message(
        fmt::format("model  {} at {} px with {} of {}{}{}", network_text(o), o.image_size, counted(tensors_, "tensor"),
                    model_, weights_note_.empty() ? "" : ": " + weights_note_,
                    c.class_names.empty() ? fmt::format(", {} classes without names (--class-names)", o.classes) : ""));
    if (!looks_at_images) return;
    if (dataset_->size() < kFewImages)
      warn(
          fmt::format("warning: {} are few to take bounds and statistics from; take {} or more, of all kinds that the "
                      "model will see",
                      counted(dataset_->size(), "image"), kFewImages));
    message(fmt::format("images {} of {}{}, batches of {}", grouped(dataset_->size()), data_,
                        split_.empty() ? "" : "/" + split_, batch_size_));
    const char* codes = o.scheme == QuantScheme::kNearest ? "codes rounded to nearest, " : "codes cut off downwards, ";
    message(fmt::format("by     {}norms of the {}", c.model.network.quantizers.empty() ? "" : codes, norms_));
  }

  void each_batch(const Network& network, const UseBatch& use) {
    EvalLoader loader({.dataset = dataset_,
                       .transform = eval_transform(network.options),
                       .batch_size = batch_size_,
                       .workers = static_cast<int>(loader_threads_),
                       .bad_images = strict_data_ ? BadImages::error : BadImages::skip});
    ++pass_;
    taken_ = 0;
    while (const std::optional<Batch> batch = loader.next()) {
      use(batch->images);
      taken_ += batch->size();
      if (interactive()) progress(fmt::format("pass {}: {} of {} images", pass_, taken_, loader.images_total()));
    }
    bad_images_.name_unreadable("skipped", loader.skipped());
    bad_images_.name_damaged(loader.damaged());
    bad_images_.name_turned(loader.turned());
    skipped_ = std::ssize(loader.skipped());
    damaged_ = std::ssize(loader.damaged());
  }

  void report_sensitivity(const Checkpoint& c) {
    if (!c.model.calibration_pending())
      throw UsageError("--precision is bf16, of which no layer is quantized; name the precision to quantize to");
    std::vector<Tensor> batches;
    each_batch(c.model.network, [&](const Tensor& images) { batches.push_back(images); });
    const Sensitivity found =
        measure_sensitivity({.trained = c.model,
                             .finer = parse_precision(sensitivity_).body,
                             .norms = norms_ == "images" ? NormSource::kImages : NormSource::kModel,
                             .batches = batches,
                             .progress = [](int64_t done, int64_t total) {
                               if (interactive()) progress(fmt::format("layer {} of {}", done, total));
                             }});
    end_progress();
    std::vector<LayerSensitivity> layers = found.layers;
    std::stable_sort(layers.begin(), layers.end(),
                     [](const LayerSensitivity& a, const LayerSensitivity& b) { return a.decibels > b.decibels; });
    if (json_) {
      nlohmann::ordered_json j = {{"precision", network_.options.precision},
                                  {"finer", sensitivity_},
                                  {"images", taken_},
                                  {"norms", norms_},
                                  {"sqnr_db", found.decibels}};
      j["layers"] = nlohmann::ordered_json::array();
      for (const LayerSensitivity& l : layers)
        j["layers"].push_back({{"name", l.layer}, {"sqnr_db", l.decibels}, {"more_weight_bytes", l.weight_bytes}});
      print_object(j);
      return;
    }
    std::vector<std::vector<std::string>> rows = {
        {"layer in " + sensitivity_, "logits against bf16, dB", "gain, dB", "more bytes"}};
    rows.push_back({"none", fmt::format("{:.2f}", found.decibels), "", ""});
    for (const LayerSensitivity& l : layers)
      rows.push_back({l.layer, fmt::format("{:.2f}", l.decibels), fmt::format("{:+.2f}", l.decibels - found.decibels),
                      grouped(l.weight_bytes)});
    print(format_table(rows));
    print("next: a file for --config, with a line layers.\"NAME\".precision = \"" + sensitivity_ +
          "\" for each layer to keep finer");
  }

  void report(const ServedFileSizes& sizes) const {
    if (json_) {
      print_object({{"file", out_},
                    {"bytes", sizes.file_bytes},
                    {"weight_bytes", sizes.weight_bytes},
                    {"precision", network_.options.precision},
                    {"images", taken_},
                    {"skipped", skipped_},
                    {"damaged", damaged_},
                    {"norms", norms_}});
      return;
    }
    print(fmt::format("{}: {}, {} bytes, {} of them weights{}", out_, network_text(network_.options),
                      grouped(static_cast<int64_t>(sizes.file_bytes)),
                      grouped(static_cast<int64_t>(sizes.weight_bytes)),
                      taken_ > 0 ? fmt::format("; {} seen, {} skipped", counted(taken_, "image"), skipped_) : ""));
    print(
        fmt::format("next: nibble eval {} --data {}", shell_quoted(out_), can_evaluate_ ? shell_quoted(data_) : "DIR"));
  }

  /// Codes rounded to nearest: floor moves values down by half a step, which weights that never saw it do not expect
  /// (4 bits with 8-bit ends, top-1 of three models without training: 55.8, 55.2, 72.6 %, to nearest 56.3, 56.0, 74.5).
  NetworkArguments network_{{.precision = "w8a8", .scheme = QuantScheme::kNearest, .overrides = {}}};
  std::string model_, data_, split_, out_, norms_ = "auto", decoder_ = "auto", class_names_, sensitivity_;
  std::string weights_note_;
  WeightsChoice weights_choice_;
  int64_t images_ = 1024, batch_size_ = 32, loader_threads_ = 1, threads_ = 0;
  bool strict_data_ = false, json_ = false, can_evaluate_ = false;
  DatasetPtr dataset_;
  BadImageNames bad_images_;
  int64_t tensors_ = 0, pass_ = 0, taken_ = 0, skipped_ = 0, damaged_ = 0;
};

}  // namespace

Command* quantize_command() {
  return new Quantize;
}

}  // namespace nibble::apps
