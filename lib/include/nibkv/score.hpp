#pragma once

#include <cstdint>
#include <span>

#include "nibkv/attend.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// The position of a slot that no longer lies in their order, where policies do not keep positions.
inline constexpr std::uint32_t kNoPosition = 0xffffffff;

/// What is known of one slot of a chain.
///
/// Scores are integers that attend adds up, per slot and KV head, from the softmax weights that the slot got, the mean
/// or the maximum over the query heads that share the KV head (EMS, arXiv 2412.08521; lib/DESIGN.md has the formulas).
struct SlotInfo {
  std::uint32_t position = 0;  ///< of the token: how many came before it
  /// Attention of all queries so far, saturating for the sinks: a weight of 1 adds 2^24 / 2^exponent, where the chain's
  /// exponent grows by one whenever a score would overflow and all are halved. 0 where the policy does not keep it.
  std::uint32_t global = 0;
  /// Attention of the last queries: each adds 2^14 for a weight of 1, and what was there fades by 1 / window; at most
  /// 65535. 0 where the policy does not keep it.
  std::uint16_t local = 0;
  std::uint8_t bias =
      0;  ///< added to the slot's logit, in 1/16 octave (ln 2 / 16), for what was merged into it; at most 32
  std::uint8_t merged = 0;  ///< slots that were merged into it, at most 255
};

/// Describes the slots of one chain, in position order; where layers share codes, folded ones first, in no order, then
/// sinks and those that were retained, then the others, which are in order. Positions are kept under
/// Keep::kScore; under other policies they are those that the policy itself leaves, and wrong after a caller's own
/// compact; kNoPosition for slots that folded or were retained.
///
/// @param layer    in range
/// @param kv_head  likewise
/// @param slots    held(layer, kv_head) entries, written
/// @returns kNotReady; kBadArgument for an index out of range or a span of the wrong size.
/// Cost: O(held).
Status explain(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head, std::span<SlotInfo> slots);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
