#pragma once

#include <cstdint>

#include "arena/plan_arrays.hpp"

namespace nibkv {

/// The number of slots that a chain may reach before it is cut back; the slots of all its tiles if
/// nothing may be dropped.
inline std::uint32_t capacity_of(const ArenaView& to, const Chain& chain) {
  if (to.policy().keep == Keep::kAll) return to.layout().tiles_per_head * kTileSlots;
  return chain.budget + detail::slack_of(to.shape(), to.policy());
}

/// Whether space is made in a chain before `count` more tokens: without it they would not fit, or it is its turn
/// (Options::turns). The chains of a band have one turn.
bool is_too_long(const ArenaView& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                 std::uint32_t count);

/// Whether anything must go so that a chain keeps to its budget, once the ripe slots of its tail have moved down.
bool exceeds_budget(const ArenaView& to, const Chain& chain);

/// How many of the oldest tokens after the sinks are dropped under Keep::kRecent before `incoming` more come: a
/// multiple of 32.
std::uint32_t oldest_dropped(const ArenaView& to, const Chain& chain, std::uint32_t incoming);

/// The slots that may be dropped under Keep::kScore: all but the sinks and the recent
/// ones, and what stays in a tail. They form one run, except in a chain with a folded part, where positions decide
/// which slots are recent, and in one with faint slots.
class Droppable {
 public:
  Droppable(const ArenaView& to, const Chain& chain);

  bool has(std::uint32_t slot) const {
    return slot >= begin_ && slot < end_ && (bits_ == nullptr || (bits_[slot / 32] >> slot % 32 & 1) != 0);
  }
  /// Whether any of some neighbouring slots may be between the first and the last of them.
  bool any_from(std::uint32_t slot, std::uint32_t slots) const { return slot < end_ && slot + slots > begin_; }
  std::uint32_t count() const { return count_; }
  /// Calls visit(slot) for all of them, in ascending order.
  template <typename F>
  void each(F visit) const {
    if (bits_ == nullptr) {  // apart, so that compilers can vectorise it
      for (std::uint32_t i = begin_; i < end_; ++i) visit(i);
      return;
    }
    for (std::uint32_t i = begin_; i < end_; ++i) {
      if (has(i)) visit(i);
    }
  }
  /// The same in descending order.
  template <typename F>
  void each_back(F visit) const {
    for (std::uint32_t i = end_; i-- > begin_;) {
      if (bits_ == nullptr || has(i)) visit(i);
    }
  }

 private:
  void choose(const ArenaView& to, const Chain& chain);

  std::uint32_t begin_;
  std::uint32_t end_;
  std::uint32_t count_ = 0;
  std::uint32_t* bits_ = nullptr;  // in the arena; set if not all slots of the run may be dropped
};

/// The body of plan(). append also calls it, to make room for `incoming` tokens.
/// @param arrays  written, except their target
/// @param target  written; may be that of the arrays
void plan_chain(const ArenaView& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                std::uint32_t incoming, const PlanArrays& arrays, std::uint32_t* target);

inline constexpr std::uint32_t kAllStay = 0xffffffff;
/// Plans which `kept` slots stay under Keep::kScore, or kAllStay; the rest are merged or dropped. Two layers
/// that share codes get one plan, by the sum of their scores, whichever of them is given. They must
/// have seen the same tokens.
void plan_by_score(const ArenaView& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                   std::uint32_t kept, const PlanArrays& arrays, std::uint32_t* target);

/// Computes the scores by which slots are ranked and merged, u32[chain.used]: see lib/DESIGN.md.
void score_slots(const ArenaView& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                 std::uint32_t* score);

/// For every slot that `target` drops and that may be merged, sets the target to the
/// most similar kept slot.
void assign_members(const ArenaView& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                    const PlanArrays& arrays, std::uint32_t* target);

}  // namespace nibkv
