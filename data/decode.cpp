#include "data/decode.hpp"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "data/image_stream.hpp"
#include "data/stb_image.hpp"
#include "data/turbo_jpeg.hpp"
#include "engine/files.hpp"

namespace nibble {

namespace {

std::string over_the_limit(int64_t bytes, int64_t most) {
  constexpr int64_t kMiB = int64_t{1} << 20;  // rounded up: a byte too many is not "64 MiB, over the limit of 64 MiB"
  return fmt::format("{} MiB, over the limit of {} MiB", (bytes + kMiB - 1) / kMiB, most / kMiB);
}

}  // namespace

namespace data_detail {

void reject(const std::string& path, const std::string& why) {
  throw DataError("cannot decode {}: {}; replace or remove the file", path, why);
}

void check_limits(const std::string& path, int64_t width, int64_t height) {
  if (width == 0 || height == 0) reject(path, fmt::format("the header says {}x{} pixels", width, height));
  if (width > kMaxSide || height > kMaxSide || width * height > kMaxPixels)
    reject(path, fmt::format("the header says {}x{} pixels, over the limit of {} per side and {} Mpx in all", width,
                             height, kMaxSide, kMaxPixels >> 20));
}

void check_memory(const std::string& path, int64_t peak_bytes) {
  if (peak_bytes > kMaxDecodeBytes) reject(path, "decoding would take " + over_the_limit(peak_bytes, kMaxDecodeBytes));
}

}  // namespace data_detail

namespace {

using data_detail::reject;

constexpr uint8_t kPngSignature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};

bool starts_with(std::span<const uint8_t> file, std::span<const uint8_t> magic) {
  return file.size() >= magic.size() && std::memcmp(file.data(), magic.data(), magic.size()) == 0;
}

Image decode_with_stb(std::span<const uint8_t> stream, int64_t budget, const std::string& path) {
  data_detail::StbImage stb = data_detail::stb_decode(stream, budget);
  if (!stb.rgb) reject(path, fmt::format("its data is damaged ({})", stb.error));
  return {.width = stb.width, .height = stb.height, .pixels = std::move(stb.rgb), .warning = {}};
}

Image decode_jpeg(std::span<const uint8_t> file, Decoder decoder, const std::string& path) {
  const data_detail::JpegStream stream = data_detail::check_jpeg(file, path);
  Image image;
  if (resolve(decoder) == Decoder::turbo) {
    data_detail::TurboImage turbo = data_detail::turbo_decode(stream);
    if (!turbo.rgb) reject(path, fmt::format("its data is damaged ({})", turbo.error));
    image = {.width = stream.width, .height = stream.height, .pixels = std::move(turbo.rgb), .warning = turbo.error};
  } else {
    // What libjpeg-turbo handles and stb_image would get wrong without saying so.
    if (!stream.standard_tables) reject(path, "its Huffman tables are missing, which stb_image does not support");
    if (stream.components == 4 && stream.adobe_transform != 0 && stream.adobe_transform != 2)
      reject(path, "it has four channels without Adobe's marker, which stb_image does not support");
    image = decode_with_stb(stream.bytes, kMaxDecodeBytes, path);
  }
  image.orientation = stream.orientation;
  if (stream.truncated && image.warning.empty()) image.warning = "the file breaks off before its end";
  return image;
}

}  // namespace

Decoder resolve(Decoder decoder) {
  if (decoder == Decoder::auto_) return data_detail::have_turbo() ? Decoder::turbo : Decoder::stb;
  if (decoder == Decoder::turbo && !data_detail::have_turbo())
    throw UnsupportedError(
        "decoder turbo was asked for, but this build has no libjpeg-turbo: build with libturbojpeg0-dev installed, or "
        "use --decoder stb");
  return decoder;
}

std::string_view name_of(Decoder decoder) {
  constexpr std::string_view kNames[] = {"auto", "turbo", "stb"};
  return kNames[static_cast<size_t>(decoder)];
}

Decoder decoder_like(std::string_view noted) {
  return noted == name_of(Decoder::stb) ? Decoder::stb : resolve(Decoder::auto_);  // stb is in every build
}

Decoder decoder_from_name(std::string_view name) {
  for (const Decoder d : {Decoder::auto_, Decoder::turbo, Decoder::stb})
    if (name_of(d) == name) return d;
  throw UsageError("there is no decoder '{}': use auto, turbo or stb", name);
}

Image decode(std::span<const uint8_t> file, Decoder decoder, const std::string& path) {
  constexpr uint8_t kJpegSignature[3] = {0xFF, 0xD8, 0xFF};
  if (file.empty()) reject(path, "the file is empty");
  if (static_cast<int64_t>(file.size()) > kMaxFileBytes)
    reject(path, "the file has " + over_the_limit(static_cast<int64_t>(file.size()), kMaxFileBytes));
  if (starts_with(file, kJpegSignature)) return decode_jpeg(file, decoder, path);
  if (starts_with(file, kPngSignature)) {
    const data_detail::PngStream stream = data_detail::check_png(file, path);
    return decode_with_stb(stream.bytes, stream.budget, path);
  }
  if (file.size() >= 2 && file[0] == kJpegSignature[0] && file[1] == kJpegSignature[1])
    reject(path, "it starts as a JPEG file does, but no segment follows");
  reject(path, fmt::format("it starts with 0x{:02x}{:02x} and is neither JPEG nor PNG", file[0],
                           file.size() > 1 ? file[1] : 0));
}

std::vector<uint8_t> read_file(const std::filesystem::path& path) {
  const FileDescriptor file = open_to_read(path);
  struct stat status {};
  if (!file.open() || ::fstat(file.get(), &status) != 0) throw_disk_error("open", path, errno);
  if (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode))
    throw DataError("{} is a pipe or a device: save the image to a file first", path.string());
  if (!S_ISREG(status.st_mode)) reject(path.string(), "it is not a regular file");
  if (status.st_size > kMaxFileBytes)
    reject(path.string(), "the file has " + over_the_limit(status.st_size, kMaxFileBytes));
  std::vector<uint8_t> bytes(static_cast<size_t>(status.st_size));
  const ReadResult got = read_all(file.get(), std::as_writable_bytes(std::span(bytes)));
  if (got.error_number != 0) throw_disk_error("read", path, got.error_number);
  bytes.resize(got.bytes);  // shortened meanwhile: decoded as far as it goes
  return bytes;
}

Image load_image(const std::filesystem::path& path, Decoder decoder) {
  return decode(read_file(path), decoder, path.string());
}

}  // namespace nibble
