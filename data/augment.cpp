#include "data/augment.hpp"

#include <algorithm>
#include <cmath>

#include "data/orientation.hpp"
#include "engine/error.hpp"
#include "engine/math.hpp"
#include "engine/rng.hpp"

namespace nibble {
namespace {

constexpr int kCropAttempts = 10;
constexpr double kMinRatio = 3.0 / 4.0, kMaxRatio = 4.0 / 3.0;
constexpr float kLogMaxRatio = 0.28768207f;  // ln(4/3) = -ln(3/4)

void mirror_rows(uint8_t* pixels, int size) {
  for (int y = 0; y < size; ++y) {
    uint8_t* row = pixels + ptrdiff_t{3} * y * size;
    for (int l = 0, r = size - 1; l < r; ++l, --r) std::swap_ranges(row + 3 * l, row + 3 * l + 3, row + 3 * r);
  }
}

// The whole image, or its largest central part whose ratio is allowed.
Box central_crop(int width, int height) {
  Box box{.x = 0, .y = 0, .width = width, .height = height};
  const double ratio = static_cast<double>(width) / height;
  if (ratio < kMinRatio) box.height = static_cast<int>(std::floor(width / kMinRatio + 0.5));
  if (ratio > kMaxRatio) box.width = static_cast<int>(std::floor(height * kMaxRatio + 0.5));
  box.width = std::clamp(box.width, 1, width);
  box.height = std::clamp(box.height, 1, height);
  box.x = (width - box.width) / 2;
  box.y = (height - box.height) / 2;
  return box;
}

// Half of n, rounded to even: what Python's round(n / 2.0) gives.
int half_to_even(int n) {
  return n / 2 + (n % 2 != 0 && n / 2 % 2 != 0 ? 1 : 0);
}

}  // namespace

TrainCrop train_crop(int width, int height, const TrainTransform& t, const SampleKey& key) {
  if (!(t.min_crop > 0.0f && t.min_crop <= 1.0f))
    throw UsageError("--min-crop is {}, but it must lie above 0 and not above 1", t.min_crop);
  if (width < 1 || height < 1) throw ShapeError("[train_crop] {} x {} pixels; both must be at least 1", width, height);
  Rng rng(key.seed, rng_purpose::kAugment, static_cast<uint64_t>(key.epoch), static_cast<uint32_t>(key.index));
  TrainCrop crop;
  crop.mirrored = rng.below(2) == 1 && t.flip;
  const double area = static_cast<double>(width) * height;
  for (int attempt = 0; attempt < kCropAttempts; ++attempt) {
    const double target = area * (t.min_crop + (1.0 - t.min_crop) * rng.uniform());
    const double ratio = exp_exact(kLogMaxRatio * (2.0f * rng.uniform() - 1.0f));
    const int w = static_cast<int>(std::floor(std::sqrt(target * ratio) + 0.5));
    const int h = static_cast<int>(std::floor(std::sqrt(target / ratio) + 0.5));
    if (w < 1 || h < 1 || w > width || h > height) continue;
    crop.box = {.x = static_cast<int>(rng.below(static_cast<uint32_t>(width - w + 1))),
                .y = static_cast<int>(rng.below(static_cast<uint32_t>(height - h + 1))),
                .width = w,
                .height = h};
    return crop;
  }
  crop.box = central_crop(width, height);
  return crop;
}

void augment_train(const Image& stored, const TrainTransform& t, const SampleKey& key, uint8_t* out) {
  const Image image = t.upright ? upright(stored) : stored;
  const TrainCrop crop = train_crop(image.width, image.height, t, key);
  resize_bilinear(image,
                  {.crop = crop.box,
                   .width = t.size,
                   .height = t.size,
                   .window = {.x = 0, .y = 0, .width = t.size, .height = t.size}},
                  out);
  if (crop.mirrored) mirror_rows(out, t.size);
}

ResizeArgs eval_resize(int width, int height, const EvalTransform& transform) {
  const int size = transform.size;
  if (width < 1 || height < 1 || size < 1)
    throw ShapeError("[eval_resize] {} x {} pixels to {} per side; all must be at least 1", width, height, size);
  if (!(transform.crop_share > 0 && transform.crop_share <= 1))
    throw ShapeError("[eval_resize] a crop of {} of the short side; it must be above 0 and at most 1",
                     transform.crop_share);
  const double resized = std::floor(size / transform.crop_share + 0.5);
  const int64_t side = resized < (1 << 30) ? static_cast<int64_t>(resized) : int64_t{1} << 30;
  const int64_t shorter = std::min(width, height), longer = std::max(width, height);
  if (longer / shorter > (int64_t{1} << 30) / side)
    throw ShapeError("[eval_resize] {} x {} pixels are too long and narrow for {} per side; crop them", width, height,
                     size);
  const int scaled = static_cast<int>(side * longer / shorter);
  ResizeArgs args{.crop = {.x = 0, .y = 0, .width = width, .height = height}, .width = 0, .height = 0, .window = {}};
  args.width = width <= height ? static_cast<int>(side) : scaled;
  args.height = width <= height ? scaled : static_cast<int>(side);
  args.window = {
      .x = half_to_even(args.width - size), .y = half_to_even(args.height - size), .width = size, .height = size};
  return args;
}

void transform_eval(const Image& stored, const EvalTransform& transform, uint8_t* out) {
  const Image image = transform.upright ? upright(stored) : stored;
  resize_bilinear(image, eval_resize(image.width, image.height, transform), out);
}

}  // namespace nibble
