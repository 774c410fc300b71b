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
  std::uint32_t queries = 0;  ///< number of queries; 0: all from first_query on. Must be all `count` where attention
                              ///< is scored
  std::uint32_t worker = 0;   ///< [0, workers)
  bool drafts = false;        ///< whether these queries may go back (truncate): then no score counts them
};

/// Causal attention of the last `count` appended tokens over what the cache holds. A count of 1 is
/// decoding, more is prefill.
///
/// out = softmax(q k / sqrt(head_dim)) v with the softmax in fixed point (lib/DESIGN.md states its error). Queries with
/// numbers above 2^100 give unspecified values, which may differ between ports.
///
/// With a Rotary::reach, slots further behind a query than that meet it turned back by a multiple of Rotary::step(), so
/// that no distance is longer than the model was trained for. Positions are those of explain().
///
/// Writes the scratch of its worker. Under Keep::kScore it also adds the attention of these queries to
/// the scores of the slots (score.hpp), so the queries of each token must be passed exactly once, drafts
/// (Part::drafts) apart.
///
/// @param layer    [0, layers)
/// @param queries  f32, finite, shape [count][query_heads][head_dim], after rotary embedding; count in [1, max_chunk]
///                 and at most held() of every head in the part, recalled() not counted
/// @param out      f32, same shape; only the heads and queries of the part are written
/// @returns kNotReady; kBadArgument for a wrong layer, part or span size, for a head of the part
///          that holds fewer than `count` tokens, or for a query of the part that is not finite.
///          Nothing is written unless kOk.
/// Cost: O(count * query_heads * held * head_dim). A tile with slots that were wrapped before the query is read up to
/// Rotary::turns() times more for its keys.
Status attend(Cache& cache, std::uint32_t layer, std::span<const float> queries, std::span<float> out,
              const Part& part = {});

/// The same for rows as an engine keeps them: f32, f16 or bf16, with strides (rows.hpp). `out` becomes what it would
/// from the same numbers as dense f32, rounded to its type.
/// @param count    [1, max_chunk], and at most held() of every head in the part, recalled() not counted
/// @param queries  finite, for `count` tokens and query_heads heads
/// @param out      likewise; its type and strides may be others. It may not overlap `queries`
/// @returns as above; kBadArgument for `count`, and for what rows.hpp says of all rows of the call, too
Status attend(Cache& cache, std::uint32_t layer, std::uint32_t count, const ConstRows& queries, const MutableRows& out,
              const Part& part = {});

/// The same with a mask of the caller's: which of the call's own tokens, the last `count` appended, each query sees.
/// Without one that is causal. For trees of draft tokens, where branches do not see one another, and for spans of an
/// image or a prefix, whose tokens all see each other. What the cache held before these tokens is seen by all queries.
///
/// Under Keep::kScore a slot gets the attention of the queries that see it. Those that do not are counted as if
/// they had given it none: local scores fade for all queries, and with Policy::per_query a global score is divided by
/// the q tokens since the slot, its own included. If h of these were hidden from it, its score is 1 - h / q of the mean
/// over those that saw it. Only tokens of one call hide from one another, so h is at most `count`, and a slot that
/// leaves the recent window has lost less than count / recent. Queries before its own that see it add to its score and
/// are not counted: it is then at most 1 + (count - 1) / q of that mean.
///
/// @param mask  [count][(count + 31) / 32]: bit j % 32 of word j / 32 of row i is set if query i sees token j of the
///              call. Bits from `count` on are ignored. Each query of the part must see a slot: its own token, another
///              one, or an older one
/// @returns as above; kBadArgument for a mask of another size, or one with which a query sees nothing, too
Status attend(Cache& cache, std::uint32_t layer, std::uint32_t count, const ConstRows& queries,
              std::span<const std::uint32_t> mask, const MutableRows& out, const Part& part = {});

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
