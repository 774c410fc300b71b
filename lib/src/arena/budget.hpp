#pragma once

#include <cstdint>
#include <span>

#include "arena/view.hpp"

namespace nibkv {

/// Whether every head can be given its budget.
/// @param table  Options::budgets, read for Budget::kTable
/// @returns kBadPolicy when the table has the wrong size, a budget out of range, or too much in all; kBadProfile when
///          the policy needs head scores and there are none
Status check_budgets(const Shape& shape, const Policy& policy, const Layout& layout, const ProfileView& profile,
                     std::span<const std::uint32_t> table);

/// Sets every chain's budget in tokens. check_budgets must have accepted the arguments.
void set_budgets(const ArenaView& to, std::span<const std::uint32_t> table);

/// Whether the budgets in an arena are ones that set_budgets and share_layer give. Under kAdaptive, what
/// competing heads of a layer have together is ChainJudge's to see.
bool sound_budgets(const ArenaView& to);

/// Whether a profile has what Cache::init and compact_now need of it.
bool has_needed(Budget how, const ProfileView& profile);

/// The rule of a head under kRules. The profile must have attention.
HeadRule rule_of(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head);

/// Distributes `tokens` a head among all heads, for all but kUniform, kTable and kAdaptive, whose budgets it
/// leaves: writes the others.
void share_heads(const ArenaView& to, Budget how, std::uint32_t tokens);

/// The tokens that the heads of a layer need in all at a place on a scale that is the same for all layers.
using WantedTokens = std::uint64_t (*)(const ArenaView& to, std::uint32_t layer, std::uint32_t place, void* context);
/// Writes the budgets: `tokens` a head in all, each layer what it wants at the largest place in [0, places] for which
/// there is space. More is wanted at larger places.
void share_evenly(const ArenaView& to, std::uint32_t tokens, std::uint32_t places, WantedTokens wanted, void* context);

/// The limits of what share_layer gives a head, in tiles, and the rest of its tokens. The heads
/// of a layer have `mean` tiles on average.
struct LayerShares {
  std::uint32_t least;
  std::uint32_t most;
  std::uint32_t mean;
  std::uint32_t rest;  ///< tokens that every head has in addition to its tiles
};
LayerShares layer_shares(const Policy& policy, std::uint32_t tokens);

}  // namespace nibkv
