#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "bench/runner/text/tokenizer.hpp"

// The internals of the tokenizer: they convert a piece of plain text, without
// special tokens, to ids.

namespace nibkv::llm {

/// Texts are limited to this, so that positions fit 32 bits.
inline constexpr std::size_t kMaxTextBytes = 0x7FFFFFFF;

/// What SentencePiece writes instead of a space: U+2581.
inline constexpr std::string_view kSpaceSign = "\xE2\x96\x81";

class TextEncoder {
 public:
  virtual ~TextEncoder() = default;

  /// Appends the ids of `text` to `ids`.
  virtual void encode(std::string_view text, std::vector<std::int32_t>& ids) const = 0;
};

/// Hashes strings and views alike, so that a view finds a string.
struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};
using TextMap = std::unordered_map<std::string, std::int32_t, TextHash, std::equal_to<>>;

/// The bytes that a byte-level BPE token stands for: each of its code points names a byte. A
/// spelling with any other code point represents itself.
std::string bytes_of_spelling(std::string_view spelling);

/// Whether plain text may become a token of this type.
bool is_text_type(TokenType type);

/// @param vocabulary  with checked ids; `types` and `scores` have one element per token.
/// @param pieces      the bytes each token stands for.
/// @throws Error for a merge that is not a pair, or names a token that does not exist.
std::unique_ptr<const TextEncoder> make_byte_pair_encoder(const Vocabulary& vocabulary,
                                                          const std::vector<std::string>& pieces);

/// @throws Error for a score that is not a number.
std::unique_ptr<const TextEncoder> make_sentence_piece_encoder(const Vocabulary& vocabulary,
                                                               const std::vector<std::string>& pieces);

/// The bytes of the first word of `text` as `splitter` cuts it: [1, text.size()].
///
/// @param text  not empty.
std::size_t first_word(PreSplitter splitter, std::string_view text);

}  // namespace nibkv::llm
