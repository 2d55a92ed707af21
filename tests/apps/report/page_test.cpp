// The page of the reports: one file that any parser reads, with nothing from elsewhere.
#include "apps/report/page.hpp"

#include <doctest/doctest.h>

#include "tests/apps/report/xml_checker.hpp"

namespace nibble::apps {
namespace {

TEST_CASE("page: whatever texts it is given, it is well-formed, without scripts and without links") {
  const std::string hostile = "</title></style><script src=\"http://x/\">&\"'\x02\xFE";
  Page page(hostile);
  page.heading(hostile).paragraph(hostile).list({{hostile}, {hostile}}).preformatted(hostile);
  page.figures({{hostile, "<svg></svg>", hostile}, {}});
  page.table({{hostile, "n"}, {{{hostile, false}, markup_cell("<b>1</b>")}}, 1}, hostile);
  page.open_details(hostile).markup_paragraph("<i>x</i>").close_details();
  const std::string html = page.finish();
  testing::XmlFacts facts = testing::xml_facts(html);
  CHECK(facts.problem == "");
  CHECK(facts.links.empty());
  CHECK(facts.elements.count("script") == 0);
  CHECK(facts.elements["figure"] == 2);
  CHECK(facts.elements["b"] == 1);
  CHECK(facts.elements["i"] == 1);
  CHECK(facts.elements["li"] == 2);
  CHECK(html.starts_with("<!DOCTYPE html>\n<html"));
}

TEST_CASE("page: the style speaks for dark screens and for print, where closed parts are open") {
  const std::string html = Page("x").finish();
  for (const char* part :
       {"prefers-color-scheme:dark", "@media print", "details::details-content", "name=\"viewport\""})
    CHECK(html.find(part) != std::string::npos);
}

}  // namespace
}  // namespace nibble::apps
