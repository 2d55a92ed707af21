// What the first convolution reads: image bytes through one table per colour, with the padding written around them.
#pragma once
#include <cstdint>
#include <vector>

#include "engine/tensor.hpp"
#include "nn/quantized_network.hpp"

namespace nibble {

/// Throws ShapeError or DTypeError unless images are dense uint8 [n, h, w, 3] of the network's size.
void check_images(const char* where, const Network& network, const Tensor& images);

/// A copy of images [first, first + count) of dense uint8 NHWC images, of which there is at least one.
Tensor copy_images(const Tensor& images, int64_t first, int64_t count);

/// The one way from bytes to the first layer, in training, evaluation and serving: codes where its products are
/// integers, else bf16: dequantized codes in fake mode, normalised bytes before calibration and without a quantizer.
class FirstLayerInput {
 public:
  explicit FirstLayerInput(const QuantizedNetwork& model);

  /// u8 (codes) or bf16.
  DType dtype() const { return codes_.empty() ? DType::bf16 : DType::u8; }
  /// [n, padded h, padded w, 3]
  Shape shape(int64_t n) const { return {n, shape_.padded_h(), shape_.padded_w(), 3}; }
  int64_t bytes_per_image() const;

  /// Writes `n` dense images to `to`, of shape(n) and dtype(). Cost: one look-up a byte. Threads: blocks of rows.
  void write(const uint8_t* images, int64_t n, std::byte* to) const;

 private:
  template <typename T>
  void write_rows(const uint8_t* images, int64_t n, const T* table, T pad, T* to) const;

  ConvShape shape_;
  std::vector<uint8_t> codes_;  // [3][256]; empty: values_ are written
  std::vector<bf16> values_;
};

/// The same for a tensor of dense uint8 images [n, h, w, 3].
Tensor first_layer_input(const QuantizedNetwork& model, const Tensor& images);

/// Largest |normalised byte| per colour [3] of dense uint8 images [n, h, w, 3]: the statistic of the image quantizer.
std::vector<float> image_maxima(const Tensor& images, const PixelNorm& norm);

}  // namespace nibble
