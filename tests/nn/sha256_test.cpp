// SHA-256 and CRC-32C against published values.
#include "nn/sha256.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "engine/error.hpp"
#include "nn/crc32.hpp"
#include "tests/temp_dir.hpp"

namespace {

using namespace nibble;

std::span<const std::byte> text_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

TEST_CASE("sha256 of a file is that of its bytes, across blocks; of one that is not there a disk error") {
  const nibble::testing::TempDir dir;
  const std::string text(2'500'000, 'n');
  for (const size_t length : {size_t{0}, size_t{3}, size_t{1} << 20, text.size()}) {
    std::ofstream(dir / "f", std::ios::binary) << text.substr(0, length);
    CHECK(sha256_of_file(dir / "f") == to_hex(sha256(text_bytes(std::string_view(text).substr(0, length)))));
  }
  CHECK_THROWS_AS(sha256_of_file(dir / "absent"), DiskError);
  CHECK_THROWS_AS(sha256_of_file(dir.path()), DiskError);
}

TEST_CASE("sha256 gives the digests of FIPS 180-4's examples") {
  CHECK(to_hex(sha256(text_bytes(""))) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(to_hex(sha256(text_bytes("abc"))) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(to_hex(sha256(text_bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(to_hex(sha256(text_bytes(
            "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnop"
            "qrlmnopqrsmnopqrstnopqrstu"))) == "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
  CHECK(to_hex(sha256(text_bytes(std::string(1'000'000, 'a')))) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("sha256 is right at every length around its block sizes") {
  // Digest over the digests of 200 messages of 0 to 199 bytes, (7 i + length) mod 256, from Python's hashlib.
  Sha256 all;
  for (size_t length = 0; length < 200; ++length) {
    std::vector<std::byte> message(length);
    for (size_t i = 0; i < length; ++i) message[i] = static_cast<std::byte>((i * 7 + length) & 255u);
    all.update(sha256(message));
  }
  CHECK(all.hex() == "8c7c9ff69da76fc28823a1cb97268672663e628e1ea955868b16db46bab0545d");
}

TEST_CASE("sha256 does not depend on how the bytes are split, and may be read in between") {
  const std::string text(301, 'x');
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    Sha256 hash;
    hash.update(text_bytes(std::string_view(text).substr(0, cut)));
    CHECK(hash.digest() == sha256(text_bytes(std::string_view(text).substr(0, cut))));
    hash.update(text_bytes(std::string_view(text).substr(cut)));
    CHECK(hash.digest() == sha256(text_bytes(text)));
  }
}

TEST_CASE("crc32c gives the values of RFC 3720 appendix B.4") {
  CHECK(crc32c(text_bytes("")) == 0u);
  CHECK(crc32c(text_bytes("123456789")) == 0xe3069283u);
  CHECK(crc32(text_bytes("")) == 0u);
  CHECK(crc32(text_bytes("123456789")) == 0xcbf43926u);  // zlib's
  CHECK(crc32(text_bytes("6789"), crc32(text_bytes("12345"))) == 0xcbf43926u);
  CHECK(crc32c(std::vector<std::byte>(32, std::byte{0})) == 0x8a9136aau);
  CHECK(crc32c(std::vector<std::byte>(32, std::byte{0xff})) == 0x62a8ab43u);
  std::vector<std::byte> ascending(32);
  for (size_t i = 0; i < 32; ++i) ascending[i] = static_cast<std::byte>(i);
  CHECK(crc32c(ascending) == 0x46dd794eu);
}

TEST_CASE("crc32c continues from an earlier value at every cut") {
  std::vector<std::byte> bytes(61);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 37 % 251);
  const std::span<const std::byte> all(bytes);
  for (size_t cut = 0; cut <= all.size(); ++cut) CHECK(crc32c(all.subspan(cut), crc32c(all.first(cut))) == crc32c(all));
}
