#include "bench/runner/text/unicode.hpp"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace nibkv::llm {
namespace {

TEST(Unicode, EncodesAndDecodesEveryCodePoint) {
  for (char32_t value = 0; value <= 0x10FFFF; ++value) {
    if (value >= 0xD800 && value <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, value);
    const CodePoint point = decode_utf8(text, 0);
    ASSERT_TRUE(point.valid && point.value == value && point.length == text.size()) << std::hex << +value;
  }
}

TEST(Unicode, UsesTheShortestFormAtEveryBoundary) {
  const auto encoded = [](char32_t value) {
    std::string text;
    append_utf8(text, value);
    return text;
  };
  EXPECT_EQ(encoded(0), std::string(1, '\0'));
  EXPECT_EQ(encoded(0x7F), "\x7F");
  EXPECT_EQ(encoded(0x80), "\xC2\x80");
  EXPECT_EQ(encoded(0x7FF), "\xDF\xBF");
  EXPECT_EQ(encoded(0x800), "\xE0\xA0\x80");
  EXPECT_EQ(encoded(0xFFFF), "\xEF\xBF\xBF");
  EXPECT_EQ(encoded(0x10000), "\xF0\x90\x80\x80");
  EXPECT_EQ(encoded(0x10FFFF), "\xF4\x8F\xBF\xBF");
}

TEST(Unicode, WritesTheReplacementCharacterForWhatIsNoCodePoint) {
  for (const std::uint32_t value : {0xD800U, 0xDFFFU, 0x110000U, 0xFFFFFFFFU}) {
    std::string text;
    append_utf8(text, static_cast<char32_t>(value));
    EXPECT_EQ(text, "\xEF\xBF\xBD") << std::hex << value;
  }
}

TEST(Unicode, ReadsOneByteOfAnInvalidSequence) {
  using namespace std::string_view_literals;
  for (const std::string_view text : {
           "\x80"sv,
           "\xBF"sv,
           "\xFF"sv,
           "\xF8\x88\x80\x80\x80"sv,  // no lead bytes
           "\xC0\x80"sv,
           "\xC1\xBF"sv,
           "\xE0\x9F\xBF"sv,  // overlong
           "\xF0\x8F\xBF\xBF"sv,
           "\xED\xA0\x80"sv,
           "\xED\xBF\xBF"sv,  // overlong, surrogates
           "\xF4\x90\x80\x80"sv,
           "\xF5\x80\x80\x80"sv,  // above U+10FFFF
           "\xC3"sv,
           "\xE2\x82"sv,
           "\xF0\x9F\x98"sv,  // cut
           "\xC3\x28"sv,
           "\xE2\x28\x82"sv,
           "\xE2\x82\x28"sv,
           "\xF0\x9F\x98("sv,  // interrupted
       }) {
    const CodePoint point = decode_utf8(text, 0);
    EXPECT_TRUE(!point.valid && point.value == kReplacementCharacter && point.length == 1)
        << "text of " << text.size() << " bytes from " << +static_cast<unsigned char>(text[0]);
  }
}

TEST(Unicode, ReadsFromTheMiddleOfAText) {
  const std::string_view text = "a\xC3\xA9z";
  EXPECT_EQ(decode_utf8(text, 1).value, U'\u00E9');
  EXPECT_FALSE(decode_utf8(text, 2).valid);
  EXPECT_EQ(decode_utf8(text, 3).value, U'z');
}

TEST(Unicode, TellsLettersNumbersSpacesAndTheRestApart) {
  constexpr char32_t kLetters[] = {'A',   'Z',    'a',    'z',    0xAA,   0xB5,   0xE9,   0x3B1,   0x434,   0x5D0,
                                   0x915, 0x1780, 0x3042, 0x4E00, 0x9FFF, 0xAC00, 0xD7A3, 0x10400, 0x20000, 0x1D400};
  constexpr char32_t kNumbers[] = {'0', '9', 0xB2, 0xBD, 0x660, 0x966, 0x2160, 0x2460, 0x3007, 0xFF11, 0x1D7CE};
  constexpr char32_t kSpaces[] = {'\t',   '\n',   '\v',   '\f',   '\r',   ' ',    0x85,   0xA0,
                                  0x1680, 0x2000, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
  constexpr char32_t kOthers[] = {0,      0x1C,   0x1F,   '!',    '/',    ':',     '@',      '[',      '_',
                                  '`',    '~',    0x7F,   0xA9,   0x301,  0x180E,  0x200B,   0x200D,   0x20AC,
                                  0x3001, 0xD800, 0xFE0F, 0xFEFF, 0xFFFD, 0x1F600, 0x10FFFF, 0x110000, 0xFFFFFFFF};
  for (const char32_t value : kLetters) EXPECT_EQ(class_of(value), CodePointClass::kLetter) << std::hex << +value;
  for (const char32_t value : kNumbers) EXPECT_EQ(class_of(value), CodePointClass::kNumber) << std::hex << +value;
  for (const char32_t value : kSpaces) EXPECT_EQ(class_of(value), CodePointClass::kSpace) << std::hex << +value;
  for (const char32_t value : kOthers) EXPECT_EQ(class_of(value), CodePointClass::kOther) << std::hex << +value;
}

TEST(Unicode, HasTheNumberOfCodePointsInEachClassThatUnicode14Has) {
  int counts[4] = {};
  for (char32_t value = 0; value <= 0x10FFFF; ++value) ++counts[static_cast<int>(class_of(value))];
  EXPECT_EQ(counts[static_cast<int>(CodePointClass::kLetter)], 131756);
  EXPECT_EQ(counts[static_cast<int>(CodePointClass::kNumber)], 1791);
  EXPECT_EQ(counts[static_cast<int>(CodePointClass::kSpace)], 25);
}

}  // namespace
}  // namespace nibkv::llm
