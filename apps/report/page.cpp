#include "apps/report/page.hpp"

#include "apps/report/looks.hpp"

namespace nibble::apps {

namespace {

constexpr const char* kPageStyle = R"css(
*{box-sizing:border-box}
body{margin:0 auto;padding:1.2rem clamp(.8rem,3vw,2.2rem) 3rem;max-width:80rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.7rem;line-height:1.25;margin:.4rem 0 1rem}
h2{font-size:1.25rem;margin:2.4rem 0 .5rem;padding-top:.6rem;border-top:1px solid var(--grid)}
h3{font-size:1rem;margin:0 0 .3rem}
p,li{max-width:48rem}
p{margin:.5rem 0}
ul{padding-left:1.3rem}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,27rem),1fr));gap:1.6rem 2rem;margin:1rem 0}
figure{margin:0;min-width:0;break-inside:avoid}
figcaption,.caption{color:var(--muted);font-size:.875rem;line-height:1.4}
figcaption{margin-top:.3rem}
.scroll{overflow-x:auto;margin:.5rem 0 .8rem}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
.caption{margin:.8rem 0 0}
th,td{padding:.22rem .65rem;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap;vertical-align:middle}
th{color:var(--muted);font-weight:600;vertical-align:bottom;white-space:normal}
.words{text-align:left}
td svg.draw{display:inline-block;vertical-align:middle}
svg.strip{width:160px;height:14px}
svg.sharebar{width:90px;height:10px}
details{margin:.6rem 0;border:1px solid var(--grid);border-radius:6px;padding:.35rem .8rem}
summary{cursor:pointer;font-weight:600}
pre{background:var(--panel);border-radius:6px;padding:.7rem .9rem;font-size:.8rem;line-height:1.45;white-space:pre-wrap}
@media print{body{max-width:none;padding:0;font-size:11pt}.figures{grid-template-columns:1fr 1fr;gap:1rem}
.scroll{overflow:visible}table{font-size:7.5pt}th,td{padding:.1rem .3rem}h2{break-after:avoid}tr{break-inside:avoid}
svg.sharebar{width:36px}svg.strip{width:120px}
details{border:0;padding:0}details::details-content{content-visibility:visible;display:block;height:auto}
a{color:inherit}}
)css";

}  // namespace

Page::Page(const std::string& title) {
  html_.raw("<!DOCTYPE html>\n");
  html_.open("html", {{"xmlns", "http://www.w3.org/1999/xhtml"}, {"lang", "en"}});
  html_.open("head");
  html_.leaf("meta", {{"charset", "utf-8"}});
  html_.leaf("meta", {{"name", "viewport"}, {"content", "width=device-width, initial-scale=1"}});
  html_.element("title", {}, title);
  html_.open("style").raw(drawing_style()).raw(kPageStyle).close();
  html_.close().raw("\n");
  html_.open("body");
  html_.element("h1", {}, title).raw("\n");
}

Page& Page::heading(const std::string& text) {
  html_.element("h2", {}, text).raw("\n");
  return *this;
}

Page& Page::paragraph(const std::string& text) {
  html_.element("p", {}, text).raw("\n");
  return *this;
}

void Page::add(const Cell& cell) {
  if (cell.markup)
    html_.raw(cell.text);
  else
    html_.text(cell.text);
}

Page& Page::markup_paragraph(const std::string& markup) {
  html_.open("p").raw(markup).close().raw("\n");
  return *this;
}

Page& Page::list(const std::vector<Cell>& items) {
  html_.open("ul");
  for (const Cell& item : items) {
    html_.open("li");
    add(item);
    html_.close();
  }
  html_.close().raw("\n");
  return *this;
}

Page& Page::figures(const std::vector<Figure>& figures) {
  html_.open("div", {{"class", "figures"}});
  for (const Figure& f : figures) {
    html_.raw("\n").open("figure");
    if (!f.title.empty()) html_.element("h3", {}, f.title);
    html_.raw(f.svg);
    if (!f.caption.empty()) html_.element("figcaption", {}, f.caption);
    html_.close();
  }
  html_.close().raw("\n");
  return *this;
}

Page& Page::table(const Table& table, const std::string& caption) {
  const auto css = [&](size_t column) { return column < table.text_columns ? "words" : "number"; };
  // Not inside the table: there it would be as wide as the table and scroll out of sight.
  if (!caption.empty()) html_.element("p", {{"class", "caption"}}, caption);
  html_.open("div", {{"class", "scroll"}}).open("table");
  html_.open("thead").open("tr");
  for (size_t c = 0; c < table.header.size(); ++c)
    html_.element("th", {{"scope", "col"}, {"class", css(c)}}, table.header[c]);
  html_.close().close().raw("\n").open("tbody");
  for (const auto& row : table.rows) {
    html_.open("tr");
    for (size_t c = 0; c < row.size(); ++c) {
      html_.open("td", {{"class", css(c)}});
      add(row[c]);
      html_.close();
    }
    html_.close().raw("\n");
  }
  html_.close().close().close().raw("\n");
  return *this;
}

Page& Page::preformatted(const std::string& text) {
  html_.element("pre", {}, text).raw("\n");
  return *this;
}

Page& Page::open_details(const std::string& summary) {
  html_.open("details").element("summary", {}, summary).raw("\n");
  return *this;
}

Page& Page::close_details() {
  html_.close().raw("\n");
  return *this;
}

std::string Page::finish() {
  html_.close().close().raw("\n");
  return html_.finish();
}

}  // namespace nibble::apps
