#pragma once

#include <cstdint>

#include "arena/view.hpp"

namespace nibkv {

/// The softmax of a query row: the sum of its weights, in units of 2^-40 relative to 2^exponent.
struct RowState {
  std::int32_t exponent;
  std::uint64_t mass;
};

/// Exponent of a tile for a row that sees none of its slots.
inline constexpr std::int32_t kUnseen = -0x7fffffff - 1;

/// Query rows that passed over a chain together.
struct ScoredRows {
  const std::uint16_t* softmax;   ///< u16[tiles][count][32] in Q0.16 relative to 2^exponents
  const std::int32_t* exponents;  ///< i32[tiles][count], or kUnseen
  const RowState* states;         ///< [count]
  const std::uint32_t* limits;    ///< [count]: how many slots a row sees, masks apart
  std::int32_t count;
  std::int32_t local_from;  ///< rows from this one on count for the local score
  std::uint32_t tiles;
  std::uint32_t fade;  ///< the share that local scores lose first, in 1/65536
};

/// Adds the attention of the rows to the scores of the chain's slots. See score.hpp.
void score_rows(const ArenaView& to, Chain& chain, const ScoredRows& rows);

}  // namespace nibkv
