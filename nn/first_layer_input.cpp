#include "nn/first_layer_input.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/parallel.hpp"
#include "engine/profiler.hpp"
#include "ops/tensor_memory.hpp"

namespace nibble {

void check_images(const char* where, const Network& network, const Tensor& images) {
  const ConvShape& s = network.units.front().shape;
  const Shape& got = images.shape();
  if (got.rank() != 4 || got[1] != s.h || got[2] != s.w || got[3] != 3)
    throw ShapeError("[{}] the model reads {}x{} RGB images, got {}; resize them", where, s.h, s.w, got.str());
  if (images.dtype() != DType::u8)
    throw DTypeError("[{}] the model reads images of u8, got {}; hand over a byte per colour", where,
                     name_of(images.dtype()));
  if (!images.dense())
    throw ShapeError("[{}] the model reads pixels of 3 bytes side by side, got them {} bytes apart; copy them", where,
                     images.stride());
}

Tensor copy_images(const Tensor& images, int64_t first, int64_t count) {
  const Tensor out(DType::u8, {count, images.dim(1), images.dim(2), images.dim(3)});
  const size_t per_image = images.bytes() / static_cast<size_t>(images.dim(0));
  std::memcpy(out.raw(), images.raw() + static_cast<size_t>(first) * per_image, out.bytes());
  return out;
}

FirstLayerInput::FirstLayerInput(const QuantizedNetwork& model) : shape_(model.network.units.front().shape) {
  const FloatModeScope mode;
  const ActivationQuantizer* quantizer = model.input_quantizer(model.network.units.front());
  const PixelNorm& norm = model.network.options.pixel_norm;
  std::vector<uint8_t> codes;
  if (quantizer != nullptr) codes = image_code_table(*quantizer, norm);
  if (quantizer != nullptr && !model.fake()) {
    codes_ = std::move(codes);
    return;
  }
  for (int c = 0; c < 3; ++c) {
    for (int byte = 0; byte < 256; ++byte) {
      float v = norm.value(byte, static_cast<size_t>(c));
      if (quantizer != nullptr)
        v = static_cast<float>(codes[static_cast<size_t>(c * 256 + byte)] - kSignedOffset) /
            quantizer->scale[static_cast<size_t>(c)];
      values_.push_back(to_bf16(v));
    }
  }
}

int64_t FirstLayerInput::bytes_per_image() const {
  return shape(1).size() * (codes_.empty() ? int64_t{sizeof(bf16)} : 1);
}

void FirstLayerInput::write(const uint8_t* images, int64_t n, std::byte* to) const {
  if (codes_.empty())
    write_rows(images, n, values_.data(), bf16{}, reinterpret_cast<bf16*>(to));
  else
    write_rows(images, n, codes_.data(), kSignedOffset, reinterpret_cast<uint8_t*>(to));
}

template <typename T>
void FirstLayerInput::write_rows(const uint8_t* images, int64_t n, const T* table, T pad, T* to) const {
  constexpr int64_t kRowsOfTask = 32;  // of about 0.25 us each
  const ConvShape s = shape_;
  const int64_t ph = s.padded_h(), pw = s.padded_w(), rows = n * ph;
  // Captures are copies: a store of bytes might change what a reference means.
  parallel_for(ceil_div(rows, kRowsOfTask), [=](int64_t task) {
    for (int64_t row = task * kRowsOfTask; row < std::min(rows, (task + 1) * kRowsOfTask); ++row) {
      const int64_t y = row % ph - s.pad_before;
      T* line = to + row * pw * 3;
      std::fill_n(line, pw * 3, pad);
      if (y < 0 || y >= s.h) continue;
      const uint8_t* from = images + (row / ph * s.h + y) * s.w * 3;
      line += s.pad_before * 3;
      for (int64_t x = 0; x < s.w * 3; x += 3) {
        line[x] = table[from[x]];
        line[x + 1] = table[size_t{256} + from[x + 1]];
        line[x + 2] = table[size_t{512} + from[x + 2]];
      }
    }
  });
}

Tensor first_layer_input(const QuantizedNetwork& model, const Tensor& images) {
  Zone zone("image codes");
  check_images("first_layer_input", model.network, images);
  const FirstLayerInput input(model);
  const Tensor out(input.dtype(), input.shape(images.dim(0)));
  zone.count([&] { return ZoneWork{.bytes = stored_bytes(images) + stored_bytes(out)}; });
  input.write(images.data<uint8_t>(), images.dim(0), out.raw());
  return out;
}

std::vector<float> image_maxima(const Tensor& images, const PixelNorm& norm) {
  const int64_t n = images.dim(0), pixels = images.dim(1) * images.dim(2);
  const Tensor seen = Tensor::zeros(DType::u8, {n, 3, 256});
  parallel_for(n, [&](int64_t image) {
    const uint8_t* p = images.data<uint8_t>() + image * pixels * 3;
    uint8_t* const of = seen.data<uint8_t>() + image * 3 * 256;
    for (int64_t i = 0; i < pixels; ++i, p += 3) of[p[0]] = of[256 + p[1]] = of[512 + p[2]] = 1;
  });
  std::vector<float> largest(3, 0.0f);
  for (int64_t at = 0; at < seen.size(); ++at)
    if (seen.data<uint8_t>()[at] != 0) {
      const auto c = static_cast<size_t>(at / 256 % 3);
      largest[c] = std::max(largest[c], std::fabs(norm.value(static_cast<int>(at % 256), c)));
    }
  return largest;
}

}  // namespace nibble
