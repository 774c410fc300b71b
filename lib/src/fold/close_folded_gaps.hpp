#pragma once

#include <cstdint>

#include "arena/view.hpp"

namespace nibkv {

/// Moves forward those slots of a chain's folded part that a plan keeps, and with them what is known
/// of the slots after it that did not fold. The lower layer of a pair goes first.
/// @param target  the plan of the chain
/// @returns the slots that remain in the folded part; 0 where a layer shares no codes
std::uint32_t close_folded_gaps(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head,
                                const std::uint32_t* target);

/// Marks the distance of a slot from the other layer's as unknown, as its rows have changed. Does
/// nothing for slots whose distance is not kept.
void forget_distance(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t slot);

}  // namespace nibkv
