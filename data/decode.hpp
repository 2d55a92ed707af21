// Decoding: a JPEG or PNG file, recognised by its content, becomes interleaved RGB bytes.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

/// Which library decodes JPEG (their pixels differ slightly, see README.md, so runs record it). PNG is always stb.
enum class Decoder { auto_, turbo, stb };

/// auto_ becomes turbo where this build has libjpeg-turbo, otherwise stb; throws UnsupportedError for turbo without it.
Decoder resolve(Decoder decoder);
std::string_view name_of(Decoder decoder);
/// The one that a model's file notes, to decode as its training did; this build's own where that is not known or not in
/// this build, whose pixels differ a little.
Decoder decoder_like(std::string_view noted);
/// "auto", "turbo" or "stb"; throws UsageError that lists the names.
Decoder decoder_from_name(std::string_view name);

/// Limits, all checked from the header before any pixel memory is allocated. They bound every file, hostile or not, to
/// two seconds and 512 MiB.
inline constexpr int64_t kMaxFileBytes = int64_t{64} << 20;     // the largest of ImageNet's files has 15 MB
inline constexpr int64_t kMaxPixels = int64_t{64} << 20;        // the largest of ImageNet's images has 57 Mpx
inline constexpr int kMaxSide = 16384;                          // above it a 4-channel row times a side nears 2^30
inline constexpr int64_t kMaxDecodeBytes = int64_t{448} << 20;  // file twice, planes, coefficients and result
inline constexpr int kMaxJpegScans = 256;                       // real progressive files have 6 to 14
inline constexpr int64_t kMaxJpegBlockVisits = 16 << 20;        // 8x8 blocks times the scans that visit them

/// Pixels are height x width x 3 bytes, row-major, without padding; copies share them.
struct Image {
  int width = 0;
  int height = 0;
  std::shared_ptr<const uint8_t[]> pixels;
  std::string warning = {};  // not empty: the file was damaged and its pixels are partly made up
  int orientation = 1;       // EXIF's: pixels are as stored, and `upright` (orientation.hpp) turns them
  size_t bytes() const { return size_t{3} * static_cast<size_t>(width) * static_cast<size_t>(height); }
};

/// Decodes `file`, the whole content of `path` (the path is only named in errors). Grayscale is replicated, CMYK and
/// YCCK are multiplied out, alpha is dropped, 16 bits are cut to 8; EXIF orientation is noted and not followed, as
/// PIL's decoder and therefore torchvision's ImageFolder do. A JPEG whose scan breaks off or holds errors decodes with
/// `warning` set; stb_image refuses some of these (README.md, "Refused by stb alone"). Errors: DataError with the path
/// for a file that is not an image, an unsupported kind, a damaged header, a size over a limit. Too little memory for
/// an image within the limits is not a property of the image: std::bad_alloc. Threads: safe to call concurrently. Cost:
/// about 8 ns (turbo) or 12 ns (stb) per pixel.
Image decode(std::span<const uint8_t> file, Decoder decoder, const std::string& path);

/// The whole file. Throws DiskError when it cannot be opened or read, DataError above kMaxFileBytes.
std::vector<uint8_t> read_file(const std::filesystem::path& path);

/// decode(read_file(path)).
Image load_image(const std::filesystem::path& path, Decoder decoder);

}  // namespace nibble
