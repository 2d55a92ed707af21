#include "apps/study/study_run.hpp"

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <new>

#include "apps/console.hpp"
#include "apps/inference_probe.hpp"
#include "apps/loading_probe.hpp"
#include "apps/signals.hpp"
#include "apps/study/measure.hpp"
#include "apps/study/timing.hpp"
#include "engine/block_cache.hpp"
#include "engine/error.hpp"
#include "engine/files.hpp"
#include "engine/parallel.hpp"
#include "nn/atomic_file.hpp"
#include "nn/cost.hpp"
#include "nn/run_folder.hpp"
#include "nn/study/study_folder.hpp"

namespace nibble::apps {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFailure = "failure.txt";  // in a point's folder: why it failed
constexpr size_t kLongestSentence = 64 << 10;    // in it
constexpr int kBySignal = 128;                   // and the signal's number: how a process's end is told

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

void StudyRun::set_point(const StudyPoint& point) {
  recipe_.options.network.width = point.width;
  recipe_.options.network.precision = point.precision;
  recipe_.options.seed = point.seed;
}

std::string StudyRun::folder_of(const StudyPoint& point) const {
  return (fs::path(args_.out) / point.name()).string();
}

std::string StudyRun::config_of(const StudyPoint& point) const {
  return run_config_path(folder_of(point)).string();
}

/// A finished point is known by its result alone: the run's other files may be gone.
PointState StudyRun::state_of(const StudyPoint& point) const {
  if (kept_.contains(point.name()) || path_exists(result_path(args_.out, point.name()))) return PointState::kDone;
  if (path_exists(fs::path(folder_of(point)) / kFailure)) return PointState::kFailed;
  return path_exists(config_of(point)) ? PointState::kBegun : PointState::kWaiting;
}

StudyRun::Sample StudyRun::probe(const std::string& precision, double width) {
  set_point({precision, width, 0});
  const NetworkOptions& network = recipe_.options.network;
  Sample sample{static_cast<double>(cost_of(build_resnet(network)).total.macs),
                with_loading(probe_step(recipe_.options), loading_, recipe_.options), 0};
  if (network.mode == QuantMode::kFake) return sample;
  Executor executor(untrained_model(network));
  LatencyProbe latency(executor, network.image_size);
  latency.visit_briefly();
  sample.evaluate = latency.result().batch32_ms_per_image / 1000;
  return sample;
}

/// Of the evaluations after epochs to come, and of the training images at the end.
int64_t StudyRun::images_to_evaluate(int64_t steps_done) const {
  int64_t evaluations = 1;  // after the last step, also when all are done: a resumed run asks once more
  if (const int64_t every = recipe_.options.eval_every * steps_per_epoch_; every > 0 && steps_done < steps_)
    evaluations += (steps_ - 1) / every - steps_done / every;
  const int64_t limit = plan_.train_eval_images, train = plan_.data.train_images;
  return evaluations * plan_.data.validation_images + (limit > 0 ? std::min(limit, train) : train);
}

/// Seconds of what a point still has to do, between those of the narrowest and the widest network.
double StudyRun::seconds_of(const StudyPoint& point, double macs, const Sample& low, const Sample& high) const {
  const double part = high.macs > low.macs ? (macs - low.macs) / (high.macs - low.macs) : 0;
  const double batch = static_cast<double>(recipe_.options.batch_size);
  const auto step = [&](double PhaseSeconds::*phase) {
    return batch * (low.image.*phase + part * (high.image.*phase - low.image.*phase));
  };
  const StepPace pace({.total_steps = steps_,
                       .quantized_from = recipe_.options.calibrate_step(steps_),  // equal phases when it never is
                       .probe = {.before = step(&PhaseSeconds::before), .after = step(&PhaseSeconds::after)}});
  const std::vector<int64_t> saved =
      path_exists(config_of(point)) ? CheckpointStore(folder_of(point), 1).steps() : std::vector<int64_t>();
  const int64_t done = saved.empty() ? 0 : saved.back();
  const double evaluate = low.evaluate + part * (high.evaluate - low.evaluate);
  const double timing = evaluate > 0 ? seconds_to_measure_latency(evaluate) : 0;
  return pace.seconds_left(done) + evaluate * static_cast<double>(images_to_evaluate(done)) + timing;
}

void StudyRun::stop_if_asked() const {
  if (stop_requested())
    throw InterruptedError(
        "{}", args_.dry_run
                  ? "interrupted before the plan was complete; nothing was changed"
                  : "interrupted between two points; continue with: nibble study run --out " + shell_quoted(args_.out));
}

std::vector<PointEstimate> StudyRun::estimate() {
  std::map<std::string, std::pair<double, double>> range;  // narrowest and widest unfinished width
  for (const StudyPoint& p : plan_.points) {
    if (state_of(p) == PointState::kDone) continue;
    auto& [low, high] = range.emplace(p.precision, std::pair(p.width, p.width)).first->second;
    low = std::min(low, p.width);
    high = std::max(high, p.width);
  }
  if (args_.jobs > 1) set_threads(threads_of(static_cast<int>(args_.jobs) - 1));
  if (!range.empty()) loading_ = probe_loading(*train_, recipe_.options);
  std::map<std::string, std::pair<Sample, Sample>> samples;
  for (const auto& [precision, widths] : range) {
    stop_if_asked();
    const bool one = widths.second == widths.first;
    message(
        fmt::format("probing {} x{}{}", precision, widths.first, one ? "" : fmt::format(" and x{}", widths.second)));
    const Sample low = probe(precision, widths.first);
    samples[precision] = {low, one ? low : probe(precision, widths.second)};
  }
  std::vector<PointEstimate> all;
  for (const StudyPoint& p : plan_.points) {
    set_point(p);
    const CostSums cost = cost_of(build_resnet(recipe_.options.network)).total;
    PointEstimate e{p, state_of(p), cost_ratio(cost, reference_cost(recipe_.options.network)).linear, 0};
    if (e.state != PointState::kDone) {
      const auto& [low, high] = samples.at(p.precision);
      e.seconds = seconds_of(p, static_cast<double>(cost.macs), low, high);
    }
    all.push_back(e);
  }
  return all;
}

void StudyRun::work_on(const StudyPoint& point) {
  set_point(point);
  const std::string folder = folder_of(point);
  const PointStart* start = plan_.start.of(point);
  TrainingRun run({.options = recipe_.options,
                   .config_text = recipe_.config_text(),
                   .out = folder,
                   .weights = start != nullptr ? start->file : "",
                   .weights_choice = plan_.start.choice,
                   .weights_sha256 = start != nullptr ? start->sha256 : "",
                   .resume = path_exists(config_of(point)),
                   .in_study = true});
  const RunSummary summary = run.run();
  message(fmt::format("measuring {}", point.name()));
  const PointResult result = measure_point({.run = folder,
                                            .point = point,
                                            .options = recipe_.options,
                                            .steps = summary.steps,
                                            .last = summary.evaluation,
                                            .outcomes = {run.validation_digest(), summary.outcomes},
                                            .start = start,
                                            .eval_steps = recipe_.options.eval_every * steps_per_epoch_,
                                            .train = run.training_set(),
                                            .train_limit = plan_.train_eval_images,
                                            .time = args_.worker.empty()});
  write_file_atomically(result_path(args_.out, point.name()), to_json(result));
  if (const int64_t all = plan_.data.validation_images; result.last.images < all)
    warn(
        fmt::format("{} was judged on {} of {} validation images, the others cannot be read; a report compares "
                    "points whose numbers differ by at most 1 %",
                    point.name(), grouped(result.last.images), grouped(all)));
  CheckpointStore(folder, 1).publish(summary.steps);  // ResNet-50 x1.5: 0.4 GB each, and only for going on
}

/// Works on a point; returns the sentence of an error that is this point's own. Others are rethrown.
std::optional<std::string> StudyRun::failure_of(const StudyPoint& point) {
  const fs::path note = fs::path(folder_of(point)) / kFailure;
  std::string sentence;
  try {
    work_on(point);
    std::error_code ignored;
    fs::remove(note, ignored);
    return std::nullopt;
  } catch (const InterruptedError&) {
    throw InterruptedError("interrupted in {} and saved; continue with: nibble study run --out {}", point.name(),
                           shell_quoted(args_.out));
  } catch (const Error& e) {
    const bool own = e.code() == ExitCode::kDiverged || e.code() == ExitCode::kModel ||
                     e.code() == ExitCode::kVerification || e.code() == ExitCode::kFailed;
    if (!own) throw;
    sentence = e.what();
  } catch (const std::bad_alloc&) {
    sentence = "not enough memory; use a smaller --batch-size or --shard";
  }
  make_folders(folder_of(point));
  write_file_atomically(note, sentence + "\n");
  return sentence;
}

void StudyRun::announce(size_t point, const StudyProgress& progress) const {
  const double left = progress.seconds_left(seconds_now());
  message(fmt::format("point {} of {}: {}{}", point + 1, plan_.points.size(), plan_.points[point].name(),
                      left > 0 ? fmt::format(", about {} left for the study", duration(left)) : ""));
}

void StudyRun::note_end(size_t point, const std::optional<std::string>& failure, StudyProgress& progress) {
  progress.ended(point, seconds_now(), !failure);
  if (!failure) return;
  const std::string name = plan_.points[point].name();
  warn(fmt::format("{} failed: {}", name, *failure));
  failed_[name] = *failure;
}

void StudyRun::run_in_turn(StudyProgress& progress) {
  for (size_t i = 0; i < plan_.points.size(); ++i) {
    const StudyPoint& point = plan_.points[i];
    if (state_of(point) == PointState::kDone) continue;
    stop_if_asked();
    announce(i, progress);
    progress.began(i, seconds_now());
    same_data();  // images may have come or gone while the point before was trained
    note_end(i, failure_of(point), progress);
    release_kept_blocks();  // the next point may be a smaller network
  }
}

int StudyRun::threads_of(int slot) const {
  return static_cast<int>(args_.threads / args_.jobs + (slot < args_.threads % args_.jobs ? 1 : 0));
}

std::vector<std::string> StudyRun::worker_arguments(const StudyPoint& point, int slot) const {
  std::vector<std::string> words = {"study", "run", "--out=" + args_.out, "--worker=" + point.name(),
                                    "--threads=" + std::to_string(threads_of(slot))};
  if (args_.quiet) words.push_back("--quiet");
  return words;
}

/// The sentence of a process's failure that is its point's own; none: it finished the point. Other ends are thrown.
std::optional<std::string> StudyRun::failure_of(const EndedProcess& ended, const StudyPoint& point) const {
  const auto is = [&](ExitCode code) { return ended.code == static_cast<int>(code); };
  if (is(ExitCode::kDone) && state_of(point) == PointState::kDone) return std::nullopt;
  const fs::path note = fs::path(folder_of(point)) / kFailure;
  if (is(ExitCode::kFailed) && path_exists(note)) {
    std::string sentence = read_text_file(note, kLongestSentence);
    while (sentence.ends_with('\n')) sentence.pop_back();
    return sentence;
  }
  if (ended.code > kBySignal) {
    const std::string sentence = fmt::format(
        "signal {} ended its process{}; run the study again to continue the point", ended.code - kBySignal,
        ended.code == kBySignal + SIGKILL ? ", as Linux does when memory is short (then use fewer --jobs)" : "");
    if (!ended.error.empty()) warn(point.name() + ": " + ended.error);
    make_folders(folder_of(point));
    write_file_atomically(note, sentence + "\n");
    return sentence;
  }
  const bool known = ended.code > 0 && ended.code <= static_cast<int>(ExitCode::kDisk);
  throw Error(known ? static_cast<ExitCode>(ended.code) : ExitCode::kFailed,
              fmt::format("{}: {}", point.name(),
                          !ended.error.empty() ? ended.error
                                               : fmt::format("its process ended with code {} and no result; run the "
                                                             "study again, with --jobs 1 to see more",
                                                             ended.code)));
}

/// Told to stop, and saved; or told twice, so that what its last checkpoint does not have is lost.
bool was_stopped(const EndedProcess& ended) {
  return ended.code == static_cast<int>(ExitCode::kInterrupted) || ended.code == kBySignal + SIGINT ||
         ended.code == kBySignal + SIGTERM || ended.code == kBySignal + SIGHUP;
}

void StudyRun::run_at_once(StudyProgress& progress) {
  std::vector<size_t> waiting;
  for (size_t i = plan_.points.size(); i-- > 0;)
    if (state_of(plan_.points[i]) != PointState::kDone) waiting.push_back(i);
  std::vector<int> free;
  for (int slot = static_cast<int>(args_.jobs); slot-- > 0;) free.push_back(slot);
  std::vector<std::string> interrupted;
  bool all_saved = true;
  PointProcesses processes;
  while (!waiting.empty() || processes.running() > 0) {
    while (!waiting.empty() && !free.empty() && !stop_requested() && interrupted.empty()) {
      const size_t i = waiting.back();
      announce(i, progress);
      std::error_code ignored;  // it says so again, or another sentence
      fs::remove(fs::path(folder_of(plan_.points[i])) / kFailure, ignored);
      processes.start(plan_.points[i].name(), free.back(), worker_arguments(plan_.points[i], free.back()));
      progress.began(i, seconds_now());
      waiting.pop_back();
      free.pop_back();
    }
    if (processes.running() == 0) break;
    const EndedProcess ended = processes.wait();
    free.push_back(ended.slot);
    const auto point = std::find_if(plan_.points.begin(), plan_.points.end(),
                                    [&](const StudyPoint& p) { return p.name() == ended.point; });
    if (was_stopped(ended)) {
      all_saved = all_saved && ended.code == static_cast<int>(ExitCode::kInterrupted);
      interrupted.push_back(ended.point);
      processes.stop();  // one was told to stop, by whatever: so is the study
      continue;
    }
    note_end(static_cast<size_t>(point - plan_.points.begin()), failure_of(ended, *point), progress);
  }
  if (!interrupted.empty())
    throw InterruptedError(
        "interrupted in {}{}; continue with: nibble study run --out {}", fmt::join(interrupted, " and "),
        all_saved ? " and saved" : "; what is newer than a checkpoint is lost", shell_quoted(args_.out));
  stop_if_asked();
}

/// Points that were trained alongside others: their times would say more about those.
void StudyRun::time_what_is_not() const {
  constexpr int64_t kRounds = 3;  // to compare milliseconds there is study measure, which has more
  std::vector<PointResult> points;
  std::vector<fs::path> files;
  for (const StudyPoint& p : plan_.points) {
    const fs::path file = result_path(args_.out, p.name());
    if (state_of(p) != PointState::kDone || !path_exists(config_of(p))) continue;
    PointResult result = read_point_result(file);
    if (result.latency.batch1_ms > 0) continue;
    points.push_back(std::move(result));
    files.push_back(file);
  }
  std::vector<TimedNetwork> networks;
  try {
    networks = networks_of(points);
  } catch (const DataError& e) {  // the points are done; the report says what has no time
    warn(fmt::format("nothing is timed: {}", e.what()));
    return;
  }
  if (networks.empty()) return;
  message(fmt::format("timing {} in turn", counted(std::ssize(networks), "model")));
  set_threads(static_cast<int>(args_.threads));
  try {
    time_in_turn(networks, kRounds);
  } catch (const InterruptedError&) {
    throw InterruptedError(
        "interrupted while models were timed, all points are done; continue with: nibble study run --out {}",
        shell_quoted(args_.out));
  }
  keep_times(files, networks);
}

StudyRun::Outcome StudyRun::run(const std::vector<PointEstimate>& estimates) {
  StudyProgress progress = progress_of(estimates);
  if (args_.jobs > 1)
    run_at_once(progress);
  else
    run_in_turn(progress);
  time_what_is_not();
  Outcome outcome;
  for (const StudyPoint& p : plan_.points) {
    const std::string name = p.name();
    if (const auto failure = failed_.find(name); failure != failed_.end())
      outcome.failed.push_back({name, failure->second});
    else if (state_of(p) == PointState::kDone)
      outcome.done.push_back(name);
  }
  return outcome;
}

std::optional<std::string> StudyRun::run_worker() {
  for (const StudyPoint& p : plan_.points)
    if (p.name() == args_.worker) return failure_of(p);
  throw UsageError("the study '{}' has no point '{}'", args_.out, args_.worker);
}

StudyProgress StudyRun::progress_of(const std::vector<PointEstimate>& estimates) const {
  std::vector<double> seconds;
  for (const PointEstimate& e : estimates) seconds.push_back(e.seconds);
  return StudyProgress(seconds, args_.jobs);
}

double StudyRun::seconds_to_go(const std::vector<PointEstimate>& estimates) const {
  return progress_of(estimates).seconds_left(0);
}

}  // namespace nibble::apps
