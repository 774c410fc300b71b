#pragma once

#include <cstdint>

#include "arena/view.hpp"
#include "nibkv/share.hpp"

namespace nibkv {

/// From `first` to before `end`.
struct Range {
  std::uint32_t first;
  std::uint32_t end;
};

inline bool sound_share(const Shape& shape, const Share& share) {
  return share.of <= kMostShares && share.index < share.of && share.worker < shape.workers;
}

/// Completes a part of a call for `count` tokens.
/// @returns false if its heads, queries or worker do not exist
inline bool complete(const Shape& shape, std::uint32_t count, Part& part) {
  if (part.worker >= shape.workers || part.first_head >= shape.kv_heads || part.first_query >= count) return false;
  if (part.heads == 0) part.heads = shape.kv_heads - part.first_head;
  if (part.queries == 0) part.queries = count - part.first_query;
  return part.heads <= shape.kv_heads - part.first_head && part.queries <= count - part.first_query;
}

/// Divides work that comes in a row of lists into pieces, each of which belongs to the share in whose part its
/// middle lies.
class Pieces {
 public:
  /// @param all  the length of all lists together
  Pieces(std::uint64_t all, const Share& share) : all_(all), share_(share) {}

  /// The part of the next list that belongs to the share. It is divided where (number + offset) is a multiple of
  /// `unit`.
  Range in_next(std::uint32_t length, std::uint32_t offset, std::uint32_t unit) {
    Range mine{0, 0};
    for (std::uint32_t first = 0; first < length;) {
      const std::uint32_t whole = unit - (first + offset) % unit;
      const std::uint32_t end = length - first < whole ? length : first + whole;
      const std::uint64_t middle = 2 * before_ + first + end;  // doubled
      if (middle * share_.of / (2 * all_) == share_.index) mine = {mine.end == 0 ? first : mine.first, end};
      first = end;
    }
    before_ += length;
    return mine;
  }

 private:
  std::uint64_t all_;
  Share share_;
  std::uint64_t before_ = 0;
};

/// Where the attention of a query head in a block is kept until it is combined.
inline Partial& partial_of(const ArenaView& to, std::uint32_t query_head, std::uint32_t block) {
  const std::uint64_t most = blocks_of(to.layout().chain_tiles);
  const std::uint64_t first = to.layout().scratch + std::uint64_t{to.shape().workers} * to.layout().scratch_bytes;
  return *to.at<Partial>(first + (query_head * most + block) * partial_bytes(to.shape()));
}

/// What shares of attention gave is of no use once other tokens are the newest.
[[gnu::visibility("hidden")]] void forget_shares(const ArenaView& to);

}  // namespace nibkv
