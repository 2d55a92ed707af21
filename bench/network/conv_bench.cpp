// Every distinct convolution of ResNet-50 (width 1, 224 px) through the ops, in each direction and operand type, and
// their sums over the network. Rows: forward/u4s4/layer2.0.conv2, backward-data/bf16/..., backward-weights/u4/...;
// sums: forward/w4a4-fl8/network.
//
// Batch 8: large enough that weights are reused, small enough that all rows take less than two minutes on two AVX2
// cores (8 images are 33 GMAC a direction, 0.5 s in bf16).
#include <memory>
#include <set>

#include "bench/network/layers.hpp"
#include "bench/network/rows.hpp"
#include "bench/probe.hpp"

#if defined(NIBBLE_HAVE_ONEDNN)
#include "bench/network/onednn_rows.hpp"
#endif

namespace nibble::bench {
namespace {

constexpr int64_t kBatch = 8;

using Step = void (Operands::*)();

Prepared prepare(const LayerRow& row, Step step, bool forward) {
  auto operands = std::make_shared<Operands>(row, kBatch);
  const MacUnit unit = forward ? forward_unit(operands->layer()) : MacUnit::kBf16;
  return counted([operands, step] { ((*operands).*step)(); }, unit);
}

/// Rows of one direction for all layers of a network; those of another network with equal operands are shared.
class Direction {
 public:
  Direction(std::string name, Step step) : name_(std::move(name)), step_(step) {}

  /// `operands` names a row's operand types.
  template <typename Operands>
  void add(const std::string& precision, bool with_first, const Operands& operands) {
    std::vector<Part> parts;
    NetworkOptions options;  // ResNet-50, width 1, 224 px
    options.precision = precision;
    for (const LayerRow& row : layer_rows(options)) {
      if (row.first_layer && !with_first) continue;
      const std::string name = name_ + "/" + operands(row) + "/" + row.unit.name;
      if (known_.insert(name).second)
        register_row(name, [row, step = step_] { return prepare(row, step, step == &bench::Operands::forward); });
      parts.push_back({name, row.count});
    }
    register_sum(name_ + "/" + precision + "/network", parts);
  }

 private:
  std::string name_;
  Step step_;
  std::set<std::string> known_;
};

void register_ours() {
  Direction forward("forward", &Operands::forward);
  for (const char* precision : {"w8a8", "w4a4-fl8", "bf16"})
    forward.add(precision, true, [](const LayerRow& row) { return row.family(); });
  // Nobody asks for the gradient of the image. The weights' codes enter as bf16, so one precision stands for all.
  Direction data("backward-data", &Operands::backward_data);
  data.add("bf16", false, [](const LayerRow&) { return "bf16"; });
  Direction weights("backward-weights", &Operands::backward_weights);
  for (const char* precision : {"w4a4-fl8", "bf16"})
    weights.add(precision, true, [](const LayerRow& row) { return row.family().substr(0, row.family().find('s')); });
}

}  // namespace
}  // namespace nibble::bench

int main(int argc, char** argv) {
  nibble::bench::register_ours();
#if defined(NIBBLE_HAVE_ONEDNN)
  nibble::bench::register_onednn(nibble::bench::kBatch);
#endif
  return nibble::bench::run_benchmarks(argc, argv);
}
