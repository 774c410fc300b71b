#include "bench/runner/text/token_classes.hpp"

#include <cctype>
#include <string_view>

namespace nibkv::llm {
namespace {

// The bytes of the punctuation mark or line end with which a text begins; 0 if it begins with something else.
std::size_t mark_at(std::string_view text) {
  const auto byte = static_cast<unsigned char>(text[0]);
  if (byte == '\n' || (byte < 0x80 && std::ispunct(byte) != 0)) return 1;
  // U+2000 to U+206F, quotation marks and dashes among them.
  const bool general = text.size() >= 3 && byte == 0xe2 &&
                       (text[1] == '\x80' || (text[1] == '\x81' && static_cast<unsigned char>(text[2]) < 0xb0));
  return general ? 3 : 0;
}

bool is_punctuation(std::string_view text) {
  bool any = false;
  while (!text.empty()) {
    const std::size_t mark = mark_at(text);
    any = any || mark != 0;
    if (mark == 0 && text[0] != ' ' && text[0] != '\t' && text[0] != '\r') return false;
    text.remove_prefix(mark == 0 ? 1 : mark);
  }
  return any;
}

}  // namespace

std::vector<TokenClass> token_classes(const Tokenizer& tokenizer) {
  std::vector<TokenClass> classes(tokenizer.size());
  for (std::size_t id = 0; id < classes.size(); ++id) {
    const auto token = static_cast<std::int32_t>(id);
    if (tokenizer.is_special(token)) {
      classes[id] = TokenClass::kSpecial;
    } else if (is_punctuation(tokenizer.decode(token))) {
      classes[id] = TokenClass::kPunctuation;
    }
  }
  return classes;
}

std::vector<TokenClass> classes_of(std::span<const TokenClass> vocabulary, std::span<const std::int32_t> tokens) {
  std::vector<TokenClass> classes;
  for (const std::int32_t token : tokens) classes.push_back(vocabulary[static_cast<std::size_t>(token)]);
  return classes;
}

}  // namespace nibkv::llm
