#include "nibkv/plan.hpp"

#include "access.hpp"
#include "plan_chain.hpp"

namespace nibkv {

void plan_chain(const Policy& policy, std::uint32_t used, std::uint32_t incoming, std::uint32_t capacity,
                std::uint32_t* target) {
  std::uint32_t drop = 0;
  if (policy.keep == Keep::kRecent && used + incoming > capacity) {
    // As much as is over the budget, in whole tiles: then the tiles behind the first gap move as they are. The slack of
    // a chain is a tile at least, so the multiple below still makes the tokens fit.
    drop = (used + incoming - policy.tokens) / kTileSlots * kTileSlots;
  }
  for (std::uint32_t slot = 0; slot < used; ++slot) {
    const bool dropped = slot >= policy.sinks && slot - policy.sinks < drop;
    target[slot] = dropped ? kDrop : slot < policy.sinks ? slot : slot - drop;
  }
}

Status plan(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t incoming,
            std::span<std::uint32_t> target) {
  if (!cache.ready()) return Status::kNotReady;
  const Access to{cache};
  if (layer >= to.shape().layers || kv_head >= to.shape().kv_heads || incoming > to.shape().max_chunk)
    return Status::kBadArgument;
  const Chain& chain = to.chain(layer, kv_head);
  if (target.size() != chain.used) return Status::kBadArgument;
  plan_chain(to.policy(), chain.used, incoming, capacity_of(to.policy(), to.layout()), target.data());
  return Status::kOk;
}

Status check_plan(std::span<const std::uint32_t> target) {
  std::uint32_t next = 0;
  for (const std::uint32_t to : target) {
    if (to == kDrop) continue;
    if (to != next) return Status::kBadPlan;
    ++next;
  }
  return Status::kOk;
}

}  // namespace nibkv
