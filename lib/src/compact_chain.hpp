#pragma once

#include <cstdint>

#include "plan_chain.hpp"

namespace nibkv {

/// The body of compact() for a plan that is known to be right.
/// @param arrays  with the scores of the slots, where the policy merges: a plan leaves them there. The others are
///                written, but for their target
void compact_chain(const Access& to, Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                   const std::uint32_t* target, const PlanArrays& arrays);

/// Merges the members of a plan into their centres, where they lie.
void merge_members(const Access& to, Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                   const std::uint32_t* target, const PlanArrays& arrays);

}  // namespace nibkv
