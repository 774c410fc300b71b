#pragma once

#include "arena/cold_heads.hpp"

// The tiers of a chain below the one where its tokens arrive (Policy::tail). What has tiers does not fold.

namespace nibkv {

/// Slots of a chain that have moved down: a list of tiles, all full but the last.
struct Tier {
  std::uint32_t first = kNoTile;
  std::uint32_t last = kNoTile;
  std::uint32_t used = 0;        // slots
  std::uint32_t free = kNoTile;  // first of the chain's own free tiles for it
};
static_assert(sizeof(Tier) == detail::kTierBytes);

inline Tier& tier_of(const ArenaView& to, const Chain& chain, std::uint32_t which) {
  const auto index = static_cast<std::size_t>(&chain - to.chains());
  return to.at<Tier>(to.layout().tiers)[index * detail::tiers_below(to.policy()) + which];
}
/// The slots that are neither in the tail nor faint, the sinks first. Exists only where there are tiers.
inline Tier& kept_tier(const ArenaView& to, const Chain& chain) {
  return tier_of(to, chain, 0);
}
/// Those with the fewest bits, in no order. They are the chain's first. Exists only under Policy::faint.
inline Tier& faint_tier(const ArenaView& to, const Chain& chain) {
  return tier_of(to, chain, 1);
}
inline bool has_faint(const ArenaView& to) {
  return to.policy().faint != 0;
}

/// Slots of a chain that are not in its tail, and those that are faint.
inline std::uint32_t slots_below(const ArenaView& to, const Chain& chain) {
  if (keeps_log(to.policy())) return cold_head(to, chain).used;
  if (!has_tiers(to.policy())) return 0;
  return kept_tier(to, chain).used + (has_faint(to) ? faint_tier(to, chain).used : 0);
}
inline std::uint32_t faint_slots(const ArenaView& to, const Chain& chain) {
  return has_faint(to) ? faint_tier(to, chain).used : 0;
}

/// Slots that a tail has space for.
inline std::uint32_t tail_capacity(const ArenaView& to) {
  return detail::tail_slots(to.shape(), to.policy());
}
/// How many of the first slots of a chain's tail can move down, in whole tiles: those beyond Policy::tail.
inline std::uint32_t ripe_slots(const ArenaView& to, const Chain& chain) {
  if (!has_tiers(to.policy())) return 0;
  const std::uint32_t slots = chain.used - slots_below(to, chain);
  return slots > to.policy().tail ? (slots - to.policy().tail) / kTileSlots * kTileSlots : 0;
}

}  // namespace nibkv
