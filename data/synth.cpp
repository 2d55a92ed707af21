#include "data/synth.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <set>
#include <system_error>

#include "data/decode.hpp"
#include "engine/error.hpp"
#include "engine/files.hpp"
#include "engine/math.hpp"
#include "engine/parallel.hpp"
#include "engine/rng.hpp"

namespace nibble {
namespace {

namespace fs = std::filesystem;

enum Shape2d { kCross, kDisk, kRing, kSquare, kTriangle, kShapes };
enum Texture { kChecked, kDotted, kPlain, kRinged, kStriped };
constexpr int kMinSide = 16, kMaxSideSynth = 1024;
constexpr float kNoise = 8.0f;  // half-width of the noise in grey levels

struct Point {
  float x = 0.0f, y = 0.0f;
};
using Colour = std::array<float, 3>;

/// A turn by t of a full circle.
struct Turn {
  float c = 1.0f, s = 0.0f;
  static Turn by(float t) { return {cos2pi_exact(t), cos2pi_exact(t < 0.25f ? t + 0.75f : t - 0.25f)}; }
  Point operator()(Point p) const { return {c * p.x + s * p.y, c * p.y - s * p.x}; }
};

// Signed distance (negative inside, exact or a lower bound) to shapes of radius about 1.
float distance_to(int shape, Point p) {
  const float ax = std::abs(p.x), ay = std::abs(p.y);
  switch (shape) {
    case kCross:
      return std::min(std::max(ax - 1.0f, ay - 0.36f), std::max(ay - 1.0f, ax - 0.36f));
    case kDisk:
      return sqrt_exact(p.x * p.x + p.y * p.y) - 0.92f;
    case kRing:
      return std::abs(sqrt_exact(p.x * p.x + p.y * p.y) - 0.74f) - 0.26f;
    case kSquare:
      return std::max(ax, ay) - 0.82f;
    default:  // equilateral, circumradius 1.2
      return std::max(0.8660254f * ax + 0.5f * p.y, -p.y) - 0.6f;
  }
}

/// Draws with coverage from the distance to an edge, one pixel wide.
class Canvas {
 public:
  explicit Canvas(int size) : size_(size), pixels_(static_cast<size_t>(size) * static_cast<size_t>(size)) {}

  template <typename ColourAt>
  void paint(const ColourAt& colour_at) {
    const float step = 1.0f / static_cast<float>(size_);
    for (int y = 0; y < size_; ++y)
      for (int x = 0; x < size_; ++x) {
        const Point p{(static_cast<float>(x) + 0.5f) * step, (static_cast<float>(y) + 0.5f) * step};
        colour_at(p, pixels_[static_cast<size_t>(y * size_ + x)]);
      }
  }
  float coverage(float distance) const { return std::clamp(0.5f - distance * static_cast<float>(size_), 0.0f, 1.0f); }
  const std::vector<Colour>& pixels() const { return pixels_; }

 private:
  int size_;
  std::vector<Colour> pixels_;
};

void blend(Colour& to, const Colour& colour, float share) {
  for (size_t c = 0; c < 3; ++c) to[c] = to[c] + (colour[c] - to[c]) * share;
}

float between(Rng& rng, float low, float high) {
  return low + (high - low) * rng.uniform();
}

Colour colour_between(Rng& rng, float low, float high) {
  Colour colour;
  for (float& c : colour) c = between(rng, low, high);
  return colour;
}

Colour any_colour(Rng& rng) {
  return colour_between(rng, 20.0f, 235.0f);
}

void draw_background(Canvas& canvas, Rng& rng) {
  const Colour a = colour_between(rng, 85.0f, 170.0f), b = colour_between(rng, 85.0f, 170.0f);
  const Turn turn = Turn::by(rng.uniform());
  canvas.paint([&](Point p, Colour& out) {
    out = a;
    blend(out, b, std::clamp(turn({p.x - 0.5f, p.y - 0.5f}).x + 0.5f, 0.0f, 1.0f));
  });
}

void draw_clutter(Canvas& canvas, Rng& rng) {
  for (uint32_t i = 0, n = 2 + rng.below(3); i < n; ++i) {
    const int shape = static_cast<int>(rng.below(kShapes));
    const Colour colour = any_colour(rng);
    const Turn turn = Turn::by(rng.uniform());
    const Point at{rng.uniform(), rng.uniform()};
    const float radius = between(rng, 0.04f, 0.10f);
    canvas.paint([&](Point p, Colour& out) {
      const Point q = turn({(p.x - at.x) / radius, (p.y - at.y) / radius});
      blend(out, colour, canvas.coverage(distance_to(shape, q) * radius));
    });
  }
}

float to_nearest(float t) {
  return std::abs(t - std::floor(t) - 0.5f);
}

/// Distance (negative inside) to bands as wide as the gaps between them.
float band(float t, float period) {
  return (to_nearest(t / period) - 0.25f) * period;
}

/// Distance to the second colour of a texture at `p`, measured from the object's centre, in image sides.
float texture_distance(int texture, Point p, float period) {
  switch (texture) {
    case kChecked: {
      const float u = band(p.x, period), v = band(p.y, period);
      return std::max(std::min(u, v), -std::max(u, v));  // inside exactly one of two sets of bands
    }
    case kDotted: {
      const float u = to_nearest(p.x / period), v = to_nearest(p.y / period);
      return (sqrt_exact(u * u + v * v) - 0.3f) * period;
    }
    case kRinged:
      return band(sqrt_exact(p.x * p.x + p.y * p.y), period);
    case kStriped:
      return band(p.x, period);
    default:
      return 1.0f;
  }
}

void draw_object(Canvas& canvas, Rng& rng, int shape, int texture) {
  // Bright and dark against a middling background; which is which is drawn, so that brightness tells nothing.
  Colour first = colour_between(rng, 165.0f, 250.0f), second = colour_between(rng, 5.0f, 90.0f);
  if (rng.below(2) == 1) std::swap(first, second);
  const Turn turn = Turn::by(rng.uniform()), grain = Turn::by(rng.uniform());
  const float radius = between(rng, 0.26f, 0.40f);
  const Point at{between(rng, 0.36f, 0.64f), between(rng, 0.36f, 0.64f)};
  const float period = between(rng, 0.15f, 0.21f);
  const Point shift{texture == kRinged ? 0.0f : rng.uniform(), texture == kRinged ? 0.0f : rng.uniform()};
  canvas.paint([&](Point p, Colour& out) {
    const Point d{p.x - at.x, p.y - at.y};
    const float inside = canvas.coverage(distance_to(shape, turn({d.x / radius, d.y / radius})) * radius);
    if (inside <= 0.0f) return;
    const Point g = grain(d);
    Colour colour = first;
    blend(colour, second, canvas.coverage(texture_distance(texture, {g.x + shift.x, g.y + shift.y}, period)));
    blend(out, colour, inside);
  });
}

void draw_bar(Canvas& canvas, Rng& rng) {
  const Colour colour = any_colour(rng);
  const Turn turn = Turn::by(rng.uniform());
  const Point at{rng.uniform(), rng.uniform()};
  const float half_width = between(rng, 0.01f, 0.03f);
  canvas.paint([&](Point p, Colour& out) {
    blend(out, colour, canvas.coverage(std::abs(turn({p.x - at.x, p.y - at.y}).x) - half_width));
  });
}

void check_args(int size, int64_t train_per_class, int64_t val_per_class) {
  if (size < kMinSide || size > kMaxSideSynth)
    throw UsageError("a synthetic image of {} pixels per side was asked for (--size), but sides go from {} to {}", size,
                     kMinSide, kMaxSideSynth);
  if (train_per_class < 1 || val_per_class < 1 || train_per_class > 99999 || val_per_class > 99999)
    throw UsageError(
        "{} training (--train) and {} validation (--val) images per class were asked for, but both go from 1 to 99999",
        train_per_class, val_per_class);
}

void write_file(const fs::path& path, std::span<const uint8_t> bytes) {
  FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  int error_number = file.open() ? write_all(file.get(), std::as_bytes(bytes)) : errno;
  if (error_number == 0) error_number = file.close();
  if (error_number != 0) throw DiskError("cannot write {}: {}", path.string(), disk_reason(error_number));
}

std::string file_name(int64_t number) {
  return fmt::format("{:05}.jpg", number);
}

// Refuses a folder that holds anything other than `ours`; one that is not there holds nothing.
void refuse_others(const fs::path& folder, const std::set<std::string>& ours) {
  std::error_code error;
  if (!fs::exists(folder, error) && !error) return;
  for (const fs::directory_entry& entry : list_folder(folder))
    if (!ours.contains(entry.path().filename().string()))
      throw DataError("{} is in the way of the synthetic images: choose an empty folder or remove it",
                      entry.path().string());
}

fs::path split_folder(const SyntheticFolderArgs& args, SynthSplit split) {
  return args.dir / (split == SynthSplit::train ? "train" : "val");
}

// Refuses a split that holds what this call would not write: other classes, whose images would be mixed with ours, and
// other files.
void require_ours(const fs::path& root, int64_t per_class) {
  const std::vector<std::string>& classes = synthetic_class_names();
  refuse_others(root, {classes.begin(), classes.end()});
  std::set<std::string> files;
  for (int64_t i = 0; i < per_class; ++i) files.insert(file_name(i));
  for (const std::string& name : classes) refuse_others(root / name, files);
}

// Calls body(path, its JPEG bytes on demand) for every image of a split, from several threads.
template <typename Body>
void each_image(const SyntheticFolderArgs& args, SynthSplit split, int64_t per_class, const Body& body) {
  const fs::path root = split_folder(args, split);
  const std::vector<std::string>& classes = synthetic_class_names();
  parallel_for(per_class * static_cast<int64_t>(classes.size()), [&](int64_t i) {
    const int label = static_cast<int>(i / per_class);
    body(root / classes[static_cast<size_t>(label)] / file_name(i % per_class), [&] {
      std::vector<uint8_t> rgb(size_t{3} * static_cast<size_t>(args.size) * static_cast<size_t>(args.size));
      draw_synthetic(args.size, args.seed, split, label, i % per_class, rgb.data());
      return encode_jpeg(rgb, args.size, args.size, 90);
    });
  });
}

// Refuses another image under one of our names, of another seed or size or the user's own: runs may have been trained
// on it. The beginning of one of ours is what an interrupted call left.
void require_same_image(const fs::path& path, const std::vector<uint8_t>& ours) {
  const std::vector<uint8_t> there = read_file(path);
  if (there.size() > ours.size() || !std::equal(there.begin(), there.end(), ours.begin()))
    throw DataError(
        "{} is in the way of the synthetic images: it is not the image that this seed and size make; choose an empty "
        "folder or remove it",
        path.string());
}

}  // namespace

const std::vector<std::string>& synthetic_class_names() {
  static const std::vector<std::string> names = {"checked_cross", "checked_disk", "dotted_cross", "dotted_disk",
                                                 "plain_cross",   "plain_disk",   "ringed_cross", "ringed_disk",
                                                 "striped_cross", "striped_disk"};
  return names;
}

void draw_synthetic(int size, uint64_t seed, SynthSplit split, int label, int64_t number, uint8_t* out) {
  const uint32_t stream = static_cast<uint32_t>(label) * 4 + (split == SynthSplit::val ? 2 : 0);
  Rng rng(seed, rng_purpose::kSynth, static_cast<uint64_t>(number), stream);
  Canvas canvas(size);
  draw_background(canvas, rng);
  draw_clutter(canvas, rng);
  draw_object(canvas, rng, label % 2 == 0 ? kCross : kDisk, label / 2);
  draw_bar(canvas, rng);
  Rng noise(seed, rng_purpose::kSynth, static_cast<uint64_t>(number), stream + 1);
  for (const Colour& colour : canvas.pixels())
    for (const float c : colour)
      *out++ = static_cast<uint8_t>(std::clamp(c + kNoise * (2.0f * noise.uniform() - 1.0f) + 0.5f, 0.0f, 255.0f));
}

SyntheticDataset::SyntheticDataset(const SyntheticDatasetArgs& args) : args_(args) {
  check_args(args.size, args.per_class, 1);
}

std::string SyntheticDataset::path(int64_t index) const {
  return fmt::format("synthetic/{}/{}/{}", args_.split == SynthSplit::train ? "train" : "val",
                     class_names()[static_cast<size_t>(label(index))], file_name(index % args_.per_class));
}

Image SyntheticDataset::read(int64_t index) const {
  const size_t bytes = size_t{3} * static_cast<size_t>(args_.size) * static_cast<size_t>(args_.size);
  std::shared_ptr<uint8_t[]> pixels(new uint8_t[bytes]);
  draw_synthetic(args_.size, args_.seed, args_.split, label(index), index % args_.per_class, pixels.get());
  return {.width = args_.size, .height = args_.size, .pixels = std::move(pixels), .warning = {}};
}

SyntheticFolderCounts write_synthetic_folder(const SyntheticFolderArgs& args) {
  check_args(args.size, args.train_per_class, args.val_per_class);
  // Whatever is in the way is found before anything is made.
  require_ours(split_folder(args, SynthSplit::train), args.train_per_class);
  require_ours(split_folder(args, SynthSplit::val), args.val_per_class);
  const std::pair<SynthSplit, int64_t> splits[] = {{SynthSplit::train, args.train_per_class},
                                                   {SynthSplit::val, args.val_per_class}};
  for (const auto& [split, per_class] : splits)
    each_image(args, split, per_class, [](const fs::path& path, const auto& jpeg) {
      std::error_code error;
      if (fs::exists(path, error)) require_same_image(path, jpeg());
    });
  for (const auto& [split, per_class] : splits) {
    for (const std::string& name : synthetic_class_names()) make_folders(split_folder(args, split) / name);
    each_image(args, split, per_class, [](const fs::path& path, const auto& jpeg) {
      const std::vector<uint8_t> bytes = jpeg();
      std::error_code missing;  // what is there is the beginning of ours: of the same size, all of it
      if (fs::file_size(path, missing) != bytes.size() || missing) write_file(path, bytes);
    });
  }
  const int classes = static_cast<int>(synthetic_class_names().size());
  return {.train = args.train_per_class * classes, .val = args.val_per_class * classes, .classes = classes};
}

}  // namespace nibble
