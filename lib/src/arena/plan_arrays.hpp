#pragma once

#include <cstddef>
#include <cstdint>

#include "arena/band.hpp"

namespace nibkv {

/// The arrays of the arena's plan region, each large enough for a chain. Under Keep::kRecent
/// only the first exists.
struct PlanArrays {
  explicit PlanArrays(const ArenaView& to);

  static std::size_t stride(const ArenaView& to) { return std::size_t{to.layout().chain_tiles} * kTileSlots; }

  std::uint32_t* target;
  std::uint32_t* score;  // the weights for merging
  std::uint32_t* rank;   // decides which slots stay
  std::uint32_t* first;  // the first of the members of a new slot; the others follow in `next`
  std::uint32_t* next;
  std::uint32_t* other;      // if layers share codes: the upper layer's scores
  std::uint32_t* droppable;  // if slots are in no order: one bit per slot, for Droppable
};

}  // namespace nibkv
