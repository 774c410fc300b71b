#pragma once

#include "arena/band.hpp"

namespace nibkv {

/// Slots of a chain's kept tier when its budget is full.
inline std::uint32_t kept_budget(const ArenaView& to, const Chain& chain) {
  return detail::kept_of(to.policy(), chain.budget);
}

/// A slot more at the end of a tier of a chain, which has the space. The caller counts it in the chain.
Place add_to_tier(const ArenaView& to, const Chain& chain, Tier& tier);

/// Carries out a plan on the tiers of a chain: slots that are gone leave theirs, those that become faint move there,
/// and of the first `ripe` slots of the tail the others move to the kept tier.
/// @param target  of the chain's slots. nullptr if all stay, but for the ripe ones
/// @param ripe    a multiple of 32, at most the slots of the tail
void compact_tiers(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, const std::uint32_t* target,
                   std::uint32_t ripe);

/// Moves slots of the tail down that fit in the kept tier.
/// @param ripe      as above
/// @param incoming  as of carry_out
void lower_ripe(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t ripe,
                std::uint32_t incoming);

/// How many slots the kept tier of a chain can take under Keep::kAll, in whole tiles of a tail.
inline std::uint32_t kept_slots_left(const ArenaView& to, const Chain& chain) {
  return (to.layout().tiles_per_head * kTileSlots - kept_tier(to, chain).used) / kTileSlots * kTileSlots;
}
/// Those of the ripe slots that it can take.
std::uint32_t fitting_ripe(const ArenaView& to, const Chain& chain);

}  // namespace nibkv
