// safetensors: round trips, the strictness of the reader, and the checksum layer bit by bit.
#include "nn/safetensors.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "engine/error.hpp"
#include "nn/atomic_file.hpp"
#include "tests/temp_dir.hpp"

namespace {

using namespace nibble;

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto span = std::as_bytes(std::span(text.data(), text.size()));
  return {span.begin(), span.end()};
}

/// A file with the given header text and `data_bytes` zero bytes of tensors.
std::vector<std::byte> file_of(std::string_view header, size_t data_bytes) {
  std::vector<std::byte> file(8);
  for (size_t i = 0; i < 8; ++i) file[i] = static_cast<std::byte>((header.size() >> (8 * i)) & 0xffu);
  for (std::byte b : bytes_of(header)) file.push_back(b);
  file.resize(file.size() + data_bytes);
  return file;
}

/// The sentence with which the reader refuses, or "accepted".
std::string refusal(std::span<const std::byte> file, const SafetensorsOpenArgs& args = {}) {
  try {
    SafetensorsFile::parse(file, "f", args);
    return "accepted";
  } catch (const ModelError& error) {
    return error.what();
  }
}
std::string refusal(std::string_view header, size_t data_bytes) {
  return refusal(file_of(header, data_bytes));
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

Tensor ramp(DType dtype, const Shape& shape) {
  Tensor t(dtype, shape);
  for (size_t i = 0; i < t.bytes(); ++i) t.raw()[i] = static_cast<std::byte>(i * 5 + 1);
  return t;
}

SafetensorsWriter small_model() {
  SafetensorsWriter writer;
  writer.add("conv1.weight", ramp(DType::f32, {2, 3}));
  writer.add("bn1.bias", ramp(DType::bf16, {3}));
  writer.add_raw({.name = "codes", .dtype = "U8", .shape = {2, 1}, .bytes = bytes_of("ab")});
  writer.set_metadata("format", "pt");
  return writer;
}

}  // namespace

TEST_CASE("safetensors: what is written is read back, through memory and through a file") {
  testing::TempDir dir;
  SafetensorsWriter writer = small_model();
  writer.add("count", ramp(DType::s32, {}));
  writer.add("offsets", ramp(DType::s8, {1, 2, 3, 4}));
  writer.add("empty", Tensor(DType::f32, {0, 5}));
  writer.add_raw({.name = "steps", .dtype = "I64", .shape = {1}, .bytes = bytes_of("12345678")});
  const std::vector<std::byte> bytes = writer.serialize();
  CHECK(writer.write(dir / "m.safetensors") == bytes.size());
  const SafetensorsFile from_disk = SafetensorsFile::open(dir / "m.safetensors", {.require_integrity = true});
  for (const SafetensorsFile& file : {from_disk, SafetensorsFile::parse(bytes, "memory")}) {
    CHECK(file.integrity());
    CHECK(file.file_bytes() == bytes.size());
    CHECK(file.entries().size() == 7);
    CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}});
    const Tensor weight = file.tensor("conv1.weight");
    CHECK(weight.shape() == Shape{2, 3});
    CHECK(std::memcmp(weight.raw(), ramp(DType::f32, {2, 3}).raw(), 24) == 0);
    CHECK(file.tensor("bn1.bias").dtype() == DType::bf16);
    CHECK(file.tensor("count").shape().rank() == 0);
    CHECK(file.tensor("count").size() == 1);
    CHECK(file.tensor("offsets").dtype() == DType::s8);
    CHECK(file.tensor("empty").shape() == Shape{0, 5});
    CHECK(file.tensor("codes").data<uint8_t>()[1] == 'b');
    CHECK(file.entry("steps").dtype == "I64");
    CHECK(file.data("steps").size() == 8);
    CHECK(file.find("nibble.header_checksum") == nullptr);
  }
}

TEST_CASE("safetensors: the header is padded to 8, wide elements come first, and order of adding does not matter") {
  SafetensorsWriter reversed;
  reversed.set_metadata("format", "pt");
  reversed.add_raw({.name = "codes", .dtype = "U8", .shape = {2, 1}, .bytes = bytes_of("ab")});
  reversed.add("bn1.bias", ramp(DType::bf16, {3}));
  reversed.add("conv1.weight", ramp(DType::f32, {2, 3}));
  const std::vector<std::byte> bytes = small_model().serialize();
  CHECK(reversed.serialize() == bytes);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  CHECK(header % 8 == 0);
  const SafetensorsFile file = SafetensorsFile::parse(bytes, "f");
  CHECK(file.entries()[0].name == "conv1.weight");
  CHECK(file.entries()[1].name == "bn1.bias");
  CHECK(file.entries()[2].name == "codes");
  CHECK(bytes.size() == 8 + header + 24 + 6 + 2 + 32);
}

TEST_CASE("safetensors: rows apart in memory are dense in the file") {
  Tensor strided = Tensor::zeros(DType::s8, {3, 5}, 64);
  for (int64_t r = 0; r < 3; ++r)
    for (int64_t c = 0; c < 5; ++c) strided.row<int8_t>(r)[c] = static_cast<int8_t>(10 * r + c);
  SafetensorsWriter writer;
  writer.add("x", strided);
  const SafetensorsFile file = SafetensorsFile::parse(writer.serialize(), "f");
  CHECK(file.data("x").size() == 15);
  for (int64_t i = 0; i < 15; ++i) CHECK(file.tensor("x").data<int8_t>()[i] == 10 * (i / 5) + i % 5);
}

TEST_CASE("safetensors: every flipped bit of a file is refused with the section's name") {
  const std::vector<std::byte> good = small_model().serialize();
  REQUIRE(refusal(good) == "accepted");
  const SafetensorsFile file = SafetensorsFile::parse(good, "f");
  uint64_t header = 0;
  std::memcpy(&header, good.data(), 8);
  std::vector<std::byte> bad = good;
  int unnamed = 0, accepted = 0, wrong_tensor = 0;
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    bad[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    const std::string sentence = refusal(bad);
    accepted += sentence == "accepted";
    unnamed += !contains(sentence, "header") && !contains(sentence, "tensor '") && !contains(sentence, "__metadata__");
    for (const TensorEntry& entry : file.entries()) {
      const bool inside = bit / 8 >= 8 + header + entry.begin && bit / 8 < 8 + header + entry.end;
      wrong_tensor += inside && !contains(sentence, "tensor '" + entry.name + "' does not match its checksum");
    }
    bad[bit / 8] = good[bit / 8];
  }
  CHECK(accepted == 0);
  CHECK(unnamed == 0);
  CHECK(wrong_tensor == 0);
}

TEST_CASE("safetensors: the smallest file, without tensors, is covered as well") {
  const std::vector<std::byte> good = SafetensorsWriter().serialize();
  CHECK(SafetensorsFile::parse(good, "f").entries().empty());
  std::vector<std::byte> bad = good;
  int accepted = 0;
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    bad[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    accepted += refusal(bad) == "accepted";
    bad[bit / 8] = good[bit / 8];
  }
  CHECK(accepted == 0);
}

TEST_CASE("safetensors: every truncation and any growth is refused with the section's name, on disk too") {
  testing::TempDir dir;
  const std::vector<std::byte> good = small_model().serialize();
  for (size_t length = 0; length < good.size(); ++length) {
    const std::string sentence = refusal(std::span(good).first(length));
    CHECK((contains(sentence, "header length") || contains(sentence, "tensor '")));
    write_file_atomically(dir / "cut", {reinterpret_cast<const char*>(good.data()), length});
    CHECK_THROWS_AS(SafetensorsFile::open(dir / "cut"), ModelError);
  }
  std::vector<std::byte> longer = good;
  longer.push_back(std::byte{0});
  CHECK(contains(refusal(longer), "1 bytes after the last tensor 'nibble.header_checksum'"));
}

TEST_CASE("safetensors: a file without checksums opens, unless they are required") {
  const std::vector<std::byte> plain =
      file_of(R"({"__metadata__":{"a":"b"},"y":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},)"
              R"("x":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}   )",
              12);
  const SafetensorsFile file = SafetensorsFile::parse(plain, "f");
  CHECK_FALSE(file.integrity());
  CHECK(file.entries()[0].name == "x");
  CHECK(file.metadata_value("a") == "b");
  CHECK_THROWS_AS(file.metadata_value("b"), ModelError);
  CHECK_THROWS_WITH_AS(file.metadata_value("a", 0), doctest::Contains("has 1 bytes of metadata 'a'"), ModelError);
  CHECK_THROWS_AS(file.entry("z"), ModelError);
  CHECK(contains(refusal(plain, {.require_integrity = true}), "has no checksums"));
  CHECK(contains(refusal(plain, {.require_integrity = false, .max_bytes = 100}), "above the limit of 100"));
  CHECK(refusal("{}", 0) == "accepted");
}

TEST_CASE("safetensors: a part of the checksum layer is damage, not a foreign file") {
  CHECK(contains(refusal(R"({"__metadata__":{"nibble.integrity":"1"}})", 0), "header has checksums but no last"));
  CHECK(contains(refusal(R"({"__metadata__":{"nibble.crc32c.x":"00000000"}})", 0), "header has checksums but no"));
  CHECK(contains(refusal(R"({"nibble.header_checksum":{"dtype":"U8","shape":[32],"data_offsets":[0,32]}})", 32),
                 "header does not match its SHA-256"));
  CHECK(contains(refusal(R"({"nibble.header_checksum":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", 3),
                 "no last tensor"));
}

TEST_CASE("safetensors: header lengths that lie are refused before any allocation") {
  std::vector<std::byte> file = file_of("{}", 0);
  const auto with_length = [&](uint64_t n) {
    std::memcpy(file.data(), &n, 8);
    return refusal(file);
  };
  CHECK(contains(with_length(std::numeric_limits<uint64_t>::max()), "header length 18446744073709551615 is above"));
  CHECK(contains(with_length(kMaxSafetensorsHeader + 1), "header length 100000001 is above the limit"));
  CHECK(contains(with_length(kMaxSafetensorsHeader), "beyond the end"));
  CHECK(contains(with_length(0x0008'0000'0403'4b50), "is a zip archive"));  // how .pth files begin
  CHECK(contains(with_length(0x4649'4a10'e0ff'd8ff), "is a JPEG image; give a run, a checkpoint, a served file or"));
  CHECK(contains(with_length(0x0a1a'0a0d'474e'5089), "is a PNG image;"));
  CHECK(contains(with_length(0x3354'4641'0a12'0708), "is an ONNX model;"));
  CHECK(contains(with_length(0x334c'4654'0000'001c), "is a TensorFlow Lite model;"));
  CHECK(contains(with_length(0x7974'7065'0a12'2008), "header length"));  // version 32 is of nothing known
  CHECK(contains(with_length(3), "header length 3 goes beyond the end of the file (10 bytes)"));
  CHECK(contains(with_length(0), "header does not start"));
  CHECK(contains(with_length(1), "not valid JSON"));
}

TEST_CASE("safetensors: what is not the format's JSON is refused") {
  const std::string t = R"("dtype":"U8","shape":[1],"data_offsets":[0,1])";
  CHECK(refusal("{\"x\":{" + t + "}}", 1) == "accepted");
  const std::string cases[][2] = {
      {" {\"x\":{" + t + "}}", "does not start with '{'"},
      {"\xef\xbb\xbf{\"x\":{" + t + "}}", "does not start with '{'"},
      {"[]", "does not start with '{'"},
      {"{\"x\":{" + t + "}}" + std::string(1, '\0') + "hidden", "NUL"},
      {"{\"x\":{" + t + "}} x", "not valid JSON"},
      {"{\"x\":{" + t + "},}", "not valid JSON"},
      {"{\"x\":{" + t + "}/**/}", "not valid JSON"},
      {"{\"\xff\":{" + t + "}}", "not valid JSON"},
      {"{\"\xc0\xaf\":{" + t + "}}", "not valid JSON"},
      {"{\"\xed\xa0\x80\":{" + t + "}}", "not valid JSON"},
      {"{\"\\ud800\":{" + t + "}}", "not valid JSON"},
      {"{\"x\":{" + t + "},\"x\":{" + t + "}}", "tensor 'x' is there twice"},
      {"{\"x\":{" + t + "},\"\\u0078\":{" + t + "}}", "tensor 'x' is there twice"},
      {"{\"x\":{" + t + ",\"dtype\":\"I8\"}}", "has the key 'dtype' twice"},
      {"{\"x\":{" + t + ",\"shape\":[1]}}", "has the key 'shape' twice"},
      {"{\"x\":{" + t + ",\"more\":1}}", "unknown key 'more'"},
      {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", "__metadata__ has the key 'a' twice"},
      {"{\"__metadata__\":{},\"__metadata__\":{}}", "__metadata__ is there twice"},
      {"{\"__metadata__\":{\"a\":1}}", "__metadata__ holds a number"},
      {"{\"__metadata__\":{\"a\":{}}}", "__metadata__ nests objects"},
      {"{\"__metadata__\":{\"a\":null}}", "__metadata__ holds a null"},
      {"{\"__metadata__\":[]}", "__metadata__ holds an array"},
      {"{\"x\":1}", "tensor 'x' holds a number"},
      {"{\"x\":{}}", "lacks dtype, shape or data_offsets"},
      {R"({"x":{"dtype":"U8","shape":[1]}})", "lacks dtype, shape or data_offsets"},
      {R"({"x":{"dtype":"Q3","shape":[1],"data_offsets":[0,1]}})", "unknown dtype 'Q3'"},
      {R"({"x":{"dtype":["U8"],"shape":[1],"data_offsets":[0,1]}})", "holds an array"},
      {R"({"x":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}})", "holds a boolean"},
      {R"({"x":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", "holds a number"},
      {R"({"x":{"dtype":"U8","shape":"1","data_offsets":[0,1]}})", "holds a string"},
      {R"({"x":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", "holds an array"},
      {R"({"x":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", "negative"},
      {R"({"x":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", "not a 64-bit unsigned"},
      {R"({"x":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}})", "not a 64-bit unsigned"},
      {R"({"x":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}})", "not a 64-bit unsigned"},
      {R"({"x":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]}})", "dimension above 2^63"},
      {R"({"x":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}})", "not valid JSON"},
      {R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", "fewer than two"},
      {R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}})", "more than two"},
  };
  for (const auto& [header, part] : cases) {
    const std::string sentence = refusal(header, 1);
    CHECK_MESSAGE(contains(sentence, part), sentence);
  }
}

TEST_CASE("safetensors: hostile nesting and huge ranks are refused without recursion") {
  for (const char* open : {"[", "{\"a\":"}) {
    std::string header = "{\"x\":{\"shape\":";
    for (int i = 0; i < 1'000'000; ++i) header += open;
    CHECK(refusal(header, 0) != "accepted");
  }
  std::string ranks = R"({"x":{"dtype":"U8","data_offsets":[0,1],"shape":[1)";
  for (int i = 0; i < 100'000; ++i) ranks += ",1";
  CHECK(contains(refusal(ranks + "]}}", 1), "more than 32 dimensions"));
}

TEST_CASE("safetensors: sizes, holes, overlaps and overflow are refused with the tensor's name") {
  const auto two = [](const char* first, const char* second) {
    return std::string("{\"a\":{\"dtype\":\"U8\",") + first + "},\"b\":{\"dtype\":\"U8\"," + second + "}}";
  };
  const auto one = [](const char* dtype, const char* rest) {
    return std::string("{\"a\":{\"dtype\":\"") + dtype + "\"," + rest + "}}";
  };
  const char* a = R"("shape":[4],"data_offsets":[0,4])";
  CHECK(refusal(two(a, R"("shape":[4],"data_offsets":[4,8])"), 8) == "accepted");
  CHECK(refusal(two(R"("shape":[0],"data_offsets":[4,4])", R"("shape":[4],"data_offsets":[0,4])"), 4) == "accepted");
  CHECK(contains(refusal(two(a, R"("shape":[4],"data_offsets":[3,7])"), 7), "tensor 'b' overlaps tensor 'a'"));
  CHECK(contains(refusal(two(a, a), 4), "tensor 'b' overlaps tensor 'a'"));
  CHECK(contains(refusal(two(a, R"("shape":[4],"data_offsets":[5,9])"), 9), "'b' leaves a hole after tensor 'a'"));
  CHECK(contains(refusal(one("U8", R"("shape":[1],"data_offsets":[1,2])"), 2), "leaves a hole after the header"));
  CHECK(contains(refusal(one("U8", a), 5), "1 bytes after the last tensor 'a'"));
  CHECK(contains(refusal(one("U8", a), 3), "tensor 'a' ends at byte 4"));
  CHECK(contains(refusal(one("F32", a), 4), "tensor 'a' of 16 bytes has the data_offsets 0 and 4"));
  CHECK(contains(refusal(one("U8", R"("shape":[4],"data_offsets":[4,0])"), 4), "data_offsets 4 and 0"));
  CHECK(contains(refusal(one("U8", R"("shape":[1],"data_offsets":[18446744073709551615,0])"), 1), "data_offsets"));
  // 2^62 * 4 elements, 2^61 * 64 bits, and a product that would wrap to the right number of bytes.
  for (const char* shape : {"[4611686018427387904,4]", "[2305843009213693952]", "[4294967296,4294967296,1]"})
    CHECK(contains(refusal(one("F64", (std::string("\"shape\":") + shape + ",\"data_offsets\":[0,0]").c_str()), 0),
                   "overflows"));
  CHECK(contains(refusal(one("F4", R"("shape":[3],"data_offsets":[0,1])"), 1), "does not fill whole bytes"));
  CHECK(refusal(one("F4", R"("shape":[4],"data_offsets":[0,2])"), 2) == "accepted");
}

TEST_CASE("safetensors: random damage of two to twenty bytes never crashes and is never accepted") {
  const std::vector<std::byte> good = small_model().serialize();
  uint64_t state = 1;
  const auto next = [&] { return (state = state * 6364136223846793005u + 1442695040888963407u) >> 33; };
  int accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::vector<std::byte> bad = good;
    for (uint64_t i = 2 + next() % 19; i > 0; --i) bad[next() % bad.size()] = static_cast<std::byte>(next() & 255u);
    accepted += bad != good && refusal(bad) == "accepted";
  }
  CHECK(accepted == 0);
}

TEST_CASE("safetensors: a damaged file without checksums is refused, or is a valid file") {
  const std::vector<std::byte> good =
      file_of(R"({"__metadata__":{"a":"b"},"x":{"dtype":"F64","shape":[2,1],"data_offsets":[0,16]},)"
              R"("y":{"dtype":"F32","shape":[1],"data_offsets":[16,20]}} )",
              20);
  const std::string_view likely = "0123456789[]{},:\"\\ ";
  uint64_t state = 2;
  const auto next = [&] { return (state = state * 6364136223846793005u + 1442695040888963407u) >> 33; };
  int refused = 0;
  for (int round = 0; round < 30'000; ++round) {
    std::vector<std::byte> bad = good;
    for (uint64_t i = 1 + next() % 4; i > 0; --i)
      bad[next() % bad.size()] = static_cast<std::byte>(likely[next() % likely.size()]);
    try {
      const SafetensorsFile file = SafetensorsFile::parse(bad, "f");
      uint64_t end = 0;
      for (const TensorEntry& entry : file.entries()) {
        REQUIRE(entry.begin == end);
        end = entry.end;
        REQUIRE(file.data(entry.name).size() == entry.bytes());
      }
      REQUIRE(end == 20);
    } catch (const ModelError&) {
      ++refused;
    }
  }
  CHECK(refused > 15'000);  // most of the file is header, and most of a header matters
}

TEST_CASE("safetensors: names in error sentences are escaped and cut") {
  const std::string sentence = refusal("{\"a\\n\\u001b[31m\":1}", 0);
  CHECK(contains(sentence, "tensor 'a\\x0a\\x1b[31m'"));
  CHECK(refusal("{\"" + std::string(100'000, 'a') + "\":1}", 0).size() < 300);
}

TEST_CASE("safetensors: F16, BF16, F64 become f32 exactly or rounded to nearest") {
  const auto convert = [](const char* dtype, auto value) {
    std::vector<std::byte> bytes(sizeof(value));
    std::memcpy(bytes.data(), &value, sizeof(value));
    SafetensorsWriter writer;
    writer.add_raw({.name = "x", .dtype = dtype, .shape = {1}, .bytes = bytes});
    return SafetensorsFile::parse(writer.serialize(), "f").tensor_f32("x").template data<float>()[0];
  };
  // Every half-precision value against its definition: sign * 2^(e-15) * (1 + m/1024), or 2^-14 * m/1024.
  std::vector<std::byte> halves(2 << 16);
  for (uint32_t i = 0; i < 65536; ++i) std::memcpy(halves.data() + 2 * i, &i, 2);
  SafetensorsWriter writer;
  writer.add_raw({.name = "x", .dtype = "F16", .shape = {65536}, .bytes = halves});
  const Tensor x = SafetensorsFile::parse(writer.serialize(), "f").tensor_f32("x");
  int wrong = 0;
  for (uint32_t i = 0; i < 65536; ++i) {
    const int exponent = static_cast<int>(i >> 10 & 31u);
    const double m = i & 1023u;
    const double magnitude = exponent == 0 ? std::ldexp(m, -24) : std::ldexp(1024 + m, exponent - 25);
    const float actual = x.data<float>()[i];
    if (exponent == 31)
      wrong += m == 0 ? !std::isinf(actual) : !std::isnan(actual);
    else
      wrong += actual != static_cast<float>(magnitude) * (i >= 32768 ? -1.0f : 1.0f);
    wrong += std::signbit(actual) != (i >= 32768);
  }
  CHECK(wrong == 0);
  CHECK(convert("F64", 0.1) == 0.1f);
  CHECK(std::isinf(convert("F64", 1e300)));
  CHECK(convert("BF16", uint16_t{0x3fc0}) == 1.5f);
  CHECK(convert("F32", 3.25f) == 3.25f);
  CHECK_THROWS_AS(convert("I32", 1), ModelError);
}

TEST_CASE("safetensors: tensors that do not fit a Tensor, and non-finite weights, are refused with their name") {
  SafetensorsWriter writer;
  writer.add_raw({.name = "deep", .dtype = "U8", .shape = {1, 1, 1, 1, 1}, .bytes = bytes_of("a")});
  writer.add_raw({.name = "long", .dtype = "I64", .shape = {1}, .bytes = bytes_of("12345678")});
  Tensor bad = Tensor::zeros(DType::f32, {3});
  bad.data<float>()[1] = std::numeric_limits<float>::quiet_NaN();
  writer.add("bad", bad);
  const SafetensorsFile file = SafetensorsFile::parse(writer.serialize(), "f");
  CHECK_THROWS_WITH_AS(file.tensor("deep"), "'f': tensor 'deep' has 5 dimensions, at most 4 are supported", ModelError);
  CHECK_THROWS_AS(file.tensor("long"), ModelError);
  CHECK_THROWS_AS(file.tensor_f32("long"), ModelError);
  CHECK(file.data("deep").size() == 1);
  CHECK_NOTHROW(file.tensor_f32("bad"));
  CHECK_THROWS_WITH_AS(
      file.finite_tensor_f32("bad"),
      "'f': element 1 of tensor 'bad' is nan, not a finite number; use weights from before they diverged", ModelError);
}

TEST_CASE("safetensors: the writer refuses what it could not read back") {
  SafetensorsWriter writer;
  writer.add("x", Tensor::zeros(DType::f32, {1}));
  CHECK_THROWS_AS(writer.add("x", Tensor::zeros(DType::f32, {1})), ModelError);
  CHECK_THROWS_AS(writer.add("y", Tensor()), ModelError);
  CHECK_THROWS_AS(writer.add("y", Tensor::zeros(DType::s4, {2})), DTypeError);
  CHECK_THROWS_AS(writer.add("__metadata__", Tensor::zeros(DType::f32, {1})), ModelError);
  CHECK_THROWS_AS(writer.add("nibble.header_checksum", Tensor::zeros(DType::f32, {1})), ModelError);
  CHECK_THROWS_AS(writer.add_raw({.name = "y", .dtype = "U8", .shape = {2}, .bytes = bytes_of("abc")}), ModelError);
  CHECK_THROWS_AS(writer.add_raw({.name = "y", .dtype = "Q8", .shape = {3}, .bytes = bytes_of("abc")}), ModelError);
  CHECK_THROWS_AS(writer.set_metadata("nibble.integrity", "1"), ModelError);
  CHECK_THROWS_AS(writer.set_metadata("nibble.crc32c.x", "1"), ModelError);
  writer.set_metadata("not text", "\xff");
  CHECK_THROWS_AS(writer.serialize(), ModelError);
}

TEST_CASE("safetensors: names and strings survive with quotes, control characters and non-ASCII text") {
  const std::string name = "a\"b\\c\n\t\x01 \xc3\xa4 \xf0\x9f\x98\x80";
  SafetensorsWriter writer;
  writer.add(name, Tensor::zeros(DType::f32, {1}));
  writer.set_metadata(name, name);
  const SafetensorsFile file = SafetensorsFile::parse(writer.serialize(), "f");
  CHECK(file.find(name) != nullptr);
  CHECK(file.metadata_value(name) == name);
}

TEST_CASE("safetensors: a missing file, a directory and an oversized file are refused with a sentence") {
  testing::TempDir dir;
  CHECK_THROWS_AS(SafetensorsFile::open(dir / "missing"), ModelError);
  CHECK_THROWS_AS(SafetensorsFile::open(dir.path()), ModelError);
  write_file_atomically(dir / "file", "x");
  CHECK_THROWS_AS(SafetensorsFile::open(dir / "file" / "below"), ModelError);
  CHECK_THROWS_AS(SafetensorsFile::open(dir / "file"), ModelError);
  // A sparse file of 1 TiB is refused by its size, not read.
  std::filesystem::resize_file(dir / "file", uint64_t{1} << 40);
  CHECK_THROWS_AS(SafetensorsFile::open(dir / "file"), ModelError);
}
