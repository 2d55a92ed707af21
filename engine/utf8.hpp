// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace nibble {

/// Bytes of the character at the front of `text`, which is not empty; 0 when there is none (overlong, a surrogate, too
/// large, cut off).
size_t utf8_sequence_length(std::string_view text);

/// Whether all of `text` is UTF-8; the empty text is.
bool is_utf8(std::string_view text);

/// The text, or its first `longest` bytes at most, up to a character's end, followed by "...": for messages that repeat
/// what a file says.
std::string shortened(std::string_view text, size_t longest = 300);

}  // namespace nibble
