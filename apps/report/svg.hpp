// Markup for the reports: escaping, numbers and a writer that cannot leave an element open.
#pragma once
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble::apps {

/// `text` as it may stand in an element or in a quoted attribute, in XML and in HTML. What XML 1.0 cannot hold at all
/// (control characters, bytes that are not UTF-8) becomes U+FFFD.
std::string escaped(std::string_view text);

/// At most `characters` of `text`, the last three of them "..." when something was cut. Never cuts inside a UTF-8
/// sequence. For labels inside pictures, which cannot wrap.
std::string cut_short(const std::string& text, size_t characters);

/// A coordinate: two decimals at most, no trailing zeros, never "-0", a point whatever the locale; "0" for values that
/// are not finite.
std::string coordinate(double value);

/// A number for people with `digits` decimals; "-" for values that are not finite.
std::string decimal(double value, int digits);

/// Writes elements in order. Attributes and text are escaped here and nowhere else.
class Xml {
 public:
  using Attributes = std::initializer_list<std::pair<std::string_view, std::string>>;

  Xml& open(std::string_view tag, Attributes attributes = {});
  /// Closes the innermost open element; Error when there is none.
  Xml& close();
  /// <tag .../>: elements of SVG, and the void ones of HTML.
  Xml& leaf(std::string_view tag, Attributes attributes);
  /// <tag ...>text</tag>
  Xml& element(std::string_view tag, Attributes attributes, std::string_view text);
  Xml& text(std::string_view text);
  /// Markup that another writer made.
  Xml& raw(std::string_view markup);
  /// All of it; Error when an element is still open.
  std::string finish();

 private:
  void start(std::string_view tag, Attributes attributes);

  std::string out_;
  std::vector<std::string> open_;
};

}  // namespace nibble::apps
