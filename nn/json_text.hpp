// JSON values from text and to text. The parser and the writer are templates that take a compiler 3 to 4 s in each
// source that uses them; here they are compiled once.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace nibble {

/// Errors: nlohmann::json::exception (include <nlohmann/json.hpp>) with the place of the first byte that is no JSON.
nlohmann::json parse_json(std::string_view text);
/// The same without an error: a value whose is_discarded() is true where the text is no JSON.
nlohmann::json parse_json_or_discard(std::string_view text);

/// On one line, or with `indent` blanks a level; bytes that are not UTF-8 (paths may hold any) become U+FFFD. Recurses
/// once a level, so not for a value out of a hostile file.
std::string json_text(const nlohmann::json& value, int indent = -1);
std::string json_text(const nlohmann::ordered_json& value, int indent = -1);

}  // namespace nibble
