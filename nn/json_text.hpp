// JSON values from text and to text. The parser and the writer are templates that take a compiler 3 to 4 s in each
// source that uses them; here they are compiled once.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace nibble {

/// Errors: nlohmann::json::exception (include <nlohmann/json.hpp>) with the place of the first byte that is not JSON.
nlohmann::json parse_json(std::string_view text);
/// The same without an error: a value whose is_discarded() is true where the text is not JSON.
nlohmann::json parse_json_or_discard(std::string_view text);

/// The whole number that `value` is, nothing for anything else: the library's own conversion cuts 10.5, wraps what does
/// not fit, and is undefined for 1e300.
std::optional<int64_t> whole_number(const nlohmann::json& value);

/// On one line, or with `indent` blanks per level; bytes that are not UTF-8 (paths may hold any) become U+FFFD.
/// Recurses once per level, so not for a value from a hostile file.
std::string json_text(const nlohmann::json& value, int indent = -1);
std::string json_text(const nlohmann::ordered_json& value, int indent = -1);

}  // namespace nibble
