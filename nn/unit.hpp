// The one described unit: convolution (or linear layer) + batch norm + shortcut + ReLU + quantizers, as plain data.
//
// Trainer, packer, executor, cost model and inspect all read this list; no rule about the network is written twice.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ops/conv_shape.hpp"
#include "ops/pool_shape.hpp"
#include "ops/quantization.hpp"

namespace nibble {

enum class Granularity { kPerTensor, kPerChannel };
/// How per-channel activation scales enter an integer sum, exactly (METHOD.md section 7).
enum class PerChannelBy { kFold, kShift, kShiftFold };
/// integer: codes are multiplied. fake: quantize, dequantize to bf16, bf16 product (the published arithmetic).
enum class QuantMode { kInteger, kFake };

/// Bits of weights and activations; 16 means bf16 (not quantized).
struct Precision {
  int weight_bits = 16;
  int activation_bits = 16;
  bool operator==(const Precision&) const = default;
  bool quantized() const { return activation_bits < 16; }
};

/// The quantizer of one activation tensor; one serves every unit that reads the tensor with the same bits.
struct QuantizerSpec {
  std::string name;  // "<first consumer>.input"
  int bits = 8;
  bool is_signed = false;  // the input image only (and the paper's quirk)
  int64_t channels = 0;
  Granularity granularity = Granularity::kPerChannel;
  PerChannelBy by = PerChannelBy::kFold;
  QuantScheme scheme = QuantScheme::kPaper;
};

/// Values flow between units by number: 0 is the image, unit i produces value i + 1.
inline constexpr int kImageValue = 0;
inline constexpr int kNoValue = -1;

enum class UnitKind { kConv, kLinear };

struct UnitSpec {
  std::string name;       // torchvision's: "conv1", "layer1.0.conv2", "layer1.0.downsample.0", "fc"
  std::string norm_name;  // "bn1", "layer1.0.bn2", "layer1.0.downsample.1"; empty: no batch norm (fc has a bias)
  UnitKind kind = UnitKind::kConv;
  ConvShape shape;  // n = 1; for fc: h = w = 1
  int input = kImageValue;
  int shortcut = kNoValue;  // value added before ReLU
  bool relu = false;
  std::optional<PoolShape> max_pool;  // of the output, after ReLU (the stem)
  bool average_pool = false;          // the input is averaged over its pixels first (fc)
  bool rounds_output = false;  // output is rounded to bf16 before codes are made of it: it feeds a shortcut or the pool
  Precision precision;
  int quantizer = -1;  // index into Network::quantizers of its input; -1: bf16 input

  /// The convolution of a shortcut: nothing comes between its norm and the sum.
  bool is_projection() const { return kind == UnitKind::kConv && !relu; }
  int64_t weight_count() const { return shape.oc * shape.k(); }
  int64_t macs() const { return shape.macs(); }
  /// Side of the map that the unit passes on: after its pool, if it has one.
  int64_t output_side() const { return max_pool ? max_pool->out(shape.oh()) : shape.oh(); }
};

/// A named layer's precision, overriding the network's (config file: [layers."layer3.0.conv2"] precision = "w8a8").
struct PrecisionOverride {
  std::string layer;
  Precision precision;
  bool operator==(const PrecisionOverride&) const = default;
};

inline constexpr double kLeastWidth = 0.05, kMostWidth = 8;

/// What the user asks for; everything else follows from it.
struct NetworkOptions {
  std::string arch = "resnet50";
  double width = 1.0;
  std::string precision = "w4a4-fl8";  // bf16 | wXaY with X, Y in {4, 8}, optionally -fl8
  Granularity granularity = Granularity::kPerChannel;
  PerChannelBy per_channel_by = PerChannelBy::kFold;
  QuantMode mode = QuantMode::kInteger;
  QuantScheme scheme = QuantScheme::kPaper;
  int64_t image_size = 224;
  int64_t classes = 1000;
  bool same_padding = false;        // paper quirk: XLA SAME (0 before, 1 after on even sizes)
  bool signed_block_input = false;  // paper quirk: conv1 of projection blocks signed, with its own quantizer
  bool bf16_weights = false;        // paper quirk: masters are rounded to bf16 before they are quantized
  PixelNorm pixel_norm = {};
  double crop_share = 0.875;  // in evaluation and serving: image_size / the short side that images are resized to
  bool upright = false;       // images are turned as their EXIF orientation says, before anything else
  std::vector<PrecisionOverride> overrides;
  bool operator==(const NetworkOptions&) const = default;
};

struct Network {
  NetworkOptions options;
  std::vector<UnitSpec> units;            // in execution order
  std::vector<QuantizerSpec> quantizers;  // in order of first use

  int unit_index(const std::string& name) const;  // -1 when absent
};

/// Blocks per stage of an architecture: resnet26 2,2,2,2; 29 2,2,3,2; 50 3,4,6,3; 101 3,4,23,3; 152 3,8,36,3.
/// Throws UsageError naming the known ones.
std::vector<int> blocks_of(const std::string& arch);

/// Filters of the four stages: trunc(64 * width * 2^k) (METHOD.md section 1: the product is truncated once per stage).
std::vector<int64_t> filters_of(double width);

/// Parses "bf16", "w4a4", "w8a8", "w4a8", "w8a4", each with optional "-fl8"; throws UsageError.
struct ParsedPrecision {
  Precision body;
  Precision ends;  // first convolution and last linear layer
};
ParsedPrecision parse_precision(const std::string& text);
std::string precision_text(const Precision& p);

/// ResNet v1.5 (METHOD.md section 1) as a list of units. Throws UsageError for options out of range
/// (width 0.05 to 8, image size 32 to 1024, classes 2 to 100000, means 0 to 1, deviations 0.001 to 10, crop share 0.1
/// to 1) and for overrides that name no layer.
Network build_resnet(const NetworkOptions& options);

/// Quantizers (indices) through which the value is read, unsigned ones first.
std::vector<int> quantizers_of(const Network& network, int value);

/// True if the value exists as bf16 and its codes are made from the rounded number (block outputs, the stem, values
/// with several quantizers); otherwise the single consumer's code is made from the fp32 value (METHOD.md section 8).
bool rounded_before_codes(const Network& network, int value);

/// True if a unit averages the value over its pixels before anything is done with it (fc).
bool read_by_average_pool(const Network& network, int value);

}  // namespace nibble
