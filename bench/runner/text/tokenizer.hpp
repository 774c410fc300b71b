#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm {

class TextEncoder;

/// Token types, with the numbers of the GGUF format.
enum class TokenType : std::uint8_t {
  kUndefined = 0,
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

/// How text becomes tokens: byte-level BPE by merge rank ("gpt2"), or SentencePiece by score ("llama").
enum class TokenizerModel : std::uint8_t { kBytePairs, kSentencePiece };

/// How byte-level BPE splits text into words, which merges never cross.
enum class PreSplitter : std::uint8_t { kGpt2, kSmolLm, kLlama3, kQwen2 };

/// Everything from which a Tokenizer is made, as a file spells it.
struct Vocabulary {
  /// Reads the `tokenizer.ggml.*` keys.
  /// @throws Error for an unknown tokenizer model or pre-splitter, no tokens, an id that is not
  ///         an int32, and a file that asks for texts to be changed first.
  static Vocabulary from(const Gguf& file);

  TokenizerModel model = TokenizerModel::kBytePairs;
  PreSplitter splitter = PreSplitter::kGpt2;  ///< byte-level BPE only
  std::vector<std::string> tokens;
  std::vector<TokenType> types;     ///< one per token, or empty if all are normal
  std::vector<float> scores;        ///< SentencePiece only: one per token
  std::vector<std::string> merges;  ///< byte-level BPE only: "left right", the first has the lowest rank
  std::optional<std::int32_t> bos, eos, eot, eom, unknown;
  bool add_bos = false;
  bool add_space_prefix = false;  ///< SentencePiece only
};

/// Text to token ids and back. Byte-level BPE is lossless for every byte the vocabulary has a token
/// for and drops the others; SentencePiece falls back to byte tokens, and decodes U+2581, its
/// symbol for a space, to a space.
class Tokenizer {
 public:
  /// @throws Error as Vocabulary::from and the constructor do.
  static Tokenizer from(const Gguf& file);

  /// @throws Error if arrays differ in length, a merge names an unknown token, a score is not
  ///         a number, an id is out of range, a byte token is misspelled, or BOS is to be added
  ///         and none is named.
  explicit Tokenizer(Vocabulary vocabulary);

  /// @param text           any bytes, fewer than 2^31 of them; invalid UTF-8 is kept byte by byte.
  /// @param parse_special  whether the spelling of a control token, such as `<|im_end|>`, becomes
  ///                       that token. Without it no text can become a control token. User-defined
  ///                       tokens are always found, except those that chat templates use, which
  ///                       are control tokens here. If several begin at the same position,
  ///                       the longest is taken.
  /// @param add_bos        whether this is the beginning of a sequence: BOS comes first if the file asks for it.
  /// @throws Error for a longer text.
  /// Cost: O(n log n) in the bytes of the longest word (BPE) or of the whole text (SentencePiece).
  std::vector<std::int32_t> encode(std::string_view text, bool parse_special, bool add_bos) const;

  /// The bytes of one token, to be written as they are: a piece may hold only a part of a code
  /// point. Control tokens return their spelling; see `is_special`.
  /// @throws Error for an id outside [0, size()).
  std::string decode(std::int32_t id) const;

  /// The text that `encode` made `ids` from: without the space that SentencePiece puts before a text, and with every
  /// control token, BOS included, spelled out.
  /// @throws Error for an id outside [0, size()).
  std::string decode(std::span<const std::int32_t> ids) const;

  /// Whether `id` is a control token or the unknown token: part of the protocol, not of the text.
  /// @throws Error for an id outside [0, size()).
  bool is_special(std::int32_t id) const;

  std::optional<std::int32_t> bos() const { return bos_; }
  std::optional<std::int32_t> eos() const { return eos_; }

  /// Whether a model says with `id` that its turn is complete: EOS, what the file names as the end
  /// of a turn or of a message, and control tokens with one of the usual spellings.
  bool ends_turn(std::int32_t id) const;

  /// Whether a sequence begins with BOS.
  bool adds_bos() const { return add_bos_; }

  std::size_t size() const { return types_.size(); }

  /// The control, user-defined or unknown token spelled `text`.
  std::optional<std::int32_t> find(std::string_view text) const;

 private:
  std::size_t checked(std::int32_t id) const;
  bool stands_apart(std::size_t id) const;
  std::int32_t match_special(std::string_view text, bool parse_special) const;

  std::vector<TokenType> types_;
  std::vector<std::string> pieces_;  // the bytes each token stands for
  std::map<std::string, std::int32_t, std::less<>> specials_;
  std::array<std::vector<std::int32_t>, 256> specials_by_first_byte_;  // longest first
  std::shared_ptr<const TextEncoder> encoder_;
  std::optional<std::int32_t> bos_, eos_;
  std::vector<std::int32_t> ends_;  // of a turn
  bool add_bos_ = false;
  bool add_space_prefix_ = false;
};

}  // namespace nibkv::llm
