#include "bench/runner/text/utf8_stream.hpp"

#include <gtest/gtest.h>

#include <string>

namespace nibkv::llm {
namespace {

TEST(Utf8Stream, HoldsBackWhatIsNoWholeCharacterYet) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xC3"), "a");
  EXPECT_EQ(stream.push("\xA9"), "\xC3\xA9");
  EXPECT_EQ(stream.push("\xF0\x9F"), "");
  EXPECT_EQ(stream.push("\x98"), "");
  EXPECT_EQ(stream.push("\x80!"), "\xF0\x9F\x98\x80!");
  EXPECT_EQ(stream.flush(), "");
}

TEST(Utf8Stream, SaysTheSameForTextInOnePieceAndByteByByte) {
  const std::string text = "na\xC3\xAFve \xE2\x82\xAC 5 \xF0\x9F\x98\x80\xED\x9F\xBF\xF4\x8F\xBF\xBF.";
  Utf8Stream whole;
  EXPECT_EQ(whole.push(text), text);
  Utf8Stream bytewise;
  std::string out;
  for (const char byte : text) {
    const std::string piece = bytewise.push({&byte, 1});
    EXPECT_TRUE(piece.empty() || (static_cast<unsigned char>(piece[0]) & 0xC0) != 0x80) << "begins within a character";
    out += piece;
  }
  EXPECT_EQ(out, text);
}

TEST(Utf8Stream, ReplacesWhatCanBecomeNoCharacterAtOnce) {
  const std::string sign = "\xEF\xBF\xBD";
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\x80x"), sign + "x");
  EXPECT_EQ(stream.push("\xC3("), sign + "(");
  EXPECT_EQ(stream.push("\xED\xA0"), sign + sign) << "a surrogate";
  EXPECT_EQ(stream.push("\xC0"), sign) << "overlong";
  EXPECT_EQ(stream.push("\xE2\x82"), "");
  EXPECT_EQ(stream.flush(), sign + sign);
  EXPECT_EQ(stream.flush(), "");
}

}  // namespace
}  // namespace nibkv::llm
