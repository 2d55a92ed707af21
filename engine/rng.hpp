// Counter-based random numbers: every draw is a pure function of (seed, stream, counter), nothing is carried along.
#pragma once
#include <array>
#include <cstdint>

namespace nibble {

/// Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC11, sections 4.3 and 5):
/// four 32-bit words from a 128-bit counter and a 64-bit key.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// A reader of one stream: key = seed, counter = (stream a, stream b, position). Copying it copies the position.
class Rng {
 public:
  /// `a` and `b` name the stream, for example (epoch, image index); `purpose` keeps uses with equal numbers apart.
  Rng(uint64_t seed, uint32_t purpose, uint64_t a = 0, uint32_t b = 0)
      : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32) ^ (purpose * 0x9E3779B9u)}, a_(a), b_(b) {}

  uint32_t next_u32();
  /// Uniform in [0, n), unbiased (rejection); n >= 1.
  uint32_t below(uint32_t n);
  /// Uniform in [0, 1), 24 bits.
  float uniform() { return static_cast<float>(next_u32() >> 8) * 0x1p-24f; }
  /// Standard normal (Box-Muller on own log and cos, so the bits are the same on every machine).
  float normal();

 private:
  std::array<uint32_t, 2> key_;
  uint64_t a_;
  uint32_t b_;
  uint32_t block_ = 0;
  int used_ = 4;
  std::array<uint32_t, 4> words_{};
};

/// Streams in use, so that two parts of the program never share random numbers by accident.
namespace rng_purpose {
inline constexpr uint32_t kInit = 1;        // weight initialisation
inline constexpr uint32_t kShuffle = 2;     // order of an epoch
inline constexpr uint32_t kAugment = 3;     // crop and flip of one image
inline constexpr uint32_t kSynth = 4;       // procedural data set
inline constexpr uint32_t kSubset = 5;      // --per-class choice
inline constexpr uint32_t kTest = 6;        // tests and benchmarks
inline constexpr uint32_t kValidation = 7;  // images set aside
}  // namespace rng_purpose

}  // namespace nibble
