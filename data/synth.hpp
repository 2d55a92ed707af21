// The procedural data set: ten classes of textured shapes, drawn from a seed, the same bytes on every machine.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.hpp"

namespace nibble {

/// Class names in label order: {checked, dotted, plain, ringed, striped} x {cross, disk}.
const std::vector<std::string>& synthetic_class_names();

enum class SynthSplit { train, val };

/// Draws one image: size x size x 3 bytes, a pure function of (size, seed, split, label, number). One textured shape of
/// random place, size, angle, grain and colours on a shaded background among small plain shapes, under a bar that hides
/// a part of it, with noise. Neither colours nor any single pixel tell the class.
/// Exact?   float add, multiply, divide and square root in one written order: the same bytes everywhere.
/// Cost     about 0.3 us per pixel.
void draw_synthetic(int size, uint64_t seed, SynthSplit split, int label, int64_t number, uint8_t* out);

struct SyntheticDatasetArgs {
  SynthSplit split = SynthSplit::train;
  int64_t per_class = 100;
  int size = 64;  // side in pixels, 16 to 1024
  uint64_t seed = 0;
};

/// The images without files and without JPEG's losses, ordered by label, drawn again at every read.
class SyntheticDataset : public Dataset {
 public:
  /// Throws UsageError for a size or number out of range.
  explicit SyntheticDataset(const SyntheticDatasetArgs& args);

  int64_t size() const override { return args_.per_class * num_classes(); }
  const std::vector<std::string>& class_names() const override { return synthetic_class_names(); }
  int label(int64_t index) const override { return static_cast<int>(index / args_.per_class); }
  std::string path(int64_t index) const override;
  Image read(int64_t index) const override;

 private:
  SyntheticDatasetArgs args_;
};

struct SyntheticFolderArgs {
  std::filesystem::path dir;
  int64_t train_per_class = 200;
  int64_t val_per_class = 50;
  int size = 64;
  uint64_t seed = 0;
};

struct SyntheticFolderCounts {
  int64_t train = 0;
  int64_t val = 0;
  int classes = 0;
};

/// Writes DIR/{train,val}/<class>/NNNNN.jpg, JPEG of quality 90; running it again with equal arguments, or with more
/// images of the same seed and size, leaves those that are there as they are. Errors, before anything is written:
/// DataError when a split holds other classes, a class folder other files or a file another image; UsageError for sides
/// or counts out of range. DiskError when writing fails.
SyntheticFolderCounts write_synthetic_folder(const SyntheticFolderArgs& args);

/// Baseline JPEG of RGB pixels with stb_image_write: the same bytes on every machine. Throws Error when it fails.
std::vector<uint8_t> encode_jpeg(std::span<const uint8_t> rgb, int width, int height, int quality);

}  // namespace nibble
