#pragma once

#include <cstdint>
#include <span>

#include "plan_chain.hpp"

namespace nibkv {

/// The largest bias, 2 octaves: a slot that absorbs without end drowns the others (lib/DESIGN.md).
inline constexpr std::uint32_t kMostBias = 2 * 16;

/// The body of compact() for a plan that is known to be right: carried out on both of two layers that share codes,
/// which must have seen the same tokens.
/// @param arrays  with the scores of the slots, where there are members: a plan leaves them there. The others are
///                written, but for their target; of layers that share codes the scores too
void carry_out(const Access& to, std::uint32_t layer, std::uint32_t kv_head, const std::uint32_t* target,
               const PlanArrays& arrays);

/// Whether a plan merges anything.
bool has_members(std::span<const std::uint32_t> target);

/// Slots in tiles that are linked: all but the last are full.
struct TileList {
  std::uint32_t first;
  std::uint32_t last;
  std::uint32_t used;
};

/// Moves the slots of a list that a plan keeps forward.
/// @param target        of the list's slots; what is kept goes to `first_target`, `first_target` + 1, ...
/// @returns the first of the tiles that are left over, which are linked, or kNoTile
std::uint32_t close_gaps(const Access& to, TileList& list, const std::uint32_t* target, std::uint32_t first_target);

/// The same for the first `own` slots of a chain's own tiles, which are all that it has there then; those left over go
/// back to the pool.
void compact_own(const Access& to, Chain& chain, std::uint32_t own, const std::uint32_t* target,
                 std::uint32_t first_target);

/// Merges the members of a plan into their centres, where they lie; in both of two layers that share codes.
void merge_members(const Access& to, std::uint32_t layer, std::uint32_t kv_head, const std::uint32_t* target,
                   const PlanArrays& arrays);

}  // namespace nibkv
