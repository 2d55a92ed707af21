#include "apps/report/looks.hpp"

#include <fmt/format.h>

#include "engine/error.hpp"

namespace nibble::apps {

namespace {

struct KnownLook {
  const char* precision;
  Look look;
};

constexpr KnownLook kLooks[] = {
    {"bf16", {0, Mark::kCircle, ""}},
    {"w8a8", {1, Mark::kSquare, "7 3"}},
    {"w4a4", {2, Mark::kTriangle, "2 3"}},
    {"w4a4-fl8", {3, Mark::kDiamond, ""}},
};

constexpr const char* kDrawingStyle = R"css(
:root{color-scheme:light dark;--paper:#ffffff;--ink:#1b1f24;--muted:#5b6570;--grid:#e3e6ea;--panel:#f5f6f8;
--s0:#0072b2;--s1:#00805c;--s2:#ad4c8c;--s3:#c65400;--s4:#6a5acd;--s5:#7a6a00}
@media screen and (prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e8eaed;--muted:#a3acb7;--grid:#31373f;
--panel:#1e2329;--s0:#6cc0f5;--s1:#3fcf9f;--s2:#ee9fd0;--s3:#ff9d52;--s4:#b3a7ff;--s5:#e0cf5a}}
.draw{display:block;width:100%;height:auto;font:14px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
.draw text{fill:var(--ink)}
.draw .quiet{fill:var(--muted)}
.draw .strong{font-weight:600}
.draw .small{font-size:12px}
.draw .label{font-size:12px;fill:currentColor;stroke:var(--paper);stroke-width:3px;paint-order:stroke;stroke-linejoin:round}
.draw .paper{fill:var(--paper)}
.draw .frame{fill:var(--paper);stroke:var(--muted);stroke-width:.8}
.draw .grid{stroke:var(--grid);stroke-width:1;fill:none}
.draw .axis{stroke:var(--muted);stroke-width:1;fill:none}
.draw .front{fill:none;stroke:var(--ink);stroke-width:5;stroke-opacity:.22;stroke-linejoin:round}
.draw .line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
.draw .thread{fill:none;stroke:currentColor;stroke-width:1;stroke-opacity:.6}
.draw .bar{stroke:currentColor;stroke-width:1.2;fill:none}
.draw .mark{fill:currentColor;stroke:currentColor;stroke-width:1.8}
.draw .hollow{fill:var(--paper)}
.draw .fill{fill:currentColor}
.draw .cell{fill:currentColor;stroke:var(--muted);stroke-width:.5}
.s0{color:var(--s0)}.s1{color:var(--s1)}.s2{color:var(--s2)}.s3{color:var(--s3)}.s4{color:var(--s4)}.s5{color:var(--s5)}
.s6{color:var(--muted)}
.draw .grey *{color:var(--muted)}
)css";

std::string triangle(double x, double y, double r) {
  return fmt::format("M{} {}L{} {}L{} {}Z", coordinate(x), coordinate(y - 1.2 * r), coordinate(x + 1.1 * r),
                     coordinate(y + 0.9 * r), coordinate(x - 1.1 * r), coordinate(y + 0.9 * r));
}

std::string diamond(double x, double y, double r) {
  return fmt::format("M{} {}L{} {}L{} {}L{} {}Z", coordinate(x), coordinate(y - 1.3 * r), coordinate(x + 1.3 * r),
                     coordinate(y), coordinate(x), coordinate(y + 1.3 * r), coordinate(x - 1.3 * r), coordinate(y));
}

std::string square(double x, double y, double r) {
  return fmt::format("M{} {}H{}V{}H{}Z", coordinate(x - 0.9 * r), coordinate(y - 0.9 * r), coordinate(x + 0.9 * r),
                     coordinate(y + 0.9 * r), coordinate(x - 0.9 * r));
}

std::string cross(double x, double y, double r) {
  return fmt::format("M{} {}L{} {}M{} {}L{} {}", coordinate(x - r), coordinate(y - r), coordinate(x + r),
                     coordinate(y + r), coordinate(x - r), coordinate(y + r), coordinate(x + r), coordinate(y - r));
}

std::string circle(double x, double y, double r) {
  return fmt::format("M{0} {1}a{2} {2} 0 1 0 {3} 0a{2} {2} 0 1 0 -{3} 0Z", coordinate(x - r), coordinate(y),
                     coordinate(r), coordinate(2 * r));
}

std::string outline(Mark mark, double x, double y, double r) {
  switch (mark) {
    case Mark::kCircle:
      return circle(x, y, r);
    case Mark::kSquare:
      return square(x, y, r);
    case Mark::kTriangle:
      return triangle(x, y, r);
    case Mark::kDiamond:
      return diamond(x, y, r);
    case Mark::kCross:
      return cross(x, y, r);
  }
  return "";
}

}  // namespace

Look look_of(const std::string& precision) {
  for (const KnownLook& known : kLooks)
    if (precision == known.precision) return known.look;
  // By the text, so that a precision looks the same whatever else the study holds.
  const bool ends = precision.ends_with("-fl8");
  return ends ? Look{5, Mark::kCross, "9 3 2 3"} : Look{4, Mark::kCross, "5 3"};
}

int colour_of_bits(int bits) {
  return look_of(bits <= 4 ? "w4a4" : bits <= 8 ? "w8a8" : "bf16").colour;
}

void draw_mark(Xml& svg, Mark mark, const MarkArgs& args) {
  svg.open("path",
           {{"class", args.hollow ? "mark hollow" : "mark"}, {"d", outline(mark, args.x, args.y, args.radius)}});
  if (!args.tooltip.empty()) svg.element("title", {}, args.tooltip);
  svg.close();
}

std::string legend_mark(const Look& look) {
  Xml svg;
  svg.open("svg", {{"class", "draw s" + std::to_string(look.colour)},
                   {"viewBox", "0 0 34 14"},
                   {"style", "display:inline-block;width:34px;height:14px;vertical-align:-2px"},
                   {"aria-hidden", "true"}});
  svg.leaf("path", {{"class", "line"}, {"d", "M1 7H33"}, {"stroke-dasharray", look.dashes}});
  draw_mark(svg, look.mark, {.x = 17, .y = 7});
  return svg.close().finish();
}

std::string colour_swatch(int colour) {
  Xml svg;
  svg.open("svg", {{"class", "draw s" + std::to_string(colour)},
                   {"viewBox", "0 0 12 12"},
                   {"style", "display:inline-block;width:12px;height:12px;vertical-align:-1px"},
                   {"aria-hidden", "true"}});
  return svg.leaf("rect", {{"class", "fill"}, {"width", "12"}, {"height", "12"}}).close().finish();
}

std::string drawing_style() {
  return kDrawingStyle;
}

std::string standalone(const std::string& svg) {
  const size_t tag_end = svg.find('>');
  if (!svg.starts_with("<svg ") || tag_end == std::string::npos)
    throw Error(ExitCode::kFailed, "[report] standalone() takes one svg element");
  Xml style;
  style.open("style").raw(drawing_style()).close();
  style.leaf("rect", {{"class", "paper"}, {"width", "100%"}, {"height", "100%"}});
  return "<svg xmlns=\"http://www.w3.org/2000/svg\"" + svg.substr(4, tag_end - 3) + style.finish() +
         svg.substr(tag_end + 1) + "\n";
}

}  // namespace nibble::apps
