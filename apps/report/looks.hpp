// How things look in every chart: colours, marks and dashes of precisions, and the style sheet of all drawings.
#pragma once
#include <string>

#include "apps/report/svg.hpp"

namespace nibble::apps {

enum class Mark { kCircle, kSquare, kTriangle, kDiamond, kCross };

/// How one kind of thing looks everywhere: a colour of the palette, and a mark and dashes for eyes (and printers) that
/// do not see colours.
struct Look {
  int colour = 0;  // class s0 .. s5 of the style
  Mark mark = Mark::kCircle;
  const char* dashes = "";  // stroke-dasharray
};

/// The look of a precision: bf16, w8a8, w4a4 and w4a4-fl8 have one each; all others share the two that are left.
Look look_of(const std::string& precision);

/// The colour of a layer by its wider operand: that of w4a4, w8a8 or bf16.
int colour_of_bits(int bits);

struct MarkArgs {
  double x = 0, y = 0;
  double radius = 4.5;
  bool hollow = false;
  std::string tooltip = {};
};
void draw_mark(Xml& svg, Mark mark, const MarkArgs& args);

/// A small picture of the mark on its line, for legends outside a chart.
std::string legend_mark(const Look& look);

/// A small square of a colour, for legends of columns.
std::string colour_swatch(int colour);

/// The colour for what is only there to compare with: grey.
inline constexpr int kGrey = 6;

/// The style sheet: the palette for light, dark and print as variables of :root, and the classes of all drawings.
/// The colours are Okabe and Ito's (distinct for colour-blind readers), darkened or lightened until each has a
/// contrast of at least 3 to its background.
std::string drawing_style();

/// `svg` (one element) as a file of its own: with the style sheet inside and a background, light or dark as the reader
/// prefers.
std::string standalone(const std::string& svg);

}  // namespace nibble::apps
