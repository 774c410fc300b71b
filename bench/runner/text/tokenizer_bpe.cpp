#include <algorithm>
#include <functional>
#include <queue>
#include <unordered_set>
#include <utility>

#include "bench/runner/gguf/gguf_cursor.hpp"
#include "bench/runner/text/tokenizer_encoders.hpp"
#include "bench/runner/text/unicode.hpp"

namespace nibkv::llm {
namespace {

constexpr std::int32_t kNoToken = -1;
constexpr std::size_t kBytes = 256;
constexpr std::size_t kShiftedBytes = 68;  // bytes that are not printable Latin-1 characters

constexpr bool names_itself(std::size_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// The byte that each code point below U+0144 names, or -1. Printable bytes name themselves; the others, in order, are
// named by the code points from U+0100.
constexpr auto kByteOfCodePoint = [] {
  std::array<std::int16_t, kBytes + kShiftedBytes> bytes{};
  for (auto& byte : bytes) byte = -1;
  std::size_t shifted = kBytes;
  for (std::size_t byte = 0; byte < kBytes; ++byte) {
    bytes[names_itself(byte) ? byte : shifted++] = static_cast<std::int16_t>(byte);
  }
  return bytes;
}();
static_assert(kByteOfCodePoint.back() == 0xAD);

// Pairs of neighbours that merge, highest priority first: the lowest rank, then the leftmost.
struct Candidate {
  std::uint32_t rank;
  std::uint32_t left;  // index of the left symbol
  std::int32_t left_id;
  std::int32_t right_id;
  std::int32_t merged_id;

  friend bool operator>(const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  }
};
using Queue = std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>>;

// A part of a word that is one token so far; kNoToken after it was merged into its left neighbour,
// or for a byte without a token.
struct Symbol {
  std::int32_t id;
  std::uint32_t previous;
  std::uint32_t next;
};

class BytePairEncoder final : public TextEncoder {
 public:
  BytePairEncoder(const Vocabulary& vocabulary, const std::vector<std::string>& pieces)
      : splitter_(vocabulary.splitter), whole_words_first_(vocabulary.splitter == PreSplitter::kLlama3) {
    ids_.reserve(pieces.size());
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      if (is_text_type(vocabulary.types[i])) {
        ids_.insert_or_assign(pieces[i], static_cast<std::int32_t>(i));
      } else {
        protocol_.insert(pieces[i]);
      }
    }
    for (std::size_t byte = 0; byte < kBytes; ++byte) {
      byte_ids_[byte] = find(std::string(1, static_cast<char>(byte))).value_or(kNoToken);
    }
    merges_.reserve(vocabulary.merges.size());
    for (const std::string& merge : vocabulary.merges) add_merge(merge);
    protocol_.clear();
  }

  void encode(std::string_view text, std::vector<std::int32_t>& ids) const override {
    std::vector<Symbol> symbols;
    while (!text.empty()) {
      const std::size_t length = first_word(splitter_, text);
      encode_word(text.substr(0, length), symbols, ids);
      text.remove_prefix(length);
    }
  }

 private:
  struct Merge {
    std::uint32_t rank;
    std::int32_t id;
  };

  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
  }

  std::optional<std::int32_t> find(std::string_view piece) const {
    const auto found = ids_.find(piece);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

  void add_merge(std::string_view merge) {
    const std::size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == merge.size()) {
      throw Error("tokenizer: merge " + detail::quoted(merge) + " is not a pair of tokens");
    }
    const std::string left = bytes_of_spelling(merge.substr(0, space));
    const std::string right = bytes_of_spelling(merge.substr(space + 1));
    const auto left_id = find(left);
    const auto right_id = find(right);
    const auto merged_id = find(left + right);
    if (!left_id || !right_id || !merged_id) {
      // No text may become such a token, so nothing merges to it or goes on from it.
      if (protocol_.contains(left + right) || protocol_.contains(left) || protocol_.contains(right)) return;
      throw Error("tokenizer: merge " + detail::quoted(merge) + " names an unknown token");
    }
    const auto rank = static_cast<std::uint32_t>(merges_.size());
    merges_.try_emplace(key(*left_id, *right_id), Merge{rank, *merged_id});
  }

  void consider(const std::vector<Symbol>& symbols, std::uint32_t left, Queue& queue) const {
    const std::uint32_t right = symbols[left].next;
    if (right == symbols.size()) return;
    const std::int32_t left_id = symbols[left].id;
    const std::int32_t right_id = symbols[right].id;
    const auto found = merges_.find(key(left_id, right_id));
    if (found != merges_.end()) queue.push({found->second.rank, left, left_id, right_id, found->second.id});
  }

  void encode_word(std::string_view word, std::vector<Symbol>& symbols, std::vector<std::int32_t>& ids) const {
    if (whole_words_first_) {
      if (const auto id = find(word)) {
        ids.push_back(*id);
        return;
      }
    }

    const auto count = static_cast<std::uint32_t>(word.size());
    symbols.clear();
    for (std::uint32_t i = 0; i < count; ++i) {
      symbols.push_back({byte_ids_[static_cast<std::uint8_t>(word[i])], i - 1, i + 1});  // 0 has no previous: see merge
    }
    Queue queue;
    for (std::uint32_t i = 0; i < count; ++i) consider(symbols, i, queue);

    while (!queue.empty()) {
      const Candidate best = queue.top();
      queue.pop();
      // A merge changes the id of its left symbol and removes its right one, so a pair that still
      // has its ids is valid.
      Symbol& left = symbols[best.left];
      if (left.id != best.left_id || left.next == count || symbols[left.next].id != best.right_id) continue;
      Symbol& right = symbols[left.next];
      left.id = best.merged_id;
      left.next = right.next;
      right.id = kNoToken;
      if (left.next != count) symbols[left.next].previous = best.left;
      consider(symbols, best.left, queue);
      if (best.left != 0) consider(symbols, left.previous, queue);
    }

    for (std::uint32_t i = 0; i < count; i = symbols[i].next) {
      if (symbols[i].id != kNoToken) ids.push_back(symbols[i].id);
    }
  }

  PreSplitter splitter_;
  bool whole_words_first_;  // a word that is a token is used as such, whatever the merges say
  TextMap ids_;
  std::unordered_set<std::string>
      protocol_;  // spellings of tokens that no text becomes; empty once the merges are read
  std::array<std::int32_t, kBytes> byte_ids_{};
  std::unordered_map<std::uint64_t, Merge> merges_;
};

}  // namespace

std::string bytes_of_spelling(std::string_view spelling) {
  std::string bytes;
  for (std::size_t at = 0; at < spelling.size();) {
    const CodePoint point = decode_utf8(spelling, at);
    const bool names_byte = point.value < kByteOfCodePoint.size() && kByteOfCodePoint[point.value] >= 0;
    if (!names_byte) return std::string(spelling);
    bytes.push_back(static_cast<char>(kByteOfCodePoint[point.value]));
    at += point.length;
  }
  return bytes;
}

std::unique_ptr<const TextEncoder> make_byte_pair_encoder(const Vocabulary& vocabulary,
                                                          const std::vector<std::string>& pieces) {
  return std::make_unique<BytePairEncoder>(vocabulary, pieces);
}

}  // namespace nibkv::llm
