#pragma once

#include <cstdint>

#include "nibkv/attend.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// The maximum of Share::of.
inline constexpr std::uint32_t kMostShares = 65536;

/// The share of a thread in a call that several threads make together: the `index`-th of `of` shares, on `worker`.
/// The library divides the work evenly. All shares of one call may run at the same time on different workers, or in any
/// order; their number may change from call to call. Bytes do not depend on it.
struct Share {
  std::uint32_t index = 0;   ///< [0, of)
  std::uint32_t of = 1;      ///< number of shares, [1, kMostShares]
  std::uint32_t worker = 0;  ///< [0, Shape::workers), whose scratch is used
};

/// Begins an append that threads divide: makes space for `count` tokens of `layer` as append does, and takes their
/// slots, whose rows are zero until append_share writes them. One thread calls it; then come the shares.
///
///     reserve(cache, layer, count);                                    // one thread
///     append_share(cache, layer, count, keys, values, {i, n, i});      // thread i of n
///
/// All layers may be reserved, one after the other, before the first of them is written. To give up, truncate to the
/// tokens seen before.
/// @param count  [1, max_chunk]
/// @returns what append does but for its rows; kBadArgument also for a layer that holds nothing under
///          KeyBasis::kMeasured, since it measures rows that come with append. The cache is unchanged unless kOk.
/// Cost: O(count * kv_heads), and that of making space.
Status reserve(Cache& cache, std::uint32_t layer, std::uint32_t count);

/// Writes a share of the rows of the tokens for which reserve took slots, the newest of the layer. Once all shares
/// are done, the cache holds what append of the same rows would have left. A head's tokens are divided where a tile
/// ends, so a chunk of 32 tokens makes at most two shares a head.
/// @param count   as in reserve
/// @param keys    finite, for `count` tokens and kv_heads heads; all of them are given, the share's are read
/// @param values  likewise
/// @returns kNotReady; kBadArgument for a wrong layer, share or count, for rows as append does, and where the layer's
///          newest tokens were not reserved by the last call of reserve, or another verb moved slots since. A share
///          that fails leaves its rows as they were, and can be repeated.
/// Cost: that of append, divided.
Status append_share(Cache& cache, std::uint32_t layer, std::uint32_t count, const ConstRows& keys,
                    const ConstRows& values, const Share& share);

/// Whether attend_share divides the heads of this cache: any codes, more than one worker, a policy that does not score
/// attention, and no Rotary::reach. Elsewhere attend by Part divides a call by heads and queries.
bool divisible(const Cache& cache);

/// A share of the attention of the newest token. Heads are divided along the context too, at blocks of 512 slots (as
/// Flash-Decoding does, Dao et al. 2023), so that a model with few KV heads decodes on many threads. What the blocks
/// give waits in scratch. After all shares of the layer, which a barrier of the caller's must end, combine_share writes
/// the output.
///
///     attend_share(cache, layer, query, {i, n, i});   // thread i of n
///     ...                                             // barrier
///     combine_share(cache, layer, out, {i, n, i});
///
/// The output has the bytes of attend. Nothing else may be called on the cache in between.
/// @param query  finite, for one token and query_heads heads; all of them are given, the share's are read
/// @returns kNotReady; kBadArgument where the cache is not divisible, for a wrong layer or share, for a head without
///          tokens, and for rows as attend does
/// Cost: that of attend, divided.
Status attend_share(Cache& cache, std::uint32_t layer, const ConstRows& query, const Share& share);

/// Writes a share of the rows of the output, from what all shares of attend_share have left. Each query head is
/// combined once: a second time, and without all of attend's shares, it is refused.
/// @param out  for one token and query_heads heads; the share's rows are written
/// @returns kNotReady; kBadArgument as attend_share does, for rows as attend does, and where shares of attend_share are
///          missing. Nothing is written unless kOk.
/// Cost: O(query_heads * head_dim * (log head_dim + held / 512)), divided.
Status combine_share(Cache& cache, std::uint32_t layer, const MutableRows& out, const Share& share);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
