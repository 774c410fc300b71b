#include "nibkv/compact.hpp"

#include "arena/budget.hpp"
#include "codec/gaps.hpp"
#include "pipeline/compact_chain.hpp"
#include "pipeline/share_layer.hpp"

namespace nibkv {
namespace {

// The number of slots that a plan keeps.
std::uint32_t count_kept(const std::uint32_t* target, std::uint32_t count) {
  std::uint32_t kept = 0;
  for (std::uint32_t slot = 0; slot < count; ++slot) kept += target[slot] < kMember ? 1 : 0;
  return kept;
}

void compact_folded(const Access& to, const Chain& chain, FoldedPart& part, const std::uint32_t* target) {
  const std::uint32_t retained = part.retained < chain.used - part.used ? part.retained : chain.used - part.used;
  part.retained = count_kept(target + part.used, retained);
  TileList list{part.first, part.last, part.used};
  std::uint32_t spare = close_gaps(to, list, target, 0);
  part.first = list.first;
  part.last = list.last;
  part.used = list.used;
  while (spare != kNoTile) {
    const std::uint32_t next = to.links()[spare];
    to.give_view_back(part, spare);
    spare = next;
  }
}

// Moves the distances of retained slots along with the slots.
void compact_distances(const Access& to, std::uint32_t lower, std::uint32_t kv_head, std::uint32_t retained,
                       const std::uint32_t* target) {
  std::uint32_t* distances = to.distances(lower, kv_head);
  const std::uint32_t sinks = to.policy().sinks;
  std::uint32_t kept = 0;
  for (std::uint32_t slot = 0; slot < retained; ++slot) {
    if (target[slot] >= kMember) continue;
    if (kept >= sinks) distances[kept - sinks] = distances[slot - sinks];
    ++kept;
  }
  for (std::uint32_t slot = kept > sinks ? kept : sinks; slot < retained; ++slot) {
    distances[slot - sinks] = kUnknownDistance;
  }
}

// Moves the kept slots of one chain. The lower layer of a pair goes first: the codes that
// both share move with it.
void compact_chain(const Access& to, std::uint32_t layer, std::uint32_t kv_head, const std::uint32_t* target) {
  Chain& chain = to.chain(layer, kv_head);
  const std::uint32_t folded = to.folded(chain);
  const std::uint32_t own = chain.used - folded;
  if (to.leads(layer)) {
    compact_distances(to, layer, kv_head, to.folded_part(chain).retained, target + folded);
  }
  if (to.paired(layer)) compact_folded(to, chain, to.folded_part(chain), target);
  compact_own(to, chain, own, target + folded, to.folded(chain));
}

}  // namespace

void carry_out(const Access& to, std::uint32_t layer, std::uint32_t kv_head, const std::uint32_t* target,
               const PlanArrays& arrays) {
  if (merges(to.policy())) merge_members(to, layer, kv_head, target, arrays);
  const std::uint32_t first = to.lower_of(layer);
  compact_chain(to, first, kv_head, target);
  if (to.paired(layer)) compact_chain(to, first + 1, kv_head, target);
}

Status compact(Cache& cache, std::uint32_t layer, std::uint32_t kv_head, std::span<const std::uint32_t> target) {
  if (!cache.ready()) return Status::kNotReady;
  const Access to{cache};
  if (layer >= to.shape().layers || kv_head >= to.shape().kv_heads) return Status::kBadArgument;
  if (!to.in_step(layer)) return Status::kBadArgument;
  if (target.size() != to.chain(layer, kv_head).used) return Status::kBadPlan;
  if (const Status good = check_plan(target); good != Status::kOk) return good;
  const bool any = has_members(target);
  if (any && !merges(to.policy())) return Status::kBadPlan;
  const PlanArrays arrays(to);
  if (any && !to.paired(layer)) {
    score_slots(to, to.chain(layer, kv_head), layer, kv_head, arrays.score);
  }
  carry_out(to, layer, kv_head, target.data(), arrays);
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
  if (how != Budget::kUniform && to.folds()) return Status::kBadPolicy;
  if (how == Budget::kScores && to.profile().empty()) return Status::kBadProfile;
  if (tokens > policy.tokens || tokens <= policy.sinks + policy.recent) return Status::kBadArgument;
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    if (!to.in_step(layer)) return Status::kBadArgument;
  }
  // The chains hold the temporary budgets during the loop. The arena's budgets are
  // restored afterwards.
  const PlanArrays arrays(to);
  share_heads(to, how, tokens);
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    if (to.follows(layer)) continue;  // done with the layer below
    if (how == Budget::kAdaptive) share_layer(to, layer, tokens);
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      Chain& chain = to.chain(layer, head);
      std::uint32_t kept = chain.budget;
      if (how == Budget::kUniform) kept = tokens;
      if (how == Budget::kTable) {
        kept = static_cast<std::uint32_t>(std::uint64_t{chain.budget} * tokens / policy.tokens);
      }
      plan_by_score(to, chain, layer, head, kept, arrays, arrays.target);
      carry_out(to, layer, head, arrays.target, arrays);
      if (policy.budget == Budget::kUniform || policy.budget == Budget::kAdaptive) chain.budget = policy.tokens;
    }
  }
  share_heads(to, policy.budget, policy.tokens);
  return Status::kOk;
}

}  // namespace nibkv
