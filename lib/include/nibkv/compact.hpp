#pragma once

#include <cstdint>
#include <span>

#include "nibkv/plan.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// Carries out a plan on one chain, in place: members are merged into their centres, kept slots
/// move forward, and emptied tiles go back to the pool. Slots into which nothing is merged move
/// unchanged; they are not re-quantised. A tile that moves as a whole is relinked, not copied.
///
/// If two layers share codes, a plan for either is carried out on both, so that they keep the same
/// positions. Folded slots stay folded, and the others do not fold here.
///
/// @param target  held(layer, kv_head) entries
/// @returns kNotReady; kBadPolicy where there is a log (Policy::log), which takes whole pages
///          of the oldest tokens, without gaps; kBadArgument for an index out of range, or when
///          two layers that share codes have not seen the same tokens; kBadPlan for a plan of the wrong size or form,
///          or one with members under a policy that does not merge, or with other faint slots than plan.hpp says, or
///          more than Policy::faint, and with a Rotary::reach under a policy that does not store positions for one that
///          would change them. The cache is unchanged unless kOk.
/// Cost: O(held + moved * head_dim), and O(head_dim log head_dim) for each slot that is merged.
Status compact(Cache& cache, std::uint32_t layer, std::uint32_t kv_head, std::span<const std::uint32_t> target);

/// Cuts every chain back now to its share of `tokens` a head. For a caller whose arena has
/// space for a whole prompt, and who compresses it once, while the question is inside the
/// window of the local score.
///
/// @param tokens  mean budget of a head, in (sinks + recent, policy.tokens], above sinks + tail too. Later appends
///                follow the arena's own budgets again. Where there is a faint tier, its slots come first: what goes is
///                what has better codes.
/// @param how     how heads share it, independent of Policy::budget; except that kTable is allowed
///                only if Policy::budget is kTable, and then only kTable and kUniform are
/// @returns kNotReady; kBadPolicy when the policy is not Keep::kScore, or for a `how` that does
///          not fit it: where layers share codes, anything but kUniform; kBadProfile for kScores
///          without a profile; kBadArgument for tokens out of range, or when two layers that share
///          codes have not seen the same tokens. The cache is unchanged unless kOk.
/// Cost: that of plan and compact on every chain.
Status compact_now(Cache& cache, std::uint32_t tokens, Budget how);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
