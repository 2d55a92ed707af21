// UTF-8 against RFC 3629's table of byte sequences.
#include "engine/utf8.hpp"

#include <doctest/doctest.h>

#include <string>

namespace nibble {
namespace {

TEST_CASE("UTF-8: every character's encoding is one sequence, whatever follows") {
  const auto encode = [](unsigned c) {
    std::string s;
    const auto low = [&](unsigned shift) { s += static_cast<char>(0x80 | ((c >> shift) & 0x3f)); };
    if (c < 0x80) {
      s += static_cast<char>(c);
    } else if (c < 0x800) {
      s += static_cast<char>(0xc0 | (c >> 6));
      low(0);
    } else if (c < 0x10000) {
      s += static_cast<char>(0xe0 | (c >> 12));
      low(6);
      low(0);
    } else {
      s += static_cast<char>(0xf0 | (c >> 18));
      low(12);
      low(6);
      low(0);
    }
    return s;
  };
  int wrong = 0;
  for (unsigned c = 0; c < 0x111000; ++c) {
    const std::string s = encode(c);
    const bool character = c < 0x110000 && (c < 0xd800 || c > 0xdfff);
    wrong += utf8_sequence_length(s + "x") != (character ? s.size() : 0);
    wrong += is_utf8("a" + s + "z") != character;
    if (s.size() > 1) wrong += is_utf8(s.substr(0, s.size() - 1)) || is_utf8(s.substr(1));
  }
  CHECK(wrong == 0);
}

TEST_CASE("UTF-8: text is shortened at the end of a character") {
  CHECK(shortened("abc", 3) == "abc");
  CHECK(shortened("abcd", 3) == "abc...");
  CHECK(shortened("a\u00e4\u00e4", 4) == "a\u00e4...");
  CHECK(shortened("\U0001f600\U0001f600", 7) == "\U0001f600...");
  CHECK(shortened("\x80\x80\x80", 2) == "...");
  CHECK(shortened(std::string(1000, 'x')).size() == 303);
}

TEST_CASE("UTF-8: overlong forms, lone continuations and bytes that never occur are invalid") {
  CHECK(is_utf8(""));
  for (const char* text : {"\xc0\xaf", "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\x80", "\xbf", "\xfe", "\xff",
                           "\xf5\x80\x80\x80", "\xc3(", "caf\xe9"})
    CHECK_FALSE(is_utf8(text));
}

}  // namespace
}  // namespace nibble
