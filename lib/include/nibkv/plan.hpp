#pragma once

#include <cstdint>
#include <span>

#include "nibkv/score.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// A plan is one array over the slots of a chain. target[i] is the new slot of slot i; or kDrop;
/// or kMember plus the new slot of a kept slot, its centre, into which it is merged. The targets of
/// kept slots are 0, 1, 2, ... in slot order. A caller may print a plan, change it, or write one.
/// Under Policy::faint, kFaint stands for slots that become or stay faint, which have no numbers: those of kept slots
/// count the others alone. A slot that is faint can only stay so, be dropped, or be merged.
inline constexpr std::uint32_t kDrop = 0xffffffff;
inline constexpr std::uint32_t kFaint = 0xfffffffe;
inline constexpr std::uint32_t kMember = 0x80000000;

/// Whether a target is that of a slot that is merged.
constexpr bool is_member(std::uint32_t target) {
  return target >= kMember && target < kFaint;
}

/// Plans what the policy would do to one chain now to fit `incoming` more tokens into its budget.
/// Changes nothing of what the cache holds; it writes the arena's workspace. Under Budget::kAdaptive
/// the budget is the one from the last time that append divided the layer's budget among its heads.
///
/// @param layer     in range
/// @param kv_head   likewise
/// @param incoming  tokens about to be appended, [0, max_chunk]
/// @param target    held(layer, kv_head) entries, written
/// @returns kNotReady; kBadPolicy where there is a log (Policy::log), which takes whole pages
///          of the oldest tokens, without gaps; kBadArgument for an index or `incoming` out of
///          range, for a span of the wrong size, or when two layers that share codes have not seen the same tokens:
///          they have one plan, made from the sum of their scores.
/// Cost: O(held), and for a policy that merges O(candidates * held * head_dim) int8 products. With
///       Policy::position_free these are f32 products, and each kept slot is decoded, transformed and rotated once for
///       every 16 candidates: O(head_dim log head_dim), and a cosine and a sine for each pair of rotary channels.
Status plan(Cache& cache, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t incoming,
            std::span<std::uint32_t> target);

/// @returns kOk when `target` is a plan for a chain of target.size() slots, else kBadPlan. Which slots may be kFaint
///          is for compact() to know.
/// Cost: O(target.size()).
Status check_plan(std::span<const std::uint32_t> target);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
