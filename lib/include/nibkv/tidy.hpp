#pragma once

#include <cstdint>

#include "nibkv/compact.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// Makes space for `tokens` more tokens ahead of need, in small steps: for an engine with idle time between
/// tokens. Without it, append makes space in all heads of a layer at once, about every 32nd token. A call cuts
/// back at most one head, or, where heads compete for a layer's slots (Budget::kAdaptive), one layer.
///
/// Space is made as append would make it now. So with tidy(1) after each token, until it is done, single tokens
/// give the same bytes as without it. For more tokens at once, what is dropped is decided that much earlier.
///
/// @param tokens  [1, max_chunk]: as many as the next append will bring
/// @param done    written: whether there was nothing to do; otherwise call again
/// @returns kNotReady; kBadArgument for tokens out of range, or when two layers that share codes have not
///          seen the same tokens. The cache is unchanged unless kOk.
/// Cost: that of plan and compact on one head; O(layers * kv_heads) when there is nothing to do.
Status tidy(Cache& cache, std::uint32_t tokens, bool& done);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
