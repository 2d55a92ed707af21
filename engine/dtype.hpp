// Element types. 4-bit types are packed two to a byte, low nibble first (the ONNX order).
#pragma once
#include <bit>
#include <cstdint>
#include <string_view>

namespace nibble {

enum class DType : uint8_t { f32, bf16, s32, s8, u8, s4, u4 };

constexpr int bits_of(DType t) {
  switch (t) {
    case DType::f32:
    case DType::s32:
      return 32;
    case DType::bf16:
      return 16;
    case DType::s8:
    case DType::u8:
      return 8;
    case DType::s4:
    case DType::u4:
      return 4;
  }
  return 0;
}

constexpr std::string_view name_of(DType t) {
  constexpr std::string_view kNames[] = {"f32", "bf16", "s32", "s8", "u8", "s4", "u4"};
  return kNames[static_cast<int>(t)];
}

/// The upper half of an IEEE single. Conversion rounds to nearest even and flushes denormals to a zero of the same
/// sign, identically on every ISA level. Levels with AVX512-BF16 convert by instruction (VCVTNEPS2BF16,
/// VCVTNE2PS2BF16): that rounds to nearest even whatever MXCSR says, takes a denormal for a zero of its sign, and makes
/// a NaN quiet.
struct bf16 {
  uint16_t bits = 0;
};

inline float to_float(bf16 v) {
  return std::bit_cast<float>(static_cast<uint32_t>(v.bits) << 16);
}

inline bf16 to_bf16(float v) {
  const uint32_t u = std::bit_cast<uint32_t>(v);
  const uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};  // NaN stays a (quiet) NaN
  if (magnitude < 0x00800000u) return {static_cast<uint16_t>((u >> 16) & 0x8000u)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

}  // namespace nibble
