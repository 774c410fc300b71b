#pragma once

#include "nibkv/cache.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// Reads all that an arena says of itself and compares: that every tile is in one chain or one free list, once; that
/// chains have the tiles that their slots need; that counts, positions, scores and scales are ones that the verbs
/// write. For tests, for arenas that come from a file, and to find out who wrote where he should not have.
///
/// Rows themselves are not judged: any codes are possible. Uses the scratch of worker 0.
/// @returns kNotReady; kCorrupt for the first thing that cannot be. The cache is unchanged.
/// Cost: O(tiles), and as often as the scratch of a worker, in bits, goes into them.
Status check(const Cache& cache);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
