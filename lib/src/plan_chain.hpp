#pragma once

#include <cstdint>

#include "access.hpp"

namespace nibkv {

/// Slots that a chain may reach before it is cut back, or all its tiles when nothing may be dropped.
inline std::uint32_t capacity_of(const Access& to, const Chain& chain) {
  if (to.policy().keep == Keep::kAll) return to.layout().tiles_per_head * kTileSlots;
  return chain.budget + detail::slack_of(to.shape(), to.policy());
}

/// Slots that may be dropped under Keep::kScore: all but the sinks and the recent ones. They are one run, but in a
/// chain with a folded part, where what is recent goes by positions.
class Droppable {
 public:
  Droppable(const Access& to, const Chain& chain);

  bool has(std::uint32_t slot) const {
    return slot >= begin_ && slot < end_ && (bits_ == nullptr || (bits_[slot / 32] >> slot % 32 & 1) != 0);
  }
  std::uint32_t count() const { return count_; }
  /// Calls visit(slot) for all, ascending.
  template <typename F>
  void each(F visit) const {
    for (std::uint32_t i = begin_; i < end_; ++i) {
      if (bits_ == nullptr || has(i)) visit(i);
    }
  }
  /// The same from the last one down.
  template <typename F>
  void each_back(F visit) const {
    for (std::uint32_t i = end_; i-- > begin_;) {
      if (bits_ == nullptr || has(i)) visit(i);
    }
  }

 private:
  void choose(const Access& to, const Chain& chain);

  std::uint32_t begin_;
  std::uint32_t end_;
  std::uint32_t count_ = 0;
  std::uint32_t* bits_ = nullptr;  // in the arena, where not all of the run may be dropped
};

/// Arrays of the arena's plan region, each with room for a chain. Under Keep::kRecent there is only the first.
struct PlanArrays {
  explicit PlanArrays(const Access& to)
      : target(to.plan()),
        score(target + stride(to)),
        rank(score + stride(to)),
        first(rank + stride(to)),
        next(first + stride(to)),
        other(to.folds() ? next + stride(to) : nullptr),
        droppable(to.folds() ? other + stride(to) : nullptr) {}

  static std::size_t stride(const Access& to) { return std::size_t{to.layout().chain_tiles} * kTileSlots; }

  std::uint32_t* target;
  std::uint32_t* score;  // what merging weighs by
  std::uint32_t* rank;   // what decides who stays
  std::uint32_t* first;  // of the members of a new slot; the others are behind it in `next`
  std::uint32_t* next;
  std::uint32_t* other;      // where layers share codes: the upper layer's scores,
  std::uint32_t* droppable;  // and a bit a slot, of Droppable
};

/// The body of plan(): also what append runs before it makes room for `incoming` tokens.
/// @param arrays  written, but for their target
/// @param target  written; may be that of the arrays
void plan_chain(const Access& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                std::uint32_t incoming, const PlanArrays& arrays, std::uint32_t* target);

/// Plans under Keep::kScore which `kept` slots stay; the rest is merged or dropped. Two layers that share codes plan
/// together, by the sum of their scores, whichever of them is named; they must have seen the same tokens.
void plan_by_score(const Access& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t kept,
                   const PlanArrays& arrays, std::uint32_t* target);

/// The score by which slots are ranked and merged, u32[chain.used]: see lib/DESIGN.md.
void score_slots(const Access& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                 std::uint32_t* score);

/// Gives every slot that `target` drops and that may be merged the kept slot that is most similar to it.
void assign_members(const Access& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                    const PlanArrays& arrays, std::uint32_t* target);

}  // namespace nibkv
