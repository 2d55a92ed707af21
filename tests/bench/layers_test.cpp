// The table of shapes behind bench/network: it is the whole network, each distinct convolution once.
#include "bench/network/layers.hpp"

#include <doctest/doctest.h>

namespace nibble::bench {
namespace {

TEST_CASE("layer rows times their counts are all convolutions of the network, and their products") {
  for (const char* precision : {"bf16", "w8a8", "w4a4-fl8"}) {
    CAPTURE(precision);
    NetworkOptions options;
    options.precision = precision;
    const Network network = build_resnet(options);
    int64_t count = 0, macs = 0, all = 0;
    const std::vector<LayerRow> rows = layer_rows(options);
    for (const LayerRow& row : rows) {
      count += row.count;
      macs += row.count * row.unit.macs();
    }
    for (const UnitSpec& unit : network.units) all += unit.kind == UnitKind::kConv ? unit.macs() : 0;
    CHECK(count == 53);
    CHECK(macs == all);
    CHECK(rows.size() < 30);
    CHECK(rows.front().first_layer);
  }
}

TEST_CASE("a row's family says what is multiplied") {
  NetworkOptions options;
  options.precision = "w4a4-fl8";
  const std::vector<LayerRow> rows = layer_rows(options);
  CHECK(rows[0].family() == "u8s8");  // the ends have 8 bits
  CHECK(rows[1].family() == "u4s4");
  options.precision = "bf16";
  CHECK(layer_rows(options)[1].family() == "bf16");
  for (const LayerRow& row : {rows[0], rows[1]}) {
    Operands operands(row, 1);
    CHECK(operands.shape().macs() == row.unit.macs());
    CHECK(forward_unit(operands.layer()) == (row.family() == "u8s8" ? MacUnit::kCode8 : MacUnit::kCode4));
  }
}

}  // namespace
}  // namespace nibble::bench
