#pragma once

#include <cstdint>
#include <span>

#include "nibkv/cache.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// Appends `count` = keys.size() / (kv_heads * head_dim) tokens to `layer`.
///
/// Each row is made ready (outlier channels taken out, rotated) and coded to 4 bits with a searched scale; see
/// lib/DESIGN.md. Under a bounded policy an append that would outgrow the chain's tiles first plans and compacts every
/// head of the layer. At 4 bits keys beyond a magnitude of 2^55
/// and values beyond 2^85 saturate; rows with numbers beyond 2^119 give unspecified values, not the same on every port.
///
/// @param layer   [0, layers)
/// @param keys    f32, finite, shape [count][kv_heads][head_dim], after rotary embedding; count in [1, max_chunk]
/// @param values  f32, finite, shape [count][kv_heads][head_dim]
/// @returns kNotReady; kBadArgument for a wrong layer or span size, for a number that is not finite, or out of turn: of
/// two layers that share codes the
///          lower one goes first, then the upper one with as many tokens; kFull when the pool has no tile left and the
///          policy may not make room; where any layers share codes, when a head holds Policy::tokens. The cache is
///          unchanged unless kOk.
/// Cost: O(count * kv_heads * head_dim * log head_dim).
Status append(Cache& cache, std::uint32_t layer, std::span<const float> keys, std::span<const float> values);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
