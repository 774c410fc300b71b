#pragma once

#include <cstdint>
#include <span>

#include "nibkv/cache.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// How far the codes of a layer's keys move its logits: for each query head the expected root mean square, over the
/// slots held, of the error of q * k / sqrt(head_dim). Below 0.3 attention hardly changes; from 2 on the layer attends
/// to other tokens than the model means. Then a profile helps, whose mean key and outlier channels leave less to the
/// codes, or wider codes in this layer (Policy::wide).
///
/// Expected: codes of 2, 4 and 8 bits leave 0.111, 0.0070 and 0.00004 of the squared norm of what they code, in no
/// direction more than in another (a rotated row). What a profile knows of the queries lowers the error further, and
/// what was merged or folded is not counted.
///
/// @param layer    in range
/// @param queries  f32[query_heads][head_dim] of one token, as for attend; any real token of the model tells
/// @param errors   f32[query_heads], written; at most 1e30; 0 under Storage::kF32 and without slots
/// @returns kNotReady; kBadArgument for an index out of range, a span of the wrong size, or numbers that are not finite
/// Cost: about that of appending 32 tokens to the layer, and O(held).
Status logit_errors(const Cache& cache, std::uint32_t layer, std::span<const float> queries, std::span<float> errors);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
