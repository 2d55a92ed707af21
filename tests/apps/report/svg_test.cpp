// Escaping, numbers and the writer of the reports' markup.
#include "apps/report/svg.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "engine/error.hpp"
#include "tests/apps/report/xml_checker.hpp"

namespace nibble::apps {
namespace {

TEST_CASE("svg: text is escaped so that it ends neither an element nor an attribute") {
  CHECK(escaped("a<b>&\"'") == "a&lt;b&gt;&amp;&quot;&#39;");
  CHECK(escaped("line\nand\ttab") == "line\nand\ttab");
  CHECK(escaped("M\xC3\xBCller \xF0\x9F\x90\x88") == "M\xC3\xBCller \xF0\x9F\x90\x88");
}

TEST_CASE("svg: bytes that XML cannot hold become U+FFFD: controls, broken, overlong and surrogate UTF-8") {
  const std::string bad = "&#xFFFD;";
  CHECK(escaped(std::string_view("a\0b", 3)) == "a" + bad + "b");
  CHECK(escaped("\x1B[31m") == bad + "[31m");
  CHECK(escaped("\x7F") == bad);
  CHECK(escaped("\x80") == bad);
  CHECK(escaped("\xC3") == bad);
  CHECK(escaped("\xC0\xAF") == bad + bad);
  CHECK(escaped("\xE0\x80\xAF") == bad + bad + bad);
  CHECK(escaped("\xED\xA0\x80") == bad + bad + bad);
  CHECK(escaped("\xF5\x80\x80\x80") == bad + bad + bad + bad);
  CHECK(escaped("\xEF\xBF\xBF") == bad);
  CHECK(escaped("\xE2\x82") == bad + bad);
}

TEST_CASE("svg: long labels are cut to the width given, never inside a character") {
  CHECK(cut_short("short", 5) == "short");
  CHECK(cut_short("shorter", 5) == "sh...");
  CHECK(cut_short("\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC", 4) == "\xC3\xBC...");
  CHECK(cut_short("", 4).empty());
}

TEST_CASE("svg: coordinates are short and finite whatever comes in") {
  CHECK(coordinate(12) == "12");
  CHECK(coordinate(12.5) == "12.5");
  CHECK(coordinate(12.3456) == "12.35");
  CHECK(coordinate(-0.001) == "0");
  CHECK(coordinate(100) == "100");
  CHECK(coordinate(std::nan("")) == "0");
  CHECK(coordinate(-std::numeric_limits<double>::infinity()) == "0");
}

TEST_CASE("svg: numbers for people have the digits asked for, and a dash where there is none") {
  CHECK(decimal(70.193, 1) == "70.2");
  CHECK(decimal(-0.04, 1) == "0.0");
  CHECK(decimal(-0.06, 1) == "-0.1");
  CHECK(decimal(std::nan(""), 2) == "-");
}

TEST_CASE("svg: the writer escapes attributes and text and refuses to lose count of its elements") {
  Xml xml;
  xml.open("g", {{"class", "a\"b"}}).element("text", {{"x", "1"}}, "<&>").leaf("path", {{"d", "M0 0"}}).close();
  const std::string text = xml.finish();
  CHECK(text == "<g class=\"a&quot;b\"><text x=\"1\">&lt;&amp;&gt;</text><path d=\"M0 0\"/></g>");
  CHECK(testing::xml_facts(text).problem.empty());
  CHECK_THROWS_AS(Xml().close(), Error);
  Xml open;
  open.open("g");
  CHECK_THROWS_AS(open.finish(), Error);
}

TEST_CASE("svg: the tests' checker finds what is not well-formed") {
  for (const char* bad : {"<a>", "<a></b>", "<a b=\"1\" b=\"2\"/>", "<a b=1/>", "<a>&</a>", "<a>&nbsp;</a>", "</a>",
                          "<a b=\"<\"/>", "<a/><b/>", "text", "", "<a b=\"1\"c=\"2\"/>", "<a>\x01</a>"}) {
    CAPTURE(bad);
    CHECK_FALSE(testing::xml_facts(bad).problem.empty());
  }
  CHECK(testing::xml_facts("<!DOCTYPE html>\n<a b=\"&#39;\"><c/>x</a>\n").problem.empty());
}

}  // namespace
}  // namespace nibble::apps
