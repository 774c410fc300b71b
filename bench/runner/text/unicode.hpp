#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nibkv::llm {

/// Replaces bytes that are not valid UTF-8.
inline constexpr char32_t kReplacementCharacter = 0xFFFD;

/// A code point read from UTF-8, and the number of its bytes.
struct CodePoint {
  char32_t value = kReplacementCharacter;
  std::size_t length = 1;  ///< [1, 4]; 1 for an invalid byte
  bool valid = false;
};

/// Reads the code point that starts at byte `at`. Overlong forms, surrogates, values above
/// U+10FFFF, stray and truncated sequences are invalid: only their first byte is read, as U+FFFD,
/// so that reading continues at the next byte.
///
/// @param at  [0, text.size())
CodePoint decode_utf8(std::string_view text, std::size_t at);

/// Appends `value` to `text` as UTF-8; U+FFFD instead of a surrogate or a value above U+10FFFF.
void append_utf8(std::string& text, char32_t value);

/// The classes that pre-splitters distinguish: \p{L}, \p{N}, \s (the White_Space property), and
/// all the rest (punctuation, symbols, marks, controls, unassigned). The order is that of the table
/// in unicode_tables.inc.
enum class CodePointClass : std::uint8_t { kOther, kLetter, kNumber, kSpace };

/// The class of any value; kOther above U+10FFFF. Cost: one load below U+0080, else a binary search of 1,500 entries.
CodePointClass class_of(char32_t value);

}  // namespace nibkv::llm
