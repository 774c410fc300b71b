#include "bench/runner/text/tokenizer.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

#include "bench/runner/gguf/gguf_cursor.hpp"
#include "bench/runner/text/tokenizer_encoders.hpp"

namespace nibkv::llm {
namespace {

// The spellings that models use for the end of a turn. A model may end it with one that its file
// does not name: many that write ChatML were trained from one that ends texts with <|endoftext|>.
constexpr std::string_view kEndOfTurnSpellings[] = {"<|im_end|>",      "<|eot_id|>",    "<|eom_id|>",
                                                    "<|end|>",         "<end_of_turn>", "<|endoftext|>",
                                                    "<|end_of_text|>", "<eos>",         "</s>"};

// The tokens with which chat templates mark turns. Some files declare them as text or user-defined,
// and then a message could spell one.
constexpr std::string_view kProtocolSpellings[] = {"<|im_start|>",
                                                   "<|im_end|>",
                                                   "<|start_header_id|>",
                                                   "<|end_header_id|>",
                                                   "<|eot_id|>",
                                                   "<|eom_id|>",
                                                   "<|begin_of_text|>",
                                                   "<|system|>",
                                                   "<|end_of_text|>",
                                                   "<start_of_turn>",
                                                   "<end_of_turn>",
                                                   "<|user|>",
                                                   "<|assistant|>",
                                                   "<|end|>",
                                                   "<|endoftext|>",
                                                   "<bos>",
                                                   "<eos>",
                                                   "<s>",
                                                   "</s>"};

TokenizerModel model_of(std::string_view name) {
  if (name == "gpt2") return TokenizerModel::kBytePairs;
  if (name == "llama") return TokenizerModel::kSentencePiece;
  throw Error("tokenizer: unknown model " + detail::quoted(name));
}

PreSplitter splitter_of(std::string_view name) {
  if (name == "gpt-2" || name == "default") return PreSplitter::kGpt2;
  if (name == "smollm") return PreSplitter::kSmolLm;
  if (name == "llama-bpe") return PreSplitter::kLlama3;
  if (name == "qwen2") return PreSplitter::kQwen2;
  throw Error("tokenizer: unknown pre-splitter " + detail::quoted(name));
}

std::optional<std::int32_t> id_of(const Gguf& file, std::string_view key) {
  const auto value = file.integer(key);
  if (!value) return std::nullopt;
  if (*value > static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max())) {
    throw Error("tokenizer: " + std::string(key) + " is out of range");
  }
  return static_cast<std::int32_t>(*value);
}

TokenType type_of(std::int32_t number) {
  if (number < 0 || number > static_cast<std::int32_t>(TokenType::kByte)) {
    throw Error("tokenizer: unknown token type " + std::to_string(number));
  }
  return static_cast<TokenType>(number);
}

// Keys that would change a text before it is split into tokens.
void refuse_normalisers(const Gguf& file) {
  const auto refuse = [&](std::string_view key) {
    throw Error(file.path() + ": metadata " + detail::quoted(key) +
                " changes texts in a way that this program does not know");
  };
  constexpr std::string_view kSpaces = "tokenizer.ggml.remove_extra_whitespaces";
  constexpr std::string_view kCharacters = "tokenizer.ggml.precompiled_charsmap";
  if (file.boolean(kSpaces).value_or(false)) refuse(kSpaces);
  if (!file.integers(kCharacters).empty()) refuse(kCharacters);
}

void check_id(std::optional<std::int32_t> id, std::size_t size, const char* what) {
  if (!id || (*id >= 0 && static_cast<std::size_t>(*id) < size)) return;
  throw Error("tokenizer: the " + std::string(what) + " id " + std::to_string(*id) + " is out of range");
}

// "<0xHH>": the byte.
char byte_of(std::string_view spelling) {
  std::uint8_t value = 0;
  if (spelling.size() == 6 && spelling.starts_with("<0x") && spelling.ends_with('>')) {
    const auto [end, error] = std::from_chars(spelling.data() + 3, spelling.data() + 5, value, 16);
    if (error == std::errc{} && end == spelling.data() + 5) return static_cast<char>(value);
  }
  throw Error("tokenizer: " + detail::quoted(spelling) + " is not a byte token");
}

std::string with_spaces(std::string_view spelling) {
  std::string text;
  for (std::size_t at = 0; at < spelling.size();) {
    const bool is_space = spelling.substr(at).starts_with(kSpaceSign);
    text.push_back(is_space ? ' ' : spelling[at]);
    at += is_space ? kSpaceSign.size() : 1;
  }
  return text;
}

bool is_special_type(TokenType type) {
  return type == TokenType::kControl || type == TokenType::kUnknown;
}

std::string piece_of(TokenizerModel model, TokenType type, const std::string& spelling) {
  if (is_special_type(type) || type == TokenType::kUserDefined) return spelling;
  if (model == TokenizerModel::kBytePairs) return bytes_of_spelling(spelling);
  return type == TokenType::kByte ? std::string(1, byte_of(spelling)) : with_spaces(spelling);
}

// Whether a token that the file takes for text is one that text shall never become.
bool is_protocol(const Vocabulary& vocabulary, std::size_t index) {
  const TokenType type = vocabulary.types[index];
  const std::string& spelling = vocabulary.tokens[index];
  if (type != TokenType::kUserDefined && type != TokenType::kNormal) return false;
  const auto known = std::find(std::begin(kProtocolSpellings), std::end(kProtocolSpellings), spelling);
  if (type == TokenType::kUserDefined && known != std::end(kProtocolSpellings)) return true;
  const auto id = static_cast<std::int32_t>(index);
  const bool is_named = id == vocabulary.bos || id == vocabulary.eos || id == vocabulary.eot || id == vocabulary.eom;
  if (!is_named) return false;
  // Not line breaks, which end the texts of some small models, nor what no other tokens spell.
  const std::string text = piece_of(vocabulary.model, type, spelling);
  return text.size() > 2 && text.find_first_not_of(" \t\r\n") != std::string::npos;
}

}  // namespace

bool is_text_type(TokenType type) {
  return !is_special_type(type) && type != TokenType::kByte;
}

Vocabulary Vocabulary::from(const Gguf& file) {
  const auto model = file.text("tokenizer.ggml.model");
  if (!model) throw Error("tokenizer: the file names no tokenizer.ggml.model");

  refuse_normalisers(file);
  Vocabulary vocabulary;
  vocabulary.model = model_of(*model);
  for (const std::string_view token : file.texts("tokenizer.ggml.tokens")) vocabulary.tokens.emplace_back(token);
  for (const std::int32_t type : file.integers("tokenizer.ggml.token_type")) vocabulary.types.push_back(type_of(type));
  vocabulary.bos = id_of(file, "tokenizer.ggml.bos_token_id");
  vocabulary.eos = id_of(file, "tokenizer.ggml.eos_token_id");
  vocabulary.eot = id_of(file, "tokenizer.ggml.eot_token_id");
  vocabulary.eom = id_of(file, "tokenizer.ggml.eom_token_id");
  vocabulary.unknown = id_of(file, "tokenizer.ggml.unknown_token_id");

  bool adds_bos = false;  // the meaning of files that do not say
  if (vocabulary.model == TokenizerModel::kBytePairs) {
    vocabulary.splitter = splitter_of(file.text("tokenizer.ggml.pre").value_or("default"));
    for (const std::string_view merge : file.texts("tokenizer.ggml.merges")) vocabulary.merges.emplace_back(merge);
    adds_bos = vocabulary.splitter == PreSplitter::kLlama3;
  } else {
    vocabulary.scores = file.numbers("tokenizer.ggml.scores");
    vocabulary.add_space_prefix = file.boolean("tokenizer.ggml.add_space_prefix").value_or(true);
    adds_bos = true;
  }
  vocabulary.add_bos = file.boolean("tokenizer.ggml.add_bos_token").value_or(adds_bos && vocabulary.bos);
  return vocabulary;
}

Tokenizer Tokenizer::from(const Gguf& file) {
  return Tokenizer(Vocabulary::from(file));
}

Tokenizer::Tokenizer(Vocabulary vocabulary)
    : bos_(vocabulary.bos),
      eos_(vocabulary.eos),
      add_bos_(vocabulary.add_bos),
      add_space_prefix_(vocabulary.add_space_prefix && vocabulary.model == TokenizerModel::kSentencePiece) {
  const std::size_t size = vocabulary.tokens.size();
  if (size == 0) throw Error("tokenizer: the vocabulary has no tokens");
  if (size > kMaxTextBytes) throw Error("tokenizer: the vocabulary has too many tokens");
  if (vocabulary.types.empty()) vocabulary.types.assign(size, TokenType::kNormal);
  if (vocabulary.types.size() != size) throw Error("tokenizer: not one type for each token");
  if (vocabulary.model == TokenizerModel::kSentencePiece && vocabulary.scores.size() != size) {
    throw Error("tokenizer: not one score for each token");
  }
  check_id(vocabulary.bos, size, "BOS");
  check_id(vocabulary.eos, size, "EOS");
  check_id(vocabulary.eot, size, "end-of-turn");
  check_id(vocabulary.eom, size, "end-of-message");
  check_id(vocabulary.unknown, size, "unknown");
  if (add_bos_ && !bos_) throw Error("tokenizer: BOS is to be added, but the file names none");

  for (std::size_t i = 0; i < size; ++i) {
    if (is_protocol(vocabulary, i)) vocabulary.types[i] = TokenType::kControl;
  }
  pieces_.reserve(size);
  for (std::size_t i = 0; i < size; ++i) {
    pieces_.push_back(piece_of(vocabulary.model, vocabulary.types[i], vocabulary.tokens[i]));
  }
  encoder_ = vocabulary.model == TokenizerModel::kBytePairs ? make_byte_pair_encoder(vocabulary, pieces_)
                                                            : make_sentence_piece_encoder(vocabulary, pieces_);
  types_ = std::move(vocabulary.types);

  for (std::size_t i = 0; i < size; ++i) {
    if (!stands_apart(i) || pieces_[i].empty()) continue;
    const auto id = static_cast<std::int32_t>(i);
    if (!specials_.try_emplace(pieces_[i], id).second) continue;
    specials_by_first_byte_[static_cast<std::uint8_t>(pieces_[i][0])].push_back(id);
  }
  for (auto& ids : specials_by_first_byte_) {
    std::stable_sort(ids.begin(), ids.end(), [this](std::int32_t a, std::int32_t b) {
      return pieces_[static_cast<std::size_t>(a)].size() > pieces_[static_cast<std::size_t>(b)].size();
    });
  }
  for (const auto named : {vocabulary.eos, vocabulary.eot, vocabulary.eom}) {
    if (named) ends_.push_back(*named);
  }
  for (const std::string_view spelling : kEndOfTurnSpellings) {
    if (const auto found = find(spelling)) ends_.push_back(*found);
  }
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool parse_special, bool add_bos) const {
  if (text.size() > kMaxTextBytes) throw Error("tokenizer: the text is too long");
  std::vector<std::int32_t> ids;
  if (add_bos && add_bos_) ids.push_back(*bos_);

  // Every piece of plain text is at the beginning or after a special token, so each
  // gets the space prefix.
  const auto append_plain = [&](std::string_view plain) {
    if (plain.empty()) return;
    if (add_space_prefix_) {
      encoder_->encode(' ' + std::string(plain), ids);
    } else {
      encoder_->encode(plain, ids);
    }
  };
  std::size_t start = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::int32_t special = match_special(text.substr(at), parse_special);
    if (special < 0) {
      ++at;
      continue;
    }
    append_plain(text.substr(start, at - start));
    ids.push_back(special);
    at += pieces_[static_cast<std::size_t>(special)].size();
    start = at;
  }
  append_plain(text.substr(start));
  return ids;
}

std::string Tokenizer::decode(std::int32_t id) const {
  return pieces_[checked(id)];
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  std::string text;
  bool drop_space = add_space_prefix_;
  for (const std::int32_t id : ids) {
    const std::size_t index = checked(id);
    std::string_view piece = pieces_[index];
    if (stands_apart(index)) {
      drop_space = add_space_prefix_;
    } else {
      if (drop_space && piece.starts_with(' ')) piece.remove_prefix(1);
      drop_space = false;
    }
    text += piece;
  }
  return text;
}

bool Tokenizer::is_special(std::int32_t id) const {
  return is_special_type(types_[checked(id)]);
}

bool Tokenizer::ends_turn(std::int32_t id) const {
  return std::find(ends_.begin(), ends_.end(), id) != ends_.end();
}

std::optional<std::int32_t> Tokenizer::find(std::string_view text) const {
  const auto found = specials_.find(text);
  return found == specials_.end() ? std::nullopt : std::optional(found->second);
}

std::size_t Tokenizer::checked(std::int32_t id) const {
  if (id < 0 || static_cast<std::size_t>(id) >= types_.size()) {
    throw Error("tokenizer: token id " + std::to_string(id) + " is out of range");
  }
  return static_cast<std::size_t>(id);
}

// Whether a token is cut out of the text before it reaches the encoder.
bool Tokenizer::stands_apart(std::size_t id) const {
  return is_special_type(types_[id]) || types_[id] == TokenType::kUserDefined;
}

// The longest such token with which `text` starts, or -1.
std::int32_t Tokenizer::match_special(std::string_view text, bool parse_special) const {
  for (const std::int32_t id : specials_by_first_byte_[static_cast<std::uint8_t>(text[0])]) {
    const auto index = static_cast<std::size_t>(id);
    if (!parse_special && types_[index] != TokenType::kUserDefined) continue;
    if (text.starts_with(pieces_[index])) return id;
  }
  return -1;
}

}  // namespace nibkv::llm
