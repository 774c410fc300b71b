#pragma once

#include <cstdint>

#include "arena/band.hpp"

namespace nibkv {

/// Takes a tile from the pool, which must have one, and appends it to `chain`. It comes from
/// the chain's own run if any is free there, so that a chain mostly lies in one piece of memory
/// (lib/DESIGN.md has the gain).
std::uint32_t grow(const ArenaView& to, Chain& chain);

/// The same for a tier of `chain`.
std::uint32_t grow(const ArenaView& to, const Chain& chain, Tier& tier);

/// Returns a tile of `chain` to the pool: to the chain in whose run it lies, if all runs
/// are of equal length.
void give_back(const ArenaView& to, Chain& chain, std::uint32_t tile);
/// Returns a tile of a tier: to its chain.
void give_back(const ArenaView& to, Tier& tier, std::uint32_t tile);

}  // namespace nibkv
