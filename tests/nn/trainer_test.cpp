// The trainer: the same bytes for every number of threads and after every interruption, calibration once, divergence.
#include "nn/trainer.hpp"
#include "nn/evaluate_modules.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "engine/parallel.hpp"
#include "engine/sanitizer.hpp"
#include "nn/activation_usage.hpp"
#include "nn/checkpoint.hpp"
#include "ops/softmax_cross_entropy.hpp"
#include "tests/host_float_mode.hpp"
#include "tests/nn/small_model.hpp"
#include "tests/temp_dir.hpp"
#include "tests/threads_guard.hpp"

namespace nibble {
namespace {

using testing::same_bytes;
using testing::small_options;
using testing::TempDir;

constexpr int64_t kShard = 4, kBatch = 8;
/// Under sanitizers a step takes ten times as long, and what is learnt is not what they watch: a few steps on either
/// side of calibration, and the loss is not judged.
constexpr bool kLearns = !kSanitized;

struct Batch {
  Tensor images;
  std::vector<int32_t> labels;
};

/// Five classes told apart by colour and by the direction of stripes; every step draws different images.
Batch separable_batch(int64_t step, int64_t n = kBatch, int64_t size = 32) {
  Batch b{Tensor(DType::u8, {n, size, size, 3}), {}};
  for (int64_t i = 0; i < n; ++i) {
    Rng rng(11, rng_purpose::kTest, static_cast<uint64_t>(step), static_cast<uint32_t>(i));
    const int32_t label = static_cast<int32_t>(rng.below(5));
    b.labels.push_back(label);
    uint8_t* p = b.images.data<uint8_t>() + i * size * size * 3;
    for (int64_t k = 0; k < size * size * 3; ++k) {
      const int64_t x = k / 3 % size, y = k / 3 / size;
      const float stripe = (label % 2 == 0 ? x : y) / 4 % 2 == 0 ? 50.0f : -50.0f;
      const float colour = k % 3 == label % 3 ? 170.0f : 90.0f;
      p[k] = static_cast<uint8_t>(colour + stripe + 30.0f * (rng.uniform() - 0.5f));
    }
  }
  return b;
}

TrainerOptions trainer_options(int64_t calibrate_step, float rate = 0.05f) {
  TrainerOptions t;
  t.shard = kShard;
  t.schedule = {
      .kind = ScheduleKind::kCosine, .peak = static_cast<double>(rate), .warmup_steps = 2, .total_steps = 1000};
  t.calibrate_step = calibrate_step;
  return t;
}

Model fresh_model(const NetworkOptions& options) {
  return make_model(build_resnet(options), {.seed = 5, .zero_last_gamma = true});
}

StepResult train_step(Trainer& trainer, int64_t images = kBatch) {
  const Batch b = separable_batch(trainer.steps_done(), images);
  return trainer.step(b.images, b.labels);
}

std::vector<char> file_bytes(const std::filesystem::path& path) {
  std::vector<char> bytes(std::filesystem::file_size(path));
  std::ifstream in(path, std::ios::binary);
  in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(in.good());
  return bytes;
}

std::vector<char> checkpoint_bytes(const Trainer& trainer, const TempDir& dir) {
  save_checkpoint(dir / "c.safetensors", trainer.model(), trainer.momentum(), trainer.steps_done(), "{}",
                  {"a", "b", "c", "d", "e"});
  return file_bytes(dir / "c.safetensors");
}

TEST_CASE("trainer: six steps with 1, 2 and 3 threads give byte-identical checkpoints in every precision") {
  const TempDir dir;
  const testing::ThreadsGuard restore;
  for (const char* precision : {"w4a4-fl8", "w8a8", "bf16"}) {
    CAPTURE(precision);
    std::vector<char> expected;
    for (int threads : {1, 2, 3}) {
      set_threads(threads);
      Trainer trainer(fresh_model(small_options(precision)), trainer_options(3));
      for (int i = 0; i < 6; ++i) train_step(trainer);
      const std::vector<char> bytes = checkpoint_bytes(trainer, dir);
      if (threads == 1) expected = bytes;
      CHECK(bytes == expected);
    }
    // Negative control: another seed gives another file.
    Trainer other(make_model(build_resnet(small_options(precision)), {.seed = 6, .zero_last_gamma = true}),
                  trainer_options(3));
    for (int i = 0; i < 6; ++i) train_step(other);
    CHECK(checkpoint_bytes(other, dir) != expected);
  }
}

TEST_CASE(
    "trainer: batches of several shards give the same bytes with any number of threads, after a resume, in low "
    "memory") {
  const TempDir dir;
  const testing::ThreadsGuard restore;
  for (int64_t shards : {3, 5, 8}) {  // a tree with leaves at two depths, a deep one, a whole one
    CAPTURE(shards);
    const int64_t images = shards * kShard;
    std::vector<char> expected;
    for (int threads : {1, 2, 3, 8}) {
      CAPTURE(threads);
      set_threads(threads);
      Trainer trainer(fresh_model(small_options("w4a4-fl8", 0.13)), trainer_options(2));
      for (int i = 0; i < 2; ++i) train_step(trainer, images);
      checkpoint_bytes(trainer, dir);
      Checkpoint c = load_checkpoint(dir / "c.safetensors");
      TrainerOptions low_memory = trainer_options(2);
      low_memory.low_memory = true;
      Trainer second(std::move(c.model), low_memory, c.momentum, c.steps_done);
      for (Trainer* t : {&trainer, &second})
        for (int i = 2; i < 4; ++i) train_step(*t, images);
      const std::vector<char> bytes = checkpoint_bytes(trainer, dir);
      CHECK(checkpoint_bytes(second, dir) == bytes);
      if (threads == 1) expected = bytes;
      CHECK(bytes == expected);
    }
  }
}

TEST_CASE("trainer: resuming from a checkpoint, before or after calibration, gives the bytes of an uninterrupted run") {
  const TempDir dir;
  for (const char* precision : {"w4a4-fl8", "bf16"}) {
    CAPTURE(precision);
    Trainer whole(fresh_model(small_options(precision)), trainer_options(3));
    for (int i = 0; i < 6; ++i) train_step(whole);
    const std::vector<char> expected = checkpoint_bytes(whole, dir);
    for (int stop : {1, 2, 3, 5}) {
      CAPTURE(stop);
      Trainer first(fresh_model(small_options(precision)), trainer_options(3));
      for (int i = 0; i < stop; ++i) train_step(first);
      checkpoint_bytes(first, dir);
      Checkpoint c = load_checkpoint(dir / "c.safetensors");
      CHECK(c.steps_done == stop);
      Trainer second(std::move(c.model), trainer_options(3), c.momentum, c.steps_done);
      for (int i = stop; i < 6; ++i) train_step(second);
      CHECK(checkpoint_bytes(second, dir) == expected);
    }
  }
}

TEST_CASE("trainer: bounds are written once, at the end of step N-1, and never move again") {
  Trainer trainer(fresh_model(small_options("w4a4-fl8")), trainer_options(4));
  for (int i = 0; i < 4; ++i) {
    CHECK_FALSE(trainer.model().calibrated());
    train_step(trainer);
  }
  REQUIRE(trainer.model().calibrated());
  std::vector<std::vector<float>> bounds, statistics;
  for (const Calibration& c : trainer.model().calibration) {
    bounds.push_back(c.bound);
    statistics.push_back(c.mean_of_max);
    CHECK(c.weight.front() <= doctest::Approx(1 - std::pow(0.9, 4)));  // four updates at most
    for (float b : c.bound) CHECK(b > 0);
  }
  CHECK(trainer.model().calibration.front().weight.front() == doctest::Approx(1 - std::pow(0.9, 4)));
  for (int i = 0; i < 3; ++i) train_step(trainer);
  for (size_t q = 0; q < bounds.size(); ++q) {
    CHECK(trainer.model().calibration[q].bound == bounds[q]);
    CHECK(trainer.model().calibration[q].mean_of_max == statistics[q]);
  }
}

TEST_CASE("trainer: the image bound is the mean over shards of the largest normalised byte") {
  Trainer trainer(fresh_model(small_options("w8a8")), trainer_options(1));
  const Batch b = separable_batch(0);
  trainer.step(b.images, b.labels);
  const std::vector<float>& bound = trainer.model().calibration.front().bound;
  REQUIRE(bound.size() == 3);
  for (size_t c = 0; c < 3; ++c) {
    double mean = 0;
    for (size_t shard = 0; shard < 2; ++shard) {
      float largest = 0;
      const size_t pixels = kShard * 32 * 32;
      for (size_t p = 0; p < pixels; ++p)
        largest =
            std::max(largest, std::fabs(PixelNorm().value(b.images.data<uint8_t>()[(shard * pixels + p) * 3 + c], c)));
      mean += static_cast<double>(largest) / 2;
    }
    CHECK(bound[c] == doctest::Approx(mean).epsilon(1e-6));
  }
}

TEST_CASE("trainer: the loss does not jump when the activations become integers") {
  // The step before calibration and the one after it see similar losses; a lost scale, a fold used twice or a wrong
  // bound shows as a loss of several units. At 64 pixels: batch norm over four images of one pixel each, which the last
  // stage has at 32, magnifies every rounding. At a rate of 0.01: steps of 0.05 on eight images are chaos, and jumps up
  // to 0.33 depend on the last bit of a gradient; here they stay below 0.04 for six seeds.
  constexpr int64_t kSize = 64;
  constexpr float kRate = 0.01f;
  const struct {
    const char* precision;
    PerChannelBy by;
    Granularity granularity = Granularity::kPerChannel;
  } cases[] = {{"w8a8", PerChannelBy::kFold},  // shifts are for 4-bit codes only
               {"w4a4", PerChannelBy::kFold},
               {"w4a4-fl8", PerChannelBy::kFold},
               {"w4a4-fl8", PerChannelBy::kShift},
               {"w4a4-fl8", PerChannelBy::kShiftFold},
               {"w8a8", PerChannelBy::kFold, Granularity::kPerTensor},
               {"w4a4-fl8", PerChannelBy::kFold, Granularity::kPerTensor}};
  for (const auto& c : cases) {
    CAPTURE(c.precision);
    NetworkOptions o = small_options(c.precision);
    o.per_channel_by = c.by;
    o.granularity = c.granularity;
    o.image_size = kSize;
    constexpr int64_t kCalibrateAt = kLearns ? 20 : 3;
    Trainer trainer(fresh_model(o), trainer_options(kCalibrateAt, kRate));
    for (int64_t i = 0; i < kCalibrateAt - 1; ++i) {
      const Batch b = separable_batch(i, kBatch, kSize);
      trainer.step(b.images, b.labels);
    }
    // The same batch twice with a rate of next to nothing: only the quantization differs.
    Trainer frozen(trainer.model(), trainer_options(kCalibrateAt, 1e-9f), make_gradients(trainer.model()),
                   kCalibrateAt - 1);
    const Batch b = separable_batch(99, kBatch, kSize);
    const double before = frozen.step(b.images, b.labels).loss;
    REQUIRE(frozen.model().calibrated());
    const double after = frozen.step(b.images, b.labels).loss;
    if (kLearns) CHECK(std::fabs(after - before) < 0.1);
    CHECK(after != before);
  }
}

TEST_CASE("trainer: calibration before any statistics is refused") {
  for (int64_t at : {int64_t{0}, int64_t{-3}})
    CHECK_THROWS_WITH_AS(Trainer(fresh_model(small_options("w4a4-fl8", 0.1)), trainer_options(at)),
                         doctest::Contains("--calibrate-at"), UsageError);
  CHECK_NOTHROW(Trainer(fresh_model(small_options("bf16", 0.1)), trainer_options(0)));
}

TEST_CASE("trainer: batches that are not a multiple of the shard and labels that do not fit are refused") {
  Trainer trainer(fresh_model(small_options("w4a4-fl8", 0.1)), trainer_options(3));
  const Batch b = separable_batch(0, 6);
  CHECK_THROWS_WITH_AS(trainer.step(b.images, b.labels), doctest::Contains("shard size 4"), ShapeError);
  Batch c = separable_batch(0, 8);
  c.labels.pop_back();
  CHECK_THROWS_AS(trainer.step(c.images, c.labels), ShapeError);
  c.labels.push_back(5);
  CHECK_THROWS_WITH_AS(trainer.step(c.images, c.labels), doctest::Contains("label"), DataError);
  TrainerOptions none = trainer_options(3);
  none.shard = 0;
  CHECK_THROWS_AS(Trainer(fresh_model(small_options("w4a4-fl8", 0.1)), none), UsageError);
  TrainerOptions endless = trainer_options(3);
  endless.schedule.total_steps = 0;
  CHECK_THROWS_WITH_AS(Trainer(fresh_model(small_options("w4a4-fl8", 0.1)), endless), doctest::Contains("total_steps"),
                       UsageError);
}

TEST_CASE("trainer: a clone of the model stays as it is, a copy keeps training") {
  Trainer trainer(fresh_model(small_options("w4a4-fl8", 0.1)), trainer_options(3));
  train_step(trainer);
  const Model kept = trainer.model().clone(), copy = trainer.model();
  const auto differing = [&](const Model& other) {
    int tensors = 0;
    for (size_t u = 0; u < other.units.size(); ++u) {
      const UnitParameters &p = other.units[u], &now = trainer.model().units[u];
      tensors += !same_bytes(p.weights, now.weights);
      if (p.bias.defined()) tensors += !same_bytes(p.bias, now.bias);
      if (!p.gamma.defined()) continue;
      tensors += !same_bytes(p.gamma, now.gamma) + !same_bytes(p.beta, now.beta);
      tensors += !same_bytes(p.running_mean, now.running_mean) + !same_bytes(p.running_variance, now.running_variance);
    }
    return tensors;
  };
  CHECK(differing(kept) == 0);
  train_step(trainer);
  CHECK(differing(kept) == 5 * std::ssize(kept.units) - 3);  // fc has only weights and a bias
  CHECK(differing(copy) == 0);
}

TEST_CASE("trainer: images of another type, size or spacing are refused by every pass, not misread") {
  const NetworkOptions options = small_options("w4a4-fl8");
  Trainer trainer(fresh_model(options), trainer_options(3));
  const Model& model = trainer.model();
  const std::vector<int32_t> labels(kShard, 0);
  const auto refused = [&](const Tensor& images) {
    CHECK_THROWS_AS(trainer.step(images, labels), Error);
    CHECK_THROWS_AS(measure_usage(model, images), Error);
    CHECK_THROWS_AS(evaluate_modules(model, prepare_weights(model, Passes::kForward), images), Error);
  };
  const Shape shape{kShard, 32, 32, 3};
  for (const DType type : {DType::u4, DType::s4, DType::s8, DType::f32}) refused(Tensor::zeros(type, shape));
  refused(Tensor::zeros(DType::u8, shape, 4));
  refused(Tensor::zeros(DType::u8, {kShard, 32, 31, 3}));
  refused(Tensor::zeros(DType::u8, {kShard, 32, 96}));
  CHECK(trainer.steps_done() == 0);
}

TEST_CASE("trainer: a NaN weight stops the step, names the layer and leaves the model as it was") {
  for (const char* precision : {"w4a4-fl8", "bf16"}) {
    for (const char* layer : {"conv1", "layer2.0.conv2", "fc"}) {
      CAPTURE(precision);
      CAPTURE(layer);
      Trainer trainer(fresh_model(small_options(precision)), trainer_options(3));
      train_step(trainer);
      const size_t u = static_cast<size_t>(trainer.model().network.unit_index(layer));
      trainer.model().units[u].weights.data<float>()[1] = std::nanf("");
      const Tensor before = trainer.model().units[1].weights.clone();
      const Tensor mean = trainer.model().units[1].running_mean.clone();
      const std::vector<float> statistics =
          trainer.model().calibration.empty() ? std::vector<float>() : trainer.model().calibration[1].mean_of_max;
      CHECK_THROWS_WITH_AS(train_step(trainer), doctest::Contains(layer), DivergedError);
      CHECK(trainer.steps_done() == 1);
      CHECK(same_bytes(trainer.model().units[1].weights, before));
      CHECK(same_bytes(trainer.model().units[1].running_mean, mean));
      if (!statistics.empty()) CHECK(trainer.model().calibration[1].mean_of_max == statistics);
    }
  }
}

TEST_CASE("trainer: of several layers that diverged the first is named, whichever thread is done first") {
  Trainer trainer(fresh_model(small_options("w4a4-fl8")), trainer_options(3));
  // The last layer of the first half and the first of the second, where another thread begins.
  const auto& units = trainer.model().units;
  const size_t half = units.size() / 2;
  for (const size_t u : {half - 1, half}) units[u].weights.data<float>()[1] = std::nanf("");
  const testing::ThreadsGuard restore;
  set_threads(2);
  for (int i = 0; i < 20; ++i)
    CHECK_THROWS_WITH_AS(train_step(trainer), doctest::Contains(trainer.model().network.units[half - 1].name.c_str()),
                         DivergedError);
}

TEST_CASE("trainer: of shards that diverged in different layers the first layer is named") {
  TrainerOptions options = trainer_options(1);
  options.shard = kShard;
  Trainer trainer(fresh_model(small_options("w4a4-fl8")), options);
  train_step(trainer);  // calibrates
  // The first shard's images have code 0 everywhere, so that weights of any size leave its sums 0: it breaks in fc
  // alone, the second in a convolution, too.
  Batch b = separable_batch(1);
  for (int64_t i = 0; i < kShard * 32 * 32; ++i) {
    const uint8_t mean[3] = {124, 116, 104};
    std::memcpy(b.images.data<uint8_t>() + 3 * i, mean, 3);
  }
  const auto& units = trainer.model().units;
  const size_t u = static_cast<size_t>(trainer.model().network.unit_index("layer2.0.conv1"));
  for (int64_t i = 0; i < units[u].weights.size(); ++i) units[u].weights.data<float>()[i] = 3e38f;
  units.back().bias.data<float>()[0] = std::nanf("");
  CHECK_THROWS_WITH_AS(trainer.step(b.images, b.labels), doctest::Contains("layer2.0.conv1"), DivergedError);
}

#if defined(__x86_64__)
TEST_CASE("trainer: a host program's float mode changes no byte of a run, and is left as it was") {
  const TempDir dir;
  const auto run = [&] {
    // One shard, which runs on the host's own thread.
    TrainerOptions options = trainer_options(1);
    options.shard = kBatch;
    options.optimizer.clip_norm = 0.5f;
    Trainer trainer(fresh_model(small_options("w4a4-fl8")), options);
    for (int i = 0; i < 3; ++i) train_step(trainer);
    return checkpoint_bytes(trainer, dir);
  };
  const std::vector<char> expected = run();
  const testing::HostFloatMode mode;
  CHECK(run() == expected);
  CHECK(testing::HostFloatMode::in_force());
}

TEST_CASE("trainer: its parts, called by a host of another float mode, give the same bits") {
  const auto run = [] {
    Model model = fresh_model(small_options("w4a4-fl8"));
    const Batch b = separable_batch(0, kShard);
    Gradients gradients = make_gradients(model), momentum = make_gradients(model);
    Tape tape;
    ShardStatistics statistics;
    const StepWeights weights = prepare_weights(model, Passes::kForwardAndBackward);
    const Variable logits = training_forward(tape, model, weights, b.images, gradients, statistics);
    tape.backward(softmax_cross_entropy(&tape, logits, std::span<const int32_t>(b.labels), {}).loss);
    const double norm = optimizer_step(model, gradients, {}, momentum, 0.1f, {.clip_norm = 0.01f}, 0);
    for (size_t q = 0; q < model.calibration.size(); ++q)
      update_calibration(model.calibration[q], Granularity::kPerChannel, {statistics.channel_max[q]});
    calibrate(model);
    return std::tuple(logits.value().clone(), norm, model.units[3].weights, model.calibration[2].bound,
                      model.quantizers[2].factor, statistics.norms[3].variance);
  };
  const auto expected = run();
  const testing::HostFloatMode mode;
  const auto got = run();
  CHECK(same_bytes(std::get<0>(got), std::get<0>(expected)));
  CHECK(std::get<1>(got) == std::get<1>(expected));
  CHECK(same_bytes(std::get<2>(got), std::get<2>(expected)));
  CHECK(std::get<3>(got) == std::get<3>(expected));
  CHECK(std::get<4>(got) == std::get<4>(expected));
  CHECK(std::get<5>(got) == std::get<5>(expected));
}
#endif

TEST_CASE("trainer: a gamma that is infinite is found as the layer's divergence") {
  Trainer trainer(fresh_model(small_options("w4a4-fl8")), trainer_options(3));
  const size_t u = static_cast<size_t>(trainer.model().network.unit_index("layer3.0.conv1"));
  trainer.model().units[u].gamma.data<float>()[0] = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH_AS(train_step(trainer), doctest::Contains("layer3.0.conv1 "), DivergedError);
}

/// Gradients of the mean loss of one shard, through the public pass.
struct ShardOnItsOwn {
  Gradients gradients;
  double loss = 0;
  int64_t top1 = 0;
};

ShardOnItsOwn run_shard(const Model& model, const StepWeights& weights, const Batch& b, int64_t first) {
  ShardOnItsOwn s{.gradients = make_gradients(model)};
  const Tensor images(DType::u8, {kShard, 32, 32, 3});
  std::memcpy(images.raw(), b.images.raw() + static_cast<size_t>(first) * 32 * 32 * 3, images.bytes());
  Tape tape;
  ShardStatistics statistics;
  const Variable logits = training_forward(tape, model, weights, images, s.gradients, statistics);
  const std::span<const int32_t> labels(b.labels.data() + first, static_cast<size_t>(kShard));
  const TapedLoss loss = softmax_cross_entropy(&tape, logits, labels, {.label_smoothing = 0.1f});
  tape.backward(loss.loss);
  s.loss = static_cast<double>(*loss.loss.value().data<float>());
  s.top1 = loss.counts.top1;
  return s;
}

TEST_CASE(
    "trainer: at most threads + log2(shards) sums of gradients are alive at once, 1 + log2(shards) in low memory") {
  const testing::ThreadsGuard restore;
  for (const int count : {1, 2, 3, 5}) {
    set_threads(count);
    for (const int64_t shards : {1, 2, 3, 4, 8, 17, 32})
      for (const bool low_memory : {false, true}) {
        CAPTURE(count);
        CAPTURE(shards);
        CAPTURE(low_memory);
        TrainerOptions options = trainer_options(3);
        options.low_memory = low_memory;
        Trainer trainer(fresh_model(small_options("w4a4-fl8", 0.1)), options);
        train_step(trainer, shards * kShard);
        const auto depth = static_cast<int64_t>(std::ceil(std::log2(static_cast<double>(shards))));
        CHECK(static_cast<int64_t>(trainer.gradient_buffers()) <= (low_memory ? 1 : count) + depth);
      }
  }
}

TEST_CASE("trainer: gradient and loss of a batch are the means of its shards', its hits their sum") {
  for (const char* precision : {"w4a4-fl8", "bf16"})
    for (int64_t shards : {2, 4, 8}) {
      CAPTURE(std::string(precision));
      CAPTURE(shards);
      Trainer trainer(fresh_model(small_options(precision)), trainer_options(2));
      for (int i = 0; i < 3; ++i) train_step(trainer);
      const Batch b = separable_batch(50, shards * kShard);
      const StepWeights weights = prepare_weights(trainer.model(), Passes::kForwardAndBackward);
      std::vector<ShardOnItsOwn> own;
      double loss = 0;
      int64_t top1 = 0;
      for (int64_t i = 0; i < shards; ++i) {
        own.push_back(run_shard(trainer.model(), weights, b, i * kShard));
        loss += own.back().loss / static_cast<double>(shards);
        top1 += own.back().top1;
      }
      // With fresh momentum, plain momentum 0 and no decay, the momentum holds exactly the batch's gradient afterwards.
      TrainerOptions plain = trainer_options(2);
      plain.optimizer = {.momentum = 0.0f, .nesterov = false, .weight_decay = 0.0f};
      Gradients momentum = make_gradients(trainer.model());
      Trainer batch(trainer.model(), plain, momentum, 3);
      const StepResult r = batch.step(b.images, b.labels);
      CHECK(r.loss == doctest::Approx(loss).epsilon(1e-9));
      CHECK(r.top1 == top1);
      CHECK(own[0].loss != own[1].loss);
      for (size_t u = 0; u < batch.momentum().units.size(); ++u) {
        CAPTURE(trainer.model().network.units[u].name);
        const Tensor& sum = batch.momentum().units[u].weights;
        double apart = 0, size = 0;
        for (int64_t i = 0; i < sum.size(); ++i) {
          double mean = 0;
          for (const ShardOnItsOwn& s : own)
            mean += static_cast<double>(s.gradients.units[u].weights.data<float>()[i]) / static_cast<double>(shards);
          const double d = static_cast<double>(sum.data<float>()[i]) - mean;
          apart += d * d;
          size += mean * mean;
        }
        CHECK(size > 0);
        // A seed of 1/2, 1/4 or 1/8 is exact in float, so only the sums round, three deep at most.
        CHECK(std::sqrt(apart / size) < 1e-6);
      }
    }
}

TEST_CASE("trainer: running statistics move by a tenth towards the mean of the shards' statistics") {
  const Model model = fresh_model(small_options("w4a4-fl8"));
  const Batch b = separable_batch(7);
  const StepWeights weights = prepare_weights(model, Passes::kForwardAndBackward);
  ShardStatistics shards[2];
  for (int64_t i = 0; i < 2; ++i) {
    const Tensor images(DType::u8, {kShard, 32, 32, 3});
    std::memcpy(images.raw(), b.images.raw() + static_cast<size_t>(i) * images.bytes(), images.bytes());
    Tape tape;
    training_forward(tape, model, weights, images, make_gradients(model), shards[i]);
  }
  Trainer trainer(fresh_model(small_options("w4a4-fl8")), trainer_options(3));
  trainer.step(b.images, b.labels);
  for (size_t u = 0; u + 1 < model.units.size(); ++u) {
    CAPTURE(model.network.units[u].name);
    const UnitParameters& p = trainer.model().units[u];
    const NormStatistics &x = shards[0].norms[u], &y = shards[1].norms[u];
    CHECK(x.mean != y.mean);
    for (size_t c = 0; c < x.mean.size(); ++c) {
      CHECK(p.running_mean.data<float>()[c] ==
            doctest::Approx(0.05 * static_cast<double>(x.mean[c] + y.mean[c])).epsilon(1e-5));
      CHECK(p.running_variance.data<float>()[c] ==
            doctest::Approx(0.9 + 0.05 * static_cast<double>(x.variance[c] + y.variance[c])).epsilon(1e-5));
    }
  }
}

/// Mean loss of the first and the last eight steps of `steps`.
std::pair<double, double> first_and_last(const NetworkOptions& options, float rate, int steps) {
  Trainer trainer(fresh_model(options), trainer_options(12, rate));
  double first = 0, last = 0;
  for (int i = 0; i < steps; ++i) {
    const double loss = train_step(trainer).loss;
    if (i < 8) first += loss / 8;
    if (i >= steps - 8) last += loss / 8;
  }
  CHECK(trainer.steps_done() == steps);
  CHECK(trainer.model().calibrated() == (options.precision != "bf16"));
  return {first, last};
}

TEST_CASE("trainer: every precision and mode learns a separable problem; with a rate of zero nothing is learnt") {
  // Label smoothing 0.1 over five classes leaves a floor of 0.39; chance is 1.61. Seen: last / first 0.41 to 0.47.
  constexpr double kWidth = 0.13;
  constexpr int kSteps = kLearns ? 64 : 16;
  const auto learns = [](double first, double last, double share) {
    if (kLearns) CHECK(last < share * first);
  };
  for (const char* precision : {"bf16", "w8a8", "w4a4-fl8"}) {
    CAPTURE(precision);
    const auto [first, last] = first_and_last(small_options(precision, kWidth), 0.02f, kSteps);
    learns(first, last, 0.7);
  }
  for (Granularity g : {Granularity::kPerTensor, Granularity::kPerChannel}) {
    NetworkOptions fake = small_options("w4a4-fl8", kWidth);
    fake.mode = QuantMode::kFake;
    fake.granularity = g;
    const auto [first, last] = first_and_last(fake, 0.02f, kSteps);
    learns(first, last, 0.7);
  }
  NetworkOptions quirks = small_options("w4a4", kWidth);
  quirks.same_padding = quirks.signed_block_input = true;
  quirks.per_channel_by = PerChannelBy::kShiftFold;
  const auto [first, last] = first_and_last(quirks, 0.02f, kSteps);
  learns(first, last, 0.75);
  // A block output is left with only a signed quantizer where the projection next to it reads bf16.
  quirks.overrides = {{"layer2.0.downsample.0", {16, 16}}, {"layer3.0.downsample.0", {16, 16}}};
  const auto [first_signed, last_signed] = first_and_last(quirks, 0.02f, kSteps);
  learns(first_signed, last_signed, 0.75);
  NetworkOptions nearest = small_options("w4a4-fl8", kWidth);
  nearest.scheme = QuantScheme::kNearest;
  nearest.bf16_weights = true;
  const auto [first_nearest, last_nearest] = first_and_last(nearest, 0.02f, kSteps);
  learns(first_nearest, last_nearest, 0.7);
  const auto [still_first, still_last] = first_and_last(small_options("w4a4-fl8", kWidth), 0.0f, kLearns ? 40 : 16);
  CHECK(still_last > 0.9 * still_first);
}

TEST_CASE("trainer: counts and loss of a step are those of the whole batch") {
  Trainer trainer(fresh_model(small_options("bf16")), trainer_options(0, 0.0f));
  const Batch b = separable_batch(1);
  const StepResult r = trainer.step(b.images, b.labels);
  CHECK(r.images == kBatch);
  CHECK(r.top5 == kBatch);  // five classes: always among the top five
  CHECK(r.rate == 0.0f);
  // Zero last gammas: blocks are the identity, logits are small, the loss is near log 5.
  CHECK(r.loss == doctest::Approx(std::log(5.0)).epsilon(0.5));
  CHECK(r.gradient_norm > 0);
}

}  // namespace
}  // namespace nibble
