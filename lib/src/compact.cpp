#include "nibkv/compact.hpp"

#include "budget.hpp"
#include "compact_chain.hpp"
#include "slot.hpp"

namespace nibkv {
namespace {

// True when all slots of the tile that starts at `slot` keep their lanes: the tile can be linked as it is.
bool moves_whole(const std::uint32_t* target, std::uint32_t slot, std::uint32_t used) {
  if (target[slot] >= kMember || target[slot] % kTileSlots != 0) return false;
  for (std::uint32_t lane = 1; lane < kTileSlots && slot + lane < used; ++lane) {
    if (target[slot + lane] != target[slot] + lane) return false;
  }
  return true;
}

}  // namespace

void compact_chain(const Access& to, Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                   const std::uint32_t* target, const PlanArrays& arrays) {
  if (merges(to.policy())) merge_members(to, chain, layer, kv_head, target, arrays);
  std::uint32_t* links = to.links();
  // Written tiles are a prefix of the chain that ends at `last`; tiles between it and the one being read are free for
  // writing, since a target is never behind its slot.
  std::uint32_t last = kNoTile;
  std::uint32_t open = chain.first;  // the first tile not yet written
  std::uint32_t reading = chain.first;
  std::uint32_t before_reading = kNoTile;
  std::uint32_t kept = 0;
  for (std::uint32_t slot = 0; slot < chain.used; slot += kTileSlots) {
    const std::uint32_t next = links[reading];
    if (open != reading && moves_whole(target, slot, chain.used)) {
      // Take the tile out of its place and link it where the next written one belongs.
      links[before_reading] = next;
      links[reading] = open;
      if (last == kNoTile) {
        chain.first = reading;
      } else {
        links[last] = reading;
      }
      last = reading;
      kept += chain.used - slot < kTileSlots ? chain.used - slot : kTileSlots;
      reading = next;
      continue;
    }
    const bool positioned = to.policy().keep == Keep::kScore;
    const std::uint32_t base = positioned ? to.base(reading) : 0;  // it changes when a slot moves to the tile's start
    for (std::uint32_t lane = 0; lane < kTileSlots && slot + lane < chain.used; ++lane) {
      if (target[slot + lane] >= kMember) continue;
      const std::uint32_t new_lane = target[slot + lane] % kTileSlots;
      if (new_lane == 0) {
        last = open;
        open = links[open];
      }
      const std::uint32_t position = positioned ? base + to.positions(reading)[lane] : 0;
      if (last != reading || new_lane != lane) move_slot(to, reading, lane, last, new_lane);
      if (positioned) to.set_position(last, new_lane, position);
      ++kept;
    }
    before_reading = reading;
    reading = next;
  }
  // What follows the last written tile goes back to the pool.
  std::uint32_t spare = last == kNoTile ? chain.first : links[last];
  while (spare != kNoTile) {
    const std::uint32_t next = links[spare];
    to.give_back(chain, spare);
    spare = next;
  }
  if (last == kNoTile) {
    chain.first = kNoTile;
  } else {
    links[last] = kNoTile;
  }
  chain.last = last;
  chain.used = kept;
}

Status compact(Cache& cache, std::uint32_t layer, std::uint32_t kv_head, std::span<const std::uint32_t> target) {
  if (!cache.ready()) return Status::kNotReady;
  const Access to{cache};
  if (layer >= to.shape().layers || kv_head >= to.shape().kv_heads) return Status::kBadArgument;
  Chain& chain = to.chain(layer, kv_head);
  if (target.size() != chain.used) return Status::kBadPlan;
  if (const Status good = check_plan(target); good != Status::kOk) return good;
  if (!merges(to.policy())) {
    for (const std::uint32_t slot : target) {
      if (slot >= kMember && slot != kDrop) return Status::kBadPlan;
    }
  }
  const PlanArrays arrays(to);
  if (merges(to.policy())) score_slots(to, chain, layer, kv_head, arrays.score);
  compact_chain(to, chain, layer, kv_head, target.data(), arrays);
  return Status::kOk;
}

Status compact_now(Cache& cache, std::uint32_t tokens, Budget how) {
  if (!cache.ready()) return Status::kNotReady;
  const Access to{cache};
  const Policy& policy = to.policy();
  if (policy.keep != Keep::kScore) return Status::kBadPolicy;
  if (how > Budget::kTable) return Status::kBadPolicy;
  if (how != Budget::kUniform && (how == Budget::kTable) != (policy.budget == Budget::kTable))
    return Status::kBadPolicy;
  if (how == Budget::kScores && to.profile().empty()) return Status::kBadProfile;
  if (tokens > policy.tokens || tokens <= policy.sinks + policy.recent) return Status::kBadArgument;
  // Budgets of this moment stand in the chains while it lasts; those of the arena come back.
  const PlanArrays arrays(to);
  share_heads(to, how, tokens);
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    if (how == Budget::kAdaptive) share_layer(to, layer, tokens);
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      Chain& chain = to.chain(layer, head);
      std::uint32_t kept = chain.budget;
      if (how == Budget::kUniform) kept = tokens;
      if (how == Budget::kTable) {
        kept = static_cast<std::uint32_t>(std::uint64_t{chain.budget} * tokens / policy.tokens);
      }
      plan_by_score(to, chain, layer, head, kept, arrays, arrays.target);
      compact_chain(to, chain, layer, head, arrays.target, arrays);
      if (policy.budget == Budget::kUniform || policy.budget == Budget::kAdaptive) chain.budget = policy.tokens;
    }
  }
  share_heads(to, policy.budget, policy.tokens);
  return Status::kOk;
}

}  // namespace nibkv
