#pragma once

#include <cstdint>
#include <span>

#include "nibkv/attend.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// Brings back from the store what the last appended tokens want to attend to (Policy::log): call it after append and
/// before attend, for each layer. attend then reads the recalled tokens beside the sinks and the recent window.
///
/// Each indexed head chooses up to Policy::recall tokens of its log, those with the most attention of all these queries
/// and of its group, as far as the index says. It has the signs of each key, less the mean of its page of 32, and how
/// large that is: ClusterKV's idea (arXiv 2412.03213) token by token. Tokens that were recalled before stay; pages are
/// read for the others. What is chosen does not depend on what was there, so neither do the bytes of attend. Until the
/// next call, the recalled tokens stay as they are.
///
/// Heads without an index, and caches without a log, have nothing to do. Writes the scratch of its worker.
///
/// @param layer    [0, layers)
/// @param queries  f32, finite, shape [count][query_heads][head_dim], after rotary embedding; count in [1, max_chunk]:
///                 those that attend will have, of the last `count` appended tokens
/// @param part     as of attend; calls at the same time must have different heads and workers. Its queries share one
///                 choice, so a few at a time find more: recall for them, attend for the same ones, then the next
/// @returns kNotReady; kBadArgument for a wrong layer, part or span size, or for a query of the part that is not
///          finite. Nothing is changed unless kOk. A page that cannot be had is no error: see RecallUsage.
/// Cost: O(count * group * log) for the index, and the pages of the tokens that come new.
Status recall(Cache& cache, std::uint32_t layer, std::span<const float> queries, const Part& part = {});

/// The same for rows as an engine keeps them (rows.hpp).
/// @returns kBadArgument also for what rows.hpp says of all rows of the call
Status recall(Cache& cache, std::uint32_t layer, std::uint32_t count, const ConstRows& queries, const Part& part = {});

/// What went to the store and came back, since init or clear. Counters stop at their largest value. Snapshots and
/// clones have them.
struct RecallUsage {
  std::uint32_t written_pages = 0;
  std::uint32_t read_pages = 0;
  std::uint32_t lost_pages = 0;       ///< not written, or not read as they were written
  std::uint32_t forgotten_pages = 0;  ///< whose place a later one took, since the log was full
  std::uint64_t chosen_tokens = 0;    ///< by all calls of recall
  std::uint64_t found_tokens = 0;     ///< those of them that were there already
};

/// Reads all pages that the log of a KV head should have, so that those which the store does not have are lost now and
/// not when they are wanted: after restore, with a file that may be another one, older, newer or cut.
/// recall_usage says how many are. Writes the scratch of worker 0.
/// @returns kNotReady; kBadArgument for indices out of range. kOk too for a head without an index, and for lost pages
/// Cost: that of reading log / 32 pages.
Status verify_log(Cache& cache, std::uint32_t layer, std::uint32_t kv_head);

/// Of one KV head. All 0 for indices out of range, and for heads without an index.
RecallUsage recall_usage(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head);
/// Of all heads together.
RecallUsage recall_usage(const Cache& cache);

/// Whether a KV head has an index. False for indices out of range.
bool is_indexed(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head);
/// The tokens that a KV head holds which were recalled: a part of Cache::held. 0 for indices out of range.
std::uint32_t recalled(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head);
/// The tokens that recall can bring back to a KV head: those in its log that are not lost. 0 for indices out of range.
std::uint32_t logged(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
