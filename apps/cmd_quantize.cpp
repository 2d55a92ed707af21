// nibble quantize
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/bad_images.hpp"
#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/model_input.hpp"
#include "apps/network_arguments.hpp"
#include "apps/served_export.hpp"
#include "apps/training/run_evaluation.hpp"
#include "apps/training/run_note.hpp"
#include "data/loader.hpp"
#include "data/open_images.hpp"
#include "data/subset.hpp"
#include "nn/post_training.hpp"
#include "nn/run_folder.hpp"

namespace nibble::apps {

namespace fs = std::filesystem;

namespace {

class Quantize : public Command {
 public:
  const char* name() const override { return "quantize"; }
  const char* summary() const override { return "quantize a trained model without training it, and write it to serve"; }
  const char* examples() const override {
    return "  nibble quantize resnet50.safetensors --data imagenet --out w8a8.safetensors\n"
           "  nibble quantize runs/bf16 --data imagenette --precision w4a4-fl8 --out w4a4.safetensors\n"
           "  nibble quantize resnet50.safetensors --precision bf16 --out bf16.safetensors   # as it is, to compare "
           "with";
  }
  const char* notes() const override {
    return "\n\nBounds are the mean of each channel's largest value over batches of images, which are centre-cropped "
           "as\nin eval. Of a checkpoint the network's shape is known, and the options that describe it need not be "
           "given.";
  }

  void declare(CLI::App& app) override {
    app_ = &app;
    add_option(app, "MODEL", model_,
               "safetensors file with torchvision's names, a checkpoint or a run folder (its best, else its latest)")
        .required();
    add_option(app, "--data", data_, "image folder: DIR/train/<class>/*; Tiny ImageNet or CIFAR as they come");
    add_option(app, "--split", split_, "split of DIR to take images from").capture_default_str();
    add_option(app, "--out", out_, "served file to write").required();
    add_option(app, "--images", images_, "images to take, spread evenly over the split").capture_default_str();
    add_option(app, "--batch-size", batch_size_, "images whose largest values are taken together")
        .capture_default_str();
    add_option(
        app, "--norms", norms_,
        "batch norm's statistics: model (those of training), images (taken anew, of the quantized network), or auto "
        "(images; of bf16, model)")
        .capture_default_str();
    add_option(app, "--decoder", decoder_, "auto (that of the model's training), turbo or stb").capture_default_str();
    add_option(app, "--loader-threads", loader_threads_, "threads that decode").capture_default_str();
    add_flag(app, "--strict-data", strict_data_, "stop at a bad image instead of leaving it out");
    add_flag(app, "--json", json_, "print one JSON object");
    declare_threads(app, threads_);
    network_.declare(app, "Network");
  }

  int run() override {
    apply_threads(threads_);
    check_options();
    refuse_other_format(out_);
    Checkpoint c = read_weights(resolve_model_path(model_));
    refuse_to_replace_other_than_served(out_);
    const bool quantizes = c.model.calibration_pending();
    if (norms_ == "auto") norms_ = quantizes ? "images" : "model";
    const NormSource source = norms_ == "images" ? NormSource::kImages : NormSource::kModel;
    if (source == NormSource::kImages && std::min(batch_size_, images_) < 2)
      throw UsageError(
          "--norms images normalises over the images of a batch; give --batch-size and --images of 2 or more");
    const bool looks_at_images = quantizes || source == NormSource::kImages;
    if (looks_at_images) open_calibration_images(c);
    say_what_goes_in();
    if (looks_at_images) learn_from_images(c.model, source);
    const auto [served, sizes] = export_served(c, out_, {{"post_training", origin_text()}});
    report(sizes, looks_at_images);
    return 0;
  }

 private:
  void check_options() const {
    if (images_ < 1 || images_ > kMostImages) throw UsageError("--images is {}; use 1 to {}", images_, kMostImages);
    if (batch_size_ < 1 || batch_size_ > 1024) throw UsageError("--batch-size is {}; use 1 to 1024", batch_size_);
    if (loader_threads_ < 1 || loader_threads_ > 64)
      throw UsageError("--loader-threads is {}; use 1 to 64", loader_threads_);
    if (norms_ != "auto" && norms_ != "model" && norms_ != "images")
      throw UsageError("--norms is '{}'; use auto, model or images", norms_);
  }

  /// The model in the precision that was asked for, with the given weights; not calibrated.
  Checkpoint read_weights(const fs::path& path) {
    Checkpoint c;
    {
      const SafetensorsFile file = SafetensorsFile::open(path);
      if (kind_of(file) == ModelFileKind::kCheckpoint) {
        c = load_checkpoint(file);
        network_.take_from_weights(c.model.network.options);
      } else if (const TensorEntry* head = file.find("fc.weight"); head != nullptr && !head->shape.empty()) {
        network_.take_classes(head->shape.front());
      }
    }
    network_.resolve();
    const Network network = build_resnet(network_.options);
    if (!is_servable(network))
      throw UsageError("--quant-mode fake has no served model, which quantize writes; leave it out");
    c.model = make_model(network, {});
    const GivenWeights given = load_torchvision_weights(path, c.model, c.class_names);
    if (!given.fresh.empty())
      throw ModelError("{}, so there is no {} to serve; nibble train --weights {} trains one", given.because,
                       given.fresh, shell_quoted(path.string()));
    tensors_ = given.tensors;
    return c;
  }

  /// Opens them, and notes what the served file says about classes and decoder.
  void open_calibration_images(Checkpoint& c) {
    if (data_.empty())
      throw UsageError("--data is missing; name a folder of images like those that the model will see");
    const Decoder decoder = decoder_for(noted_decoder(c), decoder_);
    const DatasetPtr all = open_images(data_, split_, decoder);
    if (const std::string others = all->left_out(); !others.empty()) warn(others);
    // Only whole batches, if there is one: a channel's largest value over few images is smaller.
    const int64_t asked = std::min(images_, all->size());
    dataset_ = std::make_shared<Subset>(
        all, SubsetArgs{.evenly = asked - (asked > batch_size_ ? asked % batch_size_ : 0), .shuffled = true});
    if (c.run.empty()) c.run = to_json(RunNote{.decoder = std::string(name_of(decoder)), .options = {}, .images = {}});
    if (c.class_names.empty() && all->num_classes() == c.model.network.options.classes)
      c.class_names = all->class_names();
  }

  void say_what_goes_in() const {
    message(fmt::format("model  {} at {} px with {} of {}", network_text(network_.options), network_.options.image_size,
                        counted(tensors_, "tensor"), model_));
    if (dataset_ != nullptr)
      message(fmt::format("images {} of {}/{}, batches of {}", grouped(dataset_->size()), data_, split_, batch_size_));
  }

  /// Bounds first; batch norm's statistics once more when the activations are quantized.
  void learn_from_images(Model& model, NormSource source) {
    const bool pending = model.calibration_pending();
    pass("bounds", model, pending ? source : NormSource::kImages);
    if (pending && source == NormSource::kImages) pass("norms", model, source);
    model.usage = count_codes(model, dataset_, model.network.options.image_size);
  }

  void pass(const char* of, Model& model, NormSource source) {
    EvalLoader loader({.dataset = dataset_,
                       .batch_size = batch_size_,
                       .image_size = static_cast<int>(model.network.options.image_size),
                       .workers = static_cast<int>(loader_threads_),
                       .bad_images = strict_data_ ? BadImages::error : BadImages::skip});
    PostTrainingPass statistics(model, source);
    taken_ = 0;
    while (const std::optional<Batch> batch = loader.next()) {
      statistics.add(batch->images);
      taken_ += batch->size();
      if (interactive()) progress(fmt::format("{}: {} of {} images", of, taken_, loader.images_total()));
    }
    bad_images_.name_unreadable("skipped", loader.skipped());
    bad_images_.name_damaged(loader.damaged());
    skipped_ = std::ssize(loader.skipped());
    damaged_ = std::ssize(loader.damaged());
    statistics.finish();
  }

  std::string origin_text() const {
    return taken_ == 0 ? "no images"
                       : fmt::format("{} images in batches of {}, norms of the {}", taken_, batch_size_, norms_);
  }

  void report(const ServedFileSizes& sizes, bool looked_at_images) const {
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
    print(
        fmt::format("{}: {}, {} bytes, {} of them weights{}", out_, network_text(network_.options),
                    grouped(static_cast<int64_t>(sizes.file_bytes)), grouped(static_cast<int64_t>(sizes.weight_bytes)),
                    looked_at_images ? fmt::format("; {} seen, {} skipped", counted(taken_, "image"), skipped_) : ""));
    print(
        fmt::format("next: nibble eval {} --data {}", shell_quoted(out_), data_.empty() ? "DIR" : shell_quoted(data_)));
  }

  /// What is kept of each batch for each channel, 100 kB at width 1, would otherwise fill the memory.
  static constexpr int64_t kMostImages = 100'000;

  CLI::App* app_ = nullptr;
  /// Codes rounded to nearest: floor moves values down by half a step, which weights that never saw it do not expect
  /// (4 bits with 8-bit ends, top-1 of three models without training: 55.8, 55.2, 72.6 %, to nearest 56.3, 56.0, 74.5).
  NetworkArguments network_{{.precision = "w8a8", .scheme = QuantScheme::kNearest, .overrides = {}}};
  std::string model_, data_, split_ = "train", out_, norms_ = "auto", decoder_ = "auto";
  int64_t images_ = 1024, batch_size_ = 32, loader_threads_ = 1, threads_ = 0;
  bool strict_data_ = false, json_ = false;
  DatasetPtr dataset_;
  BadImageNames bad_images_;
  int64_t tensors_ = 0, taken_ = 0, skipped_ = 0, damaged_ = 0;
};

}  // namespace

Command* quantize_command() {
  return new Quantize;
}

}  // namespace nibble::apps
