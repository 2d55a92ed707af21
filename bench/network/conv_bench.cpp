// Every distinct convolution of ResNet-50 (width 1, 224 px) through the ops, in each direction and operand type, and
// their sums over the network. Rows: forward/u4s4/layer2.0.conv2, backward-data/bf16/..., backward-weights/u4/...;
// sums: forward/w4a4-fl8/network. backward/... are both gradients: at once where the layer takes rows, elsewhere one
// after the other (a step makes those in parallel); the rows of one gradient alone are there to be compared with
// other libraries.
//
// A shard of 32 images per thread, as training's default batch has on two: the drivers depend on the shard (images side
// by side in tiles, streamed stores of large results). A peer gets all images in one call. Shards of two on the scalar
// level, which needs a second for three images.
#include <memory>
#include <set>
#include <vector>

#include "bench/network/layers.hpp"
#include "bench/network/rows.hpp"
#include "bench/probe.hpp"
#include "engine/cpu.hpp"
#include "engine/parallel.hpp"

#if defined(NIBBLE_HAVE_ONEDNN)
#include "bench/network/onednn_rows.hpp"
#endif

namespace nibble::bench {
namespace {

int64_t shard() {
  return active_isa() == Isa::scalar ? 2 : 32;
}

using Step = void (Operands::*)();

Prepared prepare(const LayerRow& row, Step step, bool forward) {
  auto shards = std::make_shared<std::vector<std::unique_ptr<Operands>>>();
  for (int i = 0; i < threads(); ++i) shards->push_back(std::make_unique<Operands>(row, shard()));
  const MacUnit unit = forward ? forward_unit(shards->front()->layer()) : MacUnit::kBf16;
  return counted(
      [shards, step] {
        parallel_for_outermost(static_cast<int64_t>(shards->size()),
                               [&](int64_t i) { ((*(*shards)[static_cast<size_t>(i)]).*step)(); });
      },
      unit);
}

/// Rows of one direction for all layers of a network; those of another network with equal operands are shared.
class Direction {
 public:
  Direction(std::string name, Step step) : name_(std::move(name)), step_(step) {}

  /// Rows of the layers for which `has` is true; `operands` names a row's operand types.
  template <typename Has, typename Operands>
  void add(const std::string& precision, const Has& has, const Operands& operands) {
    std::vector<Part> parts;
    NetworkOptions options;  // ResNet-50, width 1, 224 px
    options.precision = precision;
    for (const LayerRow& row : layer_rows(options)) {
      if (!has(row)) continue;
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
  const auto all = [](const LayerRow&) { return true; };
  const auto left_operand = [](const LayerRow& row) { return row.family().substr(0, row.family().find('s')); };
  Direction forward("forward", &Operands::forward);
  for (const char* precision : {"w8a8", "w4a4-fl8", "bf16"})
    forward.add(precision, all, [](const LayerRow& row) { return row.family(); });
  // The gradient of the image is not needed. The weights' codes enter as bf16, so one precision stands for all.
  Direction data("backward-data", &Operands::backward_data);
  data.add(
      "bf16", [](const LayerRow& row) { return !row.first_layer; }, [](const LayerRow&) { return "bf16"; });
  Direction weights("backward-weights", &Operands::backward_weights);
  for (const char* precision : {"w4a4-fl8", "bf16"}) weights.add(precision, all, left_operand);
  Direction both("backward", &Operands::backward);
  for (const char* precision : {"w4a4-fl8", "bf16"}) both.add(precision, all, left_operand);
}

}  // namespace
}  // namespace nibble::bench

int main(int argc, char** argv) {
  nibble::bench::register_ours();
#if defined(NIBBLE_HAVE_ONEDNN)
  nibble::bench::register_onednn(nibble::bench::shard() * nibble::threads());
#endif
  return nibble::bench::run_benchmarks(argc, argv);
}
