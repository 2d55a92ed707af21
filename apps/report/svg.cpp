#include "apps/report/svg.hpp"

#include <cmath>
#include <cstdint>

#include "engine/error.hpp"
#include "engine/utf8.hpp"

namespace nibble::apps {

namespace {

constexpr const char* kReplacement = "&#xFFFD;";

/// Characters that XML 1.0 excludes although they are UTF-8: controls but tab and newlines, U+FFFE and U+FFFF.
bool excluded(std::string_view sequence) {
  if (sequence.size() == 1) {
    const char c = sequence[0];
    return (c >= 0 && c < ' ' && c != '\t' && c != '\n' && c != '\r') || c == 0x7F;
  }
  return sequence == "\xEF\xBF\xBE" || sequence == "\xEF\xBF\xBF";
}

void append_escaped(std::string& out, std::string_view sequence) {
  if (sequence == "&")
    out += "&amp;";
  else if (sequence == "<")
    out += "&lt;";
  else if (sequence == ">")
    out += "&gt;";
  else if (sequence == "\"")
    out += "&quot;";
  else if (sequence == "'")
    out += "&#39;";
  else
    out += sequence;
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t length = utf8_sequence_length(text);
    const std::string_view sequence = text.substr(0, length);
    if (length == 0 || excluded(sequence))
      out += kReplacement;
    else
      append_escaped(out, sequence);
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

std::string cut_short(const std::string& text, size_t characters) {
  constexpr size_t kDots = 3;
  std::string_view rest = text;
  size_t seen = 0, cut = 0;
  while (!rest.empty()) {
    if (seen + kDots == characters) cut = text.size() - rest.size();
    if (seen == characters) return text.substr(0, cut) + "...";
    const size_t length = utf8_sequence_length(rest);
    rest.remove_prefix(length == 0 ? 1 : length);
    ++seen;
  }
  return text;
}

std::string coordinate(double value) {
  if (!std::isfinite(value)) return "0";
  std::string s = fmt::format("{:.2f}", value);
  while (s.back() == '0') s.pop_back();
  if (s.back() == '.') s.pop_back();
  return s == "-0" ? "0" : s;
}

std::string decimal(double value, int digits) {
  if (!std::isfinite(value)) return "-";
  std::string s = fmt::format("{:.{}f}", value, digits);
  // -0.00 is 0.00: the sign of what rounding took away says nothing.
  if (s[0] == '-' && s.find_first_of("123456789") == std::string::npos) s.erase(0, 1);
  return s;
}

void Xml::start(std::string_view tag, Attributes attributes) {
  out_ += '<';
  out_ += tag;
  for (const auto& [name, value] : attributes) {
    out_ += ' ';
    out_ += name;
    out_ += "=\"";
    out_ += escaped(value);
    out_ += '"';
  }
}

Xml& Xml::open(std::string_view tag, Attributes attributes) {
  start(tag, attributes);
  out_ += '>';
  open_.emplace_back(tag);
  return *this;
}

Xml& Xml::close() {
  if (open_.empty()) throw Error(ExitCode::kFailed, "[report] closes an element that was never opened");
  out_ += "</" + open_.back() + ">";
  open_.pop_back();
  return *this;
}

Xml& Xml::leaf(std::string_view tag, Attributes attributes) {
  start(tag, attributes);
  out_ += "/>";
  return *this;
}

Xml& Xml::element(std::string_view tag, Attributes attributes, std::string_view text) {
  open(tag, attributes);
  out_ += escaped(text);
  return close();
}

Xml& Xml::text(std::string_view text) {
  out_ += escaped(text);
  return *this;
}

Xml& Xml::raw(std::string_view markup) {
  out_ += markup;
  return *this;
}

std::string Xml::finish() {
  if (!open_.empty()) throw Error(ExitCode::kFailed, "[report] leaves the element '" + open_.back() + "' open");
  return std::move(out_);
}

}  // namespace nibble::apps
