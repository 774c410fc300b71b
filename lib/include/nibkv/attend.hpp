#pragma once

#include <cstdint>
#include <span>

#include "nibkv/append.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// The part of a layer that one call of attend computes, and the worker whose scratch it uses.
/// Parts of one layer that do not overlap may run at the same time on different workers. The output
/// bytes do not depend on how a layer is divided.
struct Part {
  std::uint32_t first_head = 0;   ///< first KV head
  std::uint32_t heads = 0;        ///< number of KV heads; 0: all from first_head on
  std::uint32_t first_query = 0;  ///< first of the `count` queries
  std::uint32_t queries = 0;      ///< number of queries; 0: all from first_query on. Must be all `count` under a policy
                                  ///< that scores attention
  std::uint32_t worker = 0;       ///< [0, workers)
};

/// Causal attention of the last `count` appended tokens over what the cache holds. A count of 1 is
/// decoding, more is prefill.
///
/// out = softmax(q k / sqrt(head_dim)) v with the softmax in fixed point (lib/DESIGN.md states its error).
///
/// Writes the scratch of its worker. Under Keep::kScore it also adds the attention of these queries to
/// the scores of the slots (score.hpp), so the queries of each token must be passed exactly once.
///
/// @param layer    [0, layers)
/// @param queries  f32, finite, shape [count][query_heads][head_dim], after rotary embedding; count in [1, max_chunk]
///                 and at most held() of every head in the part
/// @param out      f32, same shape; only the heads and queries of the part are written
/// @returns kNotReady; kBadArgument for a wrong layer, part or span size, for a head of the part
///          that holds fewer than `count` tokens, or for a query of the part that is not finite.
///          Nothing is written unless kOk.
/// Cost: O(count * query_heads * held * head_dim).
Status attend(Cache& cache, std::uint32_t layer, std::span<const float> queries, std::span<float> out,
              const Part& part = {});

/// The same for rows as an engine keeps them: f32, f16 or bf16, with strides (rows.hpp). `out` becomes what it would from
/// the same numbers as dense f32, rounded to its type.
/// @param count    [1, max_chunk], and at most held() of every head in the part
/// @param queries  finite, for `count` tokens and query_heads heads
/// @param out      likewise; its type and strides may be others. It may not overlap `queries`
/// @returns as above; kBadArgument for `count`, and for what rows.hpp says of all rows of the call, too
Status attend(Cache& cache, std::uint32_t layer, std::uint32_t count, const ConstRows& queries, const MutableRows& out,
              const Part& part = {});

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
