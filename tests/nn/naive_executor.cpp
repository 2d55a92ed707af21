#include "tests/nn/naive_executor.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace nibble::testing {

namespace {

float round_to_bf16(float v) {
  uint32_t u;
  std::memcpy(&u, &v, 4);
  if (std::fabs(v) < 0x1p-126f) return std::signbit(v) ? -0.0f : 0.0f;
  const uint32_t below = u & 0xffff0000u, rest = u & 0xffffu;
  const bool up = rest > 0x8000u || (rest == 0x8000u && (below & 0x10000u));
  u = up ? below + 0x10000u : below;
  std::memcpy(&v, &u, 4);
  return v;
}

class NaiveRun {
 public:
  NaiveRun(const ServedModel& model) : m_(model), net_(model.network) {}

  NaiveTrace run(const uint8_t* image) {
    read_image(image);
    for (size_t u = 0; u < net_.units.size(); ++u) unit(u);
    return std::move(t_);
  }

 private:
  const QuantizerSpec& spec(int q) const { return net_.quantizers[static_cast<size_t>(q)]; }
  const ActivationQuantizer& quantizer(int q) const { return m_.quantizers[static_cast<size_t>(q)]; }

  double code(float x, int q, size_t c) const {
    const ActivationQuantizer& a = quantizer(q);
    const float t = x * a.scale[c];
    if (a.is_signed) return std::floor(std::min(std::max(t, -a.top()), a.top()) + 0.5f);
    const float clipped = std::min(std::max(t, 0.0f), a.top());
    return a.scheme == QuantScheme::kNearest ? std::floor(clipped + 0.5f) : std::floor(clipped);
  }

  NaiveMap quantize(const NaiveMap& z, int q) const {
    NaiveMap out = z;
    for (size_t i = 0; i < z.v.size(); ++i)
      out.v[i] = code(static_cast<float>(z.v[i]), q, i % static_cast<size_t>(z.c));
    return out;
  }

  void read_image(const uint8_t* image) {
    const ConvShape& s = net_.units.front().shape;
    NaiveMap map{s.h, s.w, 3, std::vector<double>(static_cast<size_t>(s.h * s.w * 3))};
    const float mean[3] = {0.485f, 0.456f, 0.406f}, deviation[3] = {0.229f, 0.224f, 0.225f};
    for (size_t i = 0; i < map.v.size(); ++i) {
      const float v = (static_cast<float>(image[i]) / 255.0f - mean[i % 3]) / deviation[i % 3];
      map.v[i] = static_cast<double>(v);
    }
    const int q = net_.units.front().quantizer;
    if (q >= 0) t_.codes[spec(q).name] = quantize(map, q);
  }

  void unit(size_t u) {
    const UnitSpec& unit = net_.units[u];
    const ServedLayer& layer = m_.layers[u];
    if (unit.average_pool) average(unit);
    const NaiveMap acc = convolve(unit, layer, t_.codes.at(spec(unit.quantizer).name));
    NaiveMap v = acc;
    for (size_t i = 0; i < v.v.size(); ++i) {
      const size_t o = i % static_cast<size_t>(v.c);
      const float product = static_cast<float>(acc.v[i]) * layer.affine.m[o];
      v.v[i] = static_cast<double>(product + layer.affine.a[o]);
    }
    t_.accumulators[unit.name] = acc;
    if (unit.kind == UnitKind::kLinear) {
      for (double x : v.v) t_.logits.push_back(static_cast<float>(x));
      return;
    }
    finish(u, unit, v);
  }

  NaiveMap convolve(const UnitSpec& unit, const ServedLayer& layer, const NaiveMap& in) const {
    const ConvShape& s = unit.shape;
    const ActivationQuantizer& q = quantizer(unit.quantizer);
    NaiveMap acc{s.oh(), s.ow(), s.oc, std::vector<double>(static_cast<size_t>(s.oh() * s.ow() * s.oc))};
    const int8_t* w = layer.codes.codes.data<int8_t>();
    for (int64_t y = 0; y < acc.h; ++y)
      for (int64_t x = 0; x < acc.w; ++x)
        for (int64_t o = 0; o < s.oc; ++o) {
          int64_t sum = 0;
          for (int64_t ky = 0; ky < s.kh; ++ky)
            for (int64_t kx = 0; kx < s.kw; ++kx) {
              const int64_t iy = y * s.stride + ky - s.pad_before, ix = x * s.stride + kx - s.pad_before;
              if (iy < 0 || iy >= s.h || ix < 0 || ix >= s.w) continue;
              for (int64_t i = 0; i < s.ic; ++i) {
                const int64_t factor = q.factor.empty() ? 1 : q.factor[static_cast<size_t>(i)];
                sum += static_cast<int64_t>(in.at(iy, ix, i)) * factor * w[((o * s.kh + ky) * s.kw + kx) * s.ic + i];
              }
            }
          acc.at(y, x, o) = static_cast<double>(sum);
        }
    return acc;
  }

  void finish(size_t u, const UnitSpec& unit, NaiveMap v) {
    const int value = static_cast<int>(u) + 1;
    const bool plain = !unit.relu || rounded_before_codes(net_, value);
    if (unit.shortcut != kNoValue) {
      const NaiveMap& side = values_.at(unit.shortcut);
      for (size_t i = 0; i < v.v.size(); ++i)
        v.v[i] = static_cast<double>(static_cast<float>(v.v[i]) + static_cast<float>(side.v[i]));
    }
    for (double& x : v.v) {
      float f = static_cast<float>(x);
      if (unit.relu) f = f > 0 ? f : 0.0f;
      x = static_cast<double>(plain ? round_to_bf16(f) : f);
    }
    if (unit.max_pool) v = max_pool(v);
    if (plain) {
      values_[value] = v;
      t_.plain[unit.name] = v;
    }
    for (const UnitSpec& reader : net_.units)
      if (reader.input == value && !reader.average_pool)
        t_.codes[spec(reader.quantizer).name] = quantize(v, reader.quantizer);
  }

  NaiveMap max_pool(const NaiveMap& z) const {
    const int64_t pad = net_.options.same_padding && z.h % 2 == 0 ? 0 : 1;
    const int64_t side = (z.h + pad + 1 - 3) / 2 + 1;
    NaiveMap out{side, side, z.c, std::vector<double>(static_cast<size_t>(side * side * z.c))};
    for (int64_t y = 0; y < side; ++y)
      for (int64_t x = 0; x < side; ++x)
        for (int64_t c = 0; c < z.c; ++c) {
          double best = -1e30;
          for (int64_t k = 0; k < 9; ++k) {
            const int64_t iy = 2 * y - pad + k / 3, ix = 2 * x - pad + k % 3;
            if (iy >= 0 && iy < z.h && ix >= 0 && ix < z.w) best = std::max(best, z.at(iy, ix, c));
          }
          out.at(y, x, c) = best;
        }
    return out;
  }

  void average(const UnitSpec& unit) {
    const NaiveMap& z = values_.at(unit.input);
    NaiveMap mean{1, 1, z.c, std::vector<double>(static_cast<size_t>(z.c))};
    const float inverse = 1.0f / static_cast<float>(z.h * z.w);
    for (int64_t c = 0; c < z.c; ++c) {
      float sum = 0;
      for (int64_t p = 0; p < z.h * z.w; ++p) sum += static_cast<float>(z.v[static_cast<size_t>(p * z.c + c)]);
      mean.v[static_cast<size_t>(c)] = static_cast<double>(round_to_bf16(sum * inverse));
    }
    t_.codes[spec(unit.quantizer).name] = quantize(mean, unit.quantizer);
  }

  const ServedModel& m_;
  const Network& net_;
  NaiveTrace t_;
  std::map<int, NaiveMap> values_;
};

}  // namespace

NaiveTrace naive_run(const ServedModel& model, const uint8_t* image) {
  return NaiveRun(model).run(image);
}

}  // namespace nibble::testing
