#include "apps/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <utility>

#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "engine/env.hpp"
#include "engine/parallel.hpp"
#include "nn/network_json.hpp"

namespace nibble::apps {

std::vector<OptionField> network_fields(NetworkOptions& o, NetworkTexts& t) {
  return {
      {"arch", "resnet26, resnet29, resnet50, resnet101 or resnet152", &o.arch},
      {"width", "filter multiplier; the stem stays at 64", &o.width},
      {"precision", "bf16, w4a4, w8a8, w4a8, w8a4, the last four also with -fl8 (8-bit first and last layer)",
       &o.precision},
      {"granularity", "scales of activations: per_channel (one per input channel) or per_tensor (one per layer)",
       &t.granularity},
      {"per-channel-by",
       "how scales of channels pass an integer sum: fold (into the weights), shift (as powers of two) or shift+fold; "
       "8-bit and signed inputs always fold",
       &t.per_channel_by},
      {"quant-mode", "integer, or fake: quantize, dequantize, bf16 product (the published arithmetic, never served)",
       &t.quant_mode},
      {"quant-scheme", "unsigned activations: paper (2^b steps, floor) or nearest (2^b - 1 steps, rounded)",
       &t.quant_scheme},
      {"image-size", "side of the square input in pixels", &o.image_size},
      {"pixel-mean", "subtracted from byte / 255: three numbers for red, green and blue, or one for all",
       &t.pixel_mean},
      {"pixel-std", "then divided by", &t.pixel_std},
      {"crop-share",
       "evaluation and serving: image-size / the short side that images are resized to (0.875: 256 for 224)",
       &o.crop_share},
      {"upright", "turn images as their EXIF orientation says (phones note it); otherwise they are read as stored",
       &o.upright},
      {"same-padding", "pad stride-2 layers as the published model does", &o.same_padding},
      {"signed-block-input", "signed conv1 quantizer in projection blocks, as published", &o.signed_block_input},
      {"bf16-weights", "round weights to bf16 before they are quantized, as published", &o.bf16_weights},
  };
}

std::vector<OptionField> training_fields(TrainOptions& o) {
  return {
      {"classes", "use the first N classes of the data set (0: all)", &o.limit_classes},
      {"per-class", "use K images of each class (0: all)", &o.per_class},
      {"min-crop", "smallest share of the image a random crop keeps", &o.min_crop},
      {"decoder", "auto, turbo or stb: their pixels differ, so runs record it", &o.decoder},
      {"strict-data", "stop at a bad image instead of replacing it", &o.strict_data},
      {"loader-threads", "threads that decode and augment", &o.loader_threads},
      {"batch-size", "images per step, a multiple of --shard", &o.batch_size},
      {"shard", "images per shard: batch norm statistics and parallel work", &o.shard},
      {"low-memory",
       "shards one after another and their widest outputs made twice: less memory (two shards: half), slower, the same "
       "results",
       &o.low_memory},
      {"epochs", "passes over the training images", &o.epochs},
      {"steps", "number of steps instead of epochs (0: use --epochs)", &o.steps},
      {"lr", "peak learning rate", &o.lr},
      {"warmup-epochs", "linear warm-up", &o.warmup_epochs},
      {"schedule",
       "after the warm-up: cosine (to 0), step (a tenth at each third of the run), or paper (a cosine to a "
       "thousandth at 80 % of the run, then a line to 0)",
       &o.schedule},
      {"optimizer", "sgd, or lars: each kernel's step scaled by norm of weights / norm of gradient, for large batches",
       &o.optimizer},
      {"momentum", "momentum of the optimiser", &o.momentum},
      {"nesterov", "Nesterov momentum", &o.nesterov},
      {"weight-decay", "on convolution and linear kernels only", &o.weight_decay},
      {"clip-grad-norm", "clip the global gradient norm (0: off)", &o.clip_grad_norm},
      {"label-smoothing", "share of the target spread over all classes", &o.label_smoothing},
      {"calibrate-at", "when activation bounds are fixed: below 1 a fraction of all steps, else a step",
       &o.calibrate_at},
      {"zero-gamma", "start the last batch norm of each block at 0", &o.zero_gamma},
      {"seed", "seed of initialisation, order and augmentation", &o.seed},
      {"save-every", "steps between checkpoints (0: once an epoch)", &o.save_every},
      {"eval-every", "epochs between evaluations (0: only at the end)", &o.eval_every},
      {"keep", "checkpoints kept besides the best", &o.keep},
  };
}

std::string colours_text(const std::array<double, 3>& rgb) {
  return fmt::format("{},{},{}", rgb[0], rgb[1], rgb[2]);
}

namespace {

std::array<double, 3> colours_from(const char* option, const std::string& text) {
  std::vector<double> numbers;
  const char *at = text.data(), *const end = at + text.size();
  for (bool more = true; more;) {
    at = std::find_if(at, end, [](char c) { return c != ' '; });
    double number = 0;
    const auto [after, error] = std::from_chars(at, end, number);
    if (error != std::errc() || (after != end && *after != ','))
      throw UsageError("{} is '{}'; use one number, or three with commas between them", option, one_line(text));
    numbers.push_back(number);
    more = after != end;
    at = after + (more ? 1 : 0);
  }
  if (numbers.size() == 1) return {numbers[0], numbers[0], numbers[0]};
  if (numbers.size() != 3)
    throw UsageError("{} has {} numbers; use one, or three for red, green and blue", option, numbers.size());
  return {numbers[0], numbers[1], numbers[2]};
}

}  // namespace

NetworkTexts texts_of(const NetworkOptions& o) {
  return {.granularity = name_of(o.granularity),
          .per_channel_by = name_of(o.per_channel_by),
          .quant_mode = name_of(o.mode),
          .quant_scheme = name_of(o.scheme),
          .pixel_mean = colours_text(o.pixel_norm.mean),
          .pixel_std = colours_text(o.pixel_norm.std)};
}

void resolve_texts(const NetworkTexts& texts, NetworkOptions& options) {
  options.granularity = granularity_from(texts.granularity);
  options.per_channel_by = per_channel_by_from(texts.per_channel_by);
  options.mode = quant_mode_from(texts.quant_mode);
  options.scheme = quant_scheme_from(texts.quant_scheme);
  options.pixel_norm = {.mean = colours_from("--pixel-mean", texts.pixel_mean),
                        .std = colours_from("--pixel-std", texts.pixel_std)};
}

std::string overrides_text(const std::vector<PrecisionOverride>& overrides) {
  std::string text;
  for (const PrecisionOverride& o : overrides)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", o.layer, precision_text(o.precision));
  return text;
}

std::string network_text(const NetworkOptions& o) {
  const std::string layers = overrides_text(o.overrides);
  return fmt::format("{} x{} {}{}", o.arch, o.width, o.precision, layers.empty() ? "" : " (" + layers + ")");
}

void declare_fields(CLI::App& app, const std::vector<OptionField>& fields, const std::string& group) {
  for (const OptionField& field : fields) {
    std::visit(
        [&](auto* value) {
          if constexpr (std::is_same_v<decltype(value), bool*>)
            app.add_flag("--" + field.name + ",!--no-" + field.name, *value,
                         field.help + (*value ? " (default: yes)" : " (default: no)"))
                ->group(group);
          else
            add_option(app, "--" + field.name, *value, field.help).capture_default_str().take_last().group(group);
        },
        field.value);
  }
}

std::set<std::string> given_fields(const CLI::App& app, const std::vector<OptionField>& fields) {
  std::set<std::string> given;
  for (const OptionField& field : fields) {
    const CLI::Option* option = app.get_option_no_throw("--" + field.name);
    if (option != nullptr && option->count() > 0) given.insert(field.name);
  }
  return given;
}

namespace {

constexpr int64_t kMostThreads = 1024;
/// For a NIBBLE_THREADS that is no such number: it is refused only where no --threads overrides it.
constexpr int64_t kRefusedLater = INT64_MIN;

bool is_thread_count(int64_t threads) {
  return threads >= 0 && threads <= kMostThreads;
}

int64_t threads_in(const std::string& text) {
  int64_t threads = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), threads);
  return error == std::errc() && end == text.data() + text.size() && is_thread_count(threads) ? threads : kRefusedLater;
}

}  // namespace

void declare_threads(CLI::App& app, int64_t& threads) {
  if (const auto text = env(EnvVar::kThreads)) threads = threads_in(*text);
  DeclaredOption option = add_option(app, "--threads", threads, "threads (0: all cores this process may use)");
  if (is_thread_count(threads)) option.capture_default_str();
}

void apply_threads(int64_t threads) {
  if (const auto text = env(EnvVar::kThreads); text && threads == kRefusedLater && threads_in(*text) == kRefusedLater)
    throw UsageError("NIBBLE_THREADS is '{}'; use the number of threads, 0 (all cores) to {}", *text, kMostThreads);
  if (!is_thread_count(threads)) throw UsageError("--threads is {}; use 0 (all cores) to {}", threads, kMostThreads);
  set_threads(static_cast<int>(threads));
  debug(counted(nibble::threads(), "thread"));
}

namespace {

/// Names that other trainers use for what ours calls differently.
constexpr std::pair<const char*, const char*> kElsewhere[] = {{"workers", "loader-threads"},
                                                              {"num-workers", "loader-threads"},
                                                              {"learning-rate", "lr"},
                                                              {"wd", "weight-decay"},
                                                              {"resolution", "image-size"},
                                                              {"bits", "precision"},
                                                              {"model", "arch"},
                                                              {"output", "out"}};

std::string without_dashes(const std::string& name) {
  return name.substr(std::min(name.size(), name.find_first_not_of('-')));
}

/// Whether `part` is one of the words of "image-size".
bool has_word(const std::string& name, const std::string& part) {
  return ("-" + name + "-").find("-" + part + "-") != std::string::npos;
}

/// Letters to insert, remove, replace, or exchange with their neighbour.
size_t edits(const std::string& a, const std::string& b) {
  std::vector<size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    before = std::exchange(above, row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

/// The first name that `fits`, the shortest of several.
template <typename Fits>
std::string shortest(const std::vector<std::string>& known, const Fits& fits) {
  std::string best;
  for (const std::string& name : known)
    if (fits(without_dashes(name)) && (best.empty() || name.size() < best.size())) best = name;
  return best;
}

}  // namespace

std::string nearest_name(const std::string& wrong, const std::vector<std::string>& all_known) {
  const std::string word = without_dashes(wrong);
  std::vector<std::string> known = all_known;
  if (wrong.starts_with("-")) std::erase_if(known, [](const std::string& name) { return !name.starts_with("-"); });
  if (std::string same = shortest(known, [&](const std::string& name) { return name == word; }); !same.empty())
    return same;
  for (const auto& [elsewhere, ours] : kElsewhere)
    if (const char* its = ours; word == elsewhere)
      if (std::string name = shortest(known, [&](const std::string& n) { return n == its; }); !name.empty())
        return name;
  if (word.size() > 1)
    if (std::string name = shortest(known, [&](const std::string& n) { return n.starts_with(word); }); !name.empty())
      return name;
  for (const std::string& name : known)
    if (has_word(without_dashes(name), word)) return name;
  std::string best;
  size_t least = std::max<size_t>(1, (word.size() + 1) / 3) + 1;
  for (const std::string& name : known) {
    if (const size_t d = edits(word, without_dashes(name)); d < least) {
      least = d;
      best = name;
    }
  }
  return best;
}

}  // namespace nibble::apps
