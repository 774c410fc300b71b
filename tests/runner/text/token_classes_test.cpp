#include "bench/runner/text/token_classes.hpp"

#include <gtest/gtest.h>

namespace nibkv::llm {
namespace {

TEST(TokenClasses, AreThoseOfTheTextsOfTokens) {
  Vocabulary words;
  words.model = TokenizerModel::kSentencePiece;
  const struct {
    const char* text;
    TokenType type;
    TokenClass kind;
  } tokens[] = {
      {"<unk>", TokenType::kUnknown, TokenClass::kSpecial},
      {"<s>", TokenType::kControl, TokenClass::kSpecial},
      {"word", TokenType::kNormal, TokenClass::kOrdinary},
      {"\xe2\x96\x81word", TokenType::kNormal, TokenClass::kOrdinary},  // a space before it
      {".", TokenType::kNormal, TokenClass::kPunctuation},
      {"\xe2\x96\x81(", TokenType::kNormal, TokenClass::kPunctuation},
      {"),", TokenType::kNormal, TokenClass::kPunctuation},
      {"\n", TokenType::kNormal, TokenClass::kPunctuation},
      {"\xe2\x80\x9d", TokenType::kNormal, TokenClass::kPunctuation},  // a quotation mark
      {"\xe2\x80", TokenType::kNormal, TokenClass::kOrdinary},         // a part of one
      {"\xe2\x82\xac", TokenType::kNormal, TokenClass::kOrdinary},     // the euro sign
      {"\xe2\x96\x81", TokenType::kNormal, TokenClass::kOrdinary},
      {"3.", TokenType::kNormal, TokenClass::kOrdinary},
      {"'s", TokenType::kNormal, TokenClass::kOrdinary},
  };
  for (const auto& token : tokens) {
    words.tokens.emplace_back(token.text);
    words.types.push_back(token.type);
    words.scores.push_back(0);
  }
  words.unknown = 0;
  const std::vector<TokenClass> classes = token_classes(Tokenizer(words));
  ASSERT_EQ(classes.size(), std::size(tokens));
  for (std::size_t i = 0; i < classes.size(); ++i) EXPECT_EQ(classes[i], tokens[i].kind) << tokens[i].text;
}

}  // namespace
}  // namespace nibkv::llm
