// Decoding: every kind of file the manifest of hostile images names, plus properties of both JPEG backends.
#include "data/decode.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <numeric>
#include <set>
#include <sstream>

#include "data/image_stream.hpp"
#include "data/synth.hpp"
#include "data/turbo_jpeg.hpp"
#include "engine/error.hpp"
#include "engine/rng.hpp"
#include "engine/sanitizer.hpp"
#include "tests/data/images.hpp"
#include "tests/shared_data.hpp"
#include "tests/temp_dir.hpp"

namespace nibble {
namespace {

namespace fs = std::filesystem;

std::string error_of(std::span<const uint8_t> file, Decoder decoder) {
  try {
    decode(file, decoder, "some.jpg");
  } catch (const DataError& e) {
    return e.what();
  }
  return "";
}

using testing::decoders;
using testing::formula_png;
using testing::png_file;
using testing::PngChunk;
using testing::PngForm;
using testing::tiny_jpeg;

std::vector<uint8_t> slurp(const fs::path& path) {
  return read_file(path);
}

// Of this thread: other work on the machine does not count.
double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Row {
  std::string file, expected;
};

std::vector<Row> manifest(const fs::path& folder) {
  std::ifstream in(folder / "MANIFEST.tsv");
  std::vector<Row> rows;
  std::string line;
  std::getline(in, line);
  while (std::getline(in, line)) {
    std::stringstream fields(line);
    std::string file, bytes, sha, what, expected;
    std::getline(fields, file, '\t');
    std::getline(fields, bytes, '\t');
    std::getline(fields, sha, '\t');
    std::getline(fields, what, '\t');
    std::getline(fields, expected, '\t');
    rows.push_back({file, expected});
  }
  return rows;
}

TEST_CASE("a noted decoder is taken where this build has it, otherwise the build's own") {
  CHECK(decoder_like("stb") == Decoder::stb);
  for (const char* noted : {"", "auto", "turbo", "another"}) CHECK(decoder_like(noted) == resolve(Decoder::auto_));
}

TEST_CASE("a minimal JPEG decodes to mid gray with every backend") {
  for (const Decoder d : decoders()) {
    const Image image = decode(tiny_jpeg(), d, "tiny.jpg");
    CHECK(image.width == 8);
    CHECK(image.height == 8);
    CHECK(image.warning.empty());
    CHECK(std::all_of(image.pixels.get(), image.pixels.get() + image.bytes(), [](uint8_t v) { return v == 128; }));
  }
}

TEST_CASE("errors name the file, the reason and what to do") {
  for (const Decoder d : decoders()) {
    CHECK(error_of({}, d) == "cannot decode some.jpg: the file is empty; replace or remove the file");
    const std::vector<uint8_t> text = {'h', 'e', 'l', 'l', 'o'};
    CHECK(error_of(text, d).find("starts with 0x6865 and is neither JPEG nor PNG") != std::string::npos);
    CHECK(error_of(tiny_jpeg(0, 8), d).find("the header says 0x8 pixels") != std::string::npos);
    CHECK(error_of(tiny_jpeg(16385, 8), d).find("16385x8 pixels, over the limit of 16384") != std::string::npos);
    CHECK(error_of(tiny_jpeg(9000, 9000), d).find("over the limit of 16384 per side and 64 Mpx") != std::string::npos);
  }
}

TEST_CASE("damaged JPEG tables and headers are refused before a decoder sees them") {
  const std::vector<uint8_t> good = tiny_jpeg();
  struct Damage {
    size_t offset;
    uint8_t value;
    const char* reason;
  };
  // Offsets: DQT body 6, SOF body 75, first DHT body 88, second DHT body 110, SOS body 132.
  const Damage damages[] = {
      {6, 0x24, "invalid quantization table"},
      {75, 12, "12 bits per sample"},
      {80, 2, "2 components"},
      {82, 0x51, "invalid sampling factors"},
      {88, 0x25, "invalid Huffman table"},
      {89, 3, "invalid Huffman table"},  // three codes of one bit
      {105, 16, "impossible DC sizes"},
      {132, 2, "invalid scan header"},
      {133, 9, "names a component that the frame does not have"},
      {134, 0x50, "impossible Huffman table"},
      {137, 0x11, "progressive scan in a sequential frame"},
  };
  for (const Damage& damage : damages) {
    std::vector<uint8_t> bad = good;
    bad[damage.offset] = damage.value;
    for (const Decoder d : decoders()) {
      INFO(damage.offset);
      CHECK(error_of(bad, d).find(damage.reason) != std::string::npos);
    }
  }
}

TEST_CASE("arithmetic, lossless and hierarchical JPEG are refused by the name of their process") {
  for (const int process : {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}) {
    std::vector<uint8_t> other = tiny_jpeg();
    REQUIRE(other[72] == 0xC0);
    other[72] = static_cast<uint8_t>(process);
    for (const Decoder d : decoders()) {
      INFO(process);
      CHECK(error_of(other, d).find(fmt::format("JPEG process 0x{:02x} (lossless, hierarchical or arithmetic)",
                                                process)) != std::string::npos);
    }
  }
}

TEST_CASE("a JPEG with more scans than any real one is refused quickly") {
  std::vector<uint8_t> bomb = tiny_jpeg();
  const std::vector<uint8_t> scan(bomb.end() - 13, bomb.end() - 2);
  bomb.resize(bomb.size() - 2);
  for (int i = 0; i < 300; ++i) bomb.insert(bomb.end(), scan.begin(), scan.end());
  for (const Decoder d : decoders()) CHECK(error_of(bomb, d).find("more than 256 scans") != std::string::npos);
  std::vector<uint8_t> wide = tiny_jpeg(8000, 8000);
  wide.resize(wide.size() - 2);
  for (int i = 0; i < 20; ++i) wide.insert(wide.end(), scan.begin(), scan.end());
  for (const Decoder d : decoders()) CHECK(error_of(wide, d).find("would take too long") != std::string::npos);
}

/// A JPEG of 1x1-sampled components with the data of their first blocks, all zero; in one scan, or one for each.
std::vector<uint8_t> flat_jpeg(int side, int components, bool interleaved) {
  const auto high = [](int v) { return static_cast<uint8_t>(v >> 8); };
  const auto low = [](int v) { return static_cast<uint8_t>(v & 255); };
  const std::vector<uint8_t> one = tiny_jpeg(side, side);
  std::vector<uint8_t> f(one.begin(), one.begin() + 71);  // start of image, quantization table
  const std::vector<uint8_t> sof = {
      0xFF,      0xC0,       0,         static_cast<uint8_t>(8 + 3 * components), 8, high(side),
      low(side), high(side), low(side), static_cast<uint8_t>(components)};
  f.insert(f.end(), sof.begin(), sof.end());
  for (int c = 1; c <= components; ++c) f.insert(f.end(), {static_cast<uint8_t>(c), 0x11, 0});
  f.insert(f.end(), one.begin() + 84, one.end() - 13);  // Huffman tables
  for (int c = 1; c <= (interleaved ? 1 : components); ++c) {
    const int count = interleaved ? components : 1;
    f.insert(f.end(), {0xFF, 0xDA, 0, static_cast<uint8_t>(6 + 2 * count), static_cast<uint8_t>(count)});
    for (int i = 0; i < count; ++i) f.insert(f.end(), {static_cast<uint8_t>(c + i), 0x00});
    f.insert(f.end(), {0, 63, 0, static_cast<uint8_t>(0xFF >> 2 * count)});  // two bits per block, then ones
  }
  f.insert(f.end(), {0xFF, 0xD9});
  return f;
}

TEST_CASE(
    "a sequential JPEG whose components come in scans of their own counts as buffered: refused before it is large") {
  for (const Decoder d : decoders()) {
    CHECK(error_of(flat_jpeg(8, 3, false), d).empty());
    CHECK(error_of(flat_jpeg(8, 3, true), d).empty());
    CHECK(error_of(flat_jpeg(8192, 3, false), d).find("MiB") != std::string::npos);
  }
  CHECK_NOTHROW(data_detail::check_jpeg(flat_jpeg(8192, 3, true), "x"));
  CHECK_THROWS_AS(data_detail::check_jpeg(flat_jpeg(8192, 4, false), "x"), DataError);
}

TEST_CASE("every form of PNG becomes RGB: alpha is dropped, gray repeated, a palette looked up, 16 bits cut to 8") {
  const std::vector<uint8_t> palette = {9, 8, 7, 10, 20, 30, 255, 0, 1};
  const struct {
    const char* what;
    PngForm form;
    std::vector<uint8_t> rows;  // of 3 x 1 pixels, after the filter's byte
    std::vector<PngChunk> chunks;
    std::vector<uint8_t> pixels;
  } forms[] = {
      {"RGBA", {8, 6}, {0, 1, 2, 3, 255, 4, 5, 6, 128, 250, 251, 252, 0}, {}, {1, 2, 3, 4, 5, 6, 250, 251, 252}},
      {"RGB with a transparent colour",
       {8, 2},
       {0, 1, 2, 3, 4, 5, 6, 7, 8, 9},
       {{"tRNS", {0, 4, 0, 5, 0, 6}}},
       {1, 2, 3, 4, 5, 6, 7, 8, 9}},
      {"RGB, 16 bits",
       {16, 2},
       {0, 1, 255, 2, 0, 3, 128, 4, 127, 5, 1, 6, 2, 250, 255, 251, 0, 252, 7},
       {},
       {1, 2, 3, 4, 5, 6, 250, 251, 252}},
      {"gray and alpha", {8, 4}, {0, 7, 255, 100, 0, 255, 9}, {}, {7, 7, 7, 100, 100, 100, 255, 255, 255}},
      {"gray with a transparent level",
       {8, 0},
       {0, 7, 100, 255},
       {{"tRNS", {0, 100}}},
       {7, 7, 7, 100, 100, 100, 255, 255, 255}},
      {"gray, 16 bits", {16, 0}, {0, 7, 255, 100, 0, 255, 1}, {}, {7, 7, 7, 100, 100, 100, 255, 255, 255}},
      {"gray, 4 bits", {4, 0}, {0, 0x0A, 0xF0}, {}, {0, 0, 0, 170, 170, 170, 255, 255, 255}},
      {"gray, 2 bits", {2, 0}, {0, 0b00'01'11'00}, {}, {0, 0, 0, 85, 85, 85, 255, 255, 255}},
      {"gray, 1 bit", {1, 0}, {0, 0b0'1'0'00000}, {}, {0, 0, 0, 255, 255, 255, 0, 0, 0}},
      {"palette", {8, 3}, {0, 2, 0, 1}, {{"PLTE", palette}}, {255, 0, 1, 9, 8, 7, 10, 20, 30}},
      {"palette, 2 bits, with transparency",
       {2, 3},
       {0, 0b10'00'01'00},
       {{"PLTE", palette}, {"tRNS", {0, 128, 255}}},
       {255, 0, 1, 9, 8, 7, 10, 20, 30}},
  };
  for (const auto& f : forms) {
    CAPTURE(f.what);
    const Image image = decode(png_file(3, 1, f.form, f.rows, f.chunks), Decoder::auto_, f.what);
    CHECK(image.warning.empty());
    REQUIRE(image.bytes() == f.pixels.size());
    CHECK(std::vector<uint8_t>(image.pixels.get(), image.pixels.get() + image.bytes()) == f.pixels);
  }
}

TEST_CASE("an interlaced PNG of any size decodes to the pixels of the plain one") {
  for (const auto& size : {std::pair{1, 1}, {3, 5}, {170, 170}, {256, 256}, {2, 4000}, {1000, 3}}) {
    const int width = size.first, height = size.second;
    CAPTURE(width);
    CAPTURE(height);
    const Image plain = decode(formula_png(width, height, false), Decoder::auto_, "plain");
    const Image interlaced = decode(formula_png(width, height, true), Decoder::auto_, "interlaced");
    CHECK(plain.pixels[plain.bytes() - 2] == static_cast<uint8_t>(height - 1));
    CHECK(std::equal(plain.pixels.get(), plain.pixels.get() + plain.bytes(), interlaced.pixels.get()));
  }
}

TEST_CASE("the rewritten JPEG stream holds no metadata and ends with its end marker") {
  std::vector<uint8_t> file = tiny_jpeg();
  const std::vector<uint8_t> comment = {0xFF, 0xFE, 0, 6, 'a', 'b', 'c', 'd', 0x12, 0x34};  // and two bytes of garbage
  file.insert(file.begin() + 2, comment.begin(), comment.end());
  file.resize(file.size() - 2);
  const data_detail::JpegStream stream = data_detail::check_jpeg(file, "x");
  CHECK(stream.bytes == tiny_jpeg());
  CHECK(stream.truncated);
  CHECK(!decode(file, Decoder::stb, "x").warning.empty());
}

TEST_CASE("decoder names round-trip and an unknown one is a usage error") {
  for (const Decoder d : {Decoder::auto_, Decoder::turbo, Decoder::stb}) CHECK(decoder_from_name(name_of(d)) == d);
  CHECK_THROWS_AS(decoder_from_name("libpng"), UsageError);
  CHECK(resolve(Decoder::stb) == Decoder::stb);
  CHECK(resolve(Decoder::auto_) == (data_detail::have_turbo() ? Decoder::turbo : Decoder::stb));
  if (!data_detail::have_turbo()) CHECK_THROWS_AS(resolve(Decoder::turbo), UnsupportedError);
}

TEST_CASE("a missing file is a disk error, a folder and a pipe are data errors") {
  const testing::TempDir dir;
  CHECK_THROWS_AS(read_file(dir / "absent.jpg"), DiskError);
  CHECK_THROWS_AS(read_file(dir.path()), DataError);
  REQUIRE(::mkfifo((dir / "pipe.jpg").c_str(), 0600) == 0);
  CHECK_THROWS_AS(read_file(dir / "pipe.jpg"), DataError);  // it has no writer: opening must not wait
}

TEST_CASE("every hostile image decodes or is refused as its manifest says, within two seconds") {
  const auto shared = testing::shared_data("hostile-images");
  if (!shared) {
    MESSAGE("skipped: no shared test data");
    return;
  }
  const fs::path folder = *shared / "hostile-images";
  // One component but data of three: stb_image gives up at the first restart, libjpeg-turbo resynchronises.
  const std::set<std::string> beyond_stb = {"jpeg/hopper_bad_exif.jpg"};
  int checked = 0;
  for (const Row& row : manifest(folder)) {
    const bool png = row.expected == "decode or reject if PNG unsupported";  // it is supported
    const bool may_refuse = !png && (row.expected.find("reject") != std::string::npos ||
                                     row.expected.starts_with("either") || row.expected.starts_with("skip"));
    const bool may_decode = row.expected.starts_with("decode") || row.expected.starts_with("either");
    const bool must_decode = row.expected.starts_with("decode") && !may_refuse;
    for (const Decoder d : decoders()) {
      INFO(row.file << " with " << name_of(d) << ", expected: " << row.expected);
      const double start = cpu_seconds();
      bool decoded = false;
      try {
        const Image image = load_image(folder / row.file, d);
        decoded = image.width > 0 && image.height > 0 && image.pixels != nullptr;
      } catch (const DataError& e) {
        CHECK(std::string(e.what()).find(row.file) != std::string::npos);
      }
      CHECK(cpu_seconds() - start < (kThreadSanitizer ? 20.0 : 2.0));
      if (!may_decode && !row.expected.starts_with("reject unless")) CHECK_FALSE(decoded);
      if (must_decode && !(d == Decoder::stb && beyond_stb.contains(row.file))) CHECK(decoded);
      ++checked;
    }
  }
  CHECK(checked >= 121);
}

TEST_CASE("equal pictures in different JPEG forms give equal pixels") {
  const auto shared = testing::shared_data("hostile-images");
  if (!shared) {
    MESSAGE("skipped: no shared test data");
    return;
  }
  const fs::path made = *shared / "hostile-images" / "made";
  for (const Decoder d : decoders()) {
    const Image good = load_image(made / "good.JPEG", d);
    for (const char* name : {"optimized.JPEG", "progressive.JPEG", "restart.JPEG", "trailing_garbage.JPEG",
                             "two_images.JPEG", "no_eoi.JPEG"}) {
      INFO(name);
      const Image other = load_image(made / name, d);
      CHECK(std::equal(good.pixels.get(), good.pixels.get() + good.bytes(), other.pixels.get()));
    }
    const Image gray = load_image(made / "gray.JPEG", d);
    for (size_t i = 0; i < gray.bytes(); i += 3) REQUIRE(gray.pixels[i] == gray.pixels[i + 2]);
  }
}

/// A picture of the synthetic set; up to quality 90 with 2x2 subsampling.
std::vector<uint8_t> drawn_jpeg(int side, int quality) {
  std::vector<uint8_t> drawn(static_cast<size_t>(side) * static_cast<size_t>(side) * 3);
  draw_synthetic(side, 5, SynthSplit::train, 3, 7, drawn.data());
  return encode_jpeg(drawn, side, side, quality);
}

int apart(const Image& a, const Image& b) {
  REQUIRE(a.bytes() == b.bytes());
  int worst = 0;
  for (size_t i = 0; i < a.bytes(); ++i) worst = std::max(worst, std::abs(a.pixels[i] - b.pixels[i]));
  return worst;
}

TEST_CASE("the orientation that EXIF names is ignored") {
  std::vector<uint8_t> drawn(static_cast<size_t>(20 * 12 * 3));
  std::iota(drawn.begin(), drawn.end(), uint8_t{0});
  const std::vector<uint8_t> plain = encode_jpeg(drawn, 20, 12, 90);
  // APP1 of one little-endian tag: 0x0112, SHORT, one value, 6 (a quarter turn).
  const std::vector<uint8_t> exif = {0xFF, 0xE1, 0,    34, 'E', 'x', 'i', 'f', 0, 0, 'I', 'I', 42, 0, 8, 0, 0, 0,
                                     1,    0,    0x12, 1,  3,   0,   1,   0,   0, 0, 6,   0,   0,  0, 0, 0, 0, 0};
  std::vector<uint8_t> turned(plain.begin(), plain.begin() + 2);
  turned.insert(turned.end(), exif.begin(), exif.end());
  turned.insert(turned.end(), plain.begin() + 2, plain.end());
  for (const Decoder d : decoders()) {
    const Image a = decode(plain, d, "plain"), b = decode(turned, d, "turned");
    CHECK(b.width == 20);
    CHECK(b.height == 12);
    CHECK(b.warning.empty());
    CHECK(apart(a, b) == 0);
  }
}

TEST_CASE("an image may have the longest side, a file no byte more than the largest") {
  for (const Decoder d : decoders()) {
    const Image longest = decode(formula_png(16384, 1, false), d, "long.png");
    CHECK(longest.width == 16384);
    CHECK(longest.pixels[3 * 16383] == 16383 % 256);
    CHECK(error_of(formula_png(16385, 1, false), d).find("over the limit of 16384") != std::string::npos);
  }
  const testing::TempDir dir;
  const fs::path file = dir.path() / "large.jpg";
  std::ofstream(file) << "x";
  fs::resize_file(file, static_cast<uintmax_t>(kMaxFileBytes));  // a hole
  CHECK(read_file(file).size() == static_cast<size_t>(kMaxFileBytes));
  fs::resize_file(file, static_cast<uintmax_t>(kMaxFileBytes) + 1);
  CHECK_THROWS_WITH_AS(read_file(file), doctest::Contains("has 65 MiB, over the limit of 64 MiB"), DataError);
}

TEST_CASE("both backends agree within three units on drawn pictures of any side and quality") {
  if (!data_detail::have_turbo()) {
    MESSAGE("skipped: no libjpeg-turbo");
    return;
  }
  for (const int side : {16, 17, 31, 64, 97})
    for (const int quality : {50, 75, 90, 95, 100}) {
      const std::vector<uint8_t> file = drawn_jpeg(side, quality);
      INFO(side << " px, quality " << quality);
      CHECK(apart(decode(file, Decoder::turbo, "drawn"), decode(file, Decoder::stb, "drawn")) <= 3);
    }
}

TEST_CASE("both backends agree within three units on intact photographs, also from CMYK") {
  const auto shared = testing::shared_data("hostile-images");
  if (!shared || !data_detail::have_turbo()) {
    MESSAGE("skipped: no shared test data or no libjpeg-turbo");
    return;
  }
  for (const char* name : {"made/good.JPEG", "made/cmyk.JPEG", "made/subsampling_1x1.JPEG", "jpeg/pil_sample_cmyk.jpg",
                           "jpeg/cat.jpg", "jpeg/rgb.jpg", "jpeg/Portrait_3.jpg"}) {
    const std::vector<uint8_t> file = slurp(*shared / "hostile-images" / name);
    INFO(name);
    CHECK(apart(decode(file, Decoder::turbo, name), decode(file, Decoder::stb, name)) <= 3);
  }
}

TEST_CASE("randomly damaged images end in pixels or in one data error") {
  const auto shared = testing::shared_data("hostile-images");
  std::vector<std::vector<uint8_t>> corpus = {tiny_jpeg(), drawn_jpeg(64, 90), formula_png(17, 13, false),
                                              formula_png(17, 13, true)};
  if (shared)
    for (const char* name : {"made/dim_17x13.JPEG", "jpeg/test.jpg", "png/basi6a16.png", "png/basn3p08.png",
                             "jpeg/testorig_rot270_420_fastdct_q75_prog_rst100.jpg", "jpeg/pil_sample_cmyk.jpg"})
      corpus.push_back(slurp(*shared / "hostile-images" / name));
  int decoded = 0, refused = 0;
  for (uint64_t round = 0; round < 2000; ++round) {
    Rng rng(1, rng_purpose::kTest, round);
    std::vector<uint8_t> file = corpus[rng.below(static_cast<uint32_t>(corpus.size()))];
    for (uint32_t i = 0, n = 1 + rng.below(4); i < n; ++i)
      file[rng.below(static_cast<uint32_t>(file.size()))] = static_cast<uint8_t>(rng.next_u32());
    if (rng.below(4) == 0) file.resize(rng.below(static_cast<uint32_t>(file.size())));
    for (const Decoder d : decoders()) {
      INFO("round " << round);
      error_of(file, d).empty() ? ++decoded : ++refused;
    }
  }
  CHECK(decoded > 100);
  CHECK(refused > 100);
}

}  // namespace
}  // namespace nibble
