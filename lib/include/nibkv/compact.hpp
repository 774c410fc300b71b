#pragma once

#include <cstdint>
#include <span>

#include "nibkv/plan.hpp"

namespace nibkv {

/// Carries out a plan on one chain, in place: kept slots move forward, emptied tiles go back to the pool. Codes and
/// scales move as they are, nothing is coded again. A tile that moves as a whole is linked, not copied.
///
/// @param target  held(layer, kv_head) entries
/// @returns kNotReady; kBadArgument for an index out of range; kBadPlan for a plan of the wrong size or form. The cache
///          is unchanged unless kOk.
/// Cost: O(held + moved * head_dim).
Status compact(Cache& cache, std::uint32_t layer, std::uint32_t kv_head, std::span<const std::uint32_t> target);

}  // namespace nibkv
