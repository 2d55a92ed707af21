// ResNet v1.5 as a list of units (METHOD.md section 1 gives the published model; the table of sizes is checked in
// tests).
#include <algorithm>
#include <cmath>

#include "nn/unit.hpp"

namespace nibble {

namespace {

struct Arch {
  const char* name;
  std::vector<int> blocks;
};

const std::vector<Arch>& archs() {
  static const std::vector<Arch> all = {{"resnet26", {2, 2, 2, 2}},
                                        {"resnet29", {2, 2, 3, 2}},
                                        {"resnet50", {3, 4, 6, 3}},
                                        {"resnet101", {3, 4, 23, 3}},
                                        {"resnet152", {3, 8, 36, 3}}};
  return all;
}

void check_ranges(const NetworkOptions& o) {
  if (!(o.width >= kLeastWidth && o.width <= kMostWidth))
    throw UsageError("--width is {}; use a multiplier from {} to {}", o.width, kLeastWidth, kMostWidth);
  if (o.image_size < 32 || o.image_size > 1024)
    throw UsageError("--image-size is {}; use 32 to 1024 pixels", o.image_size);
  if (o.classes < 2 || o.classes > 100000) throw UsageError("--classes is {}; use 2 to 100000", o.classes);
  for (const double mean : o.pixel_norm.mean)
    if (!(mean >= 0 && mean <= 1)) throw UsageError("--pixel-mean has {}; use 0 to 1, the scale of byte / 255", mean);
  for (const double std : o.pixel_norm.std)
    if (!(std >= 0.001 && std <= 10))
      throw UsageError("--pixel-std has {}; use 0.001 to 10, on the scale of byte / 255", std);
  if (!(o.crop_share >= 0.1 && o.crop_share <= 1)) throw UsageError("--crop-share is {}; use 0.1 to 1", o.crop_share);
}

class Builder {
 public:
  explicit Builder(const NetworkOptions& options) : precision_(parse_precision(options.precision)) {
    net_.options = options;
  }

  Network build() {
    const std::vector<int> blocks = blocks_of(net_.options.arch);
    const std::vector<int64_t> filters = filters_of(net_.options.width);
    stem();
    for (size_t stage = 0; stage < blocks.size(); ++stage)
      for (int b = 0; b < blocks[stage]; ++b)
        block(fmt::format("layer{}.{}", stage + 1, b), filters[stage], stage > 0 && b == 0 ? 2 : 1, b == 0);
    linear();
    apply_quantizers();
    return std::move(net_);
  }

 private:
  Precision precision_for(const std::string& layer, const Precision& usual) {
    for (const PrecisionOverride& o : net_.options.overrides)
      if (o.layer == layer) return o.precision;
    return usual;
  }

  /// Whether a 3x3 window of stride 2 follows XLA's SAME on such a map: nothing before, one after.
  bool xla_same_on(int64_t size) const { return net_.options.same_padding && size % 2 == 0; }

  /// Appends a convolution on the map of `size_` pixels; returns its value.
  int conv(const std::string& name, const std::string& norm, int64_t ic, int64_t oc, int64_t kernel, int64_t stride,
           int input) {
    UnitSpec u;
    u.name = name;
    u.norm_name = norm;
    u.shape = {.n = 1, .h = size_, .w = size_, .ic = ic, .oc = oc, .kh = kernel, .kw = kernel, .stride = stride};
    u.shape.pad_before = u.shape.pad_after = (kernel - 1) / 2;
    // The published stem pads 3 on both sides explicitly.
    if (kernel == 3 && stride == 2 && xla_same_on(size_)) u.shape.pad_before = 0;
    u.input = input;
    u.relu = true;
    u.precision = precision_for(name, net_.units.empty() ? precision_.ends : precision_.body);
    net_.units.push_back(std::move(u));
    return static_cast<int>(net_.units.size());
  }

  void stem() {
    constexpr int64_t kStemFilters = 64;  // not scaled by the width (METHOD.md section 1)
    size_ = net_.options.image_size;
    value_ = conv("conv1", "bn1", 3, kStemFilters, 7, 2, kImageValue);
    UnitSpec& u = net_.units.back();
    u.rounds_output = true;
    u.max_pool = PoolShape{};
    if (xla_same_on(u.shape.oh())) u.max_pool->pad_before = 0;
    size_ = u.output_side();
    channels_ = kStemFilters;
  }

  void block(const std::string& name, int64_t f, int64_t stride, bool first) {
    const int input = value_;
    int shortcut = input;
    if (first) {
      shortcut = conv(name + ".downsample.0", name + ".downsample.1", channels_, 4 * f, 1, stride, input);
      net_.units.back().relu = false;
    }
    const int reduced = conv(name + ".conv1", name + ".bn1", channels_, f, 1, 1, input);
    if (first) openings_.push_back(net_.units.back().name);
    const int middle = conv(name + ".conv2", name + ".bn2", f, f, 3, stride, reduced);
    size_ = net_.units.back().shape.oh();
    value_ = conv(name + ".conv3", name + ".bn3", f, 4 * f, 1, 1, middle);
    net_.units.back().shortcut = shortcut;
    net_.units.back().rounds_output = true;
    channels_ = 4 * f;
  }

  void linear() {
    UnitSpec u;
    u.name = "fc";
    u.kind = UnitKind::kLinear;
    u.shape = {.n = 1, .h = 1, .w = 1, .ic = channels_, .oc = net_.options.classes};
    u.input = value_;
    u.average_pool = true;
    u.precision = precision_for(u.name, precision_.ends);
    net_.units.push_back(std::move(u));
  }

  /// One quantizer per (value, bits, signedness), named after its first reader.
  void apply_quantizers() {
    struct Key {
      int value, bits;
      bool is_signed;
      bool operator==(const Key&) const = default;
    };
    std::vector<Key> keys;
    for (UnitSpec& u : net_.units) {
      if (!u.precision.quantized()) continue;
      const bool block_input = std::find(openings_.begin(), openings_.end(), u.name) != openings_.end();
      const Key key{u.input, u.precision.activation_bits,
                    u.input == kImageValue || (net_.options.signed_block_input && block_input)};
      const auto found = std::find(keys.begin(), keys.end(), key);
      u.quantizer = static_cast<int>(found - keys.begin());
      if (found != keys.end()) continue;
      keys.push_back(key);
      QuantizerSpec q{.name = u.name + ".input", .bits = key.bits, .is_signed = key.is_signed, .channels = u.shape.ic};
      q.granularity = net_.options.granularity;
      q.scheme = net_.options.scheme;
      // Shifts are for unsigned 4-bit codes; 8-bit layers fold (METHOD.md section 7).
      q.by = key.bits == 4 && !key.is_signed ? net_.options.per_channel_by : PerChannelBy::kFold;
      net_.quantizers.push_back(std::move(q));
    }
  }

  Network net_;
  std::vector<std::string> openings_;  // conv1 of each block with a projection
  ParsedPrecision precision_;
  int64_t size_ = 0, channels_ = 3;
  int value_ = kImageValue;
};

}  // namespace

std::vector<int> blocks_of(const std::string& arch) {
  std::string known;
  for (const Arch& a : archs()) {
    if (a.name == arch) return a.blocks;
    known += (known.empty() ? "" : ", ") + std::string(a.name);
  }
  throw UsageError("--arch is '{}'; use one of {}", arch, known);
}

std::vector<int64_t> filters_of(double width) {
  std::vector<int64_t> filters;
  for (int k = 0; k < 4; ++k) filters.push_back(static_cast<int64_t>(64.0 * width * std::exp2(k)));
  return filters;
}

ParsedPrecision parse_precision(const std::string& text) {
  std::string body = text;
  const bool ends8 = body.ends_with("-fl8");
  if (ends8) body.resize(body.size() - 4);
  ParsedPrecision p;
  if (body.size() == 4 && body[0] == 'w' && body[2] == 'a' && (body[1] == '4' || body[1] == '8') &&
      (body[3] == '4' || body[3] == '8')) {
    p.body = {.weight_bits = body[1] - '0', .activation_bits = body[3] - '0'};
  } else if (text != "bf16") {
    throw UsageError(
        "the precision is '{}'; use bf16, w4a4, w4a8, w8a4 or w8a8, the last four also with -fl8 (8-bit first "
        "and last layer)",
        text);
  }
  p.ends = ends8 ? Precision{8, 8} : p.body;
  return p;
}

std::string precision_text(const Precision& p) {
  return p.quantized() ? fmt::format("w{}a{}", p.weight_bits, p.activation_bits) : "bf16";
}

int Network::unit_index(const std::string& name) const {
  for (size_t u = 0; u < units.size(); ++u)
    if (units[u].name == name) return static_cast<int>(u);
  return -1;
}

Network build_resnet(const NetworkOptions& options) {
  check_ranges(options);
  Network net = Builder(options).build();
  for (const PrecisionOverride& o : options.overrides) {
    const auto same = [&](const PrecisionOverride& other) { return other.layer == o.layer; };
    if (std::count_if(options.overrides.begin(), options.overrides.end(), same) > 1)
      throw UsageError("the layer '{}' has more than one precision override; keep one", o.layer);
    if (net.unit_index(o.layer) < 0)
      throw UsageError(
          "the precision override names the layer '{}', which {} does not have; nibble cost lists the layers", o.layer,
          options.arch);
  }
  return net;
}

}  // namespace nibble
