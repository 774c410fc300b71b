#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/reference/attention.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::test {

inline Policy with_log(std::uint32_t tokens, std::uint32_t log, std::uint32_t recall, std::uint16_t indexed = 256) {
  Policy policy = streaming_llm(tokens);
  policy.log = log;
  policy.recall = recall;
  policy.indexed = indexed;
  return policy;
}

/// Rows of one token or of several, the same in all layers.
struct Token {
  std::vector<float> keys, values, queries;
};

inline Token random_tokens(Random& random, const Shape& shape, std::uint32_t count) {
  const std::size_t kv = std::size_t{count} * shape.kv_heads * shape.head_dim;
  return {random.bells(kv), random.bells(kv), random.bells(std::size_t{count} * shape.query_heads * shape.head_dim)};
}
inline Token random_token(Random& random, const Shape& shape) {
  return random_tokens(random, shape, 1);
}

inline void append_token(Cache& cache, const Token& token) {
  for (std::uint32_t layer = 0; layer < cache.shape().layers; ++layer)
    ASSERT_EQ(append(cache, layer, token.keys, token.values), Status::kOk);
}

inline void recall_all(Cache& cache, const std::vector<float>& queries) {
  for (std::uint32_t layer = 0; layer < cache.shape().layers; ++layer)
    ASSERT_EQ(recall(cache, layer, queries), Status::kOk);
}

inline std::vector<float> recall_and_attend(Cache& cache, const std::vector<float>& queries) {
  std::vector<float> all;
  for (std::uint32_t layer = 0; layer < cache.shape().layers; ++layer) {
    EXPECT_EQ(recall(cache, layer, queries), Status::kOk);
    const std::vector<float> out = attend_all(cache, layer, queries);
    all.insert(all.end(), out.begin(), out.end());
  }
  return all;
}

/// A token whose queries give every token some of their attention.
inline Token mild_token(Random& random, const Shape& shape) {
  Token token = random_token(random, shape);
  for (float& query : token.queries) query *= 0.25f;
  return token;
}

/// One more random token in all layers.
inline std::vector<float> step(Cache& cache, Random& random) {
  const Token token = mild_token(random, cache.shape());
  append_token(cache, token);
  return recall_and_attend(cache, token.queries);
}
inline void steps(Cache& cache, Random& random, int count) {
  for (int i = 0; i < count; ++i) (void)step(cache, random);
}

inline std::vector<std::uint32_t> positions_of(const Cache& cache, std::uint32_t layer, std::uint32_t head) {
  std::vector<std::uint32_t> positions;
  for (const SlotInfo& slot : explain_all(cache, layer, head)) positions.push_back(slot.position);
  return positions;
}

/// Whether attention of the last of some tokens is that of the tokens which explain() names.
/// @param out  of all layers
inline void expect_attention(const Cache& cache, const std::vector<Token>& tokens, const std::vector<float>& out,
                             double bound) {
  const Shape& shape = cache.shape();
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
      reference::Rows keys, values;
      const auto row = [&](const std::vector<float>& rows, std::uint32_t index) {
        return reference::widen(std::span(rows).subspan(std::size_t{index} * shape.head_dim, shape.head_dim));
      };
      for (const std::uint32_t position : positions_of(cache, layer, head)) {
        ASSERT_LT(position, tokens.size());
        keys.push_back(row(tokens[position].keys, head));
        values.push_back(row(tokens[position].values, head));
      }
      for (std::uint32_t member = 0; member < shape.group(); ++member) {
        const std::uint32_t query = head * shape.group() + member;
        const auto expected = reference::attention(row(tokens.back().queries, query), keys, values, keys.size());
        EXPECT_LT(reference::distance(row(out, layer * shape.query_heads + query), expected),
                  bound * reference::norm(expected) + 0.02)
            << "layer " << layer << " query head " << query << " tokens " << tokens.size();
      }
    }
  }
}

/// Words of a page's header: lib/FORMAT.md.
enum PageWord : std::size_t { kMagic, kSum, kIdentity, kProfile, kHead, kPage, kBytes, kReserved };

inline std::uint32_t word_of(std::span<const std::byte> page, std::size_t word) {
  std::uint32_t value;
  std::memcpy(&value, page.data() + word * 4, sizeof value);
  return value;
}
inline void set_word(std::span<std::byte> page, std::size_t word, std::uint32_t value) {
  std::memcpy(page.data() + word * 4, &value, sizeof value);
}

/// The sum of a page, as lib/FORMAT.md says it.
inline std::uint32_t page_sum(std::span<const std::byte> page) {
  const std::span<const std::byte> bytes = page.subspan(8);
  std::vector<std::uint32_t> sums;
  for (std::uint32_t i = 0; i < 8; ++i) sums.push_back(2166136261u + i);
  const std::size_t whole = bytes.size() / 32 * 32;
  for (std::size_t i = 0; i < whole / 4; ++i) {
    std::uint32_t& sum = sums[i % 8];
    sum = (sum ^ word_of(bytes, i)) * 16777619u;
    sum ^= sum >> 15;
  }
  std::uint32_t ninth = 2166136261u;
  for (const std::byte byte : bytes.subspan(whole)) ninth = (ninth ^ std::to_integer<std::uint32_t>(byte)) * 16777619u;
  for (const std::uint32_t sum : sums) {
    ninth = (ninth ^ sum) * 16777619u;
    ninth ^= ninth >> 15;
  }
  return ninth;
}

/// A store that a test watches, and that fails when it is told to. It takes the place of a rig's own, in its memory.
class Flash {
 public:
  explicit Flash(Rig& rig) : memory_(rig.pages()), page_bytes_(cold_page_bytes(rig.shape(), rig.policy())) {
    rig.store().write = write;
    rig.store().read = read;
    rig.store().prefetch = prefetch;
    rig.store().context = this;
  }
  Flash(const Flash&) = delete;
  Flash& operator=(const Flash&) = delete;

  static constexpr std::uint64_t kNever = ~std::uint64_t{0};

  std::uint64_t writes = 0, reads = 0;                          // so far
  std::uint64_t failing_write = kNever, failing_read = kNever;  // which of them fails
  /// Of the page that failed: its header.
  std::uint32_t failed_head = 0, failed_page = 0, failures = 0;
  /// Takes the place of writing; what it returns is what the store says.
  std::function<bool(std::uint64_t offset, std::span<const std::byte> page)> instead_of_write;
  /// Changes what is read.
  std::function<void(std::span<std::byte> page)> after_read;
  /// Where pages were read, and which were announced.
  std::vector<std::uint64_t> offsets, announced;

  std::span<std::byte> page(std::uint64_t number) { return memory_.subspan(number * page_bytes_, page_bytes_); }

 private:
  void look_at(std::uint64_t offset, std::size_t bytes) const {
    ASSERT_EQ(bytes, page_bytes_);
    ASSERT_EQ(offset % page_bytes_, 0u);
    ASSERT_LE(offset + bytes, memory_.size());
  }
  void note(std::span<const std::byte> page) {
    ++failures;
    failed_head = word_of(page, kHead);
    failed_page = word_of(page, kPage);
  }

  static bool write(void* context, std::uint64_t offset, const void* page, std::size_t bytes) {
    Flash& flash = *static_cast<Flash*>(context);
    flash.look_at(offset, bytes);
    const std::span from(static_cast<const std::byte*>(page), bytes);
    if (flash.writes++ == flash.failing_write) {
      flash.note(from);
      return false;
    }
    if (flash.instead_of_write) return flash.instead_of_write(offset, from);
    std::copy(from.begin(), from.end(), flash.memory_.begin() + static_cast<std::ptrdiff_t>(offset));
    return true;
  }
  static bool read(void* context, std::uint64_t offset, void* page, std::size_t bytes) {
    Flash& flash = *static_cast<Flash*>(context);
    flash.look_at(offset, bytes);
    flash.offsets.push_back(offset);
    const std::span from = flash.memory_.subspan(offset, bytes);
    if (flash.reads++ == flash.failing_read) {
      flash.note(from);
      return false;
    }
    std::memcpy(page, from.data(), bytes);
    if (flash.after_read) flash.after_read({static_cast<std::byte*>(page), bytes});
    return true;
  }
  static void prefetch(void* context, std::uint64_t offset, std::size_t bytes) {
    Flash& flash = *static_cast<Flash*>(context);
    flash.look_at(offset, bytes);
    flash.announced.push_back(offset);
  }

  std::span<std::byte> memory_;
  std::size_t page_bytes_;
};

}  // namespace nibkv::test
