// Cost models against the published figures and against closed forms that know nothing of the unit list.
#include "nn/cost.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cmath>

namespace nibble {
namespace {

Cost cost_at(double width, const char* precision, const char* arch = "resnet50") {
  NetworkOptions o;
  o.arch = arch;
  o.width = width;
  o.precision = precision;
  return cost_of(build_resnet(o));
}

/// Totals of a bottleneck ResNet at 224 pixels and 1000 classes, from METHOD.md section 1 and nothing else.
struct Totals {
  int64_t macs = 0, weights = 0;
  int64_t end_macs = 0, end_weights = 0;  // stem and linear layer
};

Totals closed_form(const std::array<int64_t, 4>& filters, const std::array<int64_t, 4>& blocks) {
  Totals t{.end_macs = 112 * 112 * 49 * 3 * 64, .end_weights = 49 * 3 * 64};
  const std::array<int64_t, 4> side = {56, 28, 14, 7};
  int64_t channels = 64;
  for (size_t k = 0; k < 4; ++k) {
    const int64_t f = filters[k], pixels = side[k] * side[k], before = k == 0 ? pixels : 4 * pixels;
    const int64_t projection = channels * 4 * f, first = channels * f, other = 4 * f * f;
    t.weights += projection + first + (blocks[k] - 1) * other + blocks[k] * (9 * f * f + 4 * f * f);
    t.macs += projection * pixels + first * before + (blocks[k] - 1) * other * pixels + blocks[k] * 13 * f * f * pixels;
    channels = 4 * f;
  }
  t.end_macs += channels * 1000;
  t.end_weights += channels * 1000;
  t.macs += t.end_macs;
  t.weights += t.end_weights;
  return t;
}

constexpr std::array<int64_t, 4> kBlocks50 = {3, 4, 6, 3};

struct WidthRow {
  double width;
  std::array<int64_t, 4> filters;
};
const WidthRow kRows[] = {{0.37, {23, 47, 94, 189}},    {0.5, {32, 64, 128, 256}},   {0.62, {39, 79, 158, 317}},
                          {0.75, {48, 96, 192, 384}},   {0.87, {55, 111, 222, 445}}, {1.0, {64, 128, 256, 512}},
                          {1.25, {80, 160, 320, 640}},  {1.5, {96, 192, 384, 768}},  {1.75, {112, 224, 448, 896}},
                          {2.0, {128, 256, 512, 1024}}, {2.5, {160, 320, 640, 1280}}};

TEST_CASE("cost: resnet50 at width 1 costs the published integers in all four precisions") {
  struct Row {
    const char* precision;
    int64_t quadratic, linear, memory;
  };
  const Row rows[] = {{"bf16", 1'046'831'169'536, 65'426'948'096, 408'046'592},
                      {"w8a8", 261'707'792'384, 32'713'474'048, 204'023'296},
                      {"w4a4", 65'426'948'096, 16'356'737'024, 102'011'648},
                      {"w4a4-fl8", 71'189'921'792, 16'836'984'832, 110'241'280}};
  for (const Row& row : rows) {
    CAPTURE(row.precision);
    const Cost cost = cost_at(1.0, row.precision);
    CHECK(cost.total.macs == 4'089'184'256);
    CHECK(cost.total.weights == 25'502'912);
    CHECK(cost.total.quadratic == row.quadratic);
    CHECK(cost.total.linear == row.linear);
    CHECK(cost.total.memory_bits == row.memory);
  }
}

TEST_CASE("cost: MACs and weights of every width equal the published table and the closed form") {
  for (const WidthRow& row : kRows) {
    CAPTURE(row.width);
    const Totals t = closed_form(row.filters, kBlocks50);
    const CostSums cost = cost_at(row.width, "bf16").total;
    CHECK(cost.macs == t.macs);
    CHECK(cost.weights == t.weights);
  }
  CHECK(cost_at(0.5, "bf16").total.macs == 1'127'374'848);
  CHECK(cost_at(0.5, "bf16").total.weights == 6'899'904);
  CHECK(cost_at(2.0, "bf16").total.macs == 15'870'148'608);
  CHECK(cost_at(2.0, "bf16").total.weights == 97'846'464);
}

TEST_CASE("cost: all three models of every width and precision equal their closed forms") {
  for (const WidthRow& row : kRows) {
    CAPTURE(row.width);
    const Totals t = closed_form(row.filters, kBlocks50);
    const int64_t m = t.macs, w = t.weights, f = t.end_macs, g = t.end_weights;
    CHECK(cost_at(row.width, "bf16").total == CostSums{m, w, 16 * m, 256 * m, 16 * w});
    CHECK(cost_at(row.width, "w8a8").total == CostSums{m, w, 8 * m, 64 * m, 8 * w});
    CHECK(cost_at(row.width, "w4a4").total == CostSums{m, w, 4 * m, 16 * m, 4 * w});
    CHECK(cost_at(row.width, "w4a4-fl8").total == CostSums{m, w, 4 * m + 4 * f, 16 * m + 48 * f, 4 * w + 4 * g});
    // The linear model charges a mixed product at its wider side, the quadratic one at both.
    CHECK(cost_at(row.width, "w4a8").total == CostSums{m, w, 8 * m, 32 * m, 4 * w});
    CHECK(cost_at(row.width, "w8a4").total == CostSums{m, w, 8 * m, 32 * m, 8 * w});
  }
}

TEST_CASE("cost: resnet29, 101 and 152 have the published MACs and weights; resnet26 the closed form's") {
  const struct {
    const char* arch;
    int64_t macs, weights;
  } rows[] = {{"resnet29", 2'560'622'592, 17'077'440},
              {"resnet101", 7'801'405'440, 44'442'816},
              {"resnet152", 11'513'626'624, 60'040'384}};
  for (const auto& row : rows) {
    CAPTURE(row.arch);
    const CostSums cost = cost_at(1.0, "w4a4", row.arch).total;
    CHECK(cost.macs == row.macs);
    CHECK(cost.weights == row.weights);
  }
  const Totals t = closed_form({64, 128, 256, 512}, {2, 2, 2, 2});
  CHECK(cost_at(1.0, "w4a4", "resnet26").total.macs == t.macs);
  CHECK(cost_at(1.0, "w4a4", "resnet26").total.weights == t.weights);
}

TEST_CASE("cost: single layers of resnet50 have the published MACs and add up to the totals") {
  const Cost cost = cost_at(1.0, "w4a4-fl8");
  const auto macs = [&](const std::string& name) {
    for (const LayerCost& l : cost.layers)
      if (l.name == name) return l.macs;
    return int64_t{-1};
  };
  CHECK(macs("conv1") == 118'013'952);
  CHECK(macs("layer1.0.downsample.0") == 51'380'224);
  CHECK(macs("layer1.0.conv1") == 12'845'056);
  CHECK(macs("layer1.1.conv1") == 51'380'224);
  CHECK(macs("layer1.2.conv2") == 115'605'504);
  CHECK(macs("layer1.0.conv3") == 51'380'224);
  for (const char* stage : {"layer2", "layer3", "layer4"}) {
    CAPTURE(stage);
    const std::string s = stage;
    CHECK(macs(s + ".0.downsample.0") == 102'760'448);
    CHECK(macs(s + ".0.conv1") == 102'760'448);  // on the larger map: the stride is on conv2
    CHECK(macs(s + ".1.conv1") == 51'380'224);
    CHECK(macs(s + ".0.conv2") == 115'605'504);
    CHECK(macs(s + ".2.conv3") == 51'380'224);
  }
  CHECK(macs("fc") == 2'048'000);
  REQUIRE(cost.layers.size() == 54);
  CostSums sum;
  for (const LayerCost& l : cost.layers) {
    sum.macs += l.macs;
    sum.weights += l.weights;
    sum.linear += l.linear;
    sum.quadratic += l.quadratic;
    sum.memory_bits += l.memory_bits;
  }
  CHECK(sum == cost.total);
}

TEST_CASE("cost: ratios are to bf16 width 1 of the same architecture, image size and classes") {
  NetworkOptions o;
  o.precision = "w4a4-fl8";
  CostRatio r = cost_ratio(cost_of(build_resnet(o)).total, reference_cost(o));
  CHECK(r.quadratic == doctest::Approx(0.068005).epsilon(1e-5));
  CHECK(r.linear == doctest::Approx(0.257340).epsilon(1e-5));
  CHECK(r.memory == doctest::Approx(0.270168).epsilon(1e-5));
  o.arch = "resnet26";
  o.width = 2.0;
  o.image_size = 64;
  o.classes = 10;
  o.precision = "w4a4";
  o.same_padding = true;
  const Network wide = build_resnet(o);
  r = cost_ratio(cost_of(wide).total, reference_cost(o));
  o.width = 1.0;
  o.same_padding = false;
  const CostSums narrow = cost_of(build_resnet(o)).total;
  CHECK(r.linear ==
        doctest::Approx(static_cast<double>(cost_of(wide).total.macs) * 4 / (static_cast<double>(narrow.macs) * 16)));
  CHECK(r.memory == doctest::Approx(static_cast<double>(cost_of(wide).total.weights) * 4 /
                                    (static_cast<double>(narrow.weights) * 16)));
}

TEST_CASE("cost: one overridden layer changes its own row and the totals by exactly its difference") {
  NetworkOptions o;
  o.precision = "w4a4-fl8";
  const Cost before = cost_of(build_resnet(o));
  o.overrides = {{"layer3.0.conv2", {8, 8}}};
  const Cost after = cost_of(build_resnet(o));
  const int64_t macs = 115'605'504, weights = 9 * 256 * 256;
  CHECK(after.total == CostSums{before.total.macs, before.total.weights, before.total.linear + 4 * macs,
                                before.total.quadratic + 48 * macs, before.total.memory_bits + 4 * weights});
  for (size_t i = 0; i < after.layers.size(); ++i)
    CHECK((after.layers[i] == before.layers[i]) == (after.layers[i].name != "layer3.0.conv2"));
}

TEST_CASE("cost: the width for a linear budget is the largest that fits in steps of 0.01") {
  NetworkOptions o;
  for (const char* precision : {"bf16", "w8a8", "w4a4", "w4a4-fl8"}) {
    for (double budget : {0.05, 0.15, 0.25, 1.0}) {
      CAPTURE(precision);
      CAPTURE(budget);
      o.precision = precision;
      const double width = width_for_linear(o, budget);
      const auto ratio_at = [&](double w) {
        o.width = w;
        return cost_ratio(cost_of(build_resnet(o)).total, reference_cost(o)).linear;
      };
      CHECK(ratio_at(width) <= budget);
      CHECK(ratio_at(width + 0.01) > budget);
    }
  }
  o.precision = "bf16";
  CHECK(width_for_linear(o, 1.0) == 1.0);
  CHECK(width_for_linear(o, 1e9) == 8.0);
  // Exactly the cost of width 0.75 buys width 0.75 (the published point at 0.152 of the reference).
  o.precision = "w4a4-fl8";
  const double at = cost_ratio(cost_at(0.75, "w4a4-fl8").total, reference_cost(o)).linear;
  CHECK(at == doctest::Approx(0.152).epsilon(0.01));
  CHECK(width_for_linear(o, at) == doctest::Approx(0.75).epsilon(0.01));
}

TEST_CASE("cost: a budget that no width satisfies is refused with the smallest cost there is") {
  NetworkOptions o;
  o.precision = "bf16";
  for (double budget : {0.001, 0.0, -1.0}) {
    CAPTURE(budget);
    CHECK_THROWS_WITH_AS(width_for_linear(o, budget), doctest::Contains("even at width 0.05"), UsageError);
  }
  CHECK_THROWS_WITH_AS(width_for_linear(o, std::nan("")), doctest::Contains("--max-linear is nan, not a finite number"),
                       UsageError);
}

}  // namespace
}  // namespace nibble
