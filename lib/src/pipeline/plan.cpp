#include "nibkv/plan.hpp"

#include "pipeline/lower_slots.hpp"
#include "pipeline/plan_chain.hpp"

namespace nibkv {
namespace {

void plan_recent(const ArenaView& to, const Chain& chain, std::uint32_t incoming, std::uint32_t* target) {
  const std::uint32_t drop = to.policy().keep == Keep::kRecent ? oldest_dropped(to, chain, incoming) : 0;
  const std::uint32_t first = recalled_used(to, chain) + to.policy().sinks;  // that may be dropped
  for (std::uint32_t slot = 0; slot < chain.used; ++slot) {
    const bool dropped = slot >= first && slot - first < drop;
    target[slot] = dropped ? kDrop : slot < first ? slot : slot - drop;
  }
}

}  // namespace

// What the next token does not need in order to see a full budget. In whole tiles: then the tiles after the first gap
// move as they are. Less than a tile beyond the budget remains, and a chain has space for that.
std::uint32_t oldest_dropped(const ArenaView& to, const Chain& chain, std::uint32_t incoming) {
  const std::uint32_t own = chain.used - recalled_used(to, chain);
  if (own + incoming <= capacity_of(to, chain)) return 0;
  return (own + 1 - chain.budget) / kTileSlots * kTileSlots;
}

bool is_too_long(const ArenaView& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                 std::uint32_t count) {
  if (has_tiers(to.policy())) {
    if (to.own(chain).slots + count > tail_capacity(to)) return true;
    if (to.policy().keep != Keep::kScore) return false;
    if (kept_tier(to, chain).used > kept_budget(to, chain)) return true;  // it has less than before
    if (!to.turns() || ripe_slots(to, chain) == 0) return false;
  } else {
    if (chain.used - recalled_used(to, chain) + count > capacity_of(to, chain)) return true;
    if (!to.turns() || to.policy().keep != Keep::kScore || chain.used <= chain.budget) return false;
  }
  const std::uint32_t head = to.policy().budget == Budget::kAdaptive ? 0 : kv_head;
  const std::uint64_t index = to.head_index(band_of(to, layer).first, head);
  const auto turn = static_cast<std::uint32_t>(index * kTileSlots / to.heads());
  return (turn - chain.seen) % kTileSlots < count;
}

bool exceeds_budget(const ArenaView& to, const Chain& chain) {
  if (!has_tiers(to.policy())) return chain.used > chain.budget;
  return to.policy().keep != Keep::kAll && kept_tier(to, chain).used + ripe_slots(to, chain) > kept_budget(to, chain);
}

void plan_chain(const ArenaView& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                std::uint32_t incoming, const PlanArrays& arrays, std::uint32_t* target) {
  if (to.policy().keep != Keep::kScore) {
    plan_recent(to, chain, incoming, target);
    return;
  }
  const bool cut = is_too_long(to, chain, layer, kv_head, incoming) && exceeds_budget(to, chain);
  // What a tail has beside its budget stays in it.
  const std::uint32_t beside =
      has_tiers(to.policy()) ? to.own(chain).slots - ripe_slots(to, chain) - to.policy().tail : 0;
  plan_by_score(to, chain, layer, kv_head, cut ? chain.budget + beside : kAllStay, arrays, target);
}

Status plan(Cache& cache, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t incoming,
            std::span<std::uint32_t> target) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  if (layer >= to.shape().layers || kv_head >= to.shape().kv_heads || incoming > to.shape().max_chunk)
    return Status::kBadArgument;
  if (keeps_log(to.policy())) return Status::kBadPolicy;
  const Chain& chain = to.chain(layer, kv_head);
  if (target.size() != chain.used || !in_step(to, band_of(to, layer))) return Status::kBadArgument;
  plan_chain(to, chain, layer, kv_head, incoming, PlanArrays(to), target.data());
  return Status::kOk;
}

Status check_plan(std::span<const std::uint32_t> target) {
  std::uint32_t next = 0;
  for (const std::uint32_t to : target) {
    if (to >= kMember) continue;
    if (to != next) return Status::kBadPlan;
    ++next;
  }
  for (const std::uint32_t to : target) {
    if (is_member(to) && to - kMember >= next) return Status::kBadPlan;
  }
  return Status::kOk;
}

}  // namespace nibkv
