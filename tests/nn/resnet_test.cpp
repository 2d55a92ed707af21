// The list of units against torchvision's names and the published model's sizes, and the rules of quantizers.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "engine/error.hpp"
#include "nn/unit.hpp"

namespace nibble {
namespace {

NetworkOptions with(const char* precision, const char* arch = "resnet50") {
  NetworkOptions o;
  o.arch = arch;
  o.precision = precision;
  return o;
}

const UnitSpec& unit(const Network& net, const std::string& name) {
  const int index = net.unit_index(name);
  REQUIRE(index >= 0);
  return net.units[static_cast<size_t>(index)];
}

int value_of(const Network& net, const std::string& name) {
  return net.unit_index(name) + 1;
}

const QuantizerSpec& quantizer(const Network& net, const std::string& name) {
  const int index = unit(net, name).quantizer;
  REQUIRE(index >= 0);
  return net.quantizers[static_cast<size_t>(index)];
}

/// Asks for the network and returns the sentence of the refusal.
std::string refusal(const NetworkOptions& options) {
  try {
    build_resnet(options);
  } catch (const UsageError& e) {
    return e.what();
  }
  return "accepted";
}

TEST_CASE("resnet: units come in execution order under torchvision's names") {
  const Network net = build_resnet(with("bf16"));
  REQUIRE(net.units.size() == 54);
  const char* const first[] = {"conv1",          "layer1.0.downsample.0", "layer1.0.conv1", "layer1.0.conv2",
                               "layer1.0.conv3", "layer1.1.conv1",        "layer1.1.conv2", "layer1.1.conv3"};
  for (size_t i = 0; i < std::size(first); ++i) CHECK(net.units[i].name == first[i]);
  CHECK(net.units[52].name == "layer4.2.conv3");
  CHECK(net.units[53].name == "fc");
  CHECK(unit(net, "conv1").norm_name == "bn1");
  CHECK(unit(net, "layer3.0.downsample.0").norm_name == "layer3.0.downsample.1");
  CHECK(unit(net, "layer3.5.conv2").norm_name == "layer3.5.bn2");
  CHECK(unit(net, "fc").norm_name.empty());
  CHECK(net.unit_index("layer1.1.downsample.0") == -1);  // only the first block of a stage projects
  CHECK(net.unit_index("layer3.6.conv1") == -1);
}

TEST_CASE("resnet: every architecture has its blocks, and a wrong one is refused with the known names") {
  const struct {
    const char* arch;
    std::vector<int> blocks;
  } rows[] = {{"resnet26", {2, 2, 2, 2}},
              {"resnet29", {2, 2, 3, 2}},
              {"resnet50", {3, 4, 6, 3}},
              {"resnet101", {3, 4, 23, 3}},
              {"resnet152", {3, 8, 36, 3}}};
  for (const auto& row : rows) {
    CAPTURE(row.arch);
    CHECK(blocks_of(row.arch) == row.blocks);
    const Network net = build_resnet(with("w4a4", row.arch));
    size_t blocks = 0;
    for (size_t stage = 0; stage < 4; ++stage) {
      blocks += static_cast<size_t>(row.blocks[stage]);
      const std::string layer = fmt::format("layer{}.", stage + 1);
      CHECK(net.unit_index(layer + std::to_string(row.blocks[stage] - 1) + ".conv3") >= 0);
      CHECK(net.unit_index(layer + std::to_string(row.blocks[stage]) + ".conv3") == -1);
    }
    CHECK(net.units.size() == 2 + 3 * blocks + 4);
  }
  CHECK_THROWS_WITH_AS(blocks_of("resnet18"), doctest::Contains("resnet26, resnet29, resnet50"), UsageError);
}

TEST_CASE("resnet: filters are truncated products and the stem is never scaled") {
  const struct {
    double width;
    std::vector<int64_t> filters;
  } rows[] = {{0.5, {32, 64, 128, 256}},   {0.62, {39, 79, 158, 317}}, {0.75, {48, 96, 192, 384}},
              {0.87, {55, 111, 222, 445}}, {1.0, {64, 128, 256, 512}}, {1.25, {80, 160, 320, 640}},
              {2.0, {128, 256, 512, 1024}}};
  for (const auto& row : rows) {
    CAPTURE(row.width);
    CHECK(filters_of(row.width) == row.filters);
    NetworkOptions o = with("w4a4");
    o.width = row.width;
    const Network net = build_resnet(o);
    CHECK(unit(net, "conv1").shape.oc == 64);
    CHECK(unit(net, "layer1.0.conv1").shape.ic == 64);
    CHECK(unit(net, "layer4.0.conv2").shape.oc == row.filters[3]);
    CHECK(unit(net, "layer4.1.conv1").shape.ic == 4 * row.filters[3]);
    CHECK(unit(net, "fc").shape.ic == 4 * row.filters[3]);
  }
}

TEST_CASE("resnet: resnet50 has torchvision's 25,557,032 trainable parameters") {
  int64_t kernels = 0, norms = 0, bias = 0;
  for (const UnitSpec& u : build_resnet(with("bf16")).units) {
    kernels += u.weight_count();
    (u.norm_name.empty() ? bias : norms) += u.norm_name.empty() ? u.shape.oc : 2 * u.shape.oc;
  }
  CHECK(kernels == 25'502'912);
  CHECK(norms == 2 * 26'560);
  CHECK(bias == 1000);
  CHECK(kernels + norms + bias == 25'557'032);
}

TEST_CASE("resnet: maps shrink by the arithmetic of convolutions for every image size") {
  const struct {
    int64_t image, stem, pool, stage[4];
  } rows[] = {{224, 112, 56, {56, 28, 14, 7}},     {128, 64, 32, {32, 16, 8, 4}}, {64, 32, 16, {16, 8, 4, 2}},
              {32, 16, 8, {8, 4, 2, 1}},           {33, 17, 9, {9, 5, 3, 2}},     {225, 113, 57, {57, 29, 15, 8}},
              {1024, 512, 256, {256, 128, 64, 32}}};
  for (const bool same : {false, true}) {
    for (const auto& row : rows) {
      CAPTURE(row.image);
      CAPTURE(same);
      NetworkOptions o = with("w4a4");
      o.image_size = row.image;
      o.same_padding = same;
      const Network net = build_resnet(o);
      CHECK(unit(net, "conv1").shape.oh() == row.stem);
      CHECK(unit(net, "conv1").output_side() == row.pool);
      for (size_t k = 0; k < 4; ++k) {
        const std::string stage = fmt::format("layer{}.", k + 1);
        CHECK(unit(net, stage + "0.downsample.0").shape.oh() == row.stage[k]);
        CHECK(unit(net, stage + "0.conv3").shape.oh() == row.stage[k]);
        CHECK(unit(net, stage + "1.conv1").shape.h == row.stage[k]);
        CHECK(unit(net, stage + "1.conv2").shape.ow() == row.stage[k]);
      }
    }
  }
}

TEST_CASE("resnet: the stride is on the 3x3 and the projection of the first block of stages 2 to 4") {
  for (const UnitSpec& u : build_resnet(with("bf16")).units) {
    CAPTURE(u.name);
    const bool later_stage = u.name.starts_with("layer") && !u.name.starts_with("layer1");
    const bool strided = later_stage && (u.name.ends_with(".0.conv2") || u.name.ends_with(".0.downsample.0"));
    CHECK(u.shape.stride == (strided || u.name == "conv1" ? 2 : 1));
    CHECK(u.shape.kh == (u.name == "conv1" ? 7 : u.name.ends_with("conv2") ? 3 : 1));
    CHECK(u.shape.kw == u.shape.kh);
  }
}

TEST_CASE("resnet: padding is half the kernel on both sides; same_padding with stride 2 pads even maps only after") {
  NetworkOptions o = with("bf16");
  for (const UnitSpec& u : build_resnet(o).units) {
    CHECK(u.shape.pad_before == (u.shape.kh - 1) / 2);
    CHECK(u.shape.pad_after == (u.shape.kh - 1) / 2);
  }
  CHECK(unit(build_resnet(o), "conv1").max_pool->pad_before == 1);
  o.same_padding = true;
  const Network even = build_resnet(o);
  CHECK(unit(even, "conv1").shape.pad_before == 3);  // the published stem pads explicitly
  CHECK(unit(even, "layer2.0.conv2").shape.pad_before == 0);
  CHECK(unit(even, "layer2.0.conv2").shape.pad_after == 1);
  CHECK(unit(even, "layer1.0.conv2").shape.pad_before == 1);  // stride 1
  CHECK(unit(even, "layer2.0.downsample.0").shape.pad_before == 0);
  CHECK(unit(even, "layer2.0.downsample.0").shape.pad_after == 0);
  CHECK(unit(even, "conv1").max_pool->pad_before == 0);
  CHECK(unit(even, "conv1").max_pool->pad_after == 1);
  o.image_size = 225;  // maps of 113 and 57 pixels: one on each side is XLA's SAME too
  CHECK(unit(build_resnet(o), "conv1").max_pool->pad_before == 1);
  CHECK(unit(build_resnet(o), "layer2.0.conv2").shape.pad_before == 1);
}

TEST_CASE("resnet: conv3 adds the projection in a first block and the block's input in the others") {
  const Network net = build_resnet(with("w4a4"));
  for (size_t i = 0; i < net.units.size(); ++i) {
    const UnitSpec& u = net.units[i];
    CAPTURE(u.name);
    CHECK(u.input <= static_cast<int>(i));  // only values that exist already
    const bool last = u.name.ends_with("conv3");
    CHECK((u.shortcut != kNoValue) == last);
    CHECK(u.rounds_output == (last || u.name == "conv1"));
    CHECK(u.relu == (u.name != "fc" && !u.name.ends_with("downsample.0")));
    CHECK(u.max_pool.has_value() == (u.name == "conv1"));
    CHECK(u.average_pool == (u.name == "fc"));
    CHECK((u.kind == UnitKind::kLinear) == (u.name == "fc"));
  }
  CHECK(unit(net, "layer2.0.conv3").shortcut == value_of(net, "layer2.0.downsample.0"));
  CHECK(unit(net, "layer2.0.downsample.0").input == value_of(net, "layer1.2.conv3"));
  CHECK(unit(net, "layer2.0.conv1").input == value_of(net, "layer1.2.conv3"));
  CHECK(unit(net, "layer2.1.conv3").shortcut == value_of(net, "layer2.0.conv3"));
  CHECK(unit(net, "layer2.1.conv1").input == value_of(net, "layer2.0.conv3"));
  CHECK(unit(net, "layer2.1.conv2").input == value_of(net, "layer2.1.conv1"));
  CHECK(unit(net, "layer1.0.downsample.0").input == value_of(net, "conv1"));
  CHECK(unit(net, "fc").input == value_of(net, "layer4.2.conv3"));
}

TEST_CASE("precision: all eight quantized forms and bf16 parse, anything else is refused with the list") {
  CHECK(parse_precision("bf16").body == Precision{16, 16});
  CHECK(parse_precision("bf16").ends == Precision{16, 16});
  for (const int w : {4, 8})
    for (const int a : {4, 8}) {
      const std::string text = fmt::format("w{}a{}", w, a);
      CHECK(parse_precision(text).body == Precision{w, a});
      CHECK(parse_precision(text).ends == Precision{w, a});
      CHECK(parse_precision(text + "-fl8").body == Precision{w, a});
      CHECK(parse_precision(text + "-fl8").ends == Precision{8, 8});
      CHECK(precision_text({w, a}) == text);
    }
  CHECK(precision_text({}) == "bf16");
  for (const char* wrong : {"", "w4", "w4a", "w4a4-fl", "w4a4-fl8-fl8", "bf16-fl8", "w3a4", "w4a2", "W4A4", "w16a16",
                            "w4a4 ", "-fl8", "int8"}) {
    CAPTURE(wrong);
    CHECK_THROWS_WITH_AS(parse_precision(wrong), doctest::Contains("use bf16, w4a4"), UsageError);
  }
}

TEST_CASE("resnet: -fl8 changes the first and the last layer only") {
  for (const UnitSpec& u : build_resnet(with("w4a4-fl8")).units) {
    CAPTURE(u.name);
    const bool end = u.name == "conv1" || u.name == "fc";
    CHECK(u.precision == (end ? Precision{8, 8} : Precision{4, 4}));
  }
}

TEST_CASE("resnet: one quantizer serves every unit that reads a value with the same bits") {
  const Network net = build_resnet(with("w4a4-fl8"));
  // The image, the pooled stem, two values inside each of 16 blocks, 16 block outputs.
  CHECK(net.quantizers.size() == 50);
  CHECK(unit(net, "layer2.0.conv1").quantizer == unit(net, "layer2.0.downsample.0").quantizer);
  std::set<std::string> names;
  for (const UnitSpec& u : net.units) {
    CAPTURE(u.name);
    REQUIRE(u.quantizer >= 0);
    const QuantizerSpec& q = net.quantizers[static_cast<size_t>(u.quantizer)];
    names.insert(q.name);
    CHECK(q.bits == u.precision.activation_bits);
    CHECK(q.channels == u.shape.ic);
    CHECK(q.is_signed == (u.input == kImageValue));
  }
  CHECK(names.size() == net.quantizers.size());
  CHECK(quantizer(net, "conv1").name == "conv1.input");
  CHECK(quantizer(net, "layer2.0.conv1").name == "layer2.0.downsample.0.input");
  CHECK(build_resnet(with("bf16")).quantizers.empty());
  for (const UnitSpec& u : build_resnet(with("bf16")).units) CHECK(u.quantizer == -1);
}

TEST_CASE("resnet: signed_block_input gives conv1 of the four projection blocks a signed quantizer of its own") {
  NetworkOptions o = with("w4a4");
  o.signed_block_input = true;
  const Network net = build_resnet(o);
  CHECK(net.quantizers.size() == 54);
  for (const UnitSpec& u : net.units) {
    CAPTURE(u.name);
    CHECK(quantizer(net, u.name).is_signed == (u.name == "conv1" || u.name.ends_with(".0.conv1")));
  }
  CHECK(quantizer(net, "layer3.0.conv1").name == "layer3.0.conv1.input");
  const std::vector<int> readers = quantizers_of(net, unit(net, "layer3.0.conv1").input);
  REQUIRE(readers.size() == 2);  // unsigned first
  CHECK(readers[0] == unit(net, "layer3.0.downsample.0").quantizer);
  CHECK(readers[1] == unit(net, "layer3.0.conv1").quantizer);
}

TEST_CASE("resnet: shifts are for unsigned 4-bit values; 8-bit and signed ones fold") {
  for (const PerChannelBy by : {PerChannelBy::kFold, PerChannelBy::kShift, PerChannelBy::kShiftFold})
    for (const char* precision : {"w4a4", "w4a4-fl8", "w8a4", "w8a8"}) {
      NetworkOptions o = with(precision);
      o.per_channel_by = by;
      for (const QuantizerSpec& q : build_resnet(o).quantizers) {
        CAPTURE(precision);
        CAPTURE(q.name);
        CHECK(q.by == (q.bits == 4 && !q.is_signed ? by : PerChannelBy::kFold));
        CHECK(q.granularity == Granularity::kPerChannel);
      }
    }
}

TEST_CASE("resnet: an overridden layer gets its own bits and, where the bits differ, its own quantizer") {
  NetworkOptions o = with("w4a4-fl8");
  o.overrides = {{"layer3.0.conv1", {8, 8}}, {"layer1.1.conv2", {4, 8}}, {"layer2.1.conv2", {}}};
  const Network net = build_resnet(o);
  CHECK(unit(net, "layer3.0.conv1").precision == Precision{8, 8});
  CHECK(unit(net, "layer3.0.downsample.0").precision == Precision{4, 4});
  CHECK(quantizer(net, "layer3.0.conv1").name == "layer3.0.conv1.input");
  CHECK(quantizer(net, "layer3.0.conv1").bits == 8);
  CHECK(quantizer(net, "layer3.0.downsample.0").bits == 4);
  CHECK(quantizer(net, "layer1.1.conv2").bits == 8);
  CHECK(unit(net, "layer1.1.conv2").precision.weight_bits == 4);
  CHECK(unit(net, "layer2.1.conv2").quantizer == -1);
  CHECK(net.quantizers.size() == 50);  // one more for layer3.0.conv1, one less for the bf16 layer
  CHECK(precision_text(unit(net, "layer3.0.conv2").precision) == "w4a4");
}

TEST_CASE("resnet: codes come from the rounded value where the bf16 value exists, else from the fp32 one") {
  NetworkOptions o = with("w4a4");
  o.overrides = {{"layer2.1.conv2", {}}};
  const Network net = build_resnet(o);
  CHECK_FALSE(rounded_before_codes(net, kImageValue));
  CHECK(rounded_before_codes(net, value_of(net, "conv1")));
  CHECK(rounded_before_codes(net, value_of(net, "layer1.0.conv3")));
  CHECK_FALSE(rounded_before_codes(net, value_of(net, "layer1.0.conv1")));
  CHECK_FALSE(rounded_before_codes(net, value_of(net, "layer1.0.conv2")));
  CHECK(rounded_before_codes(net, value_of(net, "layer2.1.conv1")));  // read as bf16
}

TEST_CASE("resnet: options out of range are refused by the name of their flag") {
  const double widths[] = {0.0, -1.0, 0.049, 8.001, std::nan(""), 1e300};
  for (const double width : widths) {
    NetworkOptions o = with("w4a4");
    o.width = width;
    CHECK(refusal(o).find("--width is") == 0);
  }
  for (const int64_t size : {int64_t{0}, int64_t{31}, int64_t{1025}, int64_t{-224}}) {
    NetworkOptions o = with("w4a4");
    o.image_size = size;
    CHECK(refusal(o).find("--image-size is") == 0);
  }
  for (const int64_t classes : {int64_t{0}, int64_t{1}, int64_t{100001}}) {
    NetworkOptions o = with("w4a4");
    o.classes = classes;
    CHECK(refusal(o).find("--classes is") == 0);
  }
  NetworkOptions o = with("w4a4");
  o.overrides = {{"layer9.0.conv1", {8, 8}}};
  CHECK(refusal(o).find("'layer9.0.conv1'") != std::string::npos);
  o.overrides = {{"fc", {8, 8}}, {"conv1", {8, 8}}, {"fc", {4, 4}}};
  CHECK(refusal(o).find("'fc' has more than one") != std::string::npos);
  o = with("w4a4");
  o.width = 0.05;  // the narrowest: three filters
  CHECK(unit(build_resnet(o), "layer1.0.conv1").shape.oc == 3);
}

}  // namespace
}  // namespace nibble
