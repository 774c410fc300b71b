#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "bench/runner/text/tokenizer.hpp"
#include "bench/runner/text/unicode.hpp"
#include "tests/support/gguf_writer.hpp"

// Small vocabularies, made in memory.

namespace nibkv::llm::test {

/// How byte-level BPE spells `byte`: printable Latin-1 as itself, the others from
/// U+0100 on, in order.
inline std::string spelling_of_byte(unsigned byte) {
  const auto is_printable = [](unsigned b) { return (b > 0x20 && b < 0x7F) || (b >= 0xA1 && b <= 0xFF && b != 0xAD); };
  char32_t value = byte;
  if (!is_printable(byte)) {
    value = 0x100;
    for (unsigned b = 0; b < byte; ++b) value += is_printable(b) ? 0 : 1;
  }
  std::string spelling;
  append_utf8(spelling, value);
  return spelling;
}

/// "<0xHH>".
inline std::string byte_token(unsigned byte) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  return {'<', '0', 'x', kDigits[byte / 16], kDigits[byte % 16], '>'};
}

/// Adds a token and returns its id.
inline std::int32_t add_token(Vocabulary& vocabulary, std::string_view spelling, TokenType type = TokenType::kNormal,
                              float score = 0) {
  vocabulary.tokens.emplace_back(spelling);
  vocabulary.types.push_back(type);
  if (vocabulary.model == TokenizerModel::kSentencePiece) vocabulary.scores.push_back(score);
  return static_cast<std::int32_t>(vocabulary.tokens.size() - 1);
}

/// Byte-level BPE: byte b is id b, then a token for each merge ("left right", spelled as bytes are).
inline Vocabulary byte_pairs(PreSplitter splitter, const std::vector<std::string>& merges = {}) {
  Vocabulary vocabulary;
  vocabulary.model = TokenizerModel::kBytePairs;
  vocabulary.splitter = splitter;
  for (unsigned byte = 0; byte < 256; ++byte) add_token(vocabulary, spelling_of_byte(byte));
  for (const std::string& merge : merges) {
    const std::size_t space = merge.find(' ');
    add_token(vocabulary, merge.substr(0, space) + merge.substr(space + 1));
  }
  vocabulary.merges = merges;
  return vocabulary;
}

/// SentencePiece: 0 unknown, 1 BOS, 2 EOS, byte b is id b + 3. BOS is not added, and no space is
/// put before the text.
inline Vocabulary sentence_pieces() {
  Vocabulary vocabulary;
  vocabulary.model = TokenizerModel::kSentencePiece;
  vocabulary.unknown = add_token(vocabulary, "<unk>", TokenType::kUnknown);
  vocabulary.bos = add_token(vocabulary, "<s>", TokenType::kControl);
  vocabulary.eos = add_token(vocabulary, "</s>", TokenType::kControl);
  for (unsigned byte = 0; byte < 256; ++byte) add_token(vocabulary, byte_token(byte), TokenType::kByte);
  return vocabulary;
}

/// The metadata of a file with this `vocabulary`, for tests that then damage a key.
inline GgufWriter metadata_of(const Vocabulary& vocabulary) {
  std::vector<std::int32_t> types;
  for (const TokenType type : vocabulary.types) types.push_back(static_cast<std::int32_t>(type));
  GgufWriter writer;
  writer.set_array("tokenizer.ggml.tokens", vocabulary.tokens).set_array("tokenizer.ggml.token_type", types);
  if (!vocabulary.scores.empty()) writer.set_array("tokenizer.ggml.scores", vocabulary.scores);
  if (!vocabulary.merges.empty()) writer.set_array("tokenizer.ggml.merges", vocabulary.merges);
  return writer;
}

/// Random code points of every length and class; except U+2581, which
/// SentencePiece decodes to a space.
inline std::string random_utf8(std::mt19937& random, std::size_t code_points) {
  constexpr char32_t kLimits[] = {0x80, 0x80, 0x800, 0x10000, 0x110000};
  std::string text;
  while (code_points > 0) {
    const auto value = static_cast<char32_t>(random() % kLimits[random() % std::size(kLimits)]);
    if (value == 0x2581) continue;
    append_utf8(text, random() % 4 == 0 ? U' ' : value);
    --code_points;
  }
  return text;
}

inline std::string random_bytes(std::mt19937& random, std::size_t bytes) {
  std::string text;
  while (text.size() < bytes) text.push_back(static_cast<char>(random() % 256));
  return text;
}

}  // namespace nibkv::llm::test
