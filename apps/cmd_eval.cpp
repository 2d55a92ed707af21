// nibble eval
#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/dataset_evaluation.hpp"
#include "apps/model_comparison.hpp"
#include "apps/model_input.hpp"
#include "apps/options.hpp"
#include "apps/predictions_file.hpp"
#include "data/cifar.hpp"
#include "data/image_folder.hpp"
#include "data/open_images.hpp"
#include "data/relabelled.hpp"
#include "data/subset.hpp"
#include "engine/cpu.hpp"

namespace nibble::apps {

namespace {

class Eval : public Command {
 public:
  const char* name() const override { return "eval"; }
  const char* summary() const override { return "accuracy and logits hash of a model on an image folder"; }
  const char* examples() const override {
    return "  nibble eval runs/a --data imagenette\n"
           "  nibble eval model.safetensors --data imagenette --limit 64 --json\n"
           "  nibble eval runs/a/latest --data imagenette --limit 64 --by modules\n"
           "  nibble eval model.safetensors --data imagenette --by-class       # where 4 bits lose\n"
           "  nibble eval w8a8.safetensors --data imagenette --against bf16.safetensors";
  }

  void declare(CLI::App& app) override {
    add_option(app, "MODEL", model_, "run folder, checkpoint or served file").required();
    add_option(app, "--data", data_, "image folder: DIR/val/<class>/*; Tiny ImageNet or CIFAR as they come").required();
    add_option(app, "--split", split_, "split of DIR to evaluate").capture_default_str();
    add_option(app, "--limit", evaluation_.limit,
               "only the first N images in the order of the data set, that of its paths (0: all)");
    add_option(app, "--classes", classes_, "only the first N classes, of a model trained with --classes N (0: all)");
    add_option(app, "--batch-size", evaluation_.batch_size, "images per call; changes nothing but the speed")
        .capture_default_str();
    add_option(app, "--loader-threads", evaluation_.loader_threads, "threads that decode").capture_default_str();
    add_option(app, "--decoder", decoder_, "auto (that of the model's training), turbo or stb").capture_default_str();
    add_option(app, "--by", by_,
               "executor, or modules: the plain pass of training in evaluation mode, which gives a calibrated model's "
               "checkpoint the same logits, slowly")
        .capture_default_str();
    add_flag(app, "--strict-data", evaluation_.strict_data, "stop at a bad image instead of leaving it out");
    add_flag(app, "--by-class", by_class_,
             "also the accuracy of each class, the lowest first (in JSON in the order of the classes), and the class "
             "that its images are most often taken for");
    add_option(app, "--against", against_,
               "another model of the same classes, run on the same images: how often both agree, the difference of "
               "their accuracies and its standard error");
    add_option(app, "--predictions", predictions_, "JSON lines to write: each image, its class and the five likeliest");
    add_flag(app, "--json", json_, "print one JSON object");
    declare_threads(app, threads_);
  }

  int run() override {
    apply_threads(threads_);
    if (evaluation_.batch_size < 1 || evaluation_.batch_size > 65536)
      throw UsageError("--batch-size is {}; use 1 to 65536", evaluation_.batch_size);
    if (evaluation_.limit < 0) throw UsageError("--limit is {}; use 0 (all) or more", evaluation_.limit);
    if (evaluation_.loader_threads < 1 || evaluation_.loader_threads > 64)
      throw UsageError("--loader-threads is {}; use 1 to 64", evaluation_.loader_threads);
    if (classes_ < 0 || classes_ > 100000) throw UsageError("--classes is {}; use 0 (all) to 100000", classes_);
    if (by_ != "executor" && by_ != "modules") throw UsageError("--by is '{}'; use executor or modules", by_);
    const LoadedModel model = load_model(model_, by_ == "modules" ? RunBy::kModules : RunBy::kExecutor);
    const Decoder decoder = decoder_for(model.decoder, decoder_);
    refuse_split_as_data();
    DatasetPtr data = open_images(data_, split_, decoder);
    if (const std::string others = data->left_out(); !others.empty()) warn(others);
    if (classes_ > 0)
      data =
          std::make_shared<Subset>(data, SubsetArgs{.classes = static_cast<int>(classes_), .per_class = 0, .seed = 0});
    data = in_classes_of(model, data);
    const std::optional<LoadedModel> other = load_other(model, *data, decoder);
    std::unique_ptr<PredictionsFile> predictions;
    if (!predictions_.empty()) predictions = std::make_unique<PredictionsFile>(predictions_, data, data->class_names());
    evaluation_.bad_images = &bad_images_;
    Answers answers;
    evaluation_.on_batch = [&](const Batch& batch, const Tensor& logits) {
      if (other) answers.add(batch, logits);
      if (predictions != nullptr) predictions->add(batch, logits);
    };
    const EvaluationReport report =
        evaluate_dataset(model.run, data, eval_transform(model.network().options), evaluation_);
    if (predictions != nullptr) predictions->commit();
    std::optional<Other> compared;
    if (other) compared = run_other(*other, data, answers);
    print_report(report, model, std::string(name_of(decoder)), data->class_names(), compared);
    const auto refuse_diverged = [&](const std::string& path, const EvaluationResult& result) {
      if (!std::isfinite(result.loss))
        throw DivergedError("the model {} gives logits that are not finite for images of {}/{}: its training diverged",
                            path, data_, split_);
    };
    refuse_diverged(model_, report.result);
    if (compared) refuse_diverged(against_, compared->result);
    return 0;
  }

 private:
  /// What --against says, and how it compares.
  struct Other {
    EvaluationResult result;
    ModelComparison comparison;
  };

  /// DIR/val given for DIR.
  void refuse_split_as_data() const {
    std::error_code none;  // what cannot be looked at is refused when it is opened
    if (std::filesystem::is_directory(std::filesystem::path(data_) / split_, none) || is_cifar(data_) ||
        !std::filesystem::is_directory(data_, none) || !has_labels(data_))
      return;
    const std::filesystem::path whole = std::filesystem::absolute(data_, none).lexically_normal();
    const std::filesystem::path folder = whole.filename().empty() ? whole.parent_path() : whole;
    throw DataError("{} has class folders but no folder {}; give the folder above it: --data {} --split {}", data_,
                    split_, shell_quoted(folder.parent_path().string()), shell_quoted(folder.filename().string()));
  }

  Other run_other(const LoadedModel& other, const DatasetPtr& data, const Answers& answers) {
    Answers of_other;
    evaluation_.on_batch = [&](const Batch& batch, const Tensor& logits) { of_other.add(batch, logits); };
    const EvaluationReport report =
        evaluate_dataset(other.run, data, eval_transform(other.network().options), evaluation_);
    return {report.result, compare_answers(answers, of_other)};
  }

  /// Whether logits of one are of the same classes as those of the other, as far as both name them.
  static bool are_same(const std::vector<std::string>& a, const std::vector<std::string>& b) {
    if (a.empty() || b.empty() || a == b) return true;
    std::vector<int> order(a.size());
    std::iota(order.begin(), order.end(), 0);
    return places_of(a, b) == order || places_of(b, a) == order;
  }

  /// `data` has labels as MODEL numbers its classes.
  std::optional<LoadedModel> load_other(const LoadedModel& model, const Dataset& data, Decoder decoder) const {
    if (against_.empty()) return std::nullopt;
    LoadedModel other = load_model(against_);
    const int64_t classes = model.network().options.classes, others = other.network().options.classes;
    if (classes != others || !are_same(data.class_names(), other.class_names))
      throw UsageError("{} ({} classes) and {} ({} classes) tell other classes apart; compare models of the same ones",
                       model.path, classes, other.path, others);
    decoder_for(other.decoder, std::string(name_of(decoder)));  // warns
    return other;
  }

  /// The data set with labels as the model numbers its classes; DataError, UsageError.
  DatasetPtr in_classes_of(const LoadedModel& model, const DatasetPtr& data) const {
    const std::vector<std::string>& here = data->class_names();
    const std::vector<std::string>& there = model.class_names;
    if (here == there) return data;
    const int64_t told_apart = model.network().options.classes;
    if (there.empty()) {  // as torchvision's files are
      if (std::ssize(here) == told_apart) return data;
      if (classes_ > 0 && told_apart > classes_)
        throw UsageError("--classes {} leaves fewer classes than the {} that the model {} tells apart; leave it out",
                         classes_, told_apart, model.path);
      throw DataError(
          "{} has {} classes, the model {}, which does not name them, {}; evaluate on the data set it was "
          "trained on",
          data_, here.size(), model.path, told_apart);
    }
    if (there.size() < here.size() && std::equal(there.begin(), there.end(), here.begin()))
      throw DataError("{} has {} classes, of which the model {} was trained on the first {}; {} --classes {}", data_,
                      here.size(), model.path, there.size(), classes_ > 0 ? "use" : "add", there.size());
    if (classes_ > 0 && std::ssize(there) > classes_)
      throw UsageError("--classes {} leaves fewer classes than the {} that the model {} tells apart; leave it out",
                       classes_, there.size(), model.path);
    std::vector<int> places = places_of(here, there);
    if (std::find(places.begin(), places.end(), -1) == places.end()) {
      if (here.size() < there.size())
        warn(fmt::format("{} has {} of the {} classes of the model", data_, grouped(std::ssize(here)),
                         grouped(std::ssize(there))));
      return std::make_shared<Relabelled>(data, there, std::move(places));
    }
    const auto unknown = std::find(places.begin(), places.end(), -1) - places.begin();
    throw DataError(
        "class '{}' of {} ({} classes) is none of the {} of the model {} ('{}' to '{}'), or several; evaluate "
        "on images of the classes that it was trained on",
        one_line(here[static_cast<size_t>(unknown)]), data_, here.size(), there.size(), model.path,
        one_line(there.front()), one_line(there.back()));
  }

  struct NamedClass {
    std::string name, taken_for;
    ClassResult result;
  };

  /// For the classes that have images; the names are those of the data.
  static std::vector<NamedClass> named(const std::vector<ClassResult>& by_class,
                                       const std::vector<std::string>& names) {
    const auto name = [&](int64_t index) {
      return index < 0 ? "" : index < std::ssize(names) ? names[static_cast<size_t>(index)] : std::to_string(index);
    };
    std::vector<NamedClass> all;
    for (size_t i = 0; i < by_class.size(); ++i)
      if (const ClassResult& c = by_class[i]; c.images > 0)
        all.push_back({name(static_cast<int64_t>(i)), name(c.taken_for), c});
    return all;
  }

  static void print_classes(std::vector<NamedClass> classes) {
    std::stable_sort(classes.begin(), classes.end(), [](const NamedClass& a, const NamedClass& b) {
      return a.result.top1_percent() < b.result.top1_percent();
    });
    std::vector<std::vector<std::string>> rows = {{"class", "images", "top1", "most often taken for", "times"}};
    for (const NamedClass& c : classes)
      rows.push_back({one_line(c.name), grouped(c.result.images), fmt::format("{:.1f}", c.result.top1_percent()),
                      c.taken_for.empty() ? "-" : one_line(c.taken_for),
                      c.result.times > 0 ? grouped(c.result.times) : "-"});
    print(format_table(rows));
  }

  static nlohmann::ordered_json classes_json(const std::vector<NamedClass>& classes) {
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const NamedClass& c : classes) {
      all.push_back({{"name", c.name}, {"images", c.result.images}, {"top1", c.result.top1_percent()}});
      all.back()["taken_for"] = c.taken_for.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(c.taken_for);
      all.back()["times"] = c.result.times;
    }
    return all;
  }

  void print_report(const EvaluationReport& report, const LoadedModel& model, const std::string& decoder,
                    const std::vector<std::string>& class_names, const std::optional<Other>& other) const {
    const bool complete = !model.model().calibration_pending();
    const EvaluationResult& r = report.result;
    const double rate = static_cast<double>(r.images) / std::max(1e-9, report.seconds);
    if (json_) {
      nlohmann::ordered_json j;
      j["images"] = r.images;
      j["skipped"] = report.skipped;
      j["damaged"] = report.damaged;
      j["calibrated"] = complete;
      j["top1"] = r.top1_percent();
      j["top5"] = r.top5_percent();
      j["loss"] = r.loss;
      j["logits_sha256"] = r.logits_sha256;
      j["images_per_second"] = rate;
      j["decoder"] = decoder;
      j["by"] = model.executor ? "executor" : "modules";
      j["isa"] = std::string(name_of(active_isa()));
      if (by_class_) j["by_class"] = classes_json(named(report.by_class, class_names));
      if (other) j["against"] = other_json(*other);
      print_object(j);
      return;
    }
    print(fmt::format("top1 {:.2f}  top5 {:.2f}  loss {:.4f}  {} images, {} skipped, {:.1f} img/s, {}",
                      r.top1_percent(), r.top5_percent(), r.loss, r.images, report.skipped, rate,
                      name_of(active_isa())));
    print("logits_sha256 " + r.logits_sha256);
    if (!complete) print("the model is not calibrated yet: its activations are bf16");
    if (by_class_) print_classes(named(report.by_class, class_names));
    if (other) print_other(*other);
  }

  nlohmann::ordered_json other_json(const Other& other) const {
    const ModelComparison& c = other.comparison;
    return {{"model", against_},
            {"top1", other.result.top1_percent()},
            {"top5", other.result.top5_percent()},
            {"loss", other.result.loss},
            {"logits_sha256", other.result.logits_sha256},
            {"same_class", c.same},
            {"right_only_here", c.right_only_here},
            {"right_only_there", c.right_only_there},
            {"difference", c.difference()},
            {"standard_error", c.standard_error()}};
  }

  void print_other(const Other& other) const {
    const ModelComparison& c = other.comparison;
    print(fmt::format("{}: top1 {:.2f}  top5 {:.2f}  loss {:.4f}", one_line(against_), other.result.top1_percent(),
                      other.result.top5_percent(), other.result.loss));
    print(fmt::format(
        "against it: top1 {:+.2f} points (standard error {:.2f} over these images), the same class for "
        "{:.1f} % of the images; right here alone {}, there alone {}",
        c.difference(), c.standard_error(), 100.0 * static_cast<double>(c.same) / static_cast<double>(c.images),
        c.right_only_here, c.right_only_there));
  }

  std::string model_, data_, split_ = "val", decoder_ = "auto", by_ = "executor", against_, predictions_;
  EvaluationOptions evaluation_;
  BadImageNames bad_images_;
  int64_t classes_ = 0, threads_ = 0;
  bool by_class_ = false, json_ = false;
};

}  // namespace

Command* eval_command() {
  return new Eval;
}

}  // namespace nibble::apps
