// What is measured of a trained point: from which checkpoint, on which evaluations and which training images.
#include "apps/study/measure.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <mutex>
#include <set>

#include "apps/train_arguments.hpp"
#include "data/synth.hpp"
#include "engine/cpu.hpp"
#include "engine/error.hpp"
#include "engine/parallel.hpp"
#include "nn/atomic_file.hpp"
#include "nn/checkpoint.hpp"
#include "nn/run_folder.hpp"
#include "tests/temp_dir.hpp"

namespace nibble::apps {
namespace {

namespace fs = std::filesystem;

/// Four images of each of ten classes; notes which were read.
class NotingDataset : public Dataset {
 public:
  int64_t size() const override { return images_.size(); }
  const std::vector<std::string>& class_names() const override { return images_.class_names(); }
  int label(int64_t index) const override { return images_.label(index); }
  std::string path(int64_t index) const override { return images_.path(index); }
  Image read(int64_t index) const override {
    const std::lock_guard lock(mutex_);
    read_.insert(index);
    return images_.read(index);
  }
  const std::set<int64_t>& indices_read() const { return read_; }

 private:
  SyntheticDataset images_{{.split = SynthSplit::train, .per_class = 4, .size = 32, .seed = 0}};
  mutable std::mutex mutex_;
  mutable std::set<int64_t> read_;
};

/// A run of 10 steps, calibrated before step 7, as train leaves it. Its arithmetic is `fake`, which is not timed.
class FinishedRun {
 public:
  explicit FinishedRun(const std::string& precision = "w4a4") {
    arguments_.read_text(
        "arch = 'resnet26'\nwidth = 0.05\nimage-size = 32\nsteps = 10\ncalibrate-at = 7\n"
        "quant-mode = 'fake'\nprecision = '" +
            precision + "'\n",
        "test");
    arguments_.resolve();
    write_file_atomically(dir_ / "config.resolved.toml", arguments_.config_text());
    write_file_atomically(
        dir_ / "metrics.jsonl",
        "{\"step\":5,\"epoch\":1,\"eval/top1\":90,\"eval/top5\":95,\"eval/loss\":0.5,\"eval/images\":10}\n"
        "{\"step\":10,\"epoch\":2,\"eval/top1\":20,\"eval/top5\":60,\"eval/loss\":2,\"eval/images\":10}\n");
    fs::create_directories(dir_ / "checkpoints");
    save(5, model(5), 5);
    save(10, model(10), 10);
    link_latest(10);
  }

  Model model(uint64_t seed) const {
    NetworkOptions network = arguments_.options.network;
    network.classes = images->num_classes();
    return make_model(build_resnet(network), {.seed = seed});
  }
  std::string checkpoint(int64_t step) const { return CheckpointStore(dir_.path(), 1).path_for(step).string(); }
  /// Under the name of `step`, as the checkpoint of `steps_done`.
  void save(int64_t step, const Model& model, int64_t steps_done) const {
    save_checkpoint(checkpoint(step), model, make_gradients(model), steps_done, "{}", images->class_names());
  }
  void link_latest(int64_t step) const {
    fs::remove(dir_ / "latest");
    fs::create_symlink(fs::path("checkpoints") / fs::path(checkpoint(step)).filename(), dir_ / "latest");
  }
  std::string log() const { return read_text_file(dir_ / "metrics.jsonl", 1 << 20); }
  void write_machine_note(const std::string& sessions) const {
    write_file_atomically(dir_ / "machine.json", "{\"sessions\":[" + sessions + "]}");
  }
  void write_log(const std::string& lines) const { write_file_atomically(dir_ / "metrics.jsonl", lines); }
  PointResult measure(int64_t train_limit = 0, int64_t eval_steps = 0) const {
    return measure_point({.run = dir_.path().string(),
                          .point = {arguments_.options.network.precision, 0.05, 0},
                          .options = arguments_.options,
                          .steps = 10,
                          .last = {},
                          .outcomes = {},
                          .eval_steps = eval_steps,
                          .train = images,
                          .train_limit = train_limit});
  }

  const std::shared_ptr<const NotingDataset> images = std::make_shared<NotingDataset>();

 private:
  testing::TempDir dir_;
  TrainArguments arguments_;
};

TEST_CASE("study measure_point: the published metric of a quantized point is of evaluations after calibration") {
  const PointResult p = FinishedRun().measure();
  CHECK(p.best.step == 10);
  CHECK(p.best.top1 == 20);
  CHECK(p.curves.evaluations.size() == 2);
  CHECK(FinishedRun("bf16").measure().best.step == 5);
}

TEST_CASE("study measure_point: what an edited log lacks does not get into the result, which is read back") {
  const FinishedRun run;
  const std::string whole = run.log();
  run.write_log(
      whole +
      "{\"step\":8,\"eval/top1\":99,\"eval/top5\":99,\"eval/loss\":1}\n{\"step\":9,\"epoch\":2,\"eval/top1\":99}\n"
      "{\"step\":8,\"train/loss\":1}\n{\"step\":10,\"epoch\":2,\"train/loss\":null}\n"
      "{\"step\":7,\"epoch\":2,\"eval/top1\":101,\"eval/top5\":101,\"eval/loss\":1}\n"
      "{\"step\":6,\"epoch\":-2,\"eval/top1\":99,\"eval/top5\":99,\"eval/loss\":1}\n"
      "{\"step\":4,\"epoch\":2,\"eval/top1\":99,\"eval/top5\":99,\"eval/loss\":-1}\n"
      "{\"step\":6,\"epoch\":-1,\"train/loss\":1}\n{\"step\":7,\"epoch\":2,\"train/loss\":1e301}\n");
  const PointResult p = run.measure();
  CHECK(p.best.step == 10);
  CHECK(p.best.top1 == 20);
  CHECK(to_json(point_result_from_json(to_json(p), "written")) == to_json(p));
  CHECK(p.curves.train.size() == 1);
  run.write_log("{\"step\":10,\"eval/top1\":20}\n");
  CHECK_THROWS_WITH_AS(run.measure(), doctest::Contains("metrics.jsonl has no evaluation with an epoch"), ModelError);
}

TEST_CASE("study measure_point: a log that lacks evaluations is no result, whichever epoch is the best of the others") {
  const FinishedRun run;
  CHECK_NOTHROW(run.measure(0, 5));
  CHECK_THROWS_WITH_AS(run.measure(0, 2), doctest::Contains("metrics.jsonl lacks 4 of the run's evaluations"),
                       ModelError);  // of steps 2, 4, 6 and 8
  const std::string whole = run.log(), of_last = whole.substr(whole.find("{\"step\":10,"));
  run.write_log(of_last);
  CHECK_NOTHROW(run.measure());
  CHECK_THROWS_WITH_AS(run.measure(0, 5), doctest::Contains("lacks 1 of the run's evaluations"), ModelError);
  run.write_log("{\"step\":7,\"epoch\":1,\"eval/top1\":90,\"eval/top5\":95,\"eval/loss\":0.5}\n" + of_last);
  CHECK_THROWS_WITH_AS(run.measure(0, 5), doctest::Contains("lacks 1 of the run's evaluations"), ModelError);
}

TEST_CASE("study measure_point: the model is that of the last step, whatever latest says; another one is refused") {
  const FinishedRun run;
  const PointResult p = run.measure();
  run.link_latest(5);
  const PointResult stale = run.measure();
  CHECK(stale.steps == 10);
  CHECK(stale.train_unaugmented == p.train_unaugmented);
  run.save(10, run.model(5), 5);
  CHECK(run.model(5).units[0].weights.data<float>()[0] != run.model(10).units[0].weights.data<float>()[0]);
  CHECK_THROWS_WITH_AS(
      run.measure(), doctest::Contains((run.checkpoint(10) + " is of step 5, but the run ended with step 10").c_str()),
      ModelError);
  fs::remove(run.checkpoint(10));
  CHECK_THROWS_WITH_AS(run.measure(), doctest::Contains("step-000010.safetensors"), ModelError);
}

TEST_CASE("study measure_point: where it comes from is where it was trained, not where it is measured") {
  const FinishedRun run;
  CHECK(run.measure().provenance.cpu == cpu_features().brand);
  CHECK(run.measure().provenance.threads == threads());
  const std::string begun = R"({"started":"T1","nibble":"0.0.9","cpu":"A","isa":"avx2","threads":5,"seconds":10})",
                    gone_on = R"({"started":"T2","nibble":"0.0.9","cpu":"B","isa":"amx","threads":7,"seconds":2.5})",
                    odd = R"({"started":"T3","threads":1e300,"seconds":1e300})";
  run.write_machine_note(begun);
  Provenance from = run.measure().provenance;
  CHECK(from.cpu == "A");
  CHECK(from.isa == "avx2");
  CHECK(from.threads == 5);
  run.write_machine_note(begun + "," + gone_on + "," + begun);
  from = run.measure().provenance;
  CHECK(from.started == "T1");
  CHECK(from.version == "0.0.9");
  CHECK(from.cpu == "A, then B");
  CHECK(from.isa == "avx2, then amx");
  CHECK(from.threads == 5);
  CHECK(from.seconds == 22.5);
  run.write_machine_note(odd);
  CHECK(run.measure().provenance.threads == threads());
}

TEST_CASE("study measure_point: a few training images are spread over all classes") {
  const FinishedRun run;
  CHECK(run.measure(10).train_unaugmented.images == 10);
  CHECK(run.images->indices_read() == std::set<int64_t>{0, 4, 8, 12, 16, 20, 24, 28, 32, 36});
  CHECK(run.measure(1000).train_unaugmented.images == 40);
}

TEST_CASE("study measure_point: a model whose training loss is not finite has diverged, and gives no result") {
  const FinishedRun run;
  Model model = run.model(10);
  const UnitParameters& fc = model.units.back();
  std::fill_n(fc.weights.data<float>(), fc.weights.size(), 1e37f);
  std::fill_n(fc.bias.data<float>(), fc.bias.size(), 3.4028e38f);  // finite, but no sum with it is
  run.save(10, model, 10);
  CHECK_THROWS_WITH_AS(run.measure(), doctest::Contains("not finite for training images"), DivergedError);
}

}  // namespace
}  // namespace nibble::apps
