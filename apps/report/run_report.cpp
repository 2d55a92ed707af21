#include "apps/report/run_report.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/config_file.hpp"
#include "apps/console.hpp"
#include "apps/machine_note.hpp"
#include "apps/report/chart.hpp"
#include "apps/report/layer_figures.hpp"
#include "apps/report/page.hpp"
#include "apps/report/statistics.hpp"
#include "engine/error.hpp"
#include "nn/atomic_file.hpp"
#include "nn/checkpoint.hpp"
#include "nn/json_text.hpp"
#include "nn/run_folder.hpp"
#include "nn/study/point_layers.hpp"

namespace nibble::apps {

namespace fs = std::filesystem;

namespace {

constexpr size_t kCurveSamples = 300;  // of a curve: more than the picture has columns to tell apart

std::string text_of(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

double number_of(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : -1;
}

std::vector<RunSession> read_sessions(const fs::path& path) {
  std::vector<RunSession> all;
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return all;
  std::string text;
  try {
    text = read_text_file(path, kLongestNote);
  } catch (const DataError&) {  // longer than any that a run writes: it is a note, and the run is whole without it
    return all;
  }
  const nlohmann::json note = parse_json_or_discard(text);
  if (!note.is_object() || !note.contains("sessions") || !note["sessions"].is_array()) return all;
  for (const nlohmann::json& s : note["sessions"]) {
    if (!s.is_object()) continue;
    all.push_back({.started = text_of(s, "started"),
                   .version = text_of(s, "nibble"),
                   .cpu = text_of(s, "cpu"),
                   .isa = text_of(s, "isa"),
                   .threads = number_of(s, "threads"),
                   .first_step = number_of(s, "first_step"),
                   .last_step = number_of(s, "last_step"),
                   .seconds = number_of(s, "seconds"),
                   .images_per_second = number_of(s, "images_per_second")});
  }
  return all;
}

void read_options(const fs::path& config, TrainOptions& options) {
  NetworkTexts texts;
  std::vector<OptionField> fields = network_fields(options.network, texts);
  for (const OptionField& f : training_fields(options)) fields.push_back(f);
  fields.push_back({"data", "", &options.data});
  read_config(config, fields, {}, options.network.overrides);
  resolve_texts(texts, options.network);
}

void read_layers(const fs::path& run, RunFacts& facts) {
  const CheckpointStore store(run, 1);
  const std::vector<int64_t> steps = store.steps();
  if (steps.empty()) return;
  std::error_code ignored;
  // A process that was killed before it moved a link leaves its first checkpoint without any.
  const bool linked = fs::exists(run / "best", ignored) || fs::exists(run / "latest", ignored);
  const Checkpoint checkpoint = load_checkpoint(linked ? resolve_model_path(run) : store.path_for(steps.back()));
  facts.checkpoint_step = checkpoint.steps_done;
  facts.network = checkpoint.model.network.options;
  facts.layers = point_layers(checkpoint.model);
}

std::string model_name(const RunFacts& f) {
  const NetworkOptions& o = f.options.network;
  const std::string classes = f.layers.empty() ? "" : fmt::format(", {} classes", grouped(f.network.classes));
  return fmt::format("{} at width {}, {}, {} px{}", o.arch, o.width, o.precision, o.image_size, classes);
}

int64_t steps_done(const RunFacts& f) {
  int64_t steps = std::max<int64_t>(f.checkpoint_step, 0);
  if (!f.curves.train.empty()) steps = std::max(steps, f.curves.train.back().step);
  if (!f.curves.evaluations.empty()) steps = std::max(steps, f.curves.evaluations.back().step);
  return steps;
}

/// The first step whose evaluations are of quantized activations; none for a network without quantizers, and before the
/// log tells how many steps the run has.
std::optional<int64_t> quantized_from(const RunFacts& f) {
  const std::optional<int64_t> planned = f.planned_steps();
  const bool quantized = f.layers.empty() ? f.options.network.precision != "bf16"
                                          : std::any_of(f.layers.begin(), f.layers.end(),
                                                        [](const PointLayer& l) { return l.activation_bits < 16; });
  return planned && quantized ? std::optional<int64_t>(f.options.calibrate_step(*planned)) : std::nullopt;
}

/// The most accurate evaluation from `first_step` on, or of all where none is left.
EvalSample best_evaluation(const std::vector<EvalSample>& evaluations, int64_t first_step) {
  return *std::max_element(evaluations.begin(), evaluations.end(), [&](const EvalSample& a, const EvalSample& b) {
    return std::pair(a.step >= first_step, a.top1) < std::pair(b.step >= first_step, b.top1);
  });
}

/// The answer in one paragraph.
std::string summary(const RunFacts& f) {
  const int64_t done = steps_done(f);
  const std::optional<int64_t> planned = f.planned_steps();
  std::string text = model_name(f) + ". ";
  if (planned && done >= *planned)
    text += fmt::format("Finished after {} steps. ", grouped(done));
  else if (planned)
    text += fmt::format("Not finished: {} of {} steps. ", grouped(done), grouped(*planned));
  else
    text += fmt::format("Not finished: {} steps. ", grouped(done));
  if (f.curves.evaluations.empty()) return text + "It has not been evaluated yet.";
  const EvalSample& last = f.curves.evaluations.back();
  const int64_t first_step = quantized_from(f).value_or(0);
  const bool quantized = last.step >= first_step;
  const EvalSample best = best_evaluation(f.curves.evaluations, first_step);
  text +=
      fmt::format("The last evaluation, after step {}{}, classified {} % of the validation images correctly",
                  grouped(last.step), quantized ? "" : ", of the model with bf16 activations", decimal(last.top1, 1));
  if (last.images > 0)
    text += fmt::format(" (standard error {} for {} images)", decimal(binomial_error(last.top1, last.images), 1),
                        grouped(last.images));
  text += std::isfinite(last.top5)
              ? fmt::format("; the right class was among its first five for {} %. ", decimal(last.top5, 1))
              : ". ";
  if (!quantized)
    return text + fmt::format(
                      "Activations are quantized from step {} on, and no evaluation is of such a model: there is no "
                      "accuracy of {} yet.",
                      grouped(first_step), f.options.network.precision);
  if (best.step != last.step)
    text += fmt::format("The best evaluation was {} % after step {}. ", decimal(best.top1, 1), grouped(best.step));
  const SmoothedEpoch smooth = best_smoothed(f.curves.evaluations, first_step);
  std::string where = "epoch " + decimal(smooth.epoch, 0);
  if (!std::isfinite(smooth.epoch))
    where = fmt::format("step {}, not smoothed: the log has no epochs", grouped(smooth.step));
  else if (!has_neighbours(f.curves.evaluations, smooth.epoch, first_step))
    where += ", not smoothed: no other evaluation that counts is within two and a half epochs";
  return text + fmt::format("The published metric, the best epoch of a curve smoothed over five epochs, is {} % ({}).",
                            decimal(smooth.top1, 1), where);
}

Chart epoch_chart(const RunFacts& f, const std::string& name, const std::string& y_title) {
  Chart chart;
  chart.name = name;
  chart.x.title = "epoch";
  chart.y.title = y_title;
  const std::optional<int64_t> step = quantized_from(f);
  if (step && !f.curves.train.empty()) {
    const double per_epoch = static_cast<double>(f.curves.train.back().step) / f.curves.train.back().epoch;
    const double x = static_cast<double>(*step) / per_epoch;
    if (x > 0 && x < f.curves.train.back().epoch) chart.guides.push_back({x, "activations quantized"});
  }
  return chart;
}

/// Training and validation in one chart, by `train` and `eval` of their samples.
template <typename TrainValue, typename EvalValue>
std::string learning_chart(const RunFacts& f, const std::string& name, const std::string& y_title, TrainValue train,
                           EvalValue eval) {
  Chart chart = epoch_chart(f, name, y_title);
  Series training{"training batches", {kGrey, Mark::kCircle, ""}, {}, true};
  for (const TrainSample& s : thinned(f.curves.train, kCurveSamples))
    training.points.push_back(plain_mark(s.epoch, train(s)));
  Series validation{"validation images", look_of(f.options.network.precision), {}, true};
  validation.look.dashes = "";
  for (const EvalSample& s : f.curves.evaluations)
    validation.points.push_back(
        plain_mark(s.epoch, eval(s), fmt::format("epoch {}: {}", decimal(s.epoch, 1), decimal(eval(s), 3))));
  chart.series = {training, validation};
  return draw(chart);
}

template <typename Value>
std::string progress_chart(const RunFacts& f, const std::string& name, const std::string& y_title, Value value) {
  Chart chart = epoch_chart(f, name, y_title);
  chart.y.low = 0;
  Series line{"", look_of("bf16"), {}, true, false};
  for (const ProgressSample& s : f.curves.progress)
    line.points.push_back(plain_mark(s.epoch, value(s), fmt::format("step {}: {}", s.step, tick_label(value(s)))));
  chart.series = {line};
  chart.height = 240;
  return draw(chart);
}

void add_curves(Page& page, const RunFacts& f) {
  page.heading("How it learned");
  page.figures({
      {"Top-1 accuracy",
       learning_chart(
           f, "top-1 accuracy by epoch", "top-1 %", [](const TrainSample& s) { return s.top1; },
           [](const EvalSample& s) { return s.top1; }),
       "Share of images that were classified correctly. Training batches are cropped and flipped at random, which "
       "makes them harder than validation images: that the grey line stays below is usual."},
      {"Loss",
       learning_chart(
           f, "loss by epoch", "cross entropy", [](const TrainSample& s) { return s.loss; },
           [](const EvalSample& s) { return s.loss; }),
       fmt::format(
           "Lower is better. The training loss counts label smoothing ({}), which the validation loss does not.",
           f.options.label_smoothing)},
  });
  page.figures({
      {"Learning rate",
       progress_chart(f, "learning rate by epoch", "learning rate", [](const ProgressSample& s) { return s.lr; }),
       fmt::format("The {} schedule: how large a step the optimiser takes.", f.options.schedule)},
      {"Speed",
       progress_chart(f, "images a second by epoch", "images a second",
                      [](const ProgressSample& s) { return s.images_per_second; }),
       "Images a second of the training steps alone, without evaluations. Dips are other work on the machine."},
      {"Waiting for images",
       progress_chart(f, "share of time spent waiting for images, by epoch", "% of the time",
                      [](const ProgressSample& s) { return 100 * s.data_wait; }),
       "Share of the training time spent waiting for decoded images. If it is well above zero, more --loader-threads "
       "help."},
  });
}

void add_layers(Page& page, const RunFacts& f) {
  page.heading("Layers");
  if (f.layers.empty()) {
    page.paragraph("There is no checkpoint yet; the layers appear with the first one.");
    return;
  }
  const CostSums reference = reference_cost(f.network);
  const Cost cost = cost_of(build_resnet(f.network));
  const CostRatio ratio = cost_ratio(cost.total, reference);
  page.paragraph(
      fmt::format("Compared with bf16 at width 1, the network costs {} % by the linear model (multiplications counted "
                  "by the wider of "
                  "their two operands), {} % by the quadratic one (by the product of both widths), and its weights "
                  "take {} % of the "
                  "memory. The layers are those of the checkpoint at step {}.",
                  decimal(100 * ratio.linear, 2), decimal(100 * ratio.quadratic, 2), decimal(100 * ratio.memory, 2),
                  grouped(f.checkpoint_step)));
  const auto linear = static_cast<double>(reference.linear);
  page.figures(
      {{"Where the cost is", draw(cost_columns(f.layers, linear, "linear cost of each layer")),
        "One column per layer, in the order they run: its linear cost, in percent of what the whole network costs "
        "in bf16 at width 1. Rest the pointer on a column for its name. " +
            bits_caption(f.layers)}});
  page.markup_paragraph(bits_legend(f.layers));
  page.open_details("All layers: bits, bounds, clipped values, use of the codes");
  page.table(layer_table(f.layers), layer_table_caption());
  page.close_details();
}

std::string or_dash(double value, int digits) {
  return value < 0 ? "-" : decimal(value, digits);
}

void add_machine(Page& page, const RunFacts& f) {
  page.heading("Where it ran");
  Table table;
  table.header = {"started (UTC)", "nibble",          "CPU", "kernels", "threads", "from step",
                  "to step",       "images a second", "time"};
  table.text_columns = 4;
  for (const RunSession& s : f.sessions)
    table.rows.push_back({{s.started},
                          {s.version},
                          {s.cpu},
                          {s.isa},
                          {or_dash(s.threads, 0)},
                          {or_dash(s.first_step, 0)},
                          {or_dash(s.last_step, 0)},
                          {or_dash(s.images_per_second, 1)},
                          {s.seconds >= 0 && s.seconds < 1e9 ? duration(s.seconds) : "-"}});
  if (table.rows.empty())
    page.paragraph("machine.json says nothing about it.");
  else
    page.table(table, "One row for each process that worked on the run; one that was killed has no end.");
  page.open_details("Configuration");
  page.preformatted(f.config);
  page.close_details();
}

}  // namespace

std::optional<int64_t> RunFacts::planned_steps() const {
  if (options.steps > 0) return options.steps;
  if (curves.train.empty() || !(curves.train.back().epoch > 0)) return std::nullopt;
  const double per_epoch = static_cast<double>(curves.train.back().step) / curves.train.back().epoch;
  const double planned = per_epoch * static_cast<double>(options.epochs);
  return planned < 1e12 ? std::optional<int64_t>(std::llround(planned)) : std::nullopt;
}

RunFacts read_run(const fs::path& run) {
  const fs::path config = run_config_path(run), metrics = run_metrics_path(run);
  std::error_code ignored;
  if (!fs::is_regular_file(config, ignored))
    throw UsageError("'{}' is not a run folder, it has no config.resolved.toml; check the path", run.string());
  RunFacts facts;
  facts.name = fs::absolute(run).lexically_normal().filename().string();
  if (facts.name.empty()) facts.name = fs::absolute(run).lexically_normal().parent_path().filename().string();
  facts.config = read_text_file(config, kLongestConfig);
  read_options(config, facts.options);
  facts.options.validate();
  if (fs::is_regular_file(metrics, ignored)) facts.curves = read_curves(metrics);
  if (facts.curves.train.empty() && facts.curves.evaluations.empty())
    throw DataError("'{}' has no metrics to report yet; wait until its first line is written", metrics.string());
  facts.sessions = read_sessions(run_machine_path(run));
  read_layers(run, facts);
  return facts;
}

std::string run_report(const RunFacts& facts) {
  Page page("Training run: " + facts.name);
  page.paragraph(summary(facts));
  add_curves(page, facts);
  add_layers(page, facts);
  add_machine(page, facts);
  return page.finish();
}

}  // namespace nibble::apps
