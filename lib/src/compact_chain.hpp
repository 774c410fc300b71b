#pragma once

#include <cstdint>

#include "plan_chain.hpp"

namespace nibkv {

/// The largest bias, 2 octaves: a slot that absorbs without end drowns the others (lib/DESIGN.md).
inline constexpr std::uint32_t kMostBias = 2 * 16;

/// The body of compact() for a plan that is known to be right.
/// @param arrays  written, but for their target
void compact_chain(const Access& to, Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                   const std::uint32_t* target, const PlanArrays& arrays);

/// Merges the members of a plan into their centres, where they lie.
void merge_members(const Access& to, Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                   const std::uint32_t* target, const PlanArrays& arrays);

}  // namespace nibkv
