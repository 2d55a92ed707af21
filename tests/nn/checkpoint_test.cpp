// Checkpoints: what goes in comes out, in torchvision's order, and whatever is wrong is named.
#include "nn/checkpoint.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <iterator>

#include "nn/runtime/served_file.hpp"
#include "tests/nn/edited_file.hpp"
#include "tests/nn/small_model.hpp"
#include "tests/temp_dir.hpp"
#include "tests/text.hpp"

namespace nibble {
namespace {

using testing::calibrated_model;
using testing::Edited;
using testing::has;
using testing::random_images;
using testing::random_model;
using testing::same_bytes;
using testing::same_usage;
using testing::small_options;
using testing::TempDir;
using testing::vector_of;

Gradients random_momentum(const Model& model) {
  Gradients g = make_gradients(model);
  for (size_t u = 0; u < g.units.size(); ++u) {
    Rng rng(3, rng_purpose::kTest, u, 9);
    for (const Tensor* t : {&g.units[u].weights, &g.units[u].gamma, &g.units[u].beta, &g.units[u].bias})
      if (t->defined())
        for (int64_t i = 0; i < t->size(); ++i) t->data<float>()[i] = rng.normal();
  }
  return g;
}

bool same(const Tensor& a, const Tensor& b) {
  return a.defined() == b.defined() && (!a.defined() || same_bytes(a, b));
}

void check_same(const UnitParameters& a, const UnitParameters& b) {
  CHECK(same(a.weights, b.weights));
  CHECK(same(a.gamma, b.gamma));
  CHECK(same(a.beta, b.beta));
  CHECK(same(a.bias, b.bias));
  CHECK(same(a.running_mean, b.running_mean));
  CHECK(same(a.running_variance, b.running_variance));
}

/// All options away from their defaults, so that a forgotten one shows.
NetworkOptions unusual_options() {
  NetworkOptions o = small_options("w8a4-fl8", 0.13);
  o.arch = "resnet29";
  o.per_channel_by = PerChannelBy::kShiftFold;
  o.image_size = 40;
  o.classes = 7;
  o.same_padding = o.signed_block_input = true;
  o.overrides = {{"layer3.2.conv2", {8, 8}}, {"layer1.0.conv3", {16, 16}}};
  return o;
}

void check_checkpoint_round_trip(Model model) {
  const TempDir dir;
  if (model.calibrated()) model.usage = measure_usage(model, random_images(2, model.network.options.image_size));
  const Gradients momentum = random_momentum(model);
  std::vector<std::string> names = {"dog", "a \"quoted\" name", "K\xC3\xA4se", "", "e"};
  names.resize(static_cast<size_t>(model.network.options.classes));
  const uint64_t bytes = save_checkpoint(dir / "c.safetensors", model, momentum, 123456789012, "{\"lr\":0.1}", names);
  CHECK(bytes == std::filesystem::file_size(dir / "c.safetensors"));
  const Checkpoint c = load_checkpoint(dir / "c.safetensors");
  CHECK(c.steps_done == 123456789012);
  CHECK(c.run == "{\"lr\":0.1}");
  CHECK(c.class_names == names);
  REQUIRE(c.model.units.size() == model.units.size());
  for (size_t u = 0; u < model.units.size(); ++u) {
    CAPTURE(model.network.units[u].name);
    check_same(c.model.units[u], model.units[u]);
    check_same(c.momentum.units[u], momentum.units[u]);
    CHECK(c.model.network.units[u].precision == model.network.units[u].precision);
    CHECK(c.model.network.units[u].shape == model.network.units[u].shape);
  }
  REQUIRE(c.model.calibration.size() == model.calibration.size());
  for (size_t q = 0; q < model.calibration.size(); ++q) {
    CHECK(c.model.calibration[q].mean_of_max == model.calibration[q].mean_of_max);
    CHECK(c.model.calibration[q].weight == model.calibration[q].weight);
    CHECK(c.model.calibration[q].bound == model.calibration[q].bound);
  }
  CHECK(c.model.calibrated() == model.calibrated());
  CHECK(same_usage(c.model.usage, model.usage));
  for (size_t q = 0; q < model.quantizers.size(); ++q) {
    CHECK(c.model.quantizers[q].scale == model.quantizers[q].scale);
    CHECK(c.model.quantizers[q].fold == model.quantizers[q].fold);
    CHECK(c.model.quantizers[q].factor == model.quantizers[q].factor);
  }
}

TEST_CASE("checkpoint: everything comes back bit for bit, calibrated or not, with every option") {
  check_checkpoint_round_trip(calibrated_model(small_options("w4a4-fl8")));
  check_checkpoint_round_trip(random_model(small_options("w4a4-fl8")));
  check_checkpoint_round_trip(random_model(small_options("bf16")));
  check_checkpoint_round_trip(calibrated_model(unusual_options()));
  NetworkOptions o = small_options("w4a4");
  o.granularity = Granularity::kPerTensor;
  o.mode = QuantMode::kFake;
  check_checkpoint_round_trip(calibrated_model(o));
}

TEST_CASE("checkpoint: kernels lie OHWI in memory and OIHW in the file, fc as [classes, features]") {
  const TempDir dir;
  const Model model = random_model(small_options("w4a4-fl8"));
  save_checkpoint(dir / "c.safetensors", model, make_gradients(model), 1, "{}", {});
  const SafetensorsFile file = SafetensorsFile::open(dir / "c.safetensors");
  const int u = model.network.unit_index("layer2.0.conv2");
  const Tensor& memory = model.units[static_cast<size_t>(u)].weights;
  const Tensor stored = file.tensor("layer2.0.conv2.weight");
  const int64_t oc = memory.dim(0), kh = memory.dim(1), kw = memory.dim(2), ic = memory.dim(3);
  REQUIRE(stored.shape().str() == Shape({oc, ic, kh, kw}).str());
  int64_t wrong = 0;
  for (int64_t o = 0; o < oc; ++o)
    for (int64_t i = 0; i < ic; ++i)
      for (int64_t y = 0; y < kh; ++y)
        for (int64_t x = 0; x < kw; ++x)
          wrong += stored.data<float>()[((o * ic + i) * kh + y) * kw + x] !=
                   memory.data<float>()[((o * kh + y) * kw + x) * ic + i];
  CHECK(wrong == 0);
  CHECK(file.entry("fc.weight").shape == std::vector<int64_t>{5, 4 * 128});
  CHECK(file.entry("fc.bias").shape == std::vector<int64_t>{5});
  for (const char* name :
       {"bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "layer1.0.downsample.1.weight",
        "momentum.conv1.weight", "momentum.bn1.bias", "conv1.input.mean_of_max", "conv1.input.ema_weight"})
    CHECK_MESSAGE(file.find(name) != nullptr, name);
  CHECK(file.find("conv1.input.bound") == nullptr);
  CHECK(file.find("momentum.bn1.running_mean") == nullptr);
}

std::string error_loading_after(const std::function<void(Edited&)>& edit, const Model& model) {
  const TempDir dir;
  save_checkpoint(dir / "good.safetensors", model, make_gradients(model), 3, "{}", {"a", "b", "c", "d", "e"});
  return testing::error_after(dir / "good.safetensors", edit, [](const auto& path) { load_checkpoint(path); });
}

TEST_CASE("checkpoint: an unchanged copy is accepted, so the refusals below are for their own reason") {
  CHECK(error_loading_after([](Edited&) {}, calibrated_model(small_options("w4a4-fl8", 0.1))) == "accepted");
}

TEST_CASE("checkpoint: what a file names itself is quoted and cut where a message repeats it") {
  const Model model = calibrated_model(small_options("w4a4-fl8", 0.1));
  const std::string endless(200'000, 'x');
  const std::vector<std::function<void(Edited&)>> edits = {
      [&](Edited& e) { e.metadata["nibble.format"] = endless; },
      [&](Edited& e) { e.metadata["nibble.version"] = endless; },
      [&](Edited& e) { e.metadata["nibble.steps"] = endless; },
      [&](Edited& e) { e.tensors[endless] = vector_of({1}); },
      [&](Edited& e) { e.metadata["nibble.classes"] = "['" + endless; },
      [&](Edited& e) { e.metadata["nibble.network"] = "{\"arch\": '" + endless; },
      [&](Edited& e) { e.metadata["nibble.network"] = "{\"" + endless + "\": 1}"; },
  };
  for (const auto& edit : edits) {
    const std::string error = error_loading_after(edit, model);
    CAPTURE(error);
    CHECK(error != "accepted");
    CHECK(error.size() < 1000);
  }
}

TEST_CASE("checkpoint: each kind of wrong content is refused by name") {
  Model model = calibrated_model(small_options("w4a4-fl8", 0.1));
  model.usage = measure_usage(model, random_images(2, 32));
  REQUIRE(error_loading_after([](Edited&) {}, model) == "accepted");
  CHECK(error_loading_after([](Edited& e) { e.metadata["nibble.later"] = "of a later version"; }, model) == "accepted");
  struct Case {
    const char* what;
    std::function<void(Edited&)> edit;
    const char* named;
  };
  const std::vector<Case> cases = {
      {"version", [](Edited& e) { e.metadata["nibble.version"] = "2"; }, "version '2'"},
      {"no version", [](Edited& e) { e.metadata.erase("nibble.version"); }, "nibble.version"},
      {"kind", [](Edited& e) { e.metadata["nibble.format"] = "served"; }, "not a checkpoint"},
      {"unknown kind", [](Edited& e) { e.metadata["nibble.format"] = "onnx"; }, "onnx"},
      {"no kind", [](Edited& e) { e.metadata.erase("nibble.format"); }, "not a checkpoint"},
      {"missing kernel", [](Edited& e) { e.tensors.erase("layer2.1.conv2.weight"); }, "layer2.1.conv2.weight"},
      {"missing momentum", [](Edited& e) { e.tensors.erase("momentum.bn1.weight"); }, "momentum.bn1.weight"},
      {"missing statistics", [](Edited& e) { e.tensors.erase("bn1.running_var"); }, "bn1.running_var"},
      {"missing ema", [](Edited& e) { e.tensors.erase("conv1.input.mean_of_max"); }, "conv1.input.mean_of_max"},
      {"one bound missing", [](Edited& e) { e.tensors.erase("layer2.1.conv2.input.bound"); },
       "layer2.1.conv2.input.bound"},
      {"one usage missing", [](Edited& e) { e.tensors.erase("layer2.1.conv2.input.usage"); }, "of some quantizers"},
      {"negative usage", [](Edited& e) { e.tensors["fc.input.usage"].data<int32_t>()[3] = -1; }, "fc.input.usage"},
      {"short usage", [](Edited& e) { e.tensors["fc.input.usage"] = Tensor::zeros(DType::s32, {256}); },
       "fc.input.usage"},
      {"usage of floats", [](Edited& e) { e.tensors["fc.input.usage"] = Tensor::zeros(DType::f32, {257}); },
       "fc.input.usage"},
      {"surplus", [](Edited& e) { e.tensors["layer9.weight"] = vector_of({1}); }, "layer9.weight"},
      {"wrong shape",
       [](Edited& e) {
         e.tensors["bn1.weight"] = vector_of({1, 2, 3});
       },
       "bn1.weight"},
      {"wrong kernel shape",
       [](Edited& e) {
         e.tensors["conv1.weight"] = e.tensors["conv1.weight"].reshape({64, 3, 49, 1});
       },
       "conv1.weight"},
      {"negative bound",
       [](Edited& e) {
         e.tensors["conv1.input.bound"] = vector_of({1, -1, 1});
       },
       "conv1.input.bound"},
      {"zero bound",
       [](Edited& e) {
         e.tensors["conv1.input.bound"] = vector_of({1, 0, 1});
       },
       "conv1.input.bound"},
      {"NaN weight", [](Edited& e) { e.tensors["fc.weight"].data<float>()[2] = std::nanf(""); }, "fc.weight"},
      {"infinite momentum", [](Edited& e) { e.tensors["momentum.fc.bias"].data<float>()[0] = HUGE_VALF; },
       "momentum.fc.bias"},
      {"NaN bound",
       [](Edited& e) {
         e.tensors["conv1.input.bound"] = vector_of({1, std::nanf(""), 1});
       },
       "conv1.input.bound"},
      {"negative variance", [](Edited& e) { e.tensors["bn1.running_var"].data<float>()[0] = -1; }, "bn1.running_var"},
      {"no network", [](Edited& e) { e.metadata.erase("nibble.network"); }, "nibble.network"},
      {"network no JSON", [](Edited& e) { e.metadata["nibble.network"] = "{"; }, "network description"},
      {"network empty", [](Edited& e) { e.metadata["nibble.network"] = "{}"; }, "network description"},
      {"one name for five classes", [](Edited& e) { e.metadata["nibble.classes"] = "[\"a\"]"; }, "nibble.classes"},
      {"negative weight of the average", [](Edited& e) { e.tensors["conv1.input.ema_weight"].data<float>()[1] = -5; },
       "conv1.input.ema_weight"},
      {"negative maximum", [](Edited& e) { e.tensors["conv1.input.mean_of_max"].data<float>()[1] = -1; },
       "conv1.input.mean_of_max"},
      {"classes no list", [](Edited& e) { e.metadata["nibble.classes"] = "{\"a\":1}"; }, "names"},
      {"steps no number", [](Edited& e) { e.metadata["nibble.steps"] = "12x"; }, "nibble.steps"},
      {"steps negative", [](Edited& e) { e.metadata["nibble.steps"] = "-1"; }, "nibble.steps"},
      {"steps too large", [](Edited& e) { e.metadata["nibble.steps"] = "99999999999999999999"; }, "nibble.steps"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.what);
    const std::string error = error_loading_after(c.edit, model);
    CHECK_MESSAGE(error.find(c.named) != std::string::npos, error);
  }
}

TEST_CASE("checkpoint: a network description with impossible values is refused, never built") {
  const Model model = random_model(small_options("w4a4-fl8", 0.1));
  const auto with = [&](const std::string& from, const std::string& to) {
    return error_loading_after(
        [&](Edited& e) {
          std::string& text = e.metadata["nibble.network"];
          const size_t at = text.find(from);
          REQUIRE(at != std::string::npos);
          text.replace(at, from.size(), to);
        },
        model);
  };
  CHECK(with("resnet26", "resnet18").find("resnet18") != std::string::npos);
  CHECK(with("\"width\":0.1", "\"width\":1e9").find("--width") != std::string::npos);
  CHECK(with("\"image_size\":32", "\"image_size\":1000000").find("--image-size") != std::string::npos);
  CHECK(with("\"classes\":5", "\"classes\":-5").find("classes") != std::string::npos);
  CHECK(with("\"classes\":5", "\"classes\":\"5\"").find("whole number") != std::string::npos);
  CHECK(with("w4a4-fl8", "w3a3").find("w3a3") != std::string::npos);
  CHECK(with("per_channel\"", "per_row\"").find("per_row") != std::string::npos);
  CHECK(with("\"overrides\":[]", "\"overrides\":[{\"layer\":\"x\",\"precision\":\"w8a8\"}]").find("'x'") !=
        std::string::npos);
  CHECK(with("\"width\":0.1", "\"width\":0.2").find("another arch or width") != std::string::npos);
}

TEST_CASE("checkpoint: every sampled flipped byte and every truncation is refused") {
  const TempDir dir;
  const Model model = calibrated_model(small_options("w4a4-fl8", 0.05));
  save_checkpoint(dir / "c.safetensors", model, make_gradients(model), 3, "{}", {"a", "b", "c", "d", "e"});
  std::ifstream in(dir / "c.safetensors", std::ios::binary);
  const std::vector<char> good{std::istreambuf_iterator<char>(in), {}};
  const auto refused = [&](const std::vector<char>& bytes) {
    const std::span<const char> chars(bytes);
    try {
      load_checkpoint(SafetensorsFile::parse(std::as_bytes(chars), "copy"));
    } catch (const ModelError&) {
      return true;
    }
    return false;
  };
  REQUIRE_FALSE(refused(good));
  const size_t stride = std::max<size_t>(97, good.size() / 400 / 97 * 97 + 1);
  size_t tried = 0, caught = 0;
  const auto flip = [&](size_t at) {
    std::vector<char> bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 8)));
    ++tried;
    caught += refused(bad);
  };
  for (size_t at = 0; at < 512; at += 3) flip(at);
  for (size_t at = 512; at < good.size(); at += stride) flip(at);
  CHECK(caught == tried);
  CHECK(tried > 400);
  for (size_t length : {size_t{0}, size_t{7}, size_t{100}, good.size() / 2, good.size() - 1})
    CHECK(refused({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length)}));
}

/// A file as torchvision's state dict would be: no checksums, num_batches_tracked next to the norms; `prefix` before
/// every name.
void write_torchvision(const std::filesystem::path& path, const Model& model, const std::string& leave_out = "",
                       const std::string& prefix = "") {
  const TempDir dir;
  save_checkpoint(dir / "c.safetensors", model, make_gradients(model), 0, "{}", {});
  const SafetensorsFile file = SafetensorsFile::open(dir / "c.safetensors");
  SafetensorsWriter writer;
  for (const TensorEntry& e : file.entries())
    if (!e.name.starts_with("momentum.") && e.name.find(".input.") == std::string::npos && e.name != leave_out)
      writer.add(prefix + e.name, file.tensor(e.name));
  for (const UnitSpec& u : model.network.units)
    if (!u.norm_name.empty())
      writer.add_raw({prefix + u.norm_name + ".num_batches_tracked", "I64", {}, std::vector<std::byte>(8)});
  writer.write(path);
}

TEST_CASE("checkpoint: weights under torchvision's names are taken over completely") {
  const TempDir dir;
  const Model source = random_model(small_options("bf16"), 21);
  write_torchvision(dir / "tv.safetensors", source);
  Model model = make_model(build_resnet(small_options("w4a4-fl8")), {.seed = 1, .zero_last_gamma = true});
  const GivenWeights given = load_torchvision_weights(dir / "tv.safetensors", model, {"a", "b", "c", "d", "e"});
  CHECK(given.fresh.empty());
  // A kernel and four vectors of the norm for each convolution; fc has a kernel and a bias.
  CHECK(given.tensors == 5 * (std::ssize(model.units) - 1) + 2);
  for (size_t u = 0; u < model.units.size(); ++u) check_same(model.units[u], source.units[u]);
}

TEST_CASE("checkpoint: fc of another number of classes stays fresh and is reported, and so does one that is missing") {
  const TempDir dir;
  const Model source = random_model(small_options("bf16"), 21);
  write_torchvision(dir / "tv.safetensors", source);
  NetworkOptions o = small_options("w4a4-fl8");
  o.classes = 9;
  Model model = make_model(build_resnet(o), {.seed = 1, .zero_last_gamma = true});
  const Tensor fc = model.units.back().weights.clone();
  GivenWeights given = load_torchvision_weights(dir / "tv.safetensors", model);
  CHECK(given.fresh == "fc");
  CHECK(has(given.because, "has 5 classes, not 9"));
  CHECK(same_bytes(model.units.back().weights, fc));
  for (size_t u = 0; u + 1 < model.units.size(); ++u) check_same(model.units[u], source.units[u]);
  write_torchvision(dir / "tv.safetensors", source, "fc.weight");
  given = load_torchvision_weights(dir / "tv.safetensors", model);
  CHECK(given.fresh == "fc");
  CHECK(has(given.because, "has no fc.weight"));
}

TEST_CASE(
    "checkpoint: as given weights it keeps its fc for the classes it names, and starts it from scratch for others") {
  const TempDir dir;
  const Model source = random_model(small_options("bf16"), 21);
  save_checkpoint(dir / "c.safetensors", source, make_gradients(source), 4, "{}", {"a", "b", "c", "d", "e"});
  const auto given = [&](const std::vector<std::string>& names) {
    Model model = make_model(build_resnet(small_options("w4a4-fl8")), {.seed = 1, .zero_last_gamma = true});
    const GivenWeights result = load_torchvision_weights(dir / "c.safetensors", model, names);
    CHECK(same_bytes(model.units.back().weights, source.units.back().weights) == result.fresh.empty());
    return result;
  };
  CHECK(given({"a", "b", "c", "d", "e"}).because == "");
  CHECK(given({}).because == "");
  CHECK(has(given({"a", "b", "c", "d", "f"}).because, "have other names"));
}

TEST_CASE("checkpoint: given weights inside of a wrapper are taken without its prefix, which is noted") {
  const TempDir dir;
  const Model source = random_model(small_options("bf16"), 21);
  for (const std::string prefix : {"module.", "backbone.body.", "model._orig_mod.", "0."}) {
    CAPTURE(prefix);
    write_torchvision(dir / "wrapped.safetensors", source, "", prefix);
    Model model = make_model(build_resnet(small_options("bf16")), {.seed = 1, .zero_last_gamma = true});
    const GivenWeights given = load_torchvision_weights(dir / "wrapped.safetensors", model);
    CHECK(given.fresh.empty());
    CHECK(given.note == "names without '" + prefix + "'");
    for (size_t u = 0; u < model.units.size(); ++u) CHECK(same_bytes(model.units[u].weights, source.units[u].weights));
  }
}

TEST_CASE("checkpoint: given weights of basic blocks are refused as what they are") {
  const TempDir dir;
  SafetensorsWriter writer;
  for (const char* name : {"conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight"})
    writer.add(name, Tensor(DType::f32, {1}));
  writer.write(dir / "resnet18.safetensors");
  Model model = random_model(small_options("bf16"), 21);
  CHECK_THROWS_WITH_AS(load_torchvision_weights(dir / "resnet18.safetensors", model),
                       doctest::Contains("is a network of basic blocks, such as ResNet-18 and 34"), ModelError);
}

TEST_CASE("checkpoint: given weights with tensors that the network lacks are refused, heads of other forms named") {
  const TempDir dir;
  Model model = random_model(small_options("bf16"), 21);
  const auto with = [&](const std::string& name, const std::string& without) {
    write_torchvision(dir / "whole.safetensors", model, without);
    const SafetensorsFile whole = SafetensorsFile::open(dir / "whole.safetensors");
    SafetensorsWriter writer;
    for (const TensorEntry& e : whole.entries())
      if (e.dtype == "F32") writer.add(e.name, whole.tensor(e.name));
    writer.add(name, vector_tensor({1, 2}));
    writer.write(dir / "more.safetensors");
    return load_torchvision_weights(dir / "more.safetensors", model);
  };
  for (const char* name : {"conv1.bias", "layer1.0.conv1.bias", "extra.weight"})
    CHECK_THROWS_WITH_AS(with(name, ""), doctest::Contains(("has '" + std::string(name) + "', which").c_str()),
                         ModelError);
  CHECK(with("layer1.0.bn1.num_batches_tracked", "").fresh.empty());
  CHECK(has(with("fc.norm.weight", "fc.weight").because, "has no fc.weight but 'fc.norm.weight' and others"));
}

TEST_CASE("checkpoint: given weights of a deeper network or of a served model are refused") {
  const TempDir dir;
  NetworkOptions deep = small_options("bf16");
  deep.arch = "resnet101";
  write_torchvision(dir / "deep.safetensors", random_model(deep, 21));
  NetworkOptions o = small_options("w4a4-fl8");
  o.arch = "resnet50";
  Model model = make_model(build_resnet(o), {.seed = 1, .zero_last_gamma = true});
  const Tensor stem = model.units.front().weights.clone();
  CHECK_THROWS_WITH_AS(load_torchvision_weights(dir / "deep.safetensors", model),
                       doctest::Contains("weight', which resnet50 lacks: it is another"), ModelError);
  CHECK(same_bytes(model.units.front().weights, stem));
  const Model calibrated = calibrated_model(small_options("w4a4-fl8", 0.1));
  save_served(dir / "served.safetensors", make_served(calibrated));
  CHECK_THROWS_WITH_AS(load_torchvision_weights(dir / "served.safetensors", model),
                       doctest::Contains("is a served model"), ModelError);
}

TEST_CASE("checkpoint: a missing or differently shaped torchvision tensor is named and the model left as it was") {
  const TempDir dir;
  const Model source = random_model(small_options("bf16"), 21);
  for (const char* name : {"layer3.1.conv2.weight", "layer3.1.bn2.running_mean", "fc.bias"}) {
    CAPTURE(name);
    write_torchvision(dir / "tv.safetensors", source, name);
    Model model = make_model(build_resnet(small_options("w4a4-fl8")), {.seed = 1, .zero_last_gamma = true});
    const Tensor stem = model.units.front().weights.clone();
    CHECK_THROWS_WITH_AS(load_torchvision_weights(dir / "tv.safetensors", model), doctest::Contains(name), ModelError);
    CHECK(same_bytes(model.units.front().weights, stem));
  }
  write_torchvision(dir / "tv.safetensors", source);
  Model wide = make_model(build_resnet(small_options("w4a4-fl8", 0.5)), {.seed = 1, .zero_last_gamma = true});
  CHECK_THROWS_WITH_AS(load_torchvision_weights(dir / "tv.safetensors", wide),
                       doctest::Contains("another arch or width"), ModelError);
}

TEST_CASE("checkpoint: equal states give equal bytes") {
  const TempDir dir;
  const Model model = calibrated_model(small_options("w4a4-fl8", 0.1));
  const auto bytes = [&](const char* name) {
    save_checkpoint(dir / name, model, make_gradients(model), 3, "{}", {"a", "b", "c", "d", "e"});
    std::ifstream in(dir / name, std::ios::binary);
    return std::vector<char>{std::istreambuf_iterator<char>(in), {}};
  };
  CHECK(bytes("a.safetensors") == bytes("b.safetensors"));
}

}  // namespace
}  // namespace nibble
