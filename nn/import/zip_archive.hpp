// Zip archives whose entries are stored as they are, as PyTorch writes its files.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>

namespace nibble {

/// Whether a file that begins with these bytes is a zip archive.
bool is_zip(std::span<const std::byte> first);

/// The entries of an archive in memory, which must outlive it. Nothing is unpacked: compressed and encrypted entries
/// are refused. (PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3; with its 64-bit sizes.)
class ZipArchive {
 public:
  /// ModelError naming `source`: no archive, a directory or an entry that is not within the file, two entries of one
  /// name.
  ZipArchive(std::span<const std::byte> file, std::string source);

  struct Entry {
    uint16_t method = 0;  // 0: stored
    bool encrypted = false;
    uint32_t crc = 0;
    uint64_t bytes = 0, stored_bytes = 0;
    uint64_t header = 0;  // where its local header begins
  };
  /// By name.
  const std::map<std::string, Entry>& entries() const { return entries_; }
  bool has(const std::string& name) const { return entries_.contains(name); }
  /// Its bytes within the file. ModelError when there is none, it is not stored as it is, or its CRC-32 differs.
  std::span<const std::byte> read(const std::string& name) const;

 private:
  [[noreturn]] void refuse(const std::string& what) const;
  uint64_t number(uint64_t at, int bytes) const;
  void read_directory();
  Entry read_entry(uint64_t& at, std::string& name) const;

  std::span<const std::byte> file_;
  std::string source_;
  std::map<std::string, Entry> entries_;
};

}  // namespace nibble
