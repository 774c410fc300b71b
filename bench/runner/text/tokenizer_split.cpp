#include "bench/runner/text/tokenizer_encoders.hpp"
#include "bench/runner/text/unicode.hpp"

// Each splitter is a regular expression of alternatives, tried in order at every position. Every code point belongs to
// exactly one class, so the classes of a word's first two code points settle which alternative matches.

namespace nibkv::llm {
namespace {

// A code point for the splitters; length 0 at the end of the text.
struct Unit {
  char32_t value = 0;
  CodePointClass kind = CodePointClass::kOther;
  std::size_t length = 0;

  bool at_end() const { return length == 0; }
  bool is(CodePointClass wanted) const { return !at_end() && kind == wanted; }
  bool is_newline() const { return value == '\n' || value == '\r'; }
};

Unit unit_at(std::string_view text, std::size_t at) {
  if (at >= text.size()) return {};
  const CodePoint point = decode_utf8(text, at);
  return {point.value, class_of(point.value), point.length};
}

// The end of the run of `kind` that starts at `at`, with at most `most` code points.
std::size_t skip(std::string_view text, std::size_t at, CodePointClass kind, std::size_t most = kMaxTextBytes) {
  for (; most > 0; --most) {
    const Unit unit = unit_at(text, at);
    if (!unit.is(kind)) break;
    at += unit.length;
  }
  return at;
}

// 's|'t|'re|'ve|'m|'ll|'d: its length, 0 for none.
std::size_t contraction(std::string_view text, bool any_case) {
  if (text[0] != '\'') return 0;
  const auto letter = [&](std::size_t i) {
    if (i >= text.size()) return '\0';
    const char c = text[i];
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  const char first = letter(1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  const char second = letter(2);
  if ((first == 'r' || first == 'v') && second == 'e') return 3;
  return first == 'l' && second == 'l' ? 3 : 0;
}

// \s+(?!\S)|\s+: the last space of a run is left to the word after it, unless it is the only one.
std::size_t space_run(std::string_view text, bool number_ends_text) {
  std::size_t at = 0;
  std::size_t last = 0;
  Unit unit = unit_at(text, at);
  while (unit.is(CodePointClass::kSpace)) {
    last = at;
    at += unit.length;
    unit = unit_at(text, at);
  }
  const bool nothing_follows = unit.at_end() || (number_ends_text && unit.is(CodePointClass::kNumber));
  return nothing_follows || last == 0 ? at : last;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// With `numbers_apart` every \p{N} is cut out first, so that a number ends the text before it.
std::size_t first_word_gpt2(std::string_view text, bool numbers_apart) {
  if (const std::size_t length = contraction(text, false)) return length;

  const std::size_t start = text[0] == ' ' ? 1 : 0;
  const Unit unit = unit_at(text, start);
  if (unit.at_end() || unit.is(CodePointClass::kSpace)) return space_run(text, numbers_apart);
  if (unit.is(CodePointClass::kNumber) && numbers_apart) return start == 0 ? unit.length : space_run(text, true);
  return skip(text, start, unit.kind);
}

// \s*[\r\n]+: the end of the last line break in the run of spaces that `text` starts with, 0 for none.
std::size_t last_newline(std::string_view text) {
  std::size_t end = 0;
  std::size_t at = 0;
  for (Unit unit = unit_at(text, at); unit.is(CodePointClass::kSpace); unit = unit_at(text, at)) {
    at += unit.length;
    if (unit.is_newline()) end = at;
  }
  return end;
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}|
// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
std::size_t first_word_llama3(std::string_view text, std::size_t digits) {
  if (const std::size_t length = contraction(text, true)) return length;

  const Unit first = unit_at(text, 0);
  if (first.is(CodePointClass::kLetter)) return skip(text, 0, CodePointClass::kLetter);
  if (first.is(CodePointClass::kNumber)) return skip(text, 0, CodePointClass::kNumber, digits);
  if (!first.is_newline() && unit_at(text, first.length).is(CodePointClass::kLetter)) {
    return skip(text, first.length, CodePointClass::kLetter);
  }

  const std::size_t start = first.value == ' ' ? 1 : 0;
  if (unit_at(text, start).is(CodePointClass::kOther)) {
    std::size_t end = skip(text, start, CodePointClass::kOther);
    while (unit_at(text, end).is_newline()) ++end;
    return end;
  }
  if (const std::size_t end = last_newline(text)) return end;
  return space_run(text, false);
}

}  // namespace

std::size_t first_word(PreSplitter splitter, std::string_view text) {
  switch (splitter) {
    case PreSplitter::kSmolLm:
      return first_word_gpt2(text, true);
    case PreSplitter::kLlama3:
      return first_word_llama3(text, 3);
    case PreSplitter::kQwen2:
      return first_word_llama3(text, 1);
    case PreSplitter::kGpt2:
      break;
  }
  return first_word_gpt2(text, false);
}

}  // namespace nibkv::llm
