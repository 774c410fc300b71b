#pragma once

#include <cstdint>
#include <span>

#include "nibkv/attend.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// The position reported for a slot that is no longer in position order, under policies that
/// do not keep positions.
inline constexpr std::uint32_t kNoPosition = 0xffffffff;

/// What is known about one slot of a chain.
///
/// Scores are integers. For each slot and KV head, attend adds up the softmax weights that the slot
/// got: their mean or maximum over the query heads that share the KV head (EMS, arXiv 2412.08521;
/// lib/DESIGN.md has the formulas).
struct SlotInfo {
  std::uint32_t position = 0;  ///< position of the token: how many came before it
  /// Attention from all queries so far. A weight of 1 adds 2^24 / 2^exponent, under Policy::per_query times
  /// the share that the slots which the query sees have in the most that the chain can hold (biases included,
  /// and rounded up to a power of two). When a score would overflow, all scores of the chain are
  /// halved and its exponent grows by one; the scores of sinks saturate instead. A centre's is that of
  /// its class: 2^(bias / 16) times its own. 0 if the policy does not keep it.
  std::uint32_t global = 0;
  /// Attention from the most recent queries. For each query the score fades by 1 / window, and then
  /// a weight of 1 adds 2^14 (with the share as above); at most 65535. It starts at the mean of the chain's when
  /// space was last made. 0 if the policy does not keep it.
  std::uint16_t local = 0;
  /// Added to the slot's logit for what was merged into it, in 1/16 octave (ln 2 / 16); at most 32.
  std::uint8_t bias = 0;
  std::uint8_t merged = 0;  ///< number of slots merged into it, at most 255
};

/// Describes the slots of one chain, in position order. Where layers share codes, the folded slots
/// come first, in no order; then the sinks and the retained slots; then the others, in order. Where there is a log,
/// those that are recalled come first, in order; then the sinks.
///
/// Positions are exact under Keep::kScore, up to 65535 tokens after their tile's first. With a Rotary::reach, what is
/// older than that has a later position, by whole steps, which attention does not tell from its own (reaches above
/// about 30,000 apart: the newest slots of such a tile count as older than they are). Other
/// policies do not store them: they are those that the policy itself would leave, which is wrong
/// after a caller's own compact, and kNoPosition for slots that folded or were retained.
///
/// @param layer    in range
/// @param kv_head  likewise
/// @param slots    held(layer, kv_head) entries, written
/// @returns kNotReady; kBadArgument for an index out of range or a span of the wrong size.
/// Cost: O(held).
Status explain(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head, std::span<SlotInfo> slots);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
