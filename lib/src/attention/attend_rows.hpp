#pragma once

#include "arena/share.hpp"
#include "arena/view.hpp"
#include "attention/mask.hpp"
#include "attention/runs.hpp"
#include "attention/score_rows.hpp"
#include "codec/basis.hpp"
#include "codec/native_rows.hpp"

namespace nibkv {

class FarQueries;

/// Blocks that stay apart, for other workers have others: they become partials.
struct Apart {
  bool on = false;
  std::uint32_t layer = 0;
  std::uint32_t first_query_head = 0;  // of the first row
  std::uint32_t seen = 0;
};

/// Query rows that pass over a chain together, and the workspace of their worker.
struct Rows {
  std::int32_t count;
  float* sums;    // of the block that is being read, [row][head_dim]
  float* totals;  // of the blocks before it; nullptr where heads are not divided
  std::int8_t* queries;
  float* row;
  std::int8_t* outlier_queries;
  std::int32_t* dots;  // [tile of a batch][row][32]; the next two likewise
  std::int32_t* outlier_dots;
  std::uint8_t* weights;
  std::uint16_t* softmax;         // [tile of the chain][row][32], scored_pairs() in all, and
  std::int32_t* exponents;        // [tile of the chain][row], for the scores; nullptr if there are none
  const std::uint8_t* value_map;  // or nullptr
  float query_scales[kMaxRows];
  float outlier_ratios[kMaxRows];
  std::int32_t query_sums[kMaxRows];
  std::int32_t outlier_query_sums[kMaxRows];
  std::uint32_t limits[kMaxRows];
  const std::uint32_t* masks[kMaxRows];  // rows of a Mask, if there is one
  std::uint32_t mask_words;              // 0: there is none
  std::uint32_t first_new;               // the slot of the call's first token
  FarQueries* far;                       // or nullptr: there is no reach
  RowState states[kMaxRows];             // of the sums
  RowState total_states[kMaxRows];       // of the totals
  std::uint32_t blocks;                  // in the totals
  Apart apart;
};

/// No rows, in the scratch of a worker.
Rows rows_in(const ArenaView& to, std::uint32_t worker);

/// Adds a query that sees the slots below `limit`.
/// @param position  its own
void add_row(const ArenaView& to, const Basis& basis, Rows& rows, const NativeRow& query, std::uint32_t limit,
             std::uint32_t position);

/// How rows affect the scores.
struct Scoring {
  std::int32_t local_from = 0;
  std::uint32_t fade = 0;
};

/// Attention of all rows over a chain, and what it adds to the scores. Leaves no rows.
/// @param outs  of each row
void attend_rows(const ArenaView& to, Chain& chain, Rows& rows, const NativeOut* outs, const Scoring& scoring);

/// The part of attend_rows that reads tiles: those of the chain from `first` to before `end`, the first of a block.
/// What is read is added to the rows' sums, or put to their partials.
void read_tiles(const ArenaView& to, const Runs& runs, Rows& rows, std::uint32_t first, std::uint32_t end);

/// Adds the attention in a block to that in blocks before it.
/// @param sums, more  f32[dim]
void add_block(RowState& state, float* sums, const RowState& more_state, const float* more, int dim);

/// Ends the attention of a row: its output from its sums.
void finish_row(const ArenaView& to, const Rows& rows, std::int32_t i, const NativeOut& out);

inline float* sums_of(Partial& partial) {
  return reinterpret_cast<float*>(&partial + 1);
}

}  // namespace nibkv
