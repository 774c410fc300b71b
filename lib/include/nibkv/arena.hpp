#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "nibkv/policy.hpp"
#include "nibkv/shape.hpp"

namespace nibkv {

/// Where everything lies in an arena: byte offsets from its start, each a multiple of 64. lib/FORMAT.md draws it.
struct Layout {
  std::uint64_t chains = 0;    ///< Chain[layers][kv_heads]
  std::uint64_t links = 0;     ///< u32[tiles]: the tile after this one, in its chain or in a free list
  std::uint64_t sides = 0;     ///< side data of a tile: [tiles][side_bytes]
  std::uint64_t codes = 0;     ///< codes of a tile: [tiles][code_bytes]
  std::uint64_t plan = 0;      ///< u32[tiles_per_head * 32], for append under a policy that makes room
  std::uint64_t encoding = 0;  ///< f32[9][head_dim]: a row on its way into a tile, and what improves its codes
  std::uint64_t scratch = 0;   ///< [workers][scratch_bytes]
  std::uint64_t total = 0;     ///< the footprint
  std::uint64_t tiles = 0;     ///< tiles of the pool
  std::uint32_t tiles_per_head = 0;
  std::uint32_t side_bytes = 0;
  std::uint32_t code_bytes = 0;
  std::uint32_t scratch_bytes = 0;
};

/// Scratch of one worker: byte offsets from its start, each a multiple of 64. Sized for rows() query rows.
struct Scratch {
  std::uint32_t row = 0;              ///< f32[head_dim]
  std::uint32_t sums = 0;             ///< f32[rows][head_dim]
  std::uint32_t queries = 0;          ///< i8[rows][head_dim]; f32 with Storage::kF32
  std::uint32_t outlier_queries = 0;  ///< i8[rows][outlier_channels]
  std::uint32_t dots = 0;             ///< i32[16][32]: of all pairs of tile and row that are weighed together
  std::uint32_t outlier_dots = 0;     ///< i32[16][32]
  std::uint32_t weights = 0;          ///< u8[16][32]
  std::uint32_t total = 0;
};

namespace detail {
constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}
inline constexpr std::uint32_t kHeaderBytes = 64;
inline constexpr std::uint32_t kChainBytes = 20;
}  // namespace detail

constexpr Scratch scratch_of(const Shape& shape) {
  const std::uint32_t rows = shape.rows();
  const bool q4 = shape.storage == Storage::kQ4;
  Scratch at;
  std::uint32_t end = 0;
  const auto take = [&end](std::uint32_t bytes) {
    const std::uint32_t start = end;
    end += static_cast<std::uint32_t>(detail::round_up(bytes, kArenaAlignment));
    return start;
  };
  at.row = take(shape.head_dim * 4u);
  at.sums = take(rows * shape.head_dim * 4u);
  at.queries = take(rows * shape.head_dim * (q4 ? 1u : 4u));
  at.outlier_queries = take(rows * shape.outlier_channels);
  at.dots = take(kMaxRows * kTileSlots * 4u);
  at.outlier_dots = take(shape.outlier_channels == 0 ? 0 : kMaxRows * kTileSlots * 4u);
  at.weights = take(kMaxRows * kTileSlots);
  at.total = end;
  return at;
}

/// The layout of a valid shape and policy.
constexpr Layout layout_of(const Shape& shape, const Policy& policy) {
  Layout at;
  const std::uint64_t heads = std::uint64_t{shape.layers} * shape.kv_heads;
  const bool bounded = policy.keep != Keep::kAll;
  // One tile of slack: a bounded chain is cut back when it is a tile over its budget.
  at.tiles_per_head = (policy.tokens + kTileSlots - 1) / kTileSlots + (bounded ? 1 : 0);
  at.tiles = heads * at.tiles_per_head;
  const bool q4 = shape.storage == Storage::kQ4;
  at.side_bytes = q4 ? kTileSlots * (2 + 2 + shape.outlier_channels) : 0;
  at.code_bytes = kTileSlots * shape.head_dim * (q4 ? 1 : 8);
  at.scratch_bytes = scratch_of(shape).total;
  std::uint64_t end = detail::kHeaderBytes;
  const auto take = [&end](std::uint64_t bytes) {
    const std::uint64_t start = end;
    end += detail::round_up(bytes, kArenaAlignment);
    return start;
  };
  at.chains = take(heads * detail::kChainBytes);
  at.links = take(at.tiles * 4);
  at.sides = take(at.tiles * at.side_bytes);
  at.codes = take(at.tiles * at.code_bytes);
  at.plan = take(bounded ? std::uint64_t{at.tiles_per_head} * kTileSlots * 4 : 0);
  at.encoding = take(q4 ? 9u * shape.head_dim * 4u : 0);
  at.scratch = take(std::uint64_t{shape.workers} * at.scratch_bytes);
  at.total = end;
  return at;
}

/// Bytes of the arena that a cache of this shape and policy needs: exact, scratch included. 0 for an invalid shape or
/// policy, or one that no memory of this machine can hold.
constexpr std::size_t footprint(const Shape& shape, const Policy& policy) {
  if (!valid(shape) || !valid(policy, shape)) return 0;
  const Layout at = layout_of(shape, policy);
  constexpr std::uint64_t kMost = std::numeric_limits<std::size_t>::max();
  if (at.total > kMost || at.tiles >= std::numeric_limits<std::uint32_t>::max()) return 0;
  return static_cast<std::size_t>(at.total);
}

/// The largest `policy.tokens` whose footprint is at most `bytes`; 0 when not even the smallest fits. `policy.tokens`
/// itself is not read. Cost: about 24 evaluations of footprint.
constexpr std::uint32_t tokens_that_fit(const Shape& shape, Policy policy, std::uint64_t bytes) {
  std::uint32_t low = 0;  // the largest known to fit; invalid budgets below the policy's smallest count as fitting
  std::uint32_t high = kMaxTokens + 1;
  const std::uint32_t smallest = policy.keep == Keep::kAll ? 1 : policy.sinks + shape.max_chunk;
  while (high - low > 1) {
    const std::uint32_t middle = low + (high - low) / 2;
    policy.tokens = middle;
    const std::size_t need = footprint(shape, policy);
    const bool fits = middle < smallest || (need != 0 && need <= bytes);
    (fits ? low : high) = middle;
  }
  return low < smallest ? 0 : low;
}

}  // namespace nibkv
