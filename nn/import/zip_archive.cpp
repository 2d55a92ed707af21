#include "nn/import/zip_archive.hpp"

#include <algorithm>

#include "engine/error.hpp"
#include "nn/crc32.hpp"
#include "nn/safetensors_header.hpp"

namespace nibble {

namespace {

constexpr uint64_t kLocalHeader = 0x04034b50, kDirectoryEntry = 0x02014b50, kEndOfDirectory = 0x06054b50;
constexpr uint64_t kLocator64 = 0x07064b50, kEndOfDirectory64 = 0x06064b50;
constexpr uint64_t kLocalBytes = 30, kEntryBytes = 46, kEndBytes = 22, kLocatorBytes = 20;
constexpr uint64_t kLongestComment = 65535;
constexpr uint64_t kIn64Bits = 0xffffffff, kCountIn64Bits = 0xffff;  // "see the 64-bit field"
constexpr uint64_t kExtra64 = 1;

}  // namespace

bool is_zip(std::span<const std::byte> first) {
  constexpr std::byte kMagic[] = {std::byte{'P'}, std::byte{'K'}, std::byte{3}, std::byte{4}};
  return first.size() >= 4 && std::equal(std::begin(kMagic), std::end(kMagic), first.begin());
}

ZipArchive::ZipArchive(std::span<const std::byte> file, std::string source) : file_(file), source_(std::move(source)) {
  read_directory();
}

void ZipArchive::refuse(const std::string& what) const {
  throw ModelError("'{}' is damaged or no zip archive of PyTorch's: {}; use another copy", source_, what);
}

/// Little-endian, of 2, 4 or 8 bytes.
uint64_t ZipArchive::number(uint64_t at, int bytes) const {
  const auto n = static_cast<uint64_t>(bytes);
  if (at > file_.size() || file_.size() - at < n) refuse("a header goes beyond the end of the file");
  uint64_t value = 0;
  for (uint64_t i = 0; i < n; ++i) value |= static_cast<uint64_t>(file_[at + i]) << (8 * i);
  return value;
}

void ZipArchive::read_directory() {
  const uint64_t size = file_.size();
  if (size < kEndBytes) refuse("it has no directory");
  uint64_t end = size - kEndBytes;
  const uint64_t lowest = end - std::min(end, kLongestComment);
  while (number(end, 4) != kEndOfDirectory) {
    if (end == lowest) refuse("it has no directory (a download that was cut?)");
    --end;
  }
  uint64_t count = number(end + 10, 2), at = number(end + 16, 4);
  if (end >= kLocatorBytes && number(end - kLocatorBytes, 4) == kLocator64 &&
      (count == kCountIn64Bits || at == kIn64Bits || number(end + 12, 4) == kIn64Bits)) {
    const uint64_t record = number(end - kLocatorBytes + 8, 8);
    if (number(record, 4) != kEndOfDirectory64) refuse("its 64-bit directory is not where it should be");
    count = number(record + 32, 8);
    at = number(record + 48, 8);
  }
  if (at > size || count > (size - at) / kEntryBytes) refuse("its directory is larger than the file");
  for (uint64_t i = 0; i < count; ++i) {
    std::string name;
    const Entry entry = read_entry(at, name);
    if (!entries_.emplace(name, entry).second) refuse("two entries are called " + quote_name(name));
  }
}

/// The entry of the directory at `at`, which goes on to the next.
ZipArchive::Entry ZipArchive::read_entry(uint64_t& at, std::string& name) const {
  if (number(at, 4) != kDirectoryEntry) refuse("its directory has something else than entries");
  Entry e{.method = static_cast<uint16_t>(number(at + 10, 2)),
          .encrypted = (number(at + 8, 2) & 1) != 0,
          .crc = static_cast<uint32_t>(number(at + 16, 4)),
          .bytes = number(at + 24, 4),
          .stored_bytes = number(at + 20, 4),
          .header = number(at + 42, 4)};
  const uint64_t name_bytes = number(at + 28, 2), extra_bytes = number(at + 30, 2), comment = number(at + 32, 2);
  const uint64_t end = at + kEntryBytes + name_bytes + extra_bytes;
  if (end > file_.size()) refuse("its directory goes beyond the end of the file");
  const auto* text = reinterpret_cast<const char*>(file_.data() + at + kEntryBytes);
  name.assign(text, name_bytes);
  for (uint64_t extra = end - extra_bytes; end - extra >= 4;) {
    uint64_t field = extra + 4;
    const uint64_t next = field + number(extra + 2, 2);
    if (next > end) refuse("an entry's extra field is longer than its place");
    if (number(extra, 2) == kExtra64)
      for (uint64_t* value : {&e.bytes, &e.stored_bytes, &e.header}) {
        if (*value != kIn64Bits) continue;
        if (next - field < 8) refuse("an entry lacks its 64-bit size");
        *value = number(field, 8);
        field += 8;
      }
    extra = next;
  }
  at = end + comment;
  return e;
}

std::span<const std::byte> ZipArchive::read(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) refuse("it has no entry " + quote_name(name));
  const Entry& e = found->second;
  if (e.encrypted || e.method != 0 || e.bytes != e.stored_bytes)
    throw ModelError("'{}': the entry {} is {}, which PyTorch's files never are; unpack it and save it with torch.save",
                     source_, quote_name(name), e.encrypted ? "encrypted" : "compressed");
  if (number(e.header, 4) != kLocalHeader)
    refuse(fmt::format("the entry {} is not where it should be", quote_name(name)));
  const uint64_t at = e.header + kLocalBytes + number(e.header + 26, 2) + number(e.header + 28, 2);
  if (at > file_.size() || e.bytes > file_.size() - at)
    refuse(fmt::format("the entry {} goes beyond the end of the file", quote_name(name)));
  const std::span<const std::byte> bytes = file_.subspan(at, e.bytes);
  if (crc32(bytes) != e.crc)
    refuse(fmt::format("the entry {} does not match its CRC-32 (or was saved with set_crc32_options(False))",
                       quote_name(name)));
  return bytes;
}

}  // namespace nibble
