#pragma once

#include <cstdint>

#include "arena/access.hpp"

namespace nibkv {

/// Slots in a list of tiles, all but the last of which are full.
struct TileList {
  std::uint32_t first;
  std::uint32_t last;
  std::uint32_t used;
};

/// Moves forward those slots of a list that a plan keeps.
/// @param target        the plan of the list's slots; kept slots go to `first_target`, `first_target` + 1, ...
/// @returns the first of the tiles left over, which form a list, or kNoTile
std::uint32_t close_gaps(const Access& to, TileList& list, const std::uint32_t* target, std::uint32_t first_target);

/// The same for the `own` slots in a chain's own tiles. Tiles left over go back to the pool.
void compact_own(const Access& to, Chain& chain, std::uint32_t own, const std::uint32_t* target,
                 std::uint32_t first_target);

}  // namespace nibkv
