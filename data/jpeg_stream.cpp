// The JPEG check: walks the marker segments of ITU-T T.81 annex B and rewrites them.
#include <algorithm>
#include <array>
#include <cstring>

#include "data/decode.hpp"
#include "data/image_stream.hpp"
#include "data/orientation.hpp"
#include "engine/integers.hpp"

namespace nibble::data_detail {
namespace {

enum Marker : int {
  kSof0 = 0xC0,
  kSof2 = 0xC2,
  kDht = 0xC4,
  kRst0 = 0xD0,
  kRst7 = 0xD7,
  kSoi = 0xD8,
  kEoi = 0xD9,
  kSos = 0xDA,
  kDqt = 0xDB,
  kDnl = 0xDC,
  kDri = 0xDD,
  kApp0 = 0xE0,
  kApp1 = 0xE1,
  kApp14 = 0xEE,
  kTem = 0x01,
};

// 4096 covers the 255 ICC and 100-odd XMP segments of real files; each table segment costs a decoder about 1 us.
constexpr int kMaxSegments = 4096;

bool is_restart(int marker) {
  return marker >= kRst0 && marker <= kRst7;
}

struct Component {
  int id = 0, h = 0, v = 0, table = 0;
  int64_t blocks = 0;      // in an interleaved scan: padded to whole MCUs
  int64_t own_blocks = 0;  // in a scan of its own
};

class JpegChecker {
 public:
  JpegChecker(std::span<const uint8_t> file, const std::string& path) : file_(file), path_(path) {}

  JpegStream run() {
    out_.bytes.reserve(file_.size() + 2);
    put_marker(kSoi);
    at_ = 2;
    for (;;) {
      const int marker = next_marker();
      if (marker == kEoi || marker < 0) {
        if (scans_ == 0) fail(marker < 0 ? "the JPEG ends before its image data" : "the JPEG holds no image data");
        out_.truncated = marker < 0;
        break;
      }
      if (!segment(marker)) break;
    }
    put_marker(kEoi);
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& why) const { reject(path_, why); }

  void put_marker(int marker) {
    out_.bytes.push_back(0xFF);
    out_.bytes.push_back(static_cast<uint8_t>(marker));
  }

  void put_segment(int marker, std::span<const uint8_t> body) {
    put_marker(marker);
    const size_t length = body.size() + 2;
    out_.bytes.push_back(static_cast<uint8_t>(length >> 8));
    out_.bytes.push_back(static_cast<uint8_t>(length));
    out_.bytes.insert(out_.bytes.end(), body.begin(), body.end());
  }

  // The next marker, skipping garbage and fill bytes before it; -1 at the end of the file.
  int next_marker() {
    while (at_ < file_.size()) {
      const void* hit = std::memchr(file_.data() + at_, 0xFF, file_.size() - at_);
      if (hit == nullptr) break;
      at_ = static_cast<size_t>(static_cast<const uint8_t*>(hit) - file_.data());
      while (at_ < file_.size() && file_[at_] == 0xFF) ++at_;
      if (at_ == file_.size()) break;
      const int marker = file_[at_++];
      if (marker != 0) return marker;
    }
    at_ = file_.size();
    return -1;
  }

  // Handles one marker; false when the file breaks off after image data has been seen.
  bool segment(int marker) {
    if (is_restart(marker) || marker == kTem) return true;  // stray, without a body
    if (marker == kSoi) fail("a second start-of-image marker follows inside the JPEG");
    if (marker < kSof0) fail(fmt::format("unknown JPEG marker 0x{:02x}", marker));
    if (++segments_ > kMaxSegments) fail(fmt::format("the JPEG has more than {} segments", kMaxSegments));
    if (at_ + 2 > file_.size()) return broken_off();
    const size_t length = static_cast<size_t>(read_be16(file_.data() + at_));
    if (length < 2) fail(fmt::format("JPEG segment 0x{:02x} has length {}", marker, length));
    if (at_ + length > file_.size()) return broken_off();
    const std::span<const uint8_t> body = file_.subspan(at_ + 2, length - 2);
    at_ += length;
    switch (marker) {
      case kDht:
        huffman_tables(body);
        break;
      case kDqt:
        quantization_tables(body);
        break;
      case kDri:
        if (body.size() != 2) fail("the JPEG restart interval has a wrong length");
        restart_interval_ = read_be16(body.data());
        break;
      case kSos:
        scan_header(body);
        put_segment(marker, body);
        scan_data();
        return true;
      case kApp14:
        adobe(body);
        if (!out_.has_adobe) return true;
        break;
      case kApp0:
        if (body.size() < 14 || std::memcmp(body.data(), "JFIF", 5) != 0) return true;
        break;
      case kApp1:  // EXIF or XMP; the first that says something counts
        if (out_.orientation == 1) out_.orientation = exif_orientation(body);
        return true;
      default:
        if (marker > kDri || marker == kDnl) return true;  // metadata, comments, expansions: not passed on
        frame_header(marker, body);
    }
    put_segment(marker, body);
    return true;
  }

  bool broken_off() {
    if (scans_ == 0) fail("the JPEG breaks off inside its header");
    out_.truncated = true;
    return false;
  }

  void quantization_tables(std::span<const uint8_t> body) {
    while (!body.empty()) {
      const int precision = body[0] >> 4, id = body[0] & 15;
      const size_t size = 1 + (precision != 0 ? 128u : 64u);
      if (precision > 1 || id > 3 || body.size() < size) fail("the JPEG has an invalid quantization table");
      has_quantization_[static_cast<size_t>(id)] = true;
      body = body.subspan(size);
    }
  }

  void huffman_tables(std::span<const uint8_t> body) {
    while (!body.empty()) {
      if (body.size() < 17) fail("the JPEG has a Huffman table that is cut short");
      const int kind = body[0] >> 4, id = body[0] & 15;
      // Canonical codes of length l are consecutive, so a table is a code iff sum of count(l) / 2^l <= 1.
      size_t symbols = 0;
      int64_t used = 0;
      for (size_t l = 1; l <= 16; ++l) {
        symbols += body[l];
        used += static_cast<int64_t>(body[l]) << (16 - l);
      }
      // At most 255 of the 256 possible symbols: the index 255 means "not in the fast table" to stb_image.
      if (kind > 1 || id > 3 || symbols > 255 || used > 1 << 16 || body.size() < 17 + symbols)
        fail("the JPEG has an invalid Huffman table");
      const std::span<const uint8_t> values = body.subspan(17, symbols);
      if (kind == 0 && std::ranges::any_of(values, [](uint8_t s) { return s > 15; }))
        fail("the JPEG has a Huffman table with impossible DC sizes");
      has_huffman_[static_cast<size_t>(kind)][static_cast<size_t>(id)] = true;
      body = body.subspan(17 + symbols);
    }
  }

  void adobe(std::span<const uint8_t> body) {
    if (body.size() < 12 || std::memcmp(body.data(), "Adobe", 5) != 0) return;
    out_.has_adobe = true;
    out_.adobe_transform = body[11];
  }

  void frame_header(int marker, std::span<const uint8_t> body) {
    if (marker > kSof2)
      fail(
          fmt::format("JPEG process 0x{:02x} (lossless, hierarchical or arithmetic) is not "
                      "supported, only baseline and progressive Huffman",
                      marker));
    if (!frame_.empty()) fail("the JPEG has two frame headers");
    if (body.size() < 6) fail("the JPEG frame header is cut short");
    if (body[0] != 8) fail(fmt::format("the JPEG has {} bits per sample, only 8 are supported", body[0]));
    out_.height = read_be16(body.data() + 1);
    out_.width = read_be16(body.data() + 3);
    out_.components = body[5];
    progressive_ = marker == kSof2;
    check_limits(path_, out_.width, out_.height);
    if (out_.components != 1 && out_.components != 3 && out_.components != 4)
      fail(fmt::format("the JPEG has {} components, only 1, 3 and 4 are supported", out_.components));
    if (body.size() != 6 + 3 * static_cast<size_t>(out_.components)) fail("the JPEG frame header has a wrong length");
    for (size_t i = 6; i < body.size(); i += 3) {
      const Component c{.id = body[i], .h = body[i + 1] >> 4, .v = body[i + 1] & 15, .table = body[i + 2]};
      if (c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4 || c.table > 3) fail("the JPEG has invalid sampling factors");
      if (std::ranges::any_of(frame_, [&](const Component& other) { return other.id == c.id; }))
        fail("the JPEG names a component twice");
      frame_.push_back(c);
    }
    measure_frame();
  }

  // Block counts (T.81 A.1.1, A.2) and the memory the slower decoder would need.
  void measure_frame() {
    const int64_t w = out_.width, h = out_.height;
    int64_t h_max = 1, v_max = 1, samples = 0;
    for (const Component& c : frame_) {
      h_max = std::max<int64_t>(h_max, c.h);
      v_max = std::max<int64_t>(v_max, c.v);
    }
    const int64_t mcus_x = (w + 8 * h_max - 1) / (8 * h_max), mcus_y = (h + 8 * v_max - 1) / (8 * v_max);
    frame_units_ = mcus_x * mcus_y;
    for (Component& c : frame_) {
      if (h_max % c.h != 0 || v_max % c.v != 0) fail("the JPEG has fractional subsampling, which is not supported");
      const int64_t own_w = ceil_div(w * c.h, h_max), own_h = ceil_div(h * c.v, v_max);
      c.blocks = mcus_x * c.h * mcus_y * c.v;
      c.own_blocks = ((own_w + 7) / 8) * ((own_h + 7) / 8);
      samples += 64 * c.blocks;
    }
    samples_ = samples;
    check_decoding_memory(progressive_);
  }

  /// The file and its rewritten copy, planes, 16-bit coefficients of the whole frame if they are `buffered`, result.
  void check_decoding_memory(bool buffered) const {
    check_memory(path_, 2 * static_cast<int64_t>(file_.size()) + samples_ * (buffered ? 3 : 1) +
                            int64_t{3} * out_.width * out_.height);
  }

  const Component& component(int id) const {
    const auto it = std::ranges::find(frame_, id, &Component::id);
    if (it == frame_.end()) fail("a JPEG scan names a component that the frame does not have");
    return *it;
  }

  void scan_header(std::span<const uint8_t> body) {
    if (frame_.empty()) fail("the JPEG has image data before its frame header");
    const size_t count = body.empty() ? 0 : body[0];
    if (count < 1 || count > frame_.size() || body.size() != 4 + 2 * count) fail("the JPEG has an invalid scan header");
    // libjpeg decides at the first scan: one without all components has to wait for the others.
    if (scans_ == 0 && count < frame_.size()) check_decoding_memory(true);
    const int first = body[1 + 2 * count], last = body[2 + 2 * count];
    const int high = body[3 + 2 * count] >> 4, low = body[3 + 2 * count] & 15;
    if (progressive_) {
      const bool dc = first == 0;
      if (last > 63 || first > last || (dc && last != 0) || (!dc && count != 1) || high > 13 || low > 13)
        fail("the JPEG has an invalid progressive scan");
    } else if (first != 0 || high != 0 || low != 0) {
      fail("the JPEG has a progressive scan in a sequential frame");
    }
    for (size_t i = 0; i < count; ++i) {
      for (size_t j = 0; j < i; ++j)
        if (body[1 + 2 * i] == body[1 + 2 * j]) fail("a JPEG scan names a component twice");
      const Component& c = component(body[1 + 2 * i]);
      const int dc_table = body[2 + 2 * i] >> 4, ac_table = body[2 + 2 * i] & 15;
      if (dc_table > 3 || ac_table > 3) fail("a JPEG scan names an impossible Huffman table");
      if (!has_quantization_[static_cast<size_t>(c.table)]) fail("the JPEG lacks a quantization table");
      const bool needs_dc = first == 0 && high == 0, needs_ac = last > 0;
      if (needs_dc && !has_huffman_[0][static_cast<size_t>(dc_table)]) out_.standard_tables = false;
      if (needs_ac && !has_huffman_[1][static_cast<size_t>(ac_table)]) out_.standard_tables = false;
      block_visits_ += count == 1 ? c.own_blocks : c.blocks;
      scan_units_ = count == 1 ? c.own_blocks : frame_units_;
    }
    if (++scans_ > kMaxJpegScans) fail(fmt::format("the JPEG has more than {} scans", kMaxJpegScans));
    if (block_visits_ > kMaxJpegBlockVisits)
      fail(fmt::format("the JPEG's {} scans visit more than {} blocks, which would take too long", scans_,
                       kMaxJpegBlockVisits));
  }

  // Copies entropy-coded bytes up to the marker that ends the scan: any but a restart, or a restart that would begin
  // one interval too many. No decoder reads on past that one; what follows is skipped as garbage.
  void scan_data() {
    const size_t begin = at_;
    size_t end = file_.size();
    int64_t restarts = restart_interval_ == 0 ? 0 : (scan_units_ - 1) / restart_interval_;
    for (size_t i = at_; i < file_.size(); ++i) {
      const void* hit = std::memchr(file_.data() + i, 0xFF, file_.size() - i);
      if (hit == nullptr) break;
      i = static_cast<size_t>(static_cast<const uint8_t*>(hit) - file_.data());
      const size_t run = i;  // a marker may be preceded by any number of fill bytes 0xFF
      while (i < file_.size() && file_[i] == 0xFF) ++i;
      if (i < file_.size() && (file_[i] < kSof0 || (is_restart(file_[i]) && restarts-- > 0))) continue;
      end = run;
      break;
    }
    at_ = end;
    if (end == begin && scans_ == 1) fail("the JPEG breaks off before its image data");
    out_.bytes.insert(out_.bytes.end(), file_.begin() + static_cast<std::ptrdiff_t>(begin),
                      file_.begin() + static_cast<std::ptrdiff_t>(end));
  }

  std::span<const uint8_t> file_;
  const std::string& path_;
  size_t at_ = 0;
  int segments_ = 0;
  int scans_ = 0;
  int restart_interval_ = 0;
  int64_t frame_units_ = 0;  // MCUs of a scan of all components
  int64_t scan_units_ = 0;   // MCUs of the current scan
  int64_t block_visits_ = 0;
  int64_t samples_ = 0;  // of all components, padded to whole MCUs
  bool progressive_ = false;
  std::vector<Component> frame_;
  std::array<bool, 4> has_quantization_{};
  std::array<std::array<bool, 4>, 2> has_huffman_{};
  JpegStream out_;
};

}  // namespace

JpegStream check_jpeg(std::span<const uint8_t> file, const std::string& path) {
  return JpegChecker(file, path).run();
}

}  // namespace nibble::data_detail
