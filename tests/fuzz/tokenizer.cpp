// Any text with vocabularies of both kinds, and vocabularies made from the input.
#include "bench/runner/text/tokenizer.hpp"

#include <gtest/gtest.h>

#include <string_view>

#include "bench/runner/text/utf8_stream.hpp"
#include "tests/fuzz/targets.hpp"
#include "tests/runner/text/vocabularies.hpp"

namespace nibkv::fuzz {
namespace {

using namespace llm;

std::string_view view(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Vocabulary vocabulary_of(unsigned kind) {
  constexpr PreSplitter kSplitters[] = {PreSplitter::kGpt2, PreSplitter::kSmolLm, PreSplitter::kLlama3,
                                        PreSplitter::kQwen2};
  if (kind % 5 < 4) {
    Vocabulary pairs = test::byte_pairs(kSplitters[kind % 5], {"a b", "b c", "ab c", "\xC4\xA0 a", "1 2", "12 3"});
    test::add_token(pairs, "<|im_end|>", TokenType::kControl);
    test::add_token(pairs, "<user>", TokenType::kUserDefined);
    return pairs;
  }
  Vocabulary pieces = test::sentence_pieces();
  pieces.add_space_prefix = kind % 2 == 0;
  for (const char* text : {"a", "b", "ab", "\xE2\x96\x81",
                           "\xE2\x96\x81"
                           "a",
                           "abab"}) {
    test::add_token(pieces, text, TokenType::kNormal, -static_cast<float>(pieces.tokens.size() % 7));
  }
  return pieces;
}

void use(const Tokenizer& tokenizer, std::string_view text, bool special, bool lossless) {
  const std::vector<std::int32_t> ids = tokenizer.encode(text, special, false);
  for (const std::int32_t id : ids) {
    ASSERT_GE(id, 0);
    ASSERT_LT(static_cast<std::size_t>(id), tokenizer.size());
  }
  const std::string back = tokenizer.decode(ids);
  EXPECT_TRUE(!lossless || back == text) << back;
  // In whole characters, in pieces or at once.
  Utf8Stream stream, whole;
  std::string pieces;
  for (const std::int32_t id : ids) pieces += stream.push(tokenizer.decode(id));
  pieces += stream.flush();
  std::string joined;
  for (const std::int32_t id : ids) joined += tokenizer.decode(id);
  std::string at_once = whole.push(joined);
  at_once += whole.flush();
  EXPECT_EQ(pieces, at_once);
}

// Lines are tokens; lines with a space are merges.
Vocabulary vocabulary_from(std::string_view text, unsigned kind) {
  Vocabulary vocabulary = vocabulary_of(kind);
  while (!text.empty() && vocabulary.tokens.size() < 400) {
    const std::size_t end = text.find('\n');
    const std::string line(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.find(' ') != std::string::npos) {
      if (vocabulary.model == TokenizerModel::kBytePairs) vocabulary.merges.push_back(line);
    } else if (!line.empty()) {
      test::add_token(vocabulary, line, static_cast<TokenType>(line.size() % 7), 0.5f);
    }
  }
  return vocabulary;
}

}  // namespace

// One byte for the vocabulary, one for the kind of the rest: text; or a vocabulary, 0x00 and text.
void tokenizer(std::span<const std::byte> input) {
  if (input.size() < 2) return;
  const auto kind = std::to_integer<unsigned>(input[0]);
  const auto mode = std::to_integer<unsigned>(input[1]);
  const std::string_view rest = view(input.subspan(2));
  if (mode % 4 != 3) {
    static const std::vector<Tokenizer> kTokenizers = [] {
      std::vector<Tokenizer> list;
      for (unsigned i = 0; i < 10; ++i) list.emplace_back(vocabulary_of(i));
      return list;
    }();
    use(kTokenizers[kind % 10], rest, mode % 2 == 1, kind % 5 < 4);
    return;
  }
  const std::size_t end = std::min(rest.find('\0'), rest.size());
  try {
    const Tokenizer made(vocabulary_from(rest.substr(0, end), kind));
    use(made, rest.substr(std::min(end + 1, rest.size())), true, false);
  } catch (const Error&) {
    // An impossible vocabulary.
  }
}

std::vector<Input> tokenizer_seeds() {
  std::vector<Input> seeds;
  const std::string texts[] = {
      "It's 12,345 o'clock; we'll go. <|im_end|>\n\n\t a  b",
      "na\xC3\xAFve \xE2\x82\xAC 5 \xF0\x9F\x98\x80 \xEF\xBC\x91\xE3\x80\x80x\xC2\xA0y \xff\xc0\x80",
      std::string("ab\nabc\na bc\nab a\n<x>\n") + '\0' + "abcab <x> aab"};
  for (unsigned kind = 0; kind < 10; ++kind) {
    for (unsigned i = 0; i < 3; ++i) {
      Input input = {static_cast<std::byte>(kind), static_cast<std::byte>(i == 2 ? 3 : i)};
      for (const char character : texts[i]) input.push_back(static_cast<std::byte>(character));
      seeds.push_back(input);
    }
  }
  return seeds;
}

}  // namespace nibkv::fuzz
