// Zip archives: entries found and checked, and nothing believed.
#include "nn/import/zip_archive.hpp"

#include <doctest/doctest.h>

#include "engine/error.hpp"
#include "tests/nn/import/zip_writer.hpp"

namespace nibble {
namespace {

using testing::zip_of;
using testing::ZipOptions;

std::span<const std::byte> bytes_in(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

/// What is in the entry, or the sentence of the refusal.
std::string content(const std::string& file, const std::string& name) {
  try {
    const ZipArchive archive(bytes_in(file), "a.pth");
    const std::span<const std::byte> data = archive.read(name);
    return {reinterpret_cast<const char*>(data.data()), data.size()};
  } catch (const ModelError& e) {
    return e.what();
  }
}

void check_refused_with(const std::string& answer, const char* part) {
  CHECK_MESSAGE(answer.find(part) != std::string::npos, answer);
}

const std::vector<std::pair<std::string, std::string>> kTwo = {{"a/one", "first"}, {"a/two", ""}};

TEST_CASE("zip archive: stored entries are read where they lie, with sizes of 32 and of 64 bits") {
  for (const bool wide : {false, true}) {
    const std::string file = zip_of(kTwo, {.comment = "PK\5\6 in a comment", .in_64_bits = wide});
    CHECK(content(file, "a/one") == "first");
    CHECK(content(file, "a/two").empty());
    check_refused_with(content(file, "a/three"), "it has no entry 'a/three'");
    const ZipArchive archive(bytes_in(file), "a.pth");
    CHECK(archive.entries().size() == 2);
    CHECK(archive.has("a/two"));
    CHECK_FALSE(archive.has("two"));
  }
  CHECK(is_zip(bytes_in(zip_of(kTwo))));
  CHECK_FALSE(is_zip(bytes_in("PK\3")));
}

TEST_CASE("zip archive: what is packed, encrypted or damaged is refused with the entry's name") {
  check_refused_with(content(zip_of(kTwo, {.method = 8}), "a/one"), "the entry 'a/one' is compressed");
  check_refused_with(content(zip_of(kTwo, {.flags = 1}), "a/one"), "the entry 'a/one' is encrypted");
  check_refused_with(content(zip_of(kTwo, {.crc_change = 1}), "a/one"), "'a/one' does not match its CRC-32");
  check_refused_with(content(zip_of({{"a", "1"}, {"a", "2"}}), "a"), "two entries are called 'a'");
}

TEST_CASE("zip archive: cut after any byte, or with any byte changed, it is read as it was or refused in a sentence") {
  for (const bool wide : {false, true}) {
    const std::string whole = zip_of(kTwo, {.in_64_bits = wide});
    for (size_t i = 0; i < whole.size(); ++i) check_refused_with(content(whole.substr(0, i), "a/one"), "'a.pth'");
    int refused = 0;
    for (size_t i = 0; i < whole.size(); ++i)
      for (const char change : {'\x01', '\x80', '\xff'}) {
        std::string file = whole;
        file[i] = static_cast<char>(file[i] ^ change);
        const std::string answer = content(file, "a/one");
        CHECK_MESSAGE((answer == "first" || answer.find("'a.pth'") != std::string::npos), answer);
        refused += answer != "first";
      }
    CHECK(refused > 100);
  }
}

TEST_CASE("zip archive: counts and places beyond the file cost no memory") {
  std::string file = zip_of(kTwo);
  const size_t end = file.size() - 22;
  file.replace(end + 10, 2, "\xfe\xff");
  check_refused_with(content(file, "a/one"), "its directory is larger than the file");
  file = zip_of(kTwo, {.in_64_bits = true});
  const size_t record = file.size() - 22 - 20 - 56;
  for (const size_t field : {record + 32, record + 48}) {
    std::string huge = file;
    huge.replace(field, 8, std::string(8, '\xff'));
    check_refused_with(content(huge, "a/one"), "its directory is larger than the file");
  }
  check_refused_with(content(std::string(100000, 'P'), "a"), "it has no directory");
}

}  // namespace
}  // namespace nibble
