// Whether a text is well-formed XML, as strictly as the reports need: a parser's view, not the writer's.
#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

namespace nibble::testing {

struct XmlFacts {
  std::string problem;                  // empty: well-formed
  std::map<std::string, int> elements;  // how often each name occurs
  std::vector<std::string> links;       // values of href, src, and what url() or @import name
};

/// Checks nesting, quoting, references, repeated attributes and one root element. Knows no CDATA, no comments and no
/// processing instructions: the reports have none, so one of them is a problem, too.
class XmlChecker {
 public:
  explicit XmlChecker(const std::string& text) : text_(text) {}

  XmlFacts check() {
    constexpr const char* kDoctype = "<!DOCTYPE html>";
    if (text_.starts_with(kDoctype)) at_ = std::string(kDoctype).size();
    int roots = 0;
    while (facts_.problem.empty() && at_ < text_.size()) {
      if (text_[at_] != '<') {
        const size_t end = std::min(text_.find('<', at_), text_.size());
        const std::string words = text_.substr(at_, end - at_);
        if (open_.empty() && words.find_first_not_of(" \n") != std::string::npos) fail("text outside the root");
        check_text(words);
        at_ = end;
      } else if (text_.compare(at_, 2, "</") == 0) {
        close_tag();
      } else {
        if (open_.empty() && ++roots > 1) fail("more than one root");
        open_tag();
      }
    }
    if (facts_.problem.empty() && !open_.empty()) fail("'" + open_.back() + "' is never closed");
    if (facts_.problem.empty() && roots == 0) fail("no element");
    return facts_;
  }

 private:
  void fail(const std::string& what) {
    if (facts_.problem.empty()) facts_.problem = what + " at " + std::to_string(at_) + ": " + text_.substr(at_, 60);
  }

  static bool name_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == ':' ||
           c == '_';
  }

  std::string name() {
    const size_t begin = at_;
    while (at_ < text_.size() && name_character(text_[at_])) ++at_;
    if (begin == at_) fail("no name");
    return text_.substr(begin, at_ - begin);
  }

  void check_text(const std::string& words) {
    static const std::set<std::string> kNamed = {"amp", "lt", "gt", "quot", "apos"};
    for (size_t i = 0; i < words.size(); ++i) {
      const unsigned char c = static_cast<unsigned char>(words[i]);
      if (c < ' ' && c != '\n' && c != '\t' && c != '\r') fail("control character");
      if (c != '&') continue;
      const size_t end = words.find(';', i);
      const std::string entity = end == std::string::npos ? "" : words.substr(i + 1, end - i - 1);
      const bool number = entity.size() > 1 && entity[0] == '#';
      if (!number && !kNamed.contains(entity)) fail("a lone & in '" + words.substr(i, 20) + "'");
    }
    for (const std::string sign : {"url(", "@import"})
      if (words.find(sign) != std::string::npos) facts_.links.push_back(words.substr(words.find(sign), 40));
  }

  void open_tag() {
    ++at_;
    const std::string tag = name();
    ++facts_.elements[tag];
    std::set<std::string> seen;
    while (facts_.problem.empty()) {
      const size_t blanks = text_.find_first_not_of(" \n", at_);
      const bool separated = blanks != at_;
      at_ = std::min(blanks, text_.size());
      if (at_ == text_.size()) return fail("tag without an end");
      if (text_.compare(at_, 2, "/>") == 0) {
        at_ += 2;
        return;
      }
      if (text_[at_] == '>') {
        ++at_;
        open_.push_back(tag);
        return;
      }
      if (!separated) return fail("no blank before an attribute");
      attribute(seen);
    }
  }

  void attribute(std::set<std::string>& seen) {
    const std::string key = name();
    if (!seen.insert(key).second) fail("attribute '" + key + "' twice");
    if (text_.compare(at_, 2, "=\"") != 0) return fail("attribute without =\"");
    at_ += 2;
    const size_t end = text_.find('"', at_);
    if (end == std::string::npos) return fail("attribute without an end");
    const std::string value = text_.substr(at_, end - at_);
    if (value.find('<') != std::string::npos) fail("< in an attribute");
    check_text(value);
    if (key == "href" || key == "src" || key.ends_with(":href")) facts_.links.push_back(value);
    at_ = end + 1;
  }

  void close_tag() {
    at_ += 2;
    const std::string tag = name();
    if (open_.empty() || open_.back() != tag) return fail("'" + tag + "' closes what is not open");
    open_.pop_back();
    if (text_.compare(at_, 1, ">") != 0) return fail("closing tag without >");
    ++at_;
  }

  const std::string& text_;
  size_t at_ = 0;
  std::vector<std::string> open_;
  XmlFacts facts_;
};

inline XmlFacts xml_facts(const std::string& text) {
  return XmlChecker(text).check();
}

}  // namespace nibble::testing
