#include "move/mover.hpp"

#include "attention/class_mass.hpp"
#include "pipeline/compact_chain.hpp"

namespace nibkv {

Status check_kinds(const ArenaView& from, const ArenaView& to) {
  const Shape& a = from.shape();
  const Shape& b = to.shape();
  if (a.layers != b.layers || a.query_heads != b.query_heads || a.kv_heads != b.kv_heads || a.head_dim != b.head_dim ||
      a.outlier_channels != b.outlier_channels || a.storage != b.storage)
    return Status::kOtherShape;
  if (has_codes(a.storage) && from.profile().checksum() != to.profile().checksum()) return Status::kOtherProfile;
  if (a.basis != b.basis) return Status::kOtherShape;
  if (folds(from) || folds(to)) return Status::kOtherPolicy;
  if (has_tiers(from.policy()) || has_tiers(to.policy())) return Status::kOtherPolicy;
  if (from.policy().wide != to.policy().wide || from.policy().wide_first != to.policy().wide_first)
    return Status::kOtherPolicy;
  if (has_wide(to.policy()) && from.policy().wide_storage != to.policy().wide_storage) return Status::kOtherPolicy;
  if (a.rotary.reach == 0 && b.rotary.reach == 0) return Status::kOk;
  if (a.rotary != b.rotary) return Status::kOtherShape;
  // Keys were turned by their positions, which some policies know by the number of a slot.
  const Policy& source = from.policy();
  const Policy& target = to.policy();
  const bool known = target.keep == Keep::kScore || source.keep == Keep::kAll ||
                     (source.keep == target.keep && source.sinks == target.sinks);
  return known ? Status::kOk : Status::kOtherPolicy;
}

Mover::Mover(const ArenaView& to) : to_(to) {
  Policy policy = to.policy();
  policy.recent = 0;
  ArenaView::set(unguarded_, to.at<std::byte>(0), to.shape(), policy, to.layout(), to.profile(), to.kernels());
}

// Cuts a chain back by score alone: the slots that will be its recent ones come later.
void Mover::cut(std::uint32_t layer, std::uint32_t kv_head, std::uint32_t kept) const {
  const ArenaView unguarded{unguarded_};
  const PlanArrays arrays(unguarded);
  plan_by_score(unguarded, to_.chain(layer, kv_head), layer, kv_head, kept, arrays, arrays.target);
  carry_out(unguarded, layer, kv_head, arrays.target, 0, arrays);
}

void Mover::take_by_score(std::uint32_t layer, std::uint32_t kv_head, const SlotSource& from) {
  Chain& chain = to_.chain(layer, kv_head);
  const std::uint32_t used = from.chain.used;
  const std::uint32_t recent = to_.policy().recent;
  const std::uint32_t older = used > recent ? used - recent : 0;
  const std::uint32_t kept = chain.budget - recent;
  const std::uint32_t capacity = capacity_of(to_, chain);
  for (std::uint32_t slot = 0; slot < older;) {
    if (chain.used == capacity) cut(layer, kv_head, kept);
    const std::uint32_t space = capacity - chain.used;
    const std::uint32_t count = older - slot < space ? older - slot : space;
    from.take(from.context, to_, chain, slot, count);
    slot += count;
  }
  if (chain.used > kept) cut(layer, kv_head, kept);
  from.take(from.context, to_, chain, older, used - older);
  if (chain.used > chain.budget) cut(layer, kv_head, chain.budget);  // without a recent window
}

void Mover::fill(std::uint32_t layer, std::uint32_t kv_head, const SlotSource& from) {
  Chain& chain = to_.chain(layer, kv_head);
  chain.seen = from.chain.seen;
  if (keeps_global(from.policy) && keeps_global(to_.policy())) {
    chain.heaviest = from.chain.heaviest;
    chain.exponent = from.chain.exponent;
  }
  take_slots_of(chain, layer, kv_head, from);
  note_slots(to_, chain);
  if (!keeps_global(from.policy) || !keeps_global(to_.policy())) return;
  // What were sinks there, whose scores nothing bounds, need not be here.
  to_.each_slot(chain, [&](std::uint32_t slot, const Place& at) {
    const std::uint32_t score = to_.global(at.tile)[at.lane];
    if (slot >= to_.policy().sinks && score > chain.heaviest) chain.heaviest = score;
  });
}

void Mover::take_slots_of(Chain& chain, std::uint32_t layer, std::uint32_t kv_head, const SlotSource& from) {
  const std::uint32_t used = from.chain.used;
  const Policy& policy = to_.policy();
  if (policy.keep == Keep::kAll || used <= capacity_of(to_, chain)) {
    from.take(from.context, to_, chain, 0, used);
    return;
  }
  all_ = false;
  if (policy.keep == Keep::kScore) {
    take_by_score(layer, kv_head, from);
    return;
  }
  const std::uint32_t newest = chain.budget - policy.sinks;
  from.take(from.context, to_, chain, 0, policy.sinks);
  from.take(from.context, to_, chain, used - newest, newest);
}

void Mover::finish(std::uint32_t seen, std::uint32_t whole_from, std::uint32_t exact_from) const {
  // What was cut is older than the slots that the policy never drops.
  const Policy& policy = to_.policy();
  std::uint32_t whole = policy.recent;
  if (policy.keep == Keep::kRecent) {
    whole = kMaxTokens * 64;
    for (std::size_t i = 0; i < to_.heads(); ++i) {
      const std::uint32_t newest = to_.chains()[i].budget - policy.sinks;
      whole = newest < whole ? newest : whole;
    }
  }
  const std::uint32_t cut = all_ ? 0 : seen - whole;
  to_.header().whole_from = cut > whole_from ? cut : whole_from;
  to_.header().exact_from = all_ ? exact_from : seen;
}

}  // namespace nibkv
