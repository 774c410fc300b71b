#pragma once

#include <cstdint>

#include "arena/view.hpp"

namespace nibkv {

/// Follows lists of tiles, one after the other.
struct Walk {
  const ArenaView& to;
  std::uint32_t window;     // the marks are for tiles [window, window + marked)
  std::uint32_t marked;     // bits of scratch
  std::uint64_t steps = 0;  // tiles visited

  /// Whether `tile` exists and was not visited before, as far as this window knows.
  /// Cyclic lists end here.
  bool take(std::uint32_t tile) {
    const std::uint64_t numbers = to.layout().tiles + to.layout().views;
    if (tile >= numbers || ++steps > numbers) return false;
    if (tile < window || tile - window >= marked) return true;
    auto& byte = reinterpret_cast<std::uint8_t*>(to.scratch(0))[(tile - window) / 8];
    const auto bit = static_cast<std::uint8_t>(1u << (tile - window) % 8);
    if ((byte & bit) != 0) return false;
    byte = static_cast<std::uint8_t>(byte | bit);
    return true;
  }
};

/// Whether a chain, or its folded part, has the tiles that its slots need, and ends where it says.
inline bool sound_list(Walk& walk, const Segment& list, bool views) {
  const std::uint32_t* links = walk.to.links();
  std::uint32_t tile = list.first;
  std::uint32_t last = kNoTile;
  for (std::uint32_t left = tiles_of(list.slots); left != 0; --left) {
    if (!walk.take(tile) || (tile >= walk.to.layout().tiles) != views) return false;
    last = tile;
    tile = links[tile];
  }
  return tile == kNoTile && list.last == last;
}

}  // namespace nibkv
