#pragma once

#include <cstdint>

#include "arena/pool.hpp"

namespace nibkv {

/// Moves forward those slots of a segment that a plan keeps.
/// @param segment  changed: its new list and number of slots. Its `begin` is already the new one: kept slots go to
///                 `begin`, `begin` + 1, ...
/// @param target   the plan of the segment's slots
/// @returns the first of the tiles left over, which form a list, or kNoTile
std::uint32_t move_forward(const ArenaView& to, Segment& segment, const std::uint32_t* target);

/// The same for a list of tiles, those left over given back.
/// @param list    a chain, for its own tiles, or a folded part; its number of slots is the caller's to set
/// @param slots   how many are in the list
/// @param begin   how many slots of the chain will come before it
/// @returns the slots that remain
template <typename List>
std::uint32_t close_gaps(const ArenaView& to, List& list, std::uint32_t slots, const std::uint32_t* target,
                         std::uint32_t begin) {
  Segment segment{list.first, list.last, begin, slots};
  std::uint32_t spare = move_forward(to, segment, target);
  list.first = segment.first;
  list.last = segment.last;
  while (spare != kNoTile) {
    const std::uint32_t next = to.links()[spare];
    give_back(to, list, spare);
    spare = next;
  }
  return segment.slots;
}

}  // namespace nibkv
