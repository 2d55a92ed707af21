// The executor in a host program: what it refuses, what it keeps, and that it leaves the caller's float mode alone.
#include <doctest/doctest.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "engine/block_cache.hpp"
#include "engine/parallel.hpp"
#include "nn/checkpoint.hpp"
#include "nn/runtime/executor.hpp"
#include "nn/runtime/served_file.hpp"
#include "ops/kernels/table.hpp"
#include "ops/winograd.hpp"
#include "tests/host_float_mode.hpp"
#include "tests/nn/small_model.hpp"
#include "tests/temp_dir.hpp"
#include "tests/threads_guard.hpp"

namespace nibble {
namespace {

using testing::calibrated_model;
using testing::random_images;
using testing::random_model;
using testing::RestoreExecution;
using testing::same_bytes;
using testing::small_options;
using testing::TempDir;
using testing::ThreadsGuard;

TEST_CASE("executor: images of another type or with gaps between their pixels are refused, not misread") {
  Executor executor(make_served(calibrated_model(small_options("w4a4-fl8", 0.1))));
  const Shape shape{1, 32, 32, 3};
  for (DType type : {DType::u4, DType::s4, DType::s8, DType::f32})
    CHECK_THROWS_WITH_AS(executor.run(Tensor::zeros(type, shape)), doctest::Contains("u8"), DTypeError);
  CHECK_THROWS_WITH_AS(executor.run(Tensor::zeros(DType::u8, shape, 4)), doctest::Contains("4 bytes apart"),
                       ShapeError);
  CHECK_NOTHROW(executor.run(Tensor::zeros(DType::u8, shape)));
}

TEST_CASE("executor: in the caller's memory it gives the logits of tensors, and refuses sizes that do not fit") {
  Executor executor(make_served(calibrated_model(small_options("w4a4-fl8", 0.1))));
  const Tensor images = random_images(3, 32), expected = executor.run(images);
  std::vector<uint8_t> bytes(images.data<uint8_t>(), images.data<uint8_t>() + images.size());
  std::vector<float> logits(static_cast<size_t>(expected.size()), -1.0f);
  executor.run(bytes, logits);
  CHECK(std::equal(logits.begin(), logits.end(), expected.data<float>()));
  logits.pop_back();
  CHECK_THROWS_WITH_AS(executor.run(bytes, logits), doctest::Contains("3072 bytes per image (32x32 RGB)"), ShapeError);
  logits.push_back(0);
  bytes.pop_back();
  CHECK_THROWS_AS(executor.run(bytes, logits), ShapeError);
  CHECK_THROWS_AS(executor.run(std::span<const uint8_t>(), std::span<float>()), ShapeError);
}

TEST_CASE("executor: both walks give the same logits, however many threads share an image") {
  const ThreadsGuard guard;
  // Strips of a few rows, and of 96 pixels, which several threads cut by points: after the first rows, too.
  struct Case {
    const char* precision;
    int64_t side, strip;
  };
  for (const Case& c : {Case{"w4a4-fl8", 32, 20}, Case{"w4a4-fl8", 96, 96}, Case{"w8a8", 32, 5}, Case{"w8a8", 32, 20},
                        Case{"w8a8", 96, 96}}) {
    INFO(c.precision << ", strips of " << c.strip);
    NetworkOptions options = small_options(c.precision, 0.25);
    options.image_size = c.side;
    Executor executor(make_served(calibrated_model(options)), {.large_map = 0, .strip_points = c.strip});
    REQUIRE(executor.row_units() > 0);
    const Tensor images = random_images(4, c.side);
    set_threads(1);
    const Tensor expected = executor.run(images, Walk::kWholeMaps);
    for (int count : {1, 2, 3, 8}) {
      CAPTURE(count);
      set_threads(count);
      for (Walk walk : {Walk::kFastest, Walk::kByRows, Walk::kWholeMaps})
        CHECK(same_bytes(executor.run(images, walk), expected));
    }
  }
}

TEST_CASE("executor: it lets go of the weights that it packed, a model that the caller keeps stays whole") {
  for (const char* precision : {"w4a4-fl8", "bf16"}) {
    CAPTURE(precision);
    const NetworkOptions o = small_options(precision, 0.1);
    const ServedModel kept = make_served(o.precision == "bf16" ? random_model(o) : calibrated_model(o));
    Executor first(kept);
    for (const ServedLayer& layer : first.model().layers) {
      CHECK_FALSE(layer.codes.codes.defined());
      CHECK_FALSE(layer.weights.defined());
      CHECK_FALSE(layer.affine.m.empty());
    }
    for (const ServedLayer& layer : kept.layers) CHECK(layer.codes.codes.defined() != layer.weights.defined());
    const Tensor images = random_images(2, 32);
    CHECK(same_bytes(Executor(kept).run(images), first.run(images)));
  }
}

TEST_CASE("executor: batches of rising size leave the buffers of the largest behind, not of each") {
  const ThreadsGuard guard;
  set_threads(1);
  const ServedModel model = make_served(calibrated_model(small_options("w4a4-fl8", 0.25)));
  Executor(model).run(random_images(8, 32));  // scratch memory has its size from here on
  // Bytes that the executor keeps after these runs.
  const auto kept = [&](int64_t first) {
    Executor executor(model);
    const size_t before = block_cache_stats().used_bytes;
    for (int64_t n = first; n <= 8; ++n) executor.run(random_images(n, 32));
    return block_cache_stats().used_bytes - before;
  };
  const size_t largest = kept(8);
  REQUIRE(largest > 0);
  CHECK(kept(1) <= largest + largest / 16);  // the cache hands out blocks that are a little larger than asked
}

#if defined(__x86_64__)
TEST_CASE(
    "executor: a caller's float mode changes no bit of a loaded model or its logits, and is the same afterwards") {
  const ThreadsGuard guard;
  const TempDir dir;
  Model model = calibrated_model(small_options("w4a4-fl8", 0.25));
  // Bounds with which rounding upwards would give some bytes of an image another code; one such triple in 200 does.
  model.calibration[0].bound = {2.2966163f, 2.4104102f, 2.0858834f};
  rebuild_quantizers(model);
  save_served(dir / "served.safetensors", make_served(model));
  save_checkpoint(dir / "checkpoint.safetensors", model, make_gradients(model), 0, "{}", {});
  const Tensor images = random_images(5, 32);
  const Tensor expected = Executor(make_served(model)).run(images);
  for (int count : {1, 3}) {
    CAPTURE(count);
    set_threads(count);
    bool kept[5] = {};
    ServedModel served;
    Checkpoint checkpoint;
    Tensor logits, of_checkpoint;
    {
      const testing::HostFloatMode mode;
      kept[0] = testing::HostFloatMode::in_force();
      served = load_served(dir / "served.safetensors");
      kept[1] = testing::HostFloatMode::in_force();
      checkpoint = load_checkpoint(dir / "checkpoint.safetensors");
      kept[2] = testing::HostFloatMode::in_force();
      Executor executor(served);
      kept[3] = testing::HostFloatMode::in_force();
      logits = executor.run(images);
      kept[4] = testing::HostFloatMode::in_force();
      of_checkpoint = Executor(make_served(checkpoint.model)).run(images);
    }
    for (bool k : kept) CHECK(k);
    for (size_t q = 0; q < model.quantizers.size(); ++q) {
      CHECK(served.quantizers[q].scale == model.quantizers[q].scale);
      CHECK(checkpoint.model.quantizers[q].scale == model.quantizers[q].scale);
      CHECK(checkpoint.model.quantizers[q].fold == model.quantizers[q].fold);
    }
    CHECK(same_bytes(logits, expected));
    CHECK(same_bytes(of_checkpoint, expected));
  }
}
#endif

TEST_CASE("executor: a layer multiplies with the kernels of its own code ranges") {
  const auto kernels_of = [](const char* precision, PerChannelBy by) {
    NetworkOptions o = small_options(precision, 0.1);
    o.per_channel_by = by;
    const Executor e(make_served(calibrated_model(o)));
    return e.layers()[static_cast<size_t>(e.model().network.unit_index("layer2.0.conv2"))].int_gemm;
  };
  const RestoreExecution restore;
  for (const Isa isa : runnable_isas()) {
    set_active_isa(isa);
    CAPTURE(std::string(name_of(isa)));
    const kernels::Table& t = kernels::active();
    CHECK(kernels_of("w4a4-fl8", PerChannelBy::kFold) == &t.u4s4);
    CHECK(kernels_of("w4a4-fl8", PerChannelBy::kShift) == &t.u8s4);  // codes up to 240
    CHECK(kernels_of("w4a8", PerChannelBy::kFold) == &t.u8s4);
    CHECK(kernels_of("w8a4", PerChannelBy::kFold) == &t.u8s8);

    for (const char* precision : {"w4a4-fl8", "w8a8"}) {
      const Executor e(make_served(calibrated_model(small_options(precision, 0.1))));
      for (size_t u = 0; u < e.layers().size(); ++u) {
        const UnitSpec& unit = e.model().network.units[u];
        CAPTURE(unit.name);
        const LayerWeights& layer = e.layers()[u];
        const bool wide = t.s16s14.run != nullptr && winograd::wide_edge(unit.shape, t.u8s8.kr == 4) > 0;
        const bool has_product = unit.precision.weight_bits == 4 || wide;
        const bool suited = unit.shape.kh == 3 && unit.shape.stride == 1 && unit.shape.oh() > 2;
        CHECK(layer.fewer_products() == (suited && has_product && !layer.strided()));
        CHECK((layer.wide_gemm != nullptr) == (layer.fewer_products() && unit.precision.weight_bits == 8));
        if (unit.name == "layer1.0.conv2" && !layer.strided())  // 8x8
          CHECK(layer.served_edge == (unit.precision.weight_bits == 8 ? 4 : 2));
      }
    }
  }
}

}  // namespace
}  // namespace nibble
