#include "data/cifar.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <string_view>
#include <system_error>

#include "engine/error.hpp"
#include "engine/utf8.hpp"

namespace nibble {

namespace fs = std::filesystem;

namespace {

constexpr int kSide = 32;
constexpr int64_t kPlaneBytes = kSide * kSide, kImageBytes = 3 * kPlaneBytes;

constexpr const char* kMarks[] = {"data_batch_1.bin", "test_batch.bin", "train.bin", "test.bin"};

struct Form {
  const char* names;
  int64_t label_bytes;  // the last of them is the label
  std::vector<const char*> train, test;
};

Form form_of(const fs::path& dir) {
  std::error_code ignored;  // what is not there is refused when it is opened
  if (fs::exists(dir / kMarks[0], ignored) || fs::exists(dir / kMarks[1], ignored))
    return {"batches.meta.txt",
            1,
            {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
            {"test_batch.bin"}};
  return {"fine_label_names.txt", 2, {"train.bin"}, {"test.bin"}};
}

/// One per line; the lists end in empty lines.
std::vector<std::string> class_names_in(const fs::path& path) {
  std::error_code ignored;  // other reasons are reported when it is read
  if (!fs::exists(path, ignored) && !ignored)
    throw DataError("there is no {}, which names the classes; fetch the whole data set", path.string());
  const std::vector<uint8_t> bytes = read_file(path);
  std::vector<std::string> names;
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty()) continue;
    if (!is_utf8(line) || std::find(names.begin(), names.end(), line) != names.end())
      throw DataError("{} names a class '{}' that is there twice or is not UTF-8; fetch the data set again",
                      path.string(), shortened(line, 80));
    if (names.size() == 256)
      throw DataError("{} names more than the 256 classes that a label can tell apart; fetch the data set again",
                      path.string());
    names.emplace_back(line);
  }
  if (names.empty()) throw DataError("{} names no class; fetch the data set again", path.string());
  return names;
}

/// All of `to` from `offset` on: fewer bytes mean a file cut short meanwhile.
void read_at(int fd, int64_t offset, std::span<uint8_t> to, const fs::path& path) {
  size_t done = 0;
  while (done < to.size()) {
    const ssize_t n =
        pread(fd, to.data() + done, to.size() - done, static_cast<off_t>(offset) + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_disk_error("read", path, errno);
    if (n == 0) throw DataError("{} was cut short while it was read; fetch it again", path.string());
    done += static_cast<size_t>(n);
  }
}

}  // namespace

bool is_cifar(const fs::path& dir) {
  return std::any_of(std::begin(kMarks), std::end(kMarks), [&](const char* name) {
    std::error_code ignored;
    return fs::is_regular_file(dir / name, ignored);
  });
}

void refuse_other_cifar(const fs::path& dir) {
  const auto is_file = [&](const char* name) {
    std::error_code ignored;
    return fs::is_regular_file(dir / name, ignored);
  };
  if (is_file("data_batch_1") || is_file("test_batch") || (is_file("train") && is_file("meta")))
    throw DataError(
        "{} is CIFAR in its version for Python; fetch the binary one (cifar-10-binary.tar.gz or "
        "cifar-100-binary.tar.gz)",
        dir.string());
  for (const char* inner : {"cifar-10-batches-bin", "cifar-100-binary", "cifar-10-batches-py", "cifar-100-python"}) {
    std::error_code ignored;
    if (fs::is_directory(dir / inner, ignored))
      throw DataError("{} is the folder above {}; name {}", dir.string(), inner, (dir / inner).string());
  }
}

Cifar::Cifar(const fs::path& dir, const std::string& split) {
  if (split != "train" && split != "val" && split != "test")
    throw UsageError("{} is CIFAR in its binary form, which has the splits train and val (or test, the same), not '{}'",
                     dir.string(), split);
  const Form form = form_of(dir);
  label_bytes_ = form.label_bytes;
  classes_ = class_names_in(dir / form.names);
  for (const char* name : split == "train" ? form.train : form.test) open(dir / name);
}

void Cifar::open(const fs::path& path) {
  File file{.path = path, .descriptor = open_to_read(path), .end = 0};
  if (!file.descriptor.open() && errno == ENOENT)
    throw DataError("there is no {}, which holds images of the split; fetch the whole data set", path.string());
  if (!file.descriptor.open()) throw_disk_error("open", path, errno);
  struct stat status {};
  if (fstat(file.descriptor.get(), &status) != 0) throw_disk_error("look at", path, errno);
  const int64_t record = label_bytes_ + kImageBytes, bytes = status.st_size;
  if (!S_ISREG(status.st_mode) || bytes == 0 || bytes % record != 0)
    throw DataError("{} has {} bytes, not a whole number of images of {}; fetch it again", path.string(), bytes,
                    record);
  // A call for 512 records, 1.5 MB: the labels alone would take a call each.
  constexpr int64_t kPiece = 512;
  std::vector<uint8_t> piece;
  for (int64_t at = 0, n = bytes / record; at < n; at += kPiece) {
    const int64_t count = std::min(kPiece, n - at);
    piece.resize(static_cast<size_t>(count * record));
    read_at(file.descriptor.get(), at * record, piece, path);
    for (int64_t i = 0; i < count; ++i) {
      const uint8_t label = piece[static_cast<size_t>(i * record + label_bytes_ - 1)];
      if (label >= classes_.size())
        throw DataError("image {} of {} has the label {}, but there are names of {} classes; fetch the data set again",
                        at + i, path.string(), label, classes_.size());
      labels_.push_back(label);
    }
  }
  file.end = static_cast<int64_t>(labels_.size());
  files_.push_back(std::move(file));
}

std::pair<const Cifar::File*, int64_t> Cifar::find(int64_t index) const {
  const auto file =
      std::upper_bound(files_.begin(), files_.end(), index, [](int64_t i, const File& f) { return i < f.end; });
  return {&*file, index - (file == files_.begin() ? 0 : std::prev(file)->end)};
}

std::string Cifar::path(int64_t index) const {
  const auto [file, record] = find(index);
  return fmt::format("{}:{}", file->path.string(), record);
}

uint64_t Cifar::content_mark(int64_t index) const {
  try {
    const Image image = read(index);
    uint64_t hash = 0xcbf29ce484222325u;  // 64-bit FNV-1a
    for (size_t i = 0; i < image.bytes(); ++i) hash = (hash ^ image.pixels[i]) * 0x100000001b3u;
    return hash;
  } catch (const DataError&) {
    return UINT64_MAX;
  }
}

Image Cifar::read(int64_t index) const {
  const auto [file, record] = find(index);
  std::array<uint8_t, kImageBytes> planes;
  read_at(file->descriptor.get(), record * (label_bytes_ + kImageBytes) + label_bytes_, planes, file->path);
  std::shared_ptr<uint8_t[]> pixels(new uint8_t[kImageBytes]);
  for (int64_t p = 0; p < kPlaneBytes; ++p)
    for (int64_t c = 0; c < 3; ++c)
      pixels[static_cast<size_t>(3 * p + c)] = planes[static_cast<size_t>(c * kPlaneBytes + p)];
  return {.width = kSide, .height = kSide, .pixels = std::move(pixels), .warning = {}};
}

}  // namespace nibble
