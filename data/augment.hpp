// Augmentation: how an image becomes one square training or evaluation sample.
#pragma once
#include <cstdint>

#include "data/decode.hpp"
#include "data/resize.hpp"

namespace nibble {

struct TrainTransform {
  int size = 224;          // side of the result in pixels
  float min_crop = 0.08f;  // smallest share of the image's area that a crop keeps, (0, 1]
  bool flip = true;        // mirror each sample with probability 1/2
  bool upright = false;    // turn images as their EXIF orientation says, first
};

/// Names one sample, so that its randomness is a pure function of these three.
struct SampleKey {
  uint64_t seed = 0;
  int64_t epoch = 0;
  int64_t index = 0;  // the image's index in its data set, not its place in the epoch
};

struct TrainCrop {
  Box box;
  bool mirrored = false;
};

/// The crop and flip of a sample: torchvision's RandomResizedCrop.get_params (area uniform in [min_crop, 1] of the
/// image, aspect ratio log-uniform in [3/4, 4/3], ten attempts, then the largest central crop with an allowed ratio),
/// with this project's random numbers and elementary functions, hence equal on every machine.
/// ShapeError for an image without pixels, UsageError for a min_crop outside (0, 1].
TrainCrop train_crop(int width, int height, const TrainTransform& transform, const SampleKey& key);

/// Writes size x size x 3 bytes to `out`: the random crop, resized, mirrored or not.
void augment_train(const Image& image, const TrainTransform& transform, const SampleKey& key, uint8_t* out);

/// What becomes of an image in evaluation and serving.
struct EvalTransform {
  int size = 224;
  double crop_share = 0.875;  // of the resized short side that the crop keeps: of 256 pixels 224
  bool upright = false;       // turn images as their EXIF orientation says, first
};

/// The short side resized to round(size / crop_share), the long side in proportion (cut, as torchvision's Resize does),
/// then the central size x size pixels (their offset rounded half to even). Only those are computed, so a 1x3000 image
/// costs no more than others. ShapeError for an image without pixels, for size < 1, where the long side would have
/// more than 2^30 pixels, and for a crop_share outside (0, 1].
ResizeArgs eval_resize(int width, int height, const EvalTransform& transform);
/// Writes size x size x 3 bytes to `out`.
void transform_eval(const Image& image, const EvalTransform& transform, uint8_t* out);

}  // namespace nibble
