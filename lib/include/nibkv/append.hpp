#pragma once

#include <cstdint>
#include <span>

#include "nibkv/cache.hpp"
#include "nibkv/rows.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// Appends `count` = keys.size() / (kv_heads * head_dim) tokens to `layer`.
///
/// Each row is prepared (outlier channels taken out, rotated) and quantised with
/// a searched scale; see lib/DESIGN.md. Under a bounded policy, an append that would outgrow
/// a head's tiles first plans and compacts that head. Keys saturate above a magnitude of
/// 2^55 and values above 2^85. Rows with numbers above 2^119 give unspecified values, which may
/// differ between ports.
///
/// @param layer   [0, layers)
/// @param keys    f32, finite, shape [count][kv_heads][head_dim], after rotary embedding; count in [1, max_chunk]
/// @param values  f32, finite, shape [count][kv_heads][head_dim]
/// @returns kNotReady; kBadArgument for a wrong layer or span size, for a number that is not
///          finite, or for a call out of turn: of two layers that share codes the lower one must
///          be appended first, then the upper one with the same number of tokens; kFull under
///          Keep::kAll, when the pool has no tile left, or, if any layers share codes, when
///          a head would hold more than Policy::tokens rounded up to whole tiles; kFull under any
///          policy after 2^32 - 1 tokens. The cache is unchanged unless kOk.
/// Cost: O(count * kv_heads * head_dim * log head_dim).
Status append(Cache& cache, std::uint32_t layer, std::span<const float> keys, std::span<const float> values);

/// The same from rows as an engine keeps them: f32, f16 or bf16, with strides (rows.hpp). The cache then holds what it
/// would hold had the same numbers come as dense f32.
/// @param count   [1, max_chunk]
/// @param keys    finite, for `count` tokens and kv_heads heads
/// @param values  likewise; their type and strides may be others
/// @returns as above; kBadArgument for `count`, and for what rows.hpp says, too
Status append(Cache& cache, std::uint32_t layer, std::uint32_t count, const ConstRows& keys, const ConstRows& values);

/// How many more tokens every layer would take now before append returns kFull. Under a bounded
/// policy that is what is left of 2^32 - 1 positions. 0 for a cache that is not ready.
/// Cost: O(layers * kv_heads).
std::uint32_t room(const Cache& cache);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
