// The promise "train = serve": executor, modules and a naive executor give one set of integers and one set of logits.
#include "nn/runtime/executor.hpp"
#include "nn/evaluate_modules.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <thread>

#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "nn/runtime/served_file.hpp"
#include "tests/nn/naive_executor.hpp"
#include "tests/nn/small_model.hpp"
#include "tests/temp_dir.hpp"

namespace nibble {
namespace {

using testing::calibrated_model;
using testing::naive_run;
using testing::NaiveMap;
using testing::NaiveTrace;
using testing::random_images;
using testing::random_model;
using testing::RestoreExecution;
using testing::same_bytes;
using testing::small_options;
using testing::TempDir;

Tensor images_of(const Tensor& all, int64_t first, int64_t count) {
  const Tensor out(DType::u8, {count, all.dim(1), all.dim(2), 3});
  const size_t bytes = all.bytes() / static_cast<size_t>(all.dim(0));
  std::memcpy(out.raw(), all.raw() + static_cast<size_t>(first) * bytes, out.bytes());
  return out;
}

/// Logits of all images, fed `batch` at a time.
Tensor run_in_batches(Executor& executor, const Tensor& images, int64_t batch) {
  const int64_t n = images.dim(0), classes = executor.model().network.options.classes;
  const Tensor logits(DType::f32, {n, classes});
  for (int64_t i = 0; i < n; i += batch) {
    const Tensor part = executor.run(images_of(images, i, std::min(batch, n - i)));
    std::memcpy(logits.row<float>(i), part.raw(), part.bytes());
  }
  return logits;
}

Tensor module_logits(const Model& model, const Tensor& images, const UnitObserver& observer = {}) {
  const StepWeights weights = prepare_weights(model, Passes::kForward);
  return evaluate_modules(model, weights, images, observer);
}

/// The same logits with each number of threads and each way to cut the images into calls. Not every pair at every call:
/// three calls on a level meet all nine.
void check_threads_and_batches(Executor& executor, const Tensor& images, const Tensor& expected) {
  static std::array<size_t, kIsaCount> calls{};
  const int64_t batches[] = {1, 7, images.dim(0)};
  const size_t nth = ++calls[static_cast<size_t>(active_isa())];
  for (size_t threads = 1; threads <= 3; ++threads) {
    const int64_t batch = batches[(threads + nth) % 3];
    CAPTURE(threads);
    CAPTURE(batch);
    set_threads(static_cast<int>(threads));
    CHECK(same_bytes(run_in_batches(executor, images, batch), expected));
  }
}

/// The same logits where all convolutions go row by row, in strips of one row and of several.
void check_row_by_row(const Model& model, const Tensor& images, const Tensor& expected) {
  for (int64_t points : {1, 20, 100'000}) {
    CAPTURE(points);
    Executor executor(make_served(model), {.large_map = 0, .strip_points = points});
    CHECK(executor.row_units() + 1 == model.network.units.size());
    set_threads(1);
    CHECK(same_bytes(run_in_batches(executor, images, 7), expected));
  }
}

/// The integer executor's logits on every level, thread count and batch split.
void check_executor(const Model& model, const Tensor& images, const Tensor& expected) {
  const RestoreExecution restore;
  for (Isa isa : runnable_isas()) {
    set_active_isa(isa);
    CAPTURE(std::string(name_of(isa)));
    Executor executor(make_served(model));
    check_threads_and_batches(executor, images, expected);
    CHECK(same_bytes(module_logits(model, images), expected));
    check_row_by_row(model, images, expected);
  }
}

double value_at(const Tensor& t, int64_t row, int64_t channel) {
  switch (t.dtype()) {
    case DType::s32:
      return t.row<int32_t>(row)[channel];
    case DType::f32:
      return static_cast<double>(t.row<float>(row)[channel]);
    case DType::bf16:
      return static_cast<double>(to_float(t.row<bf16>(row)[channel]));
    case DType::u8:
      return t.row<uint8_t>(row)[channel];
    default:
      FAIL("unexpected type");
      return 0;
  }
}

/// Numbers of image `image` in t that differ from the naive map.
int64_t differences(const Tensor& t, int64_t image, const NaiveMap& naive) {
  const int64_t pixels = t.rows() / t.dim(0);
  REQUIRE(pixels == naive.h * naive.w);
  REQUIRE(t.shape().back() == naive.c);
  int64_t wrong = 0;
  for (int64_t p = 0; p < pixels; ++p)
    for (int64_t c = 0; c < naive.c; ++c)
      wrong += value_at(t, image * pixels + p, c) != naive.v[static_cast<size_t>(p * naive.c + c)];
  return wrong;
}

/// One trace of the naive executor per image.
std::vector<NaiveTrace> naive_traces(const ServedModel& served, const Tensor& images) {
  std::vector<NaiveTrace> traces;
  const size_t per_image = images.bytes() / static_cast<size_t>(images.dim(0));
  for (int64_t i = 0; i < images.dim(0); ++i)
    traces.push_back(naive_run(served, images.data<uint8_t>() + static_cast<size_t>(i) * per_image));
  return traces;
}

/// Every unit's accumulators and output, and the logits, of the modules on the level in use against the naive executor.
void check_layers(const Model& model, const Tensor& images, const std::vector<NaiveTrace>& traces) {
  size_t seen = 0;
  const Tensor logits = module_logits(model, images, [&](size_t u, const Tensor& acc, const Tensor& output) {
    const UnitSpec& unit = model.network.units[u];
    CAPTURE(unit.name);
    ++seen;
    for (int64_t i = 0; i < images.dim(0); ++i) {
      const NaiveTrace& trace = traces[static_cast<size_t>(i)];
      CHECK(acc.dtype() == DType::s32);
      CHECK(differences(acc, i, trace.accumulators.at(unit.name)) == 0);
      if (unit.kind == UnitKind::kLinear) continue;
      if (output.dtype() == DType::bf16) {
        CHECK(differences(output, i, trace.plain.at(unit.name)) == 0);
        continue;
      }
      const int value = static_cast<int>(u) + 1;
      const std::vector<int> readers = quantizers_of(model.network, value);
      REQUIRE(readers.size() == 1);
      CHECK(differences(output, i, trace.codes.at(model.network.quantizers[static_cast<size_t>(readers[0])].name)) ==
            0);
    }
  });
  CHECK(seen == model.network.units.size());
  for (int64_t i = 0; i < images.dim(0); ++i)
    CHECK(std::memcmp(logits.row<float>(i), traces[static_cast<size_t>(i)].logits.data(),
                      traces[static_cast<size_t>(i)].logits.size() * 4) == 0);
}

/// The same on every level.
void check_layers(const Model& model, const Tensor& images) {
  const std::vector<NaiveTrace> traces = naive_traces(make_served(model), images);
  const RestoreExecution restore;
  for (Isa isa : runnable_isas()) {
    set_active_isa(isa);
    CAPTURE(std::string(name_of(isa)));
    check_layers(model, images, traces);
  }
}

/// Logits that depend on the image and use several codes, or else equality would show nothing.
void check_alive(const Tensor& logits) {
  const int64_t n = logits.dim(0), classes = logits.dim(1);
  int64_t different = 0;
  for (int64_t i = 1; i < n; ++i)
    different += std::memcmp(logits.row<float>(i), logits.row<float>(0), static_cast<size_t>(classes) * 4) != 0;
  CHECK(different == n - 1);
  for (int64_t i = 0; i < logits.size(); ++i) REQUIRE(std::isfinite(logits.data<float>()[i]));
}

void check_everything(const NetworkOptions& options) {
  const Model model = calibrated_model(options);
  const Tensor images = random_images(10, options.image_size);  // more than one group of the executor, and a rest
  const Tensor expected = module_logits(model, images);
  check_alive(expected);
  check_executor(model, images, expected);
  check_layers(model, images_of(images, 3, 2));
}

NetworkOptions with(const std::string& precision, Granularity g, PerChannelBy by, double width) {
  NetworkOptions o = small_options(precision, width);
  o.granularity = g;
  o.per_channel_by = by;
  return o;
}

TEST_CASE("executor: every precision with folded scales equals the modules and the naive executor on every level") {
  for (const char* precision : {"w4a4-fl8", "w8a8", "w4a4", "w4a8", "w8a4"}) {
    CAPTURE(precision);
    check_everything(with(precision, Granularity::kPerChannel, PerChannelBy::kFold, 0.25));
  }
}

TEST_CASE("executor: per-tensor scales give the same bits everywhere") {
  for (const char* precision : {"w4a4-fl8", "w8a8", "w4a8", "w8a4"}) {
    CAPTURE(precision);
    check_everything(with(precision, Granularity::kPerTensor, PerChannelBy::kFold, 0.25));
  }
}

TEST_CASE("executor: shifted codes give the same bits everywhere") {
  for (const char* precision : {"w4a4-fl8", "w4a4", "w8a4"}) {
    CAPTURE(precision);
    check_everything(with(precision, Granularity::kPerChannel, PerChannelBy::kShift, 0.25));
    check_everything(with(precision, Granularity::kPerChannel, PerChannelBy::kShiftFold, 0.25));
  }
}

TEST_CASE("executor: odd channel counts (width 0.31) give the same bits everywhere") {
  check_everything(with("w4a4-fl8", Granularity::kPerChannel, PerChannelBy::kFold, 0.31));
  check_everything(with("w4a4-fl8", Granularity::kPerChannel, PerChannelBy::kShiftFold, 0.31));
  check_everything(with("w8a8", Granularity::kPerTensor, PerChannelBy::kFold, 0.31));
}

TEST_CASE("executor: the published quirks (SAME padding, signed block inputs) give the same bits everywhere") {
  for (PerChannelBy by : {PerChannelBy::kFold, PerChannelBy::kShift}) {
    for (const char* precision : {"w4a4", "w8a8"}) {
      CAPTURE(precision);
      NetworkOptions o = with(precision, Granularity::kPerChannel, by, 0.25);
      o.same_padding = o.signed_block_input = true;
      check_everything(o);
    }
  }
}

TEST_CASE(
    "executor: activations rounded to nearest give the same bits everywhere, and different bits from floored ones") {
  for (const char* precision : {"w4a4-fl8", "w8a4"})
    for (PerChannelBy by : {PerChannelBy::kFold, PerChannelBy::kShift, PerChannelBy::kShiftFold}) {
      CAPTURE(precision);
      NetworkOptions o = with(precision, Granularity::kPerChannel, by, 0.25);
      const Tensor images = random_images(3, o.image_size);
      const Tensor floored = module_logits(calibrated_model(o), images);
      o.scheme = QuantScheme::kNearest;
      CHECK_FALSE(same_bytes(module_logits(calibrated_model(o), images), floored));
      check_everything(o);
    }
  NetworkOptions o = with("w8a8", Granularity::kPerTensor, PerChannelBy::kFold, 0.25);
  o.scheme = QuantScheme::kNearest;
  o.bf16_weights = true;
  check_everything(o);
}

TEST_CASE("executor: odd map sizes give the same bits everywhere") {
  for (int64_t size : {33, 45}) {
    NetworkOptions o = small_options("w4a4-fl8", 0.1);
    o.image_size = size;
    o.same_padding = size == 45;
    check_everything(o);
  }
}

TEST_CASE("executor: per-layer overrides give the same bits everywhere") {
  NetworkOptions o = small_options("w4a4-fl8", 0.25);
  o.overrides = {{"layer3.0.conv1", {8, 8}}, {"layer2.0.conv2", {4, 8}}, {"layer4.1.conv3", {8, 4}}, {"fc", {4, 4}}};
  check_everything(o);
}

/// The logits of a calibrated model with layers in bf16: on each level those of the modules, however they are made.
void check_mixed_model(const NetworkOptions& o) {
  const Model model = calibrated_model(o);
  const Tensor images = random_images(10, o.image_size);
  const RestoreExecution restore;
  for (Isa isa : runnable_isas()) {
    set_active_isa(isa);
    CAPTURE(std::string(name_of(isa)));
    const Tensor expected = module_logits(model, images);
    check_alive(expected);
    Executor executor(make_served(model));
    check_threads_and_batches(executor, images, expected);
    check_row_by_row(model, images, expected);
  }
}

TEST_CASE("executor: layers overridden to bf16 are stable per level and equal the modules") {
  NetworkOptions o = small_options("w4a4-fl8", 0.25);
  o.overrides = {
      {"conv1", {16, 16}}, {"layer2.0.downsample.0", {16, 16}}, {"layer3.1.conv2", {16, 16}}, {"fc", {16, 16}}};
  check_mixed_model(o);
  o.signed_block_input = true;  // conv1 of stage 2 reads a signed quantizer next to a bf16 projection
  check_mixed_model(o);
}

/// bf16 products: one level's bits do not depend on threads or batch; levels may differ in the order of sums.
void check_float_model(const Model& model) {
  const Tensor images = random_images(10, model.network.options.image_size);
  const RestoreExecution restore;
  Tensor first;
  for (Isa isa : runnable_isas()) {
    set_active_isa(isa);
    CAPTURE(std::string(name_of(isa)));
    const Tensor expected = module_logits(model, images);
    check_alive(expected);
    Executor executor(make_served(model));
    check_threads_and_batches(executor, images, expected);
    check_row_by_row(model, images, expected);
    if (!first.defined()) first = expected;
    // Each of the 27 layers may round a sum to the other bf16 neighbour: a relative 2^-8 each, at worst all one way.
    float largest = 0, apart = 0;
    for (int64_t i = 0; i < expected.size(); ++i) {
      largest = std::max(largest, std::fabs(first.data<float>()[i]));
      apart = std::max(apart, std::fabs(first.data<float>()[i] - expected.data<float>()[i]));
    }
    CHECK(apart <= 27.0f / 256.0f * largest);
  }
}

TEST_CASE("executor: a bf16 model is stable for threads and batch on each level and close between levels") {
  check_float_model(random_model(small_options("bf16", 0.25)));
  check_float_model(random_model(small_options("bf16", 0.31)));
}

TEST_CASE("executor: an uncalibrated integer model (bf16 activations) is stable for threads and batch on each level") {
  check_float_model(random_model(small_options("w4a4-fl8", 0.25)));
}

TEST_CASE("executor: a served file gives the logits of the model it was made from") {
  const TempDir dir;
  for (const char* precision : {"w4a4-fl8", "w4a4", "w8a8", "w4a8", "w8a4"}) {
    CAPTURE(precision);
    for (PerChannelBy by : {PerChannelBy::kFold, PerChannelBy::kShiftFold}) {
      const Model model = calibrated_model(with(precision, Granularity::kPerChannel, by, 0.3));
      const Tensor images = random_images(3, 32);
      save_served(dir / "model.safetensors", make_served(model));
      Executor executor(load_served(dir / "model.safetensors"));
      CHECK(same_bytes(executor.run(images), module_logits(model, images)));
    }
  }
  const Model plain = random_model(small_options("bf16", 0.3));
  const Tensor images = random_images(3, 32);
  save_served(dir / "plain.safetensors", make_served(plain));
  Executor executor(load_served(dir / "plain.safetensors"));
  CHECK(same_bytes(executor.run(images), module_logits(plain, images)));
}

TEST_CASE("executor: concurrent calls on one executor do not disturb each other") {
  const Model model = calibrated_model(small_options("w4a4-fl8", 0.25));
  const Tensor images = random_images(9, 32);
  const Tensor expected = Executor(make_served(model)).run(images);
  for (const bool by_rows : {false, true}) {
    CAPTURE(by_rows);
    RowPlanOptions rows;
    if (by_rows) rows = {.large_map = 0, .strip_points = 20};
    Executor executor(make_served(model), rows);
    REQUIRE((executor.row_units() > 0) == by_rows);
    const Walk walk = by_rows ? Walk::kByRows : Walk::kWholeMaps;
    int wrong[3] = {};
    std::vector<std::thread> callers;
    for (int& w : wrong)
      callers.emplace_back([&] {
        for (int round = 0; round < 5; ++round) w += !same_bytes(executor.run(images, walk), expected);
      });
    for (std::thread& t : callers) t.join();
    for (int w : wrong) CHECK(w == 0);
  }
}

TEST_CASE("executor: one changed pixel changes the logits of its own image only") {
  const Model model = calibrated_model(small_options("w8a8", 0.25));
  Executor executor(make_served(model));
  const Tensor images = random_images(4, 32);
  const Tensor before = executor.run(images);
  uint8_t* pixel = images.data<uint8_t>() + 2 * 32 * 32 * 3 + (16 * 32 + 16) * 3;
  *pixel = static_cast<uint8_t>(*pixel < 128 ? 255 : 0);
  const Tensor after = executor.run(images);
  for (int64_t i = 0; i < 4; ++i)
    CHECK((std::memcmp(before.row<float>(i), after.row<float>(i), 5 * 4) == 0) == (i != 2));
}

TEST_CASE("executor: images of another size are refused with both sizes") {
  Executor executor(make_served(calibrated_model(small_options("w4a4-fl8", 0.1))));
  CHECK_THROWS_WITH_AS(executor.run(random_images(1, 33)), doctest::Contains("32x32"), ShapeError);
}

TEST_CASE("executor: fake mode has no integer form and is refused, calibrated or not") {
  NetworkOptions o = small_options("w4a4-fl8", 0.1);
  o.mode = QuantMode::kFake;
  CHECK_THROWS_WITH_AS(make_served(calibrated_model(o)), doctest::Contains("--quant-mode"), ModelError);
  CHECK_THROWS_WITH_AS(make_served(random_model(o)), doctest::Contains("--quant-mode"), ModelError);
}

TEST_CASE(
    "executor: the first layer of fake mode multiplies the same numbers as that of integer mode, up to bf16 rounding") {
  NetworkOptions o = small_options("w4a4-fl8", 0.25);
  o.granularity = Granularity::kPerTensor;
  const Model integer = calibrated_model(o);
  o.mode = QuantMode::kFake;
  const Model fake = calibrated_model(o);
  const Tensor images = random_images(2, 32);
  std::vector<double> first;
  int compared = 0;
  const StepWeights weights = prepare_weights(integer, Passes::kForward);
  evaluate_modules(integer, weights, images, [&](size_t u, const Tensor& acc, const Tensor&) {
    if (u > 0) return;
    for (int64_t r = 0; r < acc.rows(); ++r)
      for (size_t c = 0; c < 64; ++c)
        first.push_back(static_cast<double>(acc.row<int32_t>(r)[c]) *
                        static_cast<double>(weights.layers[0].rescale[c]));
  });
  module_logits(fake, images, [&](size_t u, const Tensor& acc, const Tensor&) {
    if (u > 0) return;
    double apart = 0, size = 0;
    for (int64_t r = 0; r < acc.rows(); ++r)
      for (size_t c = 0; c < 64; ++c) {
        const double x = first[static_cast<size_t>(r) * 64 + c], y = static_cast<double>(acc.row<float>(r)[c]);
        apart += (x - y) * (x - y);
        size += x * x;
      }
    // Both factors are rounded to bf16: a relative error of at most 2^-8 in each term of the sum, of either sign.
    CHECK(std::sqrt(apart / size) < 2.0 / 256.0);
    CHECK(size > 0);
    ++compared;
  });
  CHECK(compared == 1);
}

}  // namespace
}  // namespace nibble
