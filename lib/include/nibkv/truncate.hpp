#pragma once

#include <cstdint>

#include "nibkv/compact.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// Takes back the newest tokens: afterwards every layer has seen at most `seen` tokens. For an answer that
/// is generated again, an edited turn, draft tokens that were rejected (speculative decoding, arXiv
/// 2211.17192). Layers that have seen no more than `seen` stay as they are, so a forward pass that failed
/// half-way can be taken back too.
///
/// The slots of the remaining tokens, byte for byte:
/// - are as if the tokens had never come, if `seen` is at least oldest_exact();
/// - otherwise, what making room for those tokens has dropped, merged or folded stays so.
///
/// The tokens of each layer's last append can always go back.
///
/// Scores are not taken back. A query that was taken back has added attention of 1 to a head's global
/// scores in total (the mean over its group, or at most the largest under Group::kMax, times the slots), so
/// n such queries have changed any slot's by at most n. They have faded the local scores as n queries
/// do. Policies that keep no scores of attention (full, streaming_llm, l2_norm) have no such effect, nor have draft
/// queries (Part::drafts).
///
/// @param seen  [oldest_reachable(cache), the largest Cache::seen of a layer]
/// @returns kNotReady; kBadArgument when no layer has seen as many tokens; kGone below
///          oldest_reachable(). The cache is unchanged unless kOk.
/// Cost: O(tiles of the chains).
Status truncate(Cache& cache, std::uint32_t seen);

/// The least `seen` that truncate accepts: since then every token is still held by every head, in a slot of
/// its own into which nothing was merged. 0 for a cache that is not ready. Under kRecent and kScore about the
/// newest `tokens` (of the head with the smallest budget) and recent_of(policy, seen), or the last chunk if that
/// is longer. 0 under kAll, unless layers share codes: then what has folded cannot go back.
std::uint32_t oldest_reachable(const Cache& cache);

/// The least `seen` for which truncate leaves the slots as if later tokens had never come: since then no
/// space was made. 0 for a cache that is not ready. After restore it is the number of tokens seen, unless
/// nothing was ever dropped.
std::uint32_t oldest_exact(const Cache& cache);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
