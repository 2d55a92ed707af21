// Pickles as data: every opcode that torch.save writes, and programs that nobody would.
#include "nn/import/pickle.hpp"

#include <doctest/doctest.h>

#include "engine/error.hpp"
#include "tests/nn/import/zip_writer.hpp"

namespace nibble {
namespace {

using Kind = PickleValue::Kind;
using testing::little_endian;

Pickle read(const std::string& text) {
  return Pickle({reinterpret_cast<const std::byte*>(text.data()), text.size()}, "a.pth");
}

std::string unreadable(const std::string& text) {
  try {
    read(text);
  } catch (const ModelError& e) {
    return e.what();
  }
  return "accepted";
}

int64_t number_of(const std::string& text) {
  const Pickle p = read(text + ".");
  REQUIRE((p.root().kind == Kind::kInt || p.root().kind == Kind::kBool));
  return p.root().number;
}

TEST_CASE("pickle: numbers, texts and their lengths") {
  CHECK(number_of("K\xff") == 255);
  CHECK(number_of(std::string("M\x02\x01", 3)) == 258);
  CHECK(number_of("J" + little_endian(0xfffffffe, 4)) == -2);
  CHECK(number_of(std::string("\x8a\x00", 2)) == 0);
  CHECK(number_of("\x8a\x01\xff") == -1);
  CHECK(number_of(std::string("\x8a\x02\xff\x00", 4)) == 255);
  CHECK(number_of("\x8a\x08" + little_endian(0x7fffffffffffffff, 8)) == INT64_MAX);
  CHECK(number_of("\x8b" + little_endian(1, 4) + "\x05") == 5);
  CHECK(number_of("\x88") == 1);
  CHECK(number_of("\x89") == 0);
  CHECK(read("\x8a\x09" + std::string(9, 'x') + ".").root().kind == Kind::kOther);
  CHECK(read("G" + std::string(8, '\0') + ".").root().kind == Kind::kOther);
  CHECK(read("N.").root().kind == Kind::kNone);
  for (const std::string& text :
       {"U\x03" + std::string("abc"), "C\x03" + std::string("abc"), "\x8c\x03" + std::string("abc"),
        "T" + little_endian(3, 4) + "abc", "X" + little_endian(3, 4) + "abc", "B" + little_endian(3, 4) + "abc",
        "\x8d" + little_endian(3, 8) + "abc", "\x8e" + little_endian(3, 8) + "abc"})
    CHECK(read(text + ".").root().text == "abc");
}

TEST_CASE("pickle: containers, marks and the memo") {
  const Pickle tuple = read(
      "\x80\x02(K\x01K\x02\x86K\x03"
      "t.");  // ((1, 2), 3)
  CHECK(tuple.root().kind == Kind::kTuple);
  REQUIRE(tuple.root().items.size() == 2);
  CHECK(tuple[tuple.root().items[0]].items.size() == 2);
  CHECK(tuple[tuple.root().items[1]].number == 3);
  CHECK(tuple.bytes() == 12);
  const Pickle list = read(
      "]q\x05K\x01"
      "ah\x05"
      "a(K\x02K\x03"
      "e.");  // l = [1]; l += [l, 2, 3]
  REQUIRE(list.root().items.size() == 4);
  CHECK(&list[list.root().items[1]] == &list.root());
  const Pickle dict = read(
      "}(U\x01"
      "aK\x01U\x01"
      "bK\x02uU\x01"
      "cK\x03s.");
  REQUIRE(dict.root().items.size() == 6);
  CHECK(dict[dict.root().items[4]].text == "c");
  CHECK(read("\x8f(K\x01\x90.").root().items.size() == 1);
  CHECK(read("K\x07\x94"
             "0j" +
             little_endian(0, 4) + ".")
            .root()
            .number == 7);
  CHECK(read("K\x07r" + little_endian(1u << 31, 4) + "0j" + little_endian(1u << 31, 4) + ".").root().number == 7);
  CHECK(read("K\x01(K\x02"
             "1.")
            .root()
            .number == 1);
  CHECK(read("\x95" + std::string(8, '\0') +
             "K\x01"
             "2\x86.")
            .root()
            .items.size() == 2);
}

TEST_CASE("pickle: classes and calls are names and arguments, and what is outside is an id") {
  const Pickle p = read(
      "cos\nsystem\nU\x06"
      "rm -rf\x85R.");
  CHECK(p.root().kind == Kind::kCall);
  CHECK(p[p.root().items[0]].kind == Kind::kGlobal);
  CHECK(p[p.root().items[0]].text == "os.system");
  CHECK(p[p[p.root().items[1]].items[0]].text == "rm -rf");
  CHECK(read("\x8c\x01"
             "a\x8c\x01"
             "b\x93.")
            .root()
            .text == "a.b");
  const Pickle ordered = read(
      "ccollections\nOrderedDict\n)R(U\x01"
      "aK\x01u}U\x01"
      "xNsb.");
  REQUIRE(ordered.root().items.size() == 4);  // and its state is left out
  CHECK(ordered[ordered.root().items[2]].text == "a");
  CHECK(read("ca\nb\n)\x81.").root().items.size() == 2);
  CHECK(read("ca\nb\n)}\x92.").root().items.size() == 2);
  const Pickle outside = read(
      "U\x01"
      "kQ.");
  REQUIRE(outside.references().size() == 1);
  CHECK(outside[outside[outside.references()[0]].items[0]].text == "k");
}

TEST_CASE("pickle: programs that are none are refused where they go wrong") {
  const auto refused = [](const std::string& text, const char* why) {
    const std::string answer = unreadable(text);
    CHECK_MESSAGE(answer.find(why) != std::string::npos, answer);
    CHECK_MESSAGE(answer.find("'a.pth' holds a pickle that cannot be read") == 0, answer);
  };
  refused("", "it is cut at byte 0");
  refused("K", "it is cut");
  refused("K\x01", "it is cut");
  refused(".", "a value is missing");
  refused("\x85.", "a value is missing");
  refused("K\x01(\x85.", "a value is missing");  // not from below the mark
  refused("K\x01t.", "a mark is missing");
  refused("h\x01.", "recalls a value that it never had");
  refused("q\x01.", "a value is missing");
  refused(
      "U\x05"
      "ab.",
      "a text is longer than what is left");
  refused("\x8d" + std::string(8, '\xff') + ".", "a text is longer than what is left");
  refused("cos\nsystem", "a line does not end");
  refused(
      "K\x01K\x02"
      "a.",
      "items are put into what does not take them");
  refused("](K\x01u.", "items are put into what does not take them");
  refused("}(K\x01u.", "items are put into what does not take them");
  refused("K\x01K\x02\x93.", "the name of a class is no text");
  refused("\x80\x06.", "its protocol is above 5");
  refused("i.", "opcode 0x69");
  refused("\xff.", "opcode 0xff");
  refused(std::string(2'000'000, ']'), "more than a million values");
  refused(std::string(2'000'000, '('), "more than a million marks");
  refused("]" + std::string(5'000'000, '2'), "its stack is too high");
}

TEST_CASE("pickle: values nested a hundred thousand deep, or in each other, are read and freed") {
  std::string deep = "]";
  for (int i = 0; i < 100'000; ++i) deep += "\x85";
  CHECK(read(deep + ".").root().kind == Kind::kTuple);
  CHECK(read("]q\x01]q\x02h\x01"
             "ah\x02"
             "a.")
            .root()
            .items.size() == 2);
}

}  // namespace
}  // namespace nibble
