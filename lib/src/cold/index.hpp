#pragma once

#include <cstdint>

#include "arena/band.hpp"
#include "cold/page.hpp"

namespace nibkv {

/// What the arena knows of a page of the log: arena.hpp, index_page_bytes.
struct IndexPage {
  std::uint8_t* bytes;
  std::uint32_t head_dim;

  std::uint8_t* signs() const { return bytes; }  // [head_dim / 8][32]
  std::int8_t* mean() const { return reinterpret_cast<std::int8_t*>(bytes + kTileSlots / 8 * head_dim); }
  std::uint8_t* sizes() const { return bytes + (kTileSlots / 8 + 1) * head_dim; }
  std::uint8_t* scales() const { return sizes() + kTileSlots; }  // u16[2]

  std::uint16_t scale(std::uint32_t which) const {
    std::uint16_t value;
    std::memcpy(&value, scales() + which * 2, sizeof value);
    return value;
  }
  void set_scales(std::uint16_t of_mean, std::uint16_t of_sizes) const {
    std::memcpy(scales(), &of_mean, sizeof of_mean);
    std::memcpy(scales() + 2, &of_sizes, sizeof of_sizes);
  }
  // That of the page as it was written. Another one may say that it is this page: one of what the cache held before it
  // was cleared, or of a cache that used the store before.
  std::uint32_t sum() const {
    std::uint32_t value;
    std::memcpy(&value, scales() + 4, sizeof value);
    return value;
  }
  void set_sum(std::uint32_t value) const { std::memcpy(scales() + 4, &value, sizeof value); }
  // A page that is not in the store.
  bool lost() const { return scale(0) == kLost; }
  void lose() const {
    set_scales(kLost, 0);
    set_sum(0);
  }

  static constexpr std::uint16_t kLost = 0xffff;
};

/// Whether a page's scales and mean are ones that keys have.
bool sound_index(const IndexPage& index);
/// The same, of its bytes after the signs: [head_dim + 40].
bool sound_index(const std::uint8_t* after_signs, std::uint32_t head_dim);

/// What it knows of all pages of an indexed head.
class HeadIndex {
 public:
  HeadIndex(const ArenaView& to, const ColdHead& head);

  /// @param page  as the log counts them; its place is that of the page before it by as many as the log holds
  IndexPage at(std::uint32_t page) const {
    return {bytes_ + std::size_t{page % pages_} * index_page_bytes(head_dim_), head_dim_};
  }

 private:
  std::uint8_t* bytes_;
  std::uint32_t pages_;
  std::uint32_t head_dim_;
};

/// Writes what a page says of its keys.
/// @param row  f32[2][head_dim], workspace
void index_keys(const ArenaView& to, const Basis& basis, const PageBytes& page, float* row, const IndexPage& index);

/// How much of the attention of a call's queries each token of a head's log would get, as far as the index says.
class Votes {
 public:
  /// @param rows   query rows of the call and the head's group
  Votes(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, std::byte* space, std::uint32_t rows);

  /// @param row      f32[2][head_dim] in the space: first the query; changed
  /// @param visible  of the head's own slots, how many the query sees
  void add(float* row, std::uint32_t visible);
  /// The tokens with the most of it, at most Policy::recall, rising; none that gets nothing.
  /// @param chosen  u32[recall]
  /// @returns how many
  std::uint32_t choose(std::uint32_t* chosen);

 private:
  void fill_sums();
  void weigh_log(float* row);
  std::uint64_t weigh_own(float* row, std::uint32_t visible);

  const ArenaView& to_;
  const Chain& chain_;
  const ColdHead& head_;
  HeadIndex index_;
  Basis basis_;
  std::uint32_t first_;  // page that is not forgotten
  std::uint32_t count_;  // of tokens, lost ones too
  float share_;          // of a row in the votes
  std::int8_t* sums_;
  std::int8_t* query_;
  std::int16_t* logits_;  // then what choose() ranks
  std::int32_t* votes_;
  std::int32_t largest_ = 0;  // logit of the row
  int flatter_ = 0;           // its logits are divided by two to this power
};

}  // namespace nibkv
