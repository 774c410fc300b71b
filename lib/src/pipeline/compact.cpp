#include "nibkv/compact.hpp"

#include "arena/budget.hpp"
#include "arena/history.hpp"
#include "codec/gaps.hpp"
#include "fold/close_folded_gaps.hpp"
#include "pipeline/compact_chain.hpp"
#include "pipeline/lower_slots.hpp"
#include "pipeline/share_layer.hpp"

namespace nibkv {
namespace {

// Moves the kept slots of one chain. The lowest layer of a band goes first: the codes that its layers
// share move with it.
void compact_chain(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, const std::uint32_t* target) {
  Chain& chain = to.chain(layer, kv_head);
  const Segment own = to.own(chain);
  // Slots that were recalled stay.
  const std::uint32_t before = keeps_log(to.policy()) ? own.begin : close_folded_gaps(to, layer, kv_head, target);
  chain.used = before + close_gaps(to, chain, own.slots, target + own.begin, before);
}

// Records which of the newest tokens a plan leaves as they are. Before it, those from `whole_from` on were
// the chain's last slots.
void record_plan(const ArenaView& to, const Chain& chain, const std::uint32_t* target, std::uint32_t incoming) {
  std::uint32_t centre = kDrop;  // the newest one
  for (std::uint32_t i = 0; i < chain.used; ++i) {
    if (!is_member(target[i])) continue;
    if (centre == kDrop || target[i] - kMember > centre) centre = target[i] - kMember;
  }
  std::uint32_t after = 0;  // slots after the last one that is dropped, a member or a centre
  while (after < chain.used) {
    const std::uint32_t last = target[chain.used - 1 - after];
    if (last >= kMember || last == centre) break;
    ++after;
  }
  if (after < chain.used) record_change(to, chain.seen - after, chain.seen + incoming);
}

// Whether slots become faint only where there is space for them, and stay so.
bool sound_faint(const ArenaView& to, const Chain& chain, std::span<const std::uint32_t> target) {
  const std::uint32_t faint = faint_slots(to, chain);
  std::uint32_t count = 0;
  for (std::uint32_t slot = 0; slot < chain.used; ++slot) {
    if (slot < faint && target[slot] < kMember) return false;
    count += target[slot] == kFaint ? 1 : 0;
  }
  return count <= to.policy().faint;
}

// Whether the slots that stay have the same positions after a plan.
bool keeps_positions(const ArenaView& to, const Chain& chain, std::span<const std::uint32_t> target) {
  if (to.policy().keep == Keep::kScore) return true;
  Chain after = chain;
  after.used = 0;
  for (const std::uint32_t place : target) after.used += place < kMember ? 1 : 0;
  for (std::uint32_t slot = 0; slot < chain.used; ++slot) {
    if (target[slot] < kMember && to.position_in_order(chain, slot) != to.position_in_order(after, target[slot]))
      return false;
  }
  return true;
}

}  // namespace

void carry_out(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, const std::uint32_t* target,
               std::uint32_t incoming, const PlanArrays& arrays, std::uint32_t ripe) {
  Chain& chain = to.chain(layer, kv_head);
  record_plan(to, chain, target, incoming);
  if (ripe != 0) record_change(to, 0, chain.seen + incoming);
  if (merges(to.policy())) merge_members(to, layer, kv_head, target, arrays);
  if (has_tiers(to.policy())) {
    compact_tiers(to, layer, kv_head, target, ripe);
    note_slots(to, chain);
    return;
  }
  const Band band = band_of(to, layer);
  for (std::uint32_t each = band.first; each < band.end(); ++each) {
    compact_chain(to, each, kv_head, target);
    note_slots(to, to.chain(each, kv_head));
  }
}

Status compact(Cache& cache, std::uint32_t layer, std::uint32_t kv_head, std::span<const std::uint32_t> target) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  if (layer >= to.shape().layers || kv_head >= to.shape().kv_heads) return Status::kBadArgument;
  if (keeps_log(to.policy())) return Status::kBadPolicy;
  if (!in_step(to, band_of(to, layer))) return Status::kBadArgument;
  if (target.size() != to.chain(layer, kv_head).used) return Status::kBadPlan;
  if (const Status good = check_plan(target); good != Status::kOk) return good;
  if (!sound_faint(to, to.chain(layer, kv_head), target)) return Status::kBadPlan;
  const bool any = has_members(target);
  if (any && !merges(to.policy())) return Status::kBadPlan;
  if (to.shape().rotary.reach != 0 && !keeps_positions(to, to.chain(layer, kv_head), target)) return Status::kBadPlan;
  const PlanArrays arrays(to);
  if (any && band_of(to, layer).layers == 1) {  // the scores of other layers than this one are needed too
    score_slots(to, to.chain(layer, kv_head), layer, kv_head, arrays.score);
  }
  carry_out(to, layer, kv_head, target.data(), 0, arrays);
  return Status::kOk;
}

Status compact_now(Cache& cache, std::uint32_t tokens, Budget how) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  const Policy& policy = to.policy();
  if (policy.keep != Keep::kScore) return Status::kBadPolicy;
  if (how > Budget::kAnyScores) return Status::kBadPolicy;
  if (how != Budget::kUniform && (how == Budget::kTable) != (policy.budget == Budget::kTable))
    return Status::kBadPolicy;
  if (how != Budget::kUniform && folds(to)) return Status::kBadPolicy;
  if (how != Budget::kPrefix && !has_needed(how, to.profile())) return Status::kBadProfile;
  if (tokens > policy.tokens || tokens <= policy.sinks + policy.recent) return Status::kBadArgument;
  if (tokens <= policy.sinks + policy.tail) return Status::kBadArgument;
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    if (!in_step(to, band_of(to, layer))) return Status::kBadArgument;
  }
  // The chains hold the temporary budgets during the loop. The arena's budgets are
  // restored afterwards.
  const PlanArrays arrays(to);
  if (how == Budget::kPrefix) {
    share_layers(to, tokens, arrays.score);
  } else {
    share_heads(to, how, tokens);
  }
  for (std::uint32_t layer = 0; layer < to.shape().layers; layer = band_of(to, layer).end()) {
    if (how == Budget::kAdaptive) share_layer(to, layer, tokens);
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      Chain& chain = to.chain(layer, head);
      std::uint32_t kept = chain.budget;
      if (how == Budget::kUniform) kept = tokens;
      if (how == Budget::kTable) {
        kept = static_cast<std::uint32_t>(std::uint64_t{chain.budget} * tokens / policy.tokens);
      }
      plan_by_score(to, chain, layer, head, kept, arrays, arrays.target);
      carry_out(to, layer, head, arrays.target, 0, arrays);
      if (equal_budgets(policy)) chain.budget = policy.tokens;
    }
  }
  share_heads(to, policy.budget, policy.tokens);
  return Status::kOk;
}

}  // namespace nibkv
