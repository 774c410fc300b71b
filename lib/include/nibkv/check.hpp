#pragma once

#include "nibkv/cache.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// Checks an arena for consistency: every tile is in exactly one chain or free list; chains have
/// the tiles that their slots need; counts, positions, scores and scales are ones that the verbs
/// can write. For tests, for arenas loaded from a file, and for finding stray writes.
///
/// Of the rows' codes only -128 at 8 bits is none. Uses the scratch of worker 0.
/// @returns kNotReady; kCorrupt at the first inconsistency. What the cache holds is unchanged.
/// Cost: O(tiles) for each pass; the scratch of one worker holds a bit for each
/// tile that a pass covers.
Status check(Cache& cache);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
