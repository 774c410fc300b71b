#pragma once

#include <cstdint>
#include <span>

#include "nibkv/plan.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// Carries out a plan on one chain, in place: members join their centres, kept slots move forward, emptied tiles go
/// back to the pool. Slots into which nothing is merged move as they are, nothing is coded again. A tile that moves as
/// a whole is linked, not copied.
///
/// Of two layers that share codes either one's plan is carried out on both: they keep the same positions. Slots of the
/// folded part and others stay what they are.
///
/// @param target  held(layer, kv_head) entries
/// @returns kNotReady; kBadArgument for an index out of range, or when two layers that share codes have not seen the
///          same tokens; kBadPlan for a plan of the wrong size or form. The cache
///          is unchanged unless kOk.
/// Cost: O(held + moved * head_dim), and O(head_dim log head_dim) for each slot that is merged.
Status compact(Cache& cache, std::uint32_t layer, std::uint32_t kv_head, std::span<const std::uint32_t> target);

/// Cuts every chain back to its share of `tokens` a head now: for a caller that holds a whole prompt in an arena that
/// has room for it, and compresses once with the question inside the local score's window.
///
/// @param tokens  mean budget of a head, in (sinks + recent, policy.tokens]. From then on the arena's own budgets
/// decide
///                again when append makes room.
/// @param how     how heads share it, whatever Policy::budget says; under kTable only that or kUniform, and kTable only
/// then
/// @returns kNotReady; kBadPolicy when the policy is not Keep::kScore, or for a `how` that does not fit it, which any
/// but
///          kUniform does not where layers share codes; kBadProfile
/// for
///          kScores without a profile; kBadArgument for tokens out of range. The cache is unchanged unless kOk.
/// Cost: that of plan and compact for every chain.
Status compact_now(Cache& cache, std::uint32_t tokens, Budget how);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
