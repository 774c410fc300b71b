#pragma once

#include <cstdint>

#include "arena/view.hpp"

namespace nibkv {

/// Distributes `tokens` a head among the heads of a layer by the scores of their
/// slots (Budget::kAdaptive).
void share_layer(const ArenaView& to, std::uint32_t layer, std::uint32_t tokens);

/// Sets the budgets of all heads so that each layer holds the same share of the scores of its slots that may be
/// dropped, in all `tokens` a head (Budget::kPrefix in compact_now). The policy must be Keep::kScore.
/// @param score  written: u32[the most slots of a chain]
void share_layers(const ArenaView& to, std::uint32_t tokens, std::uint32_t* score);

}  // namespace nibkv
