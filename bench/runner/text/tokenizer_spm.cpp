#include <algorithm>
#include <cmath>
#include <queue>

#include "bench/runner/text/tokenizer_encoders.hpp"
#include "bench/runner/text/unicode.hpp"

namespace nibkv::llm {
namespace {

constexpr std::int32_t kNoToken = -1;

// Neighbours that together spell a token, highest priority first: the highest
// score, then the leftmost.
struct Candidate {
  float score;
  std::uint32_t left;    // index of the left symbol
  std::uint32_t length;  // bytes of both symbols

  friend bool operator<(const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score < b.score : a.left > b.left;
  }
};
using Queue = std::priority_queue<Candidate>;

// A piece of the text, at first one code point; length 0 after it was merged
// into its left neighbour.
struct Symbol {
  std::uint32_t start;
  std::uint32_t length;
  std::uint32_t previous;
  std::uint32_t next;
};

std::string with_space_signs(std::string_view text) {
  std::string escaped;
  escaped.reserve(text.size() + text.size() / 2);
  for (const char c : text) {
    if (c == ' ') {
      escaped += kSpaceSign;
    } else {
      escaped.push_back(c);
    }
  }
  return escaped;
}

std::vector<Symbol> code_points(std::string_view text) {
  std::vector<Symbol> symbols;
  symbols.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const auto length = static_cast<std::uint32_t>(decode_utf8(text, at).length);
    const auto index = static_cast<std::uint32_t>(symbols.size());
    symbols.push_back({static_cast<std::uint32_t>(at), length, index - 1, index + 1});
    at += length;
  }
  return symbols;
}

class SentencePieceEncoder final : public TextEncoder {
 public:
  SentencePieceEncoder(const Vocabulary& vocabulary, const std::vector<std::string>& pieces)
      : scores_(vocabulary.scores), unknown_id_(vocabulary.unknown.value_or(kNoToken)) {
    for (const float score : scores_) {
      if (std::isnan(score)) throw Error("tokenizer: a score is not a number");  // it could not be ordered in the queue
    }
    byte_ids_.fill(kNoToken);
    ids_.reserve(pieces.size());
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const auto id = static_cast<std::int32_t>(i);
      const std::string& spelling = vocabulary.tokens[i];
      if (vocabulary.types[i] == TokenType::kByte) {
        byte_ids_[static_cast<std::uint8_t>(pieces[i][0])] = id;
      } else if (is_text_type(vocabulary.types[i]) && !spelling.empty()) {
        ids_.insert_or_assign(spelling, id);
        longest_ = std::max(longest_, spelling.size());
      }
    }
  }

  void encode(std::string_view plain, std::vector<std::int32_t>& ids) const override {
    const std::string text = with_space_signs(plain);
    if (text.size() > kMaxTextBytes) throw Error("tokenizer: the text is too long");
    std::vector<Symbol> symbols = code_points(text);
    const auto count = static_cast<std::uint32_t>(symbols.size());

    std::vector<Candidate> first;
    first.reserve(count);
    Queue queue({}, std::move(first));
    for (std::uint32_t i = 0; i < count; ++i) consider(text, symbols, i, queue);
    while (!queue.empty()) {
      const Candidate best = queue.top();
      queue.pop();
      // Symbols only grow, and the pair spells the same token as long as it covers the same bytes.
      Symbol& left = symbols[best.left];
      if (left.length == 0 || left.next == count || left.length + symbols[left.next].length != best.length) continue;
      Symbol& right = symbols[left.next];
      left.length = best.length;
      left.next = right.next;
      right.length = 0;
      if (left.next != count) symbols[left.next].previous = best.left;
      consider(text, symbols, best.left, queue);
      if (best.left != 0) consider(text, symbols, left.previous, queue);
    }

    for (std::uint32_t i = 0; i < count; i = symbols[i].next) {
      append(std::string_view(text).substr(symbols[i].start, symbols[i].length), ids);
    }
  }

 private:
  void consider(std::string_view text, const std::vector<Symbol>& symbols, std::uint32_t left, Queue& queue) const {
    const std::uint32_t right = symbols[left].next;
    if (right == symbols.size()) return;
    const std::uint32_t length = symbols[left].length + symbols[right].length;
    if (length > longest_) return;
    const auto found = ids_.find(text.substr(symbols[left].start, length));
    if (found != ids_.end()) queue.push({scores_[static_cast<std::size_t>(found->second)], left, length});
  }

  // A symbol without a token becomes its bytes, and each byte without one the unknown token.
  void append(std::string_view symbol, std::vector<std::int32_t>& ids) const {
    const auto found = ids_.find(symbol);
    if (found != ids_.end()) {
      ids.push_back(found->second);
      return;
    }
    for (const char c : symbol) {
      const std::int32_t byte_id = byte_ids_[static_cast<std::uint8_t>(c)];
      const std::int32_t id = byte_id != kNoToken ? byte_id : unknown_id_;
      if (id != kNoToken) ids.push_back(id);
    }
  }

  std::vector<float> scores_;
  std::int32_t unknown_id_;
  TextMap ids_;
  std::array<std::int32_t, 256> byte_ids_{};
  std::size_t longest_ = 0;  // bytes of the longest spelling
};

}  // namespace

std::unique_ptr<const TextEncoder> make_sentence_piece_encoder(const Vocabulary& vocabulary,
                                                               const std::vector<std::string>& pieces) {
  return std::make_unique<SentencePieceEncoder>(vocabulary, pieces);
}

}  // namespace nibkv::llm
