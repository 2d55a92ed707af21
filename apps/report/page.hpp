// The HTML page of a report: one file, no script, nothing loaded from elsewhere, readable in light, dark and print.
#pragma once
#include <string>
#include <vector>

#include "apps/report/svg.hpp"

namespace nibble::apps {

/// One cell of a table or item of a list: text, or markup that was made by a writer of this folder.
struct Cell {
  std::string text;
  bool markup = false;
};
inline Cell markup_cell(std::string markup) {
  return {std::move(markup), true};
}

struct Table {
  std::vector<std::string> header;
  std::vector<std::vector<Cell>> rows;
  size_t text_columns = 1;  // the first columns hold words and stand to the left, the others numbers
};

/// What may stand side by side when the page is wide: a drawing and what it shows.
struct Figure {
  std::string title;    // plain text
  std::string svg;      // markup
  std::string caption;  // plain text: how to read it, for a reader who sees such a picture for the first time
};

/// Writes the page from the top down. The page is XML at the same time, so that any parser can check it.
class Page {
 public:
  explicit Page(const std::string& title);

  Page& heading(const std::string& text);
  Page& paragraph(const std::string& text);
  Page& list(const std::vector<Cell>& items);
  Page& markup_paragraph(const std::string& markup);
  /// Two or more figures in a row where there is room, one below the other where there is not.
  Page& figures(const std::vector<Figure>& figures);
  Page& table(const Table& table, const std::string& caption);
  /// Preformatted text, wrapped where it is too long.
  Page& preformatted(const std::string& text);
  /// A part that is closed on the screen and open in print.
  Page& open_details(const std::string& summary);
  Page& close_details();
  std::string finish();

 private:
  void add(const Cell& cell);

  Xml html_;
};

}  // namespace nibble::apps
