// Element types: bf16 conversion over all its values, ties, denormals, NaN.
#include "engine/dtype.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>

using namespace nibble;

namespace {

uint32_t word_of(float v) {
  return std::bit_cast<uint32_t>(v);
}
float float_of(uint32_t word) {
  return std::bit_cast<float>(word);
}
bool is_nan(uint32_t bits16) {
  return (bits16 & 0x7fffu) > 0x7f80u;
}
bool is_denormal(uint32_t bits16) {
  return (bits16 & 0x7f80u) == 0 && (bits16 & 0x7fu) != 0;
}

}  // namespace

TEST_CASE("every bf16 widens exactly and comes back, but denormals become zero and NaN becomes quiet") {
  int wrong = 0;
  for (uint32_t b = 0; b < 65536; ++b) {
    const float wide = to_float(bf16{static_cast<uint16_t>(b)});
    const uint32_t back = to_bf16(wide).bits;
    const uint32_t expected = is_nan(b) ? (b | 0x40u) : is_denormal(b) ? (b & 0x8000u) : b;
    wrong += word_of(wide) != b << 16 || back != expected;
  }
  CHECK(wrong == 0);
}

TEST_CASE("bf16 rounds to the nearest, and ties to the even one, at every value") {
  int wrong = 0;
  for (uint32_t b = 0x0080; b < 0x7f80; ++b) {  // positive normal numbers; the last one's successor is infinity
    for (uint32_t sign : {0u, 0x8000u}) {
      const uint32_t low = (b | sign) << 16;
      const uint32_t up = b + 1, even = (b & 1u) ? up : b;
      wrong += to_bf16(float_of(low | 0x7fffu)).bits != (b | sign);
      wrong += to_bf16(float_of(low | 0x8000u)).bits != (even | sign);
      wrong += to_bf16(float_of(low | 0x8001u)).bits != (up | sign);
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("bf16 conversion overflows to infinity and flushes denormal singles to a zero of their sign") {
  CHECK(to_bf16(float_of(0x7f7fffffu)).bits == 0x7f80);
  CHECK(to_bf16(float_of(0xff7fffffu)).bits == 0xff80);
  CHECK(to_bf16(float_of(0x7f800000u)).bits == 0x7f80);
  CHECK(to_bf16(float_of(0x007fffffu)).bits == 0x0000);
  CHECK(to_bf16(float_of(0x80000001u)).bits == 0x8000);
  CHECK(to_bf16(float_of(0x00800000u)).bits == 0x0080);
  CHECK(to_bf16(float_of(0x7f800001u)).bits == 0x7fc0);  // a NaN whose payload lies in the lower half
  CHECK(to_bf16(float_of(0xffc00001u)).bits == 0xffc0);
}

TEST_CASE("dtype names and sizes are those of the files") {
  CHECK(bits_of(DType::f32) == 32);
  CHECK(bits_of(DType::s32) == 32);
  CHECK(bits_of(DType::bf16) == 16);
  CHECK(bits_of(DType::s8) == 8);
  CHECK(bits_of(DType::u8) == 8);
  CHECK(bits_of(DType::s4) == 4);
  CHECK(bits_of(DType::u4) == 4);
  CHECK(name_of(DType::f32) == "f32");
  CHECK(name_of(DType::bf16) == "bf16");
  CHECK(name_of(DType::s32) == "s32");
  CHECK(name_of(DType::s8) == "s8");
  CHECK(name_of(DType::u8) == "u8");
  CHECK(name_of(DType::s4) == "s4");
  CHECK(name_of(DType::u4) == "u4");
}
