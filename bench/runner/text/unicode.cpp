#include "bench/runner/text/unicode.hpp"

#include <algorithm>
#include <array>
#include <iterator>

namespace nibkv::llm {
namespace {

constexpr std::uint32_t kClassBits = 2;
constexpr char32_t kLastCodePoint = 0x10FFFF;

// Sorted starts of runs, each first << kClassBits | class.
constexpr std::uint32_t kRuns[] = {
#include "bench/runner/text/unicode_tables.inc"
};

constexpr CodePointClass search_class(char32_t value) {
  const std::uint32_t last_key = (static_cast<std::uint32_t>(value) << kClassBits) | ((1U << kClassBits) - 1U);
  const auto* const after = std::upper_bound(std::begin(kRuns), std::end(kRuns), last_key);
  return static_cast<CodePointClass>(*(after - 1) & ((1U << kClassBits) - 1U));  // the first run starts at zero
}

constexpr auto kAsciiClasses = [] {
  std::array<CodePointClass, 128> classes{};
  for (std::size_t i = 0; i < classes.size(); ++i) classes[i] = search_class(static_cast<char32_t>(i));
  return classes;
}();

constexpr bool is_scalar_value(char32_t value) {
  return value <= kLastCodePoint && (value < 0xD800 || value > 0xDFFF);
}

}  // namespace

CodePoint decode_utf8(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[at + i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};

  constexpr CodePoint kInvalid;
  if (lead < 0xC2 || lead > 0xF4) return kInvalid;
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (text.size() - at < length) return kInvalid;

  char32_t value = lead & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return kInvalid;
    value = (value << 6) | (byte(i) & 0x3FU);
  }
  constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};  // anything less would be an overlong form
  if (value < kSmallest[length] || !is_scalar_value(value)) return kInvalid;
  return {value, length, true};
}

void append_utf8(std::string& text, char32_t value) {
  if (!is_scalar_value(value)) value = kReplacementCharacter;
  if (value < 0x80) {
    text.push_back(static_cast<char>(value));
    return;
  }
  const std::size_t length = value < 0x800 ? 2 : value < 0x10000 ? 3 : 4;
  const char32_t marker = (0xF00U >> length) & 0xFFU;  // `length` one bits, then zeros
  text.push_back(static_cast<char>(marker | (value >> (6 * (length - 1)))));
  for (std::size_t i = length - 1; i-- > 0;) text.push_back(static_cast<char>(0x80U | ((value >> (6 * i)) & 0x3FU)));
}

CodePointClass class_of(char32_t value) {
  if (value < kAsciiClasses.size()) return kAsciiClasses[value];
  return value > kLastCodePoint ? CodePointClass::kOther : search_class(value);
}

}  // namespace nibkv::llm
