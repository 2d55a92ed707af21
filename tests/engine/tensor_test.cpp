// Shape, storage and tensor: sizes, strides, alignment, sharing, errors.
#include "engine/tensor.hpp"

#include <doctest/doctest.h>

#include <cstdint>

#include "tests/gradcheck.hpp"

using namespace nibble;
using nibble::testing::error_of;

TEST_CASE("shape knows its rank, size, rows and innermost dimension") {
  const Shape s{2, 3, 5, 7};
  CHECK(s.rank() == 4);
  CHECK(s.size() == 210);
  CHECK(s.rows() == 30);
  CHECK(s.back() == 7);
  CHECK(s[1] == 3);
  CHECK(s.str() == "[2,3,5,7]");
  CHECK(Shape{}.size() == 1);
  CHECK(Shape{}.rows() == 1);
  CHECK(Shape{}.str() == "[]");
  CHECK(Shape{0, 4}.size() == 0);
  CHECK(Shape{4} != Shape{4, 1});
  CHECK(Shape{2, 3} == Shape{2, 3});
}

TEST_CASE("shape refuses a fifth dimension and a negative one") {
  CHECK(error_of<ShapeError>([] { Shape{1, 2, 3, 4, 5}; }).find("rank is at most 4, got 5") != std::string::npos);
  CHECK(error_of<ShapeError>([] { Shape{1, -2}; }).find("a dimension is negative: -2") != std::string::npos);
}

TEST_CASE("shapes and tensors refuse sizes whose product does not fit, also next to a dimension of 0") {
  const int64_t big = int64_t{1} << 31;
  CHECK(error_of<ShapeError>([&] {
          Shape{big, big, 4};
        }) == "[shape] [2147483648,2147483648,4] has more than 2^63 - 1 elements");
  CHECK_FALSE(error_of<ShapeError>([&] { Shape{big, big, 4, 0}; }).empty());
  CHECK(Shape{big, big, 1, 0}.size() == 0);
  CHECK(error_of<ShapeError>([&] {
          Tensor(DType::f32, {big, big});
        }) == "[tensor] [2147483648,2147483648] with rows of 2147483648 elements has more than 2^63 - 1 bits");
  CHECK_FALSE(error_of<ShapeError>([&] { Tensor(DType::u8, {8, 1}, int64_t{1} << 60); }).empty());
}

TEST_CASE("storage is aligned to 64 bytes, and large storage to a page, to its last byte writable") {
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{63}, size_t{4096}, (size_t{2} << 20) - 1, size_t{2} << 20,
                       (size_t{5} << 20) + 7}) {
    const Storage s(bytes);
    const auto address = reinterpret_cast<uintptr_t>(s.data());
    CHECK(address % kAlignment == 0);
    if (bytes >= size_t{2} << 20) CHECK(address % 4096 == 0);
    CHECK(s.bytes() >= bytes);
    std::memset(s.data(), 0x5a, s.bytes());
    if (bytes > 0) CHECK(s.data()[bytes - 1] == std::byte{0x5a});
  }
}

TEST_CASE("tensor rows are stride elements apart") {
  const Tensor t(DType::f32, {3, 5}, 16);
  CHECK_FALSE(t.dense());
  CHECK(t.rows() == 3);
  CHECK(t.stride() == 16);
  CHECK(t.row_bytes() == 64);
  CHECK(t.bytes() == 192);
  CHECK(t.row<float>(2) == t.data<float>() + 32);
  CHECK(Tensor(DType::f32, {3, 5}).dense());
}

TEST_CASE("tensor packs 4-bit rows two to a byte, each row from a byte on") {
  const Tensor t(DType::u4, {3, 5});
  CHECK(t.stride() == 6);
  CHECK(t.row_bytes() == 3);
  CHECK(t.bytes() == 9);
  CHECK(t.row<uint8_t>(1) == t.data<uint8_t>() + 3);
  CHECK(error_of<ShapeError>([] {
          Tensor(DType::s4, {3, 5}, 7);
        }).find("4-bit row stride 7 is odd") != std::string::npos);
}

TEST_CASE("round_stride makes rows whole cache lines, and none that are 2 KiB apart") {
  for (const int64_t row : {1023, 1024})
    for (const int64_t times : {1, 2, 3}) {
      CHECK(Tensor::round_stride(DType::bf16, times * 1024 - (row == 1023)) == times * 1024 + 32);
      CHECK(Tensor::round_stride(DType::u8, times * 2048 - (row == 1023)) == times * 2048 + 64);
    }
  CHECK(Tensor::round_stride(DType::bf16, 512) == 512);
  CHECK(Tensor::round_stride(DType::u8, 1024) == 1024);
  CHECK(Tensor::round_stride(DType::f32, 1) == 16);
  CHECK(Tensor::round_stride(DType::f32, 16) == 16);
  CHECK(Tensor::round_stride(DType::bf16, 33) == 64);
  CHECK(Tensor::round_stride(DType::u8, 65) == 128);
  CHECK(Tensor::round_stride(DType::u4, 129) == 256);
  CHECK(Tensor::round_stride(DType::u4, 0) == 0);
}

TEST_CASE("tensor copies share storage, clones do not, zeros are zero") {
  const Tensor a = Tensor::zeros(DType::s32, {2, 3});
  for (int64_t i = 0; i < 6; ++i) CHECK(a.data<int32_t>()[i] == 0);
  const Tensor handle = a, copy = a.clone();
  a.data<int32_t>()[4] = 9;
  CHECK(handle.data<int32_t>()[4] == 9);
  CHECK(copy.data<int32_t>()[4] == 0);
  a.zero();
  CHECK(handle.data<int32_t>()[4] == 0);
  CHECK_FALSE(Tensor().defined());
  CHECK(a.defined());
}

TEST_CASE("tensor reshape shares storage and refuses what does not fit") {
  const Tensor a = Tensor::zeros(DType::f32, {2, 6});
  const Tensor b = a.reshape({3, 4});
  CHECK(b.shape() == Shape{3, 4});
  CHECK(b.stride() == 4);
  CHECK(b.raw() == a.raw());
  CHECK(error_of<ShapeError>([&] { a.reshape({5, 2}); }) == "[reshape] [2,6] (row stride 6) does not become [5,2]");
  CHECK(error_of<ShapeError>([] {
          Tensor(DType::f32, {2, 6}, 16).reshape({12});
        }) == "[reshape] [2,6] (row stride 16) does not become [12]");
  // Packed rows of another length would start inside a byte.
  CHECK(error_of<ShapeError>([] {
          Tensor(DType::u4, {2, 6}).reshape({4, 3});
        }) == "[reshape] [2,6] (row stride 6) does not become [4,3]");
}

TEST_CASE("tensor refuses to be read as another type and rows longer than their stride") {
  const Tensor t(DType::bf16, {4});
  CHECK(t.data<bf16>() != nullptr);
  CHECK(t.data<const bf16>() != nullptr);
  CHECK(error_of<DTypeError>([&] { t.data<float>(); }) == "[tensor] storage of bf16 read as another type");
  CHECK(error_of<DTypeError>([] { Tensor(DType::s8, {4}).row<uint8_t>(0); }) ==
        "[tensor] storage of s8 read as another type");
  CHECK(error_of<ShapeError>([] {
          Tensor(DType::f32, {2, 6}, 5);
        }) == "[tensor] row stride 5 is below the row length 6");
}
