#pragma once

#include <cstdint>

#include "nibkv/arena.hpp"

namespace nibkv {

/// Slots that a chain may reach before it is cut back: a tile over the budget, or all its tiles when nothing may be
/// dropped.
constexpr std::uint32_t capacity_of(const Policy& policy, const Layout& layout) {
  return policy.keep == Keep::kAll ? layout.tiles_per_head * kTileSlots : policy.tokens + kTileSlots;
}

/// The body of plan() for a chain of `used` slots that may reach `capacity`; also what append runs before it makes
/// room.
void plan_chain(const Policy& policy, std::uint32_t used, std::uint32_t incoming, std::uint32_t capacity,
                std::uint32_t* target);

}  // namespace nibkv
