#pragma once

#include <cstdint>

#include "access.hpp"

namespace nibkv {

/// Slots that a chain may reach before it is cut back: a tile over the budget, or all its tiles when nothing may be
/// dropped.
inline std::uint32_t capacity_of(const Access& to, const Chain& chain) {
  return to.policy().keep == Keep::kAll ? to.layout().tiles_per_head * kTileSlots : chain.budget + kTileSlots;
}

/// Slots that may be dropped under Keep::kScore: all but the sinks and the recent ones.
struct Droppable {
  std::uint32_t begin;
  std::uint32_t end;

  Droppable(const Policy& policy, std::uint32_t used)
      : begin(policy.sinks < used ? policy.sinks : used), end(used > policy.recent ? used - policy.recent : 0) {
    if (end < begin) end = begin;
  }
};

/// Arrays of the arena's plan region, each with room for a chain. Under Keep::kRecent there is only the first.
struct PlanArrays {
  explicit PlanArrays(const Access& to)
      : target(to.plan()),
        score(target + stride(to)),
        rank(score + stride(to)),
        first(rank + stride(to)),
        next(first + stride(to)) {}

  static std::size_t stride(const Access& to) { return std::size_t{to.layout().chain_tiles} * kTileSlots; }

  std::uint32_t* target;
  std::uint32_t* score;  // what merging weighs by
  std::uint32_t* rank;   // what decides who stays
  std::uint32_t* first;  // of the members of a new slot; the others are behind it in `next`
  std::uint32_t* next;
};

/// The body of plan(): also what append runs before it makes room for `incoming` tokens.
/// @param arrays  written, but for their target
/// @param target  written; may be that of the arrays
void plan_chain(const Access& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                std::uint32_t incoming, const PlanArrays& arrays, std::uint32_t* target);

/// Plans under Keep::kScore which `kept` slots stay; the rest is merged or dropped.
void plan_by_score(const Access& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t kept,
                   const PlanArrays& arrays, std::uint32_t* target);

/// The score by which slots are ranked and merged, u32[chain.used]: see lib/DESIGN.md.
void score_slots(const Access& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                 std::uint32_t* score);

/// Gives every slot that `target` drops and that may be merged the kept slot that is most similar to it.
void assign_members(const Access& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                    const PlanArrays& arrays, std::uint32_t* target);

}  // namespace nibkv
