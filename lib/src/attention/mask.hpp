#pragma once

#include <bit>
#include <cstdint>

#include "ports/kernels.hpp"

namespace nibkv {

/// Which of the new tokens the queries of a call see: attend.hpp. Without bits, those up to its own.
struct Mask {
  const std::uint32_t* bits = nullptr;  ///< [count][words()]
  std::uint32_t count = 0;

  std::uint32_t words() const { return (count + 31) / 32; }
  const std::uint32_t* row(std::uint32_t query) const {
    return bits == nullptr ? nullptr : bits + std::size_t{query} * words();
  }

  /// How many of the new tokens there are up to the last one that a query sees.
  std::uint32_t reach(std::uint32_t query) const {
    if (bits == nullptr) return query + 1;
    for (std::uint32_t word = words(); word-- > 0;) {
      std::uint32_t seen = row(query)[word];
      if (word == count / 32) seen &= (1u << count % 32) - 1;  // the last word is not full
      if (seen != 0) return word * 32 + static_cast<std::uint32_t>(std::bit_width(seen));
    }
    return 0;
  }
};

/// The slots of a tile that a row of a mask hides or not, besides those from the row's reach on.
/// @param row    of a Mask
/// @param words  its length
/// @param slot   the tile's first
/// @param first  the slot of the first new token; all before it are seen
inline std::uint32_t seen_by(const std::uint32_t* row, std::uint32_t words, std::uint32_t slot, std::uint32_t first) {
  if (slot < first) {
    const std::uint32_t old = first - slot;
    return old < kTileSlots ? row[0] << old | ((1u << old) - 1) : ports::kAllSeen;
  }
  const std::uint32_t word = (slot - first) / 32;
  const std::uint32_t bit = (slot - first) % 32;
  std::uint32_t seen = word < words ? row[word] >> bit : 0;
  if (bit != 0 && word + 1 < words) seen |= row[word + 1] << (32 - bit);
  return seen;
}

}  // namespace nibkv
