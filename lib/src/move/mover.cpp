#include "move/mover.hpp"

#include "attention/class_mass.hpp"
#include "codec/slot.hpp"
#include "pipeline/compact_chain.hpp"
#include "pipeline/lower_slots.hpp"

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

bool has_space(const ArenaView& to, std::uint64_t tiles, std::uint32_t most) {
  if (to.policy().keep != Keep::kAll) return true;
  if (has_tiers(to.policy())) return most <= std::uint64_t{to.layout().tiles_per_head} * kTileSlots + tail_capacity(to);
  return tiles <= to.layout().tiles && most <= most_slots(to);
}

Place add_slot(const ArenaView& to, Destination& at, std::uint32_t position) {
  if (at.left != 0) {
    const std::uint64_t last = at.chain.seen - at.left;
    std::uint64_t rising = position > at.least ? position : at.least;
    if (rising > last) rising = last;
    at.least = rising < 65535 ? rising + 1 : rising;
    at.left -= 1;
    position = static_cast<std::uint32_t>(rising);
  }
  if (at.tier == nullptr) return add_slot(to, at.chain, position);
  const Place place = add_to_tier(to, at.chain, *at.tier);
  if (to.policy().keep == Keep::kScore) start_slot(to, at.chain, place.tile, place.lane, position);
  at.chain.used += 1;
  return place;
}

// The slots of a chain in the order in which they come. Faint ones come apart, before all others and as they lie, if
// the new cache has space for all of them among its own; else each at its position.
class Mover::Order {
 public:
  Order(const ArenaView& to, Chain& chain, const SlotSource& from)
      : to_(to),
        chain_(chain),
        from_(from),
        apart_(has_faint(to) && from.faint <= to.policy().faint ? from.faint : 0),
        faint_(from.faint - apart_),
        next_(from.faint) {
    rising_ = faint_ != 0 && !positions_by_step(to.shape().rotary);
  }

  const SlotSource& from() const { return from_; }
  /// Of those that do not come apart.
  std::uint32_t slots() const { return from_.chain.used - apart_; }
  bool mixed() const { return from_.faint != apart_; }

  void take_apart() {
    if (apart_ == 0) return;
    Destination at{chain_, &faint_tier(to_, chain_)};
    from_.take(from_.context, to_, at, 0, apart_);
  }
  /// Takes `count` slots from the one with the number `first` on. Numbers rise from call to call; some may be left out.
  void take(Tier* tier, std::uint32_t first, std::uint32_t count) {
    Destination at{chain_, tier};
    if (!mixed()) {
      from_.take(from_.context, to_, at, apart_ + first, count);
      return;
    }
    advance(at, first, false);
    if (rising_) at.left = slots() - first;
    at.least = least_;
    advance(at, first + count, true);
    least_ = at.least;
  }

 private:
  void advance(Destination& at, std::uint32_t end, bool wanted);

  const ArenaView& to_;
  Chain& chain_;
  const SlotSource& from_;
  std::uint32_t apart_;
  std::uint32_t faint_;       // that have not come, of those that come at their positions
  std::uint32_t next_;        // of the others: the number in the other cache
  std::uint32_t number_ = 0;  // of the slot that comes next
  std::uint64_t least_ = 0;   // as of Destination
  bool rising_;
  NextFaint queue_;
};

void Mover::Order::advance(Destination& at, std::uint32_t end, bool wanted) {
  while (number_ < end) {
    if (faint_ != 0 && !queue_.any()) {
      queue_.begin();
      from_.next_faint(from_.context, to_, queue_);
      if (!queue_.any()) faint_ = 0;  // the source has changed
    }
    const std::uint32_t others = from_.chain.used - next_;
    const std::uint32_t most = others < end - number_ ? others : end - number_;
    std::uint32_t run = most;
    if (faint_ != 0 && most != 0) run = from_.before(from_.context, to_, next_, queue_.position());
    run = run < most ? run : most;
    if (run != 0) {
      if (wanted) from_.take(from_.context, to_, at, next_, run);
      next_ += run;
      number_ += run;
      continue;
    }
    if (faint_ == 0) return;
    from_.take(from_.context, to_, at, queue_.slot(), wanted ? 1 : 0);
    queue_.pop();
    faint_ -= 1;
    number_ += 1;
  }
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

void Mover::take_by_score(std::uint32_t layer, std::uint32_t kv_head, Order& from) {
  Chain& chain = to_.chain(layer, kv_head);
  const std::uint32_t used = from.slots();
  const std::uint32_t recent = to_.policy().recent;
  const std::uint32_t older = used > recent ? used - recent : 0;
  const std::uint32_t kept = chain.budget - recent;
  const std::uint32_t capacity = capacity_of(to_, chain);
  for (std::uint32_t slot = 0; slot < older;) {
    if (chain.used == capacity) cut(layer, kv_head, kept);
    const std::uint32_t space = capacity - chain.used;
    const std::uint32_t count = older - slot < space ? older - slot : space;
    from.take(nullptr, slot, count);
    slot += count;
  }
  if (chain.used > kept) cut(layer, kv_head, kept);
  from.take(nullptr, older, used - older);
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
  const std::uint32_t own = to_.sinks_from(chain);
  to_.each_slot(chain, [&](std::uint32_t slot, const Place& at) {
    const std::uint32_t score = to_.global(at.tile)[at.lane];
    const bool sink = slot >= own && slot - own < to_.policy().sinks;
    if (!sink && score > chain.heaviest) chain.heaviest = score;
  });
}

void Mover::take_slots_of(Chain& chain, std::uint32_t layer, std::uint32_t kv_head, const SlotSource& from) {
  Order order(to_, chain, from);
  const Policy& policy = to_.policy();
  order.take_apart();
  if (has_tiers(policy)) {
    take_in_tiers(layer, kv_head, order);
    return;
  }
  const std::uint32_t used = order.slots();
  if (policy.keep == Keep::kAll || used <= capacity_of(to_, chain)) {
    order.take(nullptr, 0, used);
    return;
  }
  all_ = false;
  if (policy.keep == Keep::kScore) {
    take_by_score(layer, kv_head, order);
    return;
  }
  const std::uint32_t newest = chain.budget - policy.sinks;
  order.take(nullptr, 0, policy.sinks);
  order.take(nullptr, used - newest, newest);
}

// The newest slots go into the tail, as many as lay in one, and the policy's number at least; the oldest ones into the
// kept tier. What that has no space for comes through the tail, as appended tokens do.
void Mover::take_in_tiers(std::uint32_t layer, std::uint32_t kv_head, Order& order) {
  Chain& chain = to_.chain(layer, kv_head);
  const SlotSource& from = order.from();
  const std::uint32_t slots = order.slots();
  const std::uint32_t most = tail_capacity(to_);
  const bool all = to_.policy().keep == Keep::kAll;
  const std::uint32_t space = all ? to_.layout().tiles_per_head * kTileSlots : kept_budget(to_, chain);
  std::uint32_t newest = from.tail > to_.policy().tail ? from.tail : to_.policy().tail;
  newest = newest < most ? newest : most;
  std::uint32_t older = slots > newest ? slots - newest : 0;
  older = older < space ? older : space;
  const std::uint32_t lowered = has_tiers(from.policy) ? from.chain.used - from.faint - from.tail : 0;
  const bool same_tail = older == 0 || from.policy.tail >= to_.policy().tail;
  if (order.mixed() || older != lowered || !same_tail) exact_ = false;
  order.take(&kept_tier(to_, chain), 0, older);
  for (std::uint32_t slot = older; slot < slots;) {
    if (to_.own(chain).slots == most) {
      ArenaHeader& header = to_.header();
      header.whole_from = 0;
      make_room_in(to_, layer, kv_head, 1, 0);
      exact_ = false;
      // It counts the slots after the last one that was dropped: more come.
      const std::uint32_t whole = header.whole_from != 0 ? header.whole_from - (slots - slot) : 0;
      whole_from_ = whole > whole_from_ ? whole : whole_from_;
    }
    const std::uint32_t left = most - to_.own(chain).slots;
    const std::uint32_t count = slots - slot < left ? slots - slot : left;
    order.take(nullptr, slot, count);
    slot += count;
  }
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
  bool gone = false;  // whether a chain lacks tokens, or has some in no order
  for (std::size_t i = 0; i < to_.heads(); ++i) {
    const Chain& chain = to_.chains()[i];
    gone = gone || chain.used != chain.seen || faint_slots(to_, chain) != 0;
  }
  std::uint32_t cut = all_ ? whole_from_ : seen - whole;
  cut = cut > whole_from ? cut : whole_from;
  to_.header().whole_from = gone ? cut : 0;
  to_.header().exact_from = all_ && exact_ ? exact_from : seen;
}

}  // namespace nibkv
