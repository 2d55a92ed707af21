// What the JPEG check passes on: no metadata, whatever is wrong with it, and image data as it is. The decoders differ
// in what they do with more data than the blocks take.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "data/decode.hpp"
#include "data/image_stream.hpp"
#include "data/turbo_jpeg.hpp"
#include "engine/error.hpp"
#include "tests/data/images.hpp"
#include "tests/shared_data.hpp"
#include "tests/text.hpp"

namespace nibble {
namespace {

using testing::decoders;
using testing::has;
using testing::tiny_jpeg;

using Bytes = std::vector<uint8_t>;

/// The tiny JPEG with a segment in front of its tables; `declared` is the length that the segment says it has.
Bytes with_segment(uint8_t marker, const Bytes& body, size_t declared) {
  Bytes file = tiny_jpeg();
  Bytes segment = {0xFF, marker, static_cast<uint8_t>(declared >> 8), static_cast<uint8_t>(declared)};
  segment.insert(segment.end(), body.begin(), body.end());
  file.insert(file.begin() + 2, segment.begin(), segment.end());
  return file;
}

struct Outcome {
  std::string error, warning;
  Bytes pixels;
};

Outcome outcome_of(const Bytes& file, Decoder decoder) {
  try {
    const Image image = decode(file, decoder, "some.jpg");
    return {.error = {}, .warning = image.warning, .pixels = {image.pixels.get(), image.pixels.get() + image.bytes()}};
  } catch (const DataError& e) {
    return {.error = e.what(), .warning = {}, .pixels = {}};
  }
}

/// A gray image of two blocks side by side, mid gray, a restart between them; the first block's one byte of data is
/// followed by `surplus`.
Bytes two_intervals(const Bytes& surplus) {
  Bytes file = tiny_jpeg(16, 8);
  const Bytes restart_interval = {0xFF, 0xDD, 0, 4, 0, 1};
  file.insert(file.begin() + 2, restart_interval.begin(), restart_interval.end());
  file.resize(file.size() - 3);  // the data of one block, and the end marker
  file.push_back(0x3F);
  file.insert(file.end(), surplus.begin(), surplus.end());
  const Bytes rest = {0xFF, 0xD0, 0x3F, 0xFF, 0xD9};
  file.insert(file.end(), rest.begin(), rest.end());
  return file;
}

/// The same without restarts: both blocks in one byte, 00 00 and ones.
Bytes one_interval(const Bytes& surplus) {
  Bytes file = tiny_jpeg(16, 8);
  file.resize(file.size() - 3);
  file.push_back(0x0F);
  file.insert(file.end(), surplus.begin(), surplus.end());
  file.insert(file.end(), {0xFF, 0xD9});
  return file;
}

bool all_gray(const Outcome& o) {
  return !o.pixels.empty() && std::ranges::all_of(o.pixels, [](uint8_t v) { return v == 128; });
}

}  // namespace

TEST_CASE("a damaged EXIF segment is not passed on: both decoders see the stream without it") {
  const Bytes exif = {'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0, 42, 0xFF, 0xFF, 0xFF, 0xFF};  // its directory is nowhere
  const Bytes noise = {0xFF, 0xD9, 0xFF, 0xDA, 0xFF, 0xC0, 0xFF, 0x00, 0xFF, 0xFF, 0xFF};
  Bytes cut(exif.begin(), exif.begin() + 4), longest(65533, 0xFF);
  const Bytes files[] = {
      with_segment(0xE1, exif, exif.size() + 2),
      with_segment(0xE1, cut, cut.size() + 2),
      with_segment(0xE1, {}, 2),
      with_segment(0xE1, noise, noise.size() + 2),
      with_segment(0xE1, longest, 65535),
      with_segment(0xE1, Bytes(40, 'x'), 10),  // its end is garbage
      with_segment(0xFE, noise, noise.size() + 2),
  };
  for (const Bytes& file : files) {
    CAPTURE(file.size());
    CHECK(data_detail::check_jpeg(file, "x").bytes == tiny_jpeg());
    for (const Decoder d : decoders()) {
      const Outcome o = outcome_of(file, d);
      CAPTURE(o.error);
      CHECK(o.warning.empty());
      CHECK(all_gray(o));
    }
  }
}

TEST_CASE(
    "an EXIF segment whose length swallows the tables, or that holds a picture beyond its length, is refused by both") {
  const Bytes swallowing = with_segment(0xE1, {'E', 'x', 'i', 'f'}, 6 + 69);
  const Bytes thumbnail = with_segment(0xE1, {'E', 'x', 'i', 'f', 0xFF, 0xD8, 0xFF, 0xD9}, 6);
  for (const Decoder d : decoders()) {
    CHECK(has(outcome_of(swallowing, d).error, "lacks a quantization table"));
    CHECK(has(outcome_of(thumbnail, d).error, "a second start-of-image marker"));
  }
}

TEST_CASE(
    "more data than the blocks take: libjpeg-turbo skips it with a warning, stb_image refuses what it stumbles over") {
  for (const Decoder d : decoders()) {
    CHECK(all_gray(outcome_of(two_intervals({}), d)));
    CHECK(all_gray(outcome_of(one_interval({}), d)));
  }
  const Bytes surplus(12, 0x55);
  const Outcome stb = outcome_of(two_intervals(surplus), Decoder::stb);
  CHECK(has(stb.error, "its data is damaged"));
  CHECK(all_gray(outcome_of(one_interval(surplus), Decoder::stb)));  // without restarts it stops after the last block
  Bytes stuffed(16, 0x55);
  stuffed.insert(stuffed.begin() + 12, {0xFF, 0});
  // stb_image 2.27 takes FF 00 for a marker; later versions skip it.
  const Outcome skipped = outcome_of(one_interval(stuffed), Decoder::stb);
  CHECK((has(skipped.error, "its data is damaged") || all_gray(skipped)));
  if (!data_detail::have_turbo()) return;
  const Outcome turbo = outcome_of(two_intervals(surplus), Decoder::turbo);
  CHECK(has(turbo.warning, "extraneous bytes before marker 0xd0"));
  CHECK(all_gray(turbo));
  const Outcome end = outcome_of(one_interval(stuffed), Decoder::turbo);
  CHECK(has(end.warning, "extraneous bytes before marker 0xd9"));
  CHECK(all_gray(end));
}

TEST_CASE("hopper_bad_exif.jpg: stb_image refuses it without its EXIF, too, for the data after its restart intervals") {
  const auto shared = testing::shared_data("hostile-images");
  if (!shared) {
    MESSAGE("skipped: no shared test data");
    return;
  }
  const Bytes file = read_file(*shared / "hostile-images" / "jpeg" / "hopper_bad_exif.jpg");
  const data_detail::JpegStream stream = data_detail::check_jpeg(file, "x");
  CHECK(stream.components == 1);
  const auto marker = [&](uint8_t m) {
    const Bytes head = {0xFF, m};
    return std::search(stream.bytes.begin(), stream.bytes.end(), head.begin(), head.end()) != stream.bytes.end();
  };
  CHECK_FALSE(marker(0xE1));  // EXIF is gone
  CHECK(marker(0xDD));        // restart intervals are there
  for (const Bytes& bytes : {file, stream.bytes})
    CHECK(has(outcome_of(bytes, Decoder::stb).error, "its data is damaged"));
  if (data_detail::have_turbo()) CHECK(has(outcome_of(file, Decoder::turbo).warning, "extraneous bytes before marker"));
}

TEST_CASE(
    "of the hostile images stb_image refuses beyond libjpeg-turbo those that the room's README names, never the "
    "reverse") {
  const auto shared = testing::shared_data("hostile-images");
  if (!shared || !data_detail::have_turbo()) {
    MESSAGE("skipped: no shared test data or no libjpeg-turbo");
    return;
  }
  std::ifstream in(std::string(NIBBLE_SOURCE_ROOT) + "/data/README.md");
  const std::string page((std::istreambuf_iterator<char>(in)), {});
  std::ifstream manifest(*shared / "hostile-images" / "MANIFEST.tsv");
  std::string line;
  for (std::getline(manifest, line); std::getline(manifest, line);) {
    const std::string name = line.substr(0, line.find('\t'));
    CAPTURE(name);
    const auto decodes = [&](Decoder d) {
      try {
        return load_image(*shared / "hostile-images" / name, d).pixels != nullptr;
      } catch (const DataError&) {
        return false;
      }
    };
    const bool turbo = decodes(Decoder::turbo), stb = decodes(Decoder::stb);
    CHECK((turbo || !stb));
    if (stb || !turbo) continue;
    CHECK(has(page, '`' + name + '`'));
  }
}

}  // namespace nibble
